"""The OpenAPI document of the service, which `/docs` shows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import metalayer
from metalayer.release import answer
from metalayer.release.contract import ALLOWED_EVIDENCE, FIELDS, INDEX, REQUIRED, SEQUENCE, SEQUENCE_FIELDS
from metalayer.release.engine import Engine
from metalayer.release.variant_contract import MAX_POSITION, PARTS, VARIANT, VARIANTS
from metalayer.schema import BASE_SCORES, CLASSES, ROW_SCORES, SPLICED_SCORE, WAYS, evidence_column
from metalayer.serving import view_openapi
from metalayer.serving.media import ARROW, CODINGS, JSON
from metalayer.serving.settings import ServingSettings
from metalayer.serving.variants import QUERY, TEXTS
from metalayer.variants.answers import COLUMNS
from metalayer.variants.scoring import MAX_DISTANCE

METRICS_PATH = "/metrics"
SCORE_VARIANTS_PATH = "/v1/score_variants"
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_LETTERS = {"type": "string", "pattern": "^[ACGTNacgtn]+$", "minLength": 1}
_BINARY = {"type": "string", "format": "binary"}
_INDEX = {"type": "integer", "minimum": 0, "description": "0-based labelled base; left out: length // 2"}
_BASE = {
    "name": answer.BASE,
    "in": "query",
    "required": False,
    "description": answer.BASE_TEXT,
    "schema": {"type": "boolean", "default": False},
    "example": True,
}
_REASONS = {
    400: "the request is no HTTP, or the client left",
    401: "an API key is needed",
    406: "no form that Accept asks for",
    408: "the body did not come in time",
    413: "larger than the limit that is named, or more than can be answered in time here",
    415: "a media type or coding that is not supported",
    422: "input that breaks the contract, all mistakes listed; nothing was scored",
    429: "no room for it, or no time before its deadline; see Retry-After",
    500: "a fault of the server",
    501: "the server has no reference and annotation",
    503: "the model is not loaded yet",
    504: "not done within the deadline",
}
_LETTERS_SHOWN = "CAGACCTTCGAGGACCAGGTAAGTGCTTGATTCCACAG"
_SHOWN_DONOR = _LETTERS_SHOWN.index("GTAAGT")
_SHOWN_SCORES = dict(zip(BASE_SCORES, ((0.82, 0.01), (0.01, 0.01), (0.17, 0.98)), strict=True))
_SHOWN_SCORES[SPLICED_SCORE] = (0.83, 0.02)
"""At the donor of the example, and elsewhere."""


def _shown(score: str) -> list[float]:
    """A score of each letter of the example."""
    at_site, elsewhere = _SHOWN_SCORES[score]
    return [at_site if at == _SHOWN_DONOR - 1 else elsewhere for at in range(len(_LETTERS_SHOWN))]


_EXAMPLES: dict[str, Any] = {
    "ScoreRequest": {
        "rows": [
            {
                SEQUENCE: _LETTERS_SHOWN,
                INDEX: _SHOWN_DONOR,
                **dict(zip(ROW_SCORES, (0.82, 0.01, 0.17, 0.0, 0.81, 0.01, 0.0), strict=True)),
            }
        ]
    },
    "SequenceRequest": {
        SEQUENCE: _LETTERS_SHOWN,
        **{name: _shown(name) for name in BASE_SCORES},
    },
}
"""Any model of one base model answers these."""
_TAGS = {
    "scores": ("score", "score_sequence", "score_variants", "view", "explain"),
    "model": ("model", "openapi", "docs"),
}
_HEADERS = ("X-Model-Name", "X-Model-Version", "X-Model-Digest", "X-Request-Id")


def document(settings: ServingSettings, examples: Mapping[str, str] | None = None) -> dict[str, Any]:
    """OpenAPI 3.1 of all paths, with the limits of this server, and where it asks for keys.

    Args:
        settings: of the server.
        examples: gene, region and variant that it can score; None where it scores none.
    """
    metrics = {
        METRICS_PATH: {
            "get": {
                **_get("metrics", "Counts for Prometheus", "text/plain", {"type": "string"}, (401,)),
                "security": [{"key": []}] if settings.metrics_keys() else [],
            }
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "metalayer",
            "version": metalayer.__version__,
            "description": "Recalibrated splice-site probabilities. Bodies may be coded with "
            f"{' or '.join(CODINGS[1:])}; the same row gives the same bytes whatever it is sent with.",
        },
        "paths": {
            "/v1/score": {
                "post": {
                    **_post(
                        "score",
                        "Probabilities of rows, with those of the base model beside them where `base=true`",
                        "ScoreRequest",
                        answer.ROW_COLUMNS_WITH_BASE,
                        CLASSES,
                    ),
                    "parameters": [_BASE],
                }
            },
            "/v1/score_sequence": {
                "post": _post(
                    "score_sequence",
                    "Base and meta probabilities at every position of a transcript-sense sequence",
                    "SequenceRequest",
                    answer.SEQUENCE_COLUMNS,
                )
            },
            **(_on_reference(examples or {}, settings.max_sequence_bp) if settings.scores_variants else {}),
            "/v1/model": {
                "get": _get(
                    "model", "The model that answers, and what a request may hold", JSON, {"type": "object"}, (401, 503)
                )
            },
            "/openapi.json": {"get": _get("openapi", "This document", JSON, {"type": "object"}, (401,))},
            "/docs": {
                "get": {**_get("docs", "This document as a page", "text/html", {"type": "string"}, ()), "security": []}
            },
            **{
                f"/{name}": {"get": {**_get(name, text, "text/plain", {"type": "string"}, codes), "security": []}}
                for name, text, codes in (
                    ("livez", "Whether the process lives", ()),
                    ("healthz", "Whether the process lives", ()),
                    ("readyz", "Whether requests are welcome", (503,)),
                )
            },
            **(metrics if settings.metrics_port is None else {}),
        },
        "components": {
            "schemas": _schemas(settings),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if settings.all_keys() else [],
    }


def of_model(document: Mapping[str, Any], engine: Engine, settings: ServingSettings) -> dict[str, Any]:
    """The document for a model that answers: what it does not answer is left out, and what it reads is named."""
    found = copy.deepcopy(dict(document))
    if not engine.answers_rows:
        del found["paths"]["/v1/score"], found["components"]["schemas"]["ScoreRequest"]
    if len(engine.score_fields) > 1:
        fields = [field for theirs in engine.score_fields.values() for field in theirs]
        request = found["components"]["schemas"]["SequenceRequest"]
        found["components"]["schemas"]["SequenceRequest"] = {
            **_object({SEQUENCE: request["properties"][SEQUENCE], **dict.fromkeys(fields, _per_letter(settings))}),
            "description": "A sequence, and the scores of each base model, one a letter. In Arrow: one row, the scores "
            "as lists.",
        }
        content = found["paths"]["/v1/score_sequence"]["post"]["requestBody"]["content"][JSON]
        content["example"] = {SEQUENCE: _LETTERS_SHOWN} | {name: _shown(name.partition(".")[0]) for name in fields}
    if pieces := [evidence_column(name) for name in (engine.predictor.evidence if engine.predictor else ())]:
        request = found["components"]["schemas"]["SequenceRequest"]
        numbers = _column({"type": ["number", "null"]}, settings.max_sequence_bp) | {"type": ["array", "null"]}
        request["properties"] |= {name: {**numbers, "description": ALLOWED_EVIDENCE} for name in pieces}
        request["required"] = [*request["required"], *pieces]
        content = found["paths"]["/v1/score_sequence"]["post"]["requestBody"]["content"][JSON]
        content["example"] = {**content["example"], **dict.fromkeys(pieces, [0.5] * len(_LETTERS_SHOWN))}
    return found


def _per_letter(settings: ServingSettings) -> dict[str, Any]:
    return _column(_PROBABILITY, settings.max_sequence_bp)


def _column(kind: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": kind, "minItems": 1, "maxItems": most}


def _schemas(settings: ServingSettings) -> dict[str, Any]:
    row_fields = {SEQUENCE: _LETTERS, **dict.fromkeys(ROW_SCORES, _PROBABILITY), INDEX: _INDEX}

    row = {"type": "object", "properties": row_fields, "required": list(REQUIRED), "additionalProperties": False}
    columns = {name: _column(row_fields[name], settings.max_rows) for name in FIELDS}
    scores = dict.fromkeys(BASE_SCORES, _per_letter(settings))
    return {
        "ScoreRequest": {
            "description": "Rows or columns. Donor, acceptor and neither add up to 1 within 0.01. In Arrow: a column "
            "a field.",
            "oneOf": [
                _object({"rows": _column(row, settings.max_rows)}),
                _object({"columns": {**row, "properties": columns}}),
            ],
        },
        "SequenceRequest": {
            "description": "A sequence, and the scores of its base model, one a letter, all three or none. In Arrow: "
            "one row, the scores as lists.",
            "type": "object",
            "properties": {SEQUENCE: {**_LETTERS, "maxLength": settings.max_sequence_bp}, **scores},
            "required": [SEQUENCE],
            "dependentRequired": {name: [other for other in SEQUENCE_FIELDS if other != name] for name in BASE_SCORES},
            "additionalProperties": False,
        },
        **({"VariantsRequest": _variants_request(settings)} if settings.scores_variants else {}),
        "Error": _object(
            {
                "error": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": _object(
                        {"row": {"type": ["integer", "null"]}, "field": {"type": "string"}, "given": {}, "allowed": {}}
                    ),
                },
            }
        ),
    }


def _on_reference(examples: Mapping[str, str], max_bp: int) -> dict[str, Any]:
    """Calls that need a reference and an annotation."""
    codes = (400, 401, 406, 408, 413, 415, 422, 429, 500, 501, 503, 504)
    variants = _variants(examples.get("variant", ""))
    found = {SCORE_VARIANTS_PATH: variants}
    options = variants["post"]["parameters"]
    for call in view_openapi.calls(examples, max_bp):
        described = _get(call.name, call.summary, JSON, call.answer, codes)
        body = {"required": True, "content": {JSON: {"schema": call.request, "example": call.example}}}
        parameters = [*call.parameters, *(options if call.has_options else ())]
        found[call.path] = {"post": {**described, "requestBody": body, "parameters": parameters}}
    return found


def _variants(example: str) -> dict[str, Any]:
    """The call for variants; its rows have a column for each number of the table of variants."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    columns: dict[str, dict[str, Any]] = {
        VARIANT: {"type": "integer", "description": "number of the variant in the request, from 0"}
    }
    columns |= {name: {"type": [kinds[kind], "null"]} for name, kind in COLUMNS.items()}
    text = {name: {"type": "string", "description": description} for name, description in answer.FACTS.items()}
    answered = _object({"rows": {"type": "array", "items": _object(columns)}, **text})
    usual = "; left out: "
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{TEXTS[name]}{usual}{QUERY[name]}",
            "schema": kind,
        }
        for name, kind in (
            ("distance", {"type": "integer", "minimum": 1, "maximum": MAX_DISTANCE}),
            ("context", {"type": "integer", "minimum": 0, "maximum": MAX_DISTANCE}),
            ("mask", {"type": "boolean"}),
            ("flanks", {"type": "string", "enum": ["N", "real"]}),
        )
    ]
    codes = (400, 401, 406, 408, 413, 415, 422, 429, 500, 503, 504)
    summary = "What variants do to splice sites: gains and losses by gene, of base models and of ours"
    schema = {"$ref": "#/components/schemas/VariantsRequest"}
    body = {JSON: {"schema": schema, "example": {VARIANTS: [example]}}, ARROW: {"schema": _BINARY}}
    return {
        "post": {
            **_get("score_variants", summary, JSON, answered, codes, ARROW),
            "parameters": parameters,
            "requestBody": {"required": True, "content": body},
        }
    }


def _variants_request(settings: ServingSettings) -> dict[str, Any]:
    letters = {"type": "string", "minLength": 1}
    parts = _object(dict.fromkeys(PARTS, letters) | {"pos": {"type": "integer", "minimum": 1, "maximum": MAX_POSITION}})
    return {
        "description": "Variants as text (chr3:42600000:G:A, 3-42600000-G-A, HGVS g.) or in parts, POS 1-based. In "
        f"Arrow: a column {VARIANT}, or {', '.join(PARTS)}.",
        **_object({VARIANTS: _column({"oneOf": [letters, parts]}, settings.max_variants)}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _post(
    name: str, summary: str, request: str, columns: tuple[str, ...], always: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A call whose answer has these columns; those that it has `always` if not all."""
    row = _object({name: {**_PROBABILITY, "description": answer.COLUMNS[name]} for name in columns})
    facts: dict[str, dict[str, Any]] = {
        name: {"type": "string", "description": text} for name, text in answer.FACTS.items()
    }
    facts[answer.WAY]["enum"] = list(WAYS)
    answered = {"rows": {"type": "array", "items": {**row, "required": list(always or columns)}}, **facts}
    codes = (400, 401, 406, 408, 413, 415, 422, 429, 500, 503, 504)
    return {
        **_get(name, summary, JSON, _object(answered), codes, ARROW),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": f"#/components/schemas/{request}"}, "example": _EXAMPLES[request]},
                ARROW: {"schema": _BINARY},
            },
        },
    }


def _get(
    name: str, summary: str, media: str, schema: dict[str, Any], codes: tuple[int, ...], *others: str
) -> dict[str, Any]:
    headers = {header: {"schema": {"type": "string"}} for header in _HEADERS}
    content = {media: {"schema": schema}} | {other: {"schema": _BINARY} for other in others}
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "operationId": name,
        "tags": [next((tag for tag, names in _TAGS.items() if name in names), "server")],
        "summary": summary,
        "responses": {
            "200": {"description": "the answer", "headers": headers, "content": content},
            **{str(code): {"description": _REASONS[code], "headers": headers, "content": error} for code in codes},
        },
    }
