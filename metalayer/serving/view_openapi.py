"""The calls of the page in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from metalayer.release.contract import SEQUENCE
from metalayer.release.variant_contract import MAX_POSITION
from metalayer.release.view_contract import EXPLAINED, GENE, KIND, LOOKED_AT, POSITION, SCORES, TEXTS
from metalayer.schema import CLASSES
from metalayer.serving.view import NUMBERS

VIEW_PATH, EXPLAIN_PATH = "/v1/view", "/v1/explain"
_VIEW = (
    f"Scores of base and meta at every base of a gene, region, sequence or variant, with annotation and called sites; "
    f"numbers are {NUMBERS}"
)
_EXPLAIN = "What each input of the model adds to its score of one base: the change of log-odds where it is left out"

_SCORES = {
    "name": SCORES,
    "in": "query",
    "required": False,
    "description": "false: letters and annotation alone, of a gene or region; left out: true",
    "schema": {"type": "boolean"},
}


class Call(NamedTuple):
    """One call.

    Attributes:
        path: of it.
        name: its operation.
        summary: what it does.
        request: schema of its body.
        example: a body that is answered.
        answer: schema of its answer.
        parameters: of its query.
        has_options: whether it takes those of variants, too.
    """

    path: str
    name: str
    summary: str
    request: dict[str, Any]
    example: dict[str, Any]
    answer: dict[str, Any]
    parameters: list[dict[str, Any]]
    has_options: bool


def calls(examples: Mapping[str, str], max_bp: int) -> Iterator[Call]:
    """Both calls.

    Args:
        examples: gene, region and variant that this server can score.
        max_bp: letters of a sequence at most.
    """
    text: dict[str, dict[str, Any]] = {
        name: {"type": "string", "minLength": 1, "description": TEXTS[name]} for name in LOOKED_AT
    }
    text[SEQUENCE] |= {"pattern": "^[ACGTNacgtn]+$", "maxLength": max_bp}
    place: dict[str, Any] = {name: {"type": "string"} for name in ("contig", "letters", "note")}
    place |= {name: {"type": "integer"} for name in ("contig_length", "start", "end")}
    place["genes"] = {"type": "array", "items": {"type": "object"}}
    one_of = {"oneOf": [_object({name: schema}) for name, schema in text.items()]}
    gene = {GENE: examples.get(GENE, "TRAK1")}
    yield Call(VIEW_PATH, "view", _VIEW, one_of, gene, _some(place), [_SCORES], True)
    site = {
        POSITION: {"type": "integer", "minimum": 1, "maximum": MAX_POSITION},
        KIND: {"type": "string", "enum": list(CLASSES[:2])},
    }
    of_site = {"oneOf": [_object({name: text[name], **site}) for name in EXPLAINED]}
    letters = "CAGACCTTCGAGGACCAGGTAAGTGCTTGATTCCACAG"
    example = {SEQUENCE: letters, POSITION: letters.index("GTAAGT"), KIND: CLASSES[0]}
    answer: dict[str, Any] = {name: {"type": "number"} for name in ("base", "meta", "log_odds")}
    answer |= {name: {"type": "array", "items": {"type": "object"}} for name in ("inputs", "letters")}
    yield Call(EXPLAIN_PATH, "explain", _EXPLAIN, of_site, example, _some(answer), [], False)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {**_some(properties), "additionalProperties": False}


def _some(properties: dict[str, Any]) -> dict[str, Any]:
    """Fields of an object that may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}
