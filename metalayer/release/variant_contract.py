"""The contract of requests for variants: what they hold, and what is said of one that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metalayer.genome import Variant
from metalayer.release.contract import Limits, Mistakes, check_count, load

VARIANT, VARIANTS = "variant", "variants"
PARTS: tuple[str, ...] = ("chrom", "pos", "ref", "alt")
"""Of a variant in parts: contig, 1-based POS, and alleles as VCF writes them."""
MAX_POSITION = 2**31 - 1
_ALLOWED_VARIANTS = 'a JSON object {"variants": [...]}'
_ALLOWED_VARIANT = f"text, as in chr3:42600000:G:A, or an object with {', '.join(PARTS)}"
_ALLOWED_PARTS = {
    "chrom": "text",
    "pos": f"a whole number, 1 to {MAX_POSITION}",
    "ref": "letters",
    "alt": "letters, or what else VCF allows",
}


def parse_variants(body: bytes, limits: Limits | None = None) -> list[str | Variant]:
    """Read and check the JSON body of a request for variants; what a text means is seen by who has the reference.

    Args:
        body: UTF-8 JSON, {"variants": ["chr3:42600000:G:A", {"chrom": ..., "pos": ..., "ref": ..., "alt": ...}, ...]}.
        limits: bounds on the number, as `max_rows`.

    Raises:
        RequestError: 422 with all mistakes, 413 with too many.
    """
    limits = limits or Limits()
    document = load(body, _ALLOWED_VARIANTS, (limits.max_rows + 16) * (len(PARTS) + 1))
    mistakes = Mistakes()
    if not isinstance(document, dict) or document.keys() != {VARIANTS} or not isinstance(document[VARIANTS], list):
        mistakes.add(None, "body", _keys_of(document), _ALLOWED_VARIANTS)
        mistakes.raise_if_any()
    return validate_variants(document[VARIANTS], limits)


def validate_variants(given: Sequence[Any], limits: Limits | None = None) -> list[str | Variant]:
    """Check variants that are plain Python values.

    Args:
        given: each a text, or a mapping of `PARTS`.
        limits: bounds on their number.

    Raises:
        RequestError: 422 with all mistakes, 413 with too many.
    """
    limits, mistakes = limits or Limits(), Mistakes()
    if not given:
        mistakes.add(None, VARIANTS, [], f"1 to {limits.max_rows} variants")
    mistakes.raise_if_any()
    check_count(len(given), limits, VARIANTS)
    found: list[str | Variant] = []
    for number, one in enumerate(given):
        if isinstance(one, str):
            found.append(one)
            continue
        if not isinstance(one, dict) or one.keys() != set(PARTS):
            mistakes.add(number, VARIANT, _keys_of(one), _ALLOWED_VARIANT)
            continue
        wrong = [name for name in PARTS if not _is_part(name, one[name])]
        for name in wrong:
            mistakes.add(number, name, one[name], _ALLOWED_PARTS[name])
        if not wrong:
            found.append(Variant(one["chrom"], int(one["pos"]) - 1, one["ref"], one["alt"]))
    mistakes.raise_if_any()
    return found


def _keys_of(given: Any) -> Any:
    return f"an object with {', '.join(sorted(given)) or 'nothing'}" if isinstance(given, dict) else given


def _is_part(name: str, value: Any) -> bool:
    if name == "pos":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and value == value // 1 and 0 < value <= MAX_POSITION  # JSON has no whole numbers of its own
    return isinstance(value, str) and bool(value)


def check_columns(row: int | None, given: Iterable[Any], mistakes: Mistakes) -> None:
    """Note columns that are missing or unknown: `VARIANT`, or all of `PARTS`."""
    names = list(given)
    if names != [VARIANT] and sorted(names) != sorted(PARTS):
        mistakes.add(row, "columns", names, f"{VARIANT}, or {', '.join(PARTS)}")


def of_columns(columns: Mapping[str, Sequence[Any]], limits: Limits | None = None) -> list[str | Variant]:
    """Check variants that came as columns, `VARIANT` or `PARTS`; errors as in `validate_variants`."""
    rows = zip(*(columns[name] for name in PARTS), strict=True) if VARIANT not in columns else ()
    parts = [dict(zip(PARTS, row, strict=True)) for row in rows]
    return validate_variants(parts or list(columns.get(VARIANT, ())), limits)
