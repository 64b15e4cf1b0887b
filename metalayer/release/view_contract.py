"""The contract of requests for the page: what is to be looked at, and what is said of a request that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metalayer.release.contract import SEQUENCE, Limits, Mistakes, load, validate_sequence
from metalayer.release.variant_contract import MAX_POSITION, VARIANT
from metalayer.schema import CLASSES

GENE, REGION = "gene", "region"
LOOKED_AT: tuple[str, ...] = (GENE, REGION, SEQUENCE, VARIANT)
"""What can be looked at: exactly one of these a request."""
SCORES = "scores"
"""Query parameter: false asks for letters and annotation alone, which are there before a network has scored a gene."""
POSITION, KIND = "position", "kind"
"""Of a request for contributions: the base, 1-based, and the kind of site."""
EXPLAINED: tuple[str, ...] = (GENE, SEQUENCE)
TEXTS: dict[str, str] = {
    GENE: "name, or id with its version or without",
    REGION: "CONTIG:FIRST-LAST, 1-based, as in chr3:42.1M-42.3M; :+ or :- behind it for one strand",
    SEQUENCE: "letters in transcript sense, of which every position is scored",
    VARIANT: "chr3:42600000:G:A, 3-42600000-G-A, or HGVS g.",
}
_LONGEST = 50_000
"""Letters of a name, region or variant: of a variant its alleles are letters."""


@dataclass(frozen=True)
class Looked:
    """What is to be looked at.

    Attributes:
        kind: of `LOOKED_AT`.
        text: name, region, letters or variant.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Explained:
    """The site whose score is to be explained.

    Attributes:
        what: the gene, or the sequence.
        position: 0-based: on the contig of a gene, in a sequence.
        kind: index in `CLASSES`.
    """

    what: Looked
    position: int
    kind: int


def parse_view(body: bytes, limits: Limits | None = None) -> Looked:
    """Read and check the JSON body of a request to look at something.

    Args:
        body: UTF-8 JSON, with one field of `LOOKED_AT`.
        limits: bounds on the length of a sequence.

    Raises:
        RequestError: 422 with all mistakes, 413 of a sequence that is too long.
    """
    allowed = f"a JSON object with one of {', '.join(LOOKED_AT)}"
    document, mistakes = load(body, allowed, 64), Mistakes()
    if not isinstance(document, dict) or len(document) != 1 or not document.keys() <= set(LOOKED_AT):
        mistakes.add(None, "body", _keys_of(document), allowed)
    mistakes.raise_if_any()
    return _looked(document, limits)


def parse_explain(body: bytes, limits: Limits | None = None) -> Explained:
    """Read and check the JSON body of a request for contributions.

    Args:
        body: UTF-8 JSON, {"gene" or "sequence": ..., "position": 1-based, "kind": "donor" or "acceptor"}.
        limits: bounds on the length of a sequence.

    Raises:
        RequestError: 422 with all mistakes, 413 of a sequence that is too long.
    """
    allowed = f"a JSON object with {POSITION}, {KIND}, and one of {', '.join(EXPLAINED)}"
    document, mistakes = load(body, allowed, 64), Mistakes()
    sets = [{POSITION, KIND, name} for name in EXPLAINED]
    if not isinstance(document, dict) or document.keys() not in sets:
        mistakes.add(None, "body", _keys_of(document), allowed)
        mistakes.raise_if_any()
    position, kind = document.pop(POSITION), document.pop(KIND)
    if type(position) is not int or not 1 <= position <= MAX_POSITION:
        mistakes.add(None, POSITION, position, f"a whole number, 1 to {MAX_POSITION}")
    if kind not in CLASSES[:2]:
        mistakes.add(None, KIND, kind, " or ".join(CLASSES[:2]))
    mistakes.raise_if_any()
    return Explained(_looked(document, limits), position - 1, CLASSES.index(kind))


def _looked(fields: Mapping[str, Any], limits: Limits | None) -> Looked:
    ((kind, text),) = fields.items()
    if kind == SEQUENCE:
        return Looked(kind, validate_sequence({SEQUENCE: text}, limits).sequence)
    mistakes = Mistakes()
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        mistakes.add(None, kind, text, f"text, at most {_LONGEST} letters: {TEXTS[kind]}")
    mistakes.raise_if_any()
    return Looked(kind, text.strip())


def _keys_of(document: Any) -> Any:
    return f"an object with {', '.join(sorted(document)) or 'nothing'}" if isinstance(document, dict) else document
