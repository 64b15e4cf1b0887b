"""Variants as people write them: `chr3:42600000:G:A`, `3-42600000-G-A`, `NC_000003.11:g.42600000G>A`; and regions.

Of HGVS: substitutions, deletions, insertions, duplications and replacements (delins) of genomic coordinates (`g.`).
"""

from __future__ import annotations

import re

from metalayer.errors import InputError
from metalayer.genome import Interval, Variant, half_open
from metalayer.regions import BOTH, parse_region
from metalayer.variants.letters import Letters

_FORMS = (
    "needed is CHROM:POS:REF:ALT or CHROM-POS-REF-ALT with a 1-based POS, as in chr3:42600000:G:A, or HGVS in genomic "
    "coordinates, as in chr3:g.42600000G>A, chr3:g.100_102del, chr3:g.100_101insAC, chr3:g.100dup or "
    "chr3:g.100_102delinsT"
)
_PLAIN = re.compile(r"(?P<contig>.+)[:-](?P<position>\d+)[:-](?P<ref>[A-Z]+)[:>-](?P<alt>[A-Z]+)", re.IGNORECASE)
_HGVS = re.compile(
    r"(?P<contig>[^:]+):g\.(?P<first>\d+)(_(?P<last>\d+))?"
    r"((?P<ref>[A-Z])>(?P<alt>[A-Z])|(?P<kind>delins|del|ins|dup)(?P<letters>[A-Z]*))",
    re.IGNORECASE,
)


def region_of(text: str, letters: Letters) -> Interval:
    """A region of its text, as `metalayer.regions` reads it.

    Args:
        text: the region.
        letters: the reference.

    Returns:
        Its place; `chrom` is our name of the contig.

    Raises:
        InputError: another form, a contig that the FASTA lacks, or a place that it does not have.
    """
    strands, place = parse_region(text)
    if strands != BOTH:
        raise InputError(f"region {text!r}: variants are of both strands; leave out :{strands}")
    key = letters.key(place.chrom)
    if key is None:
        raise InputError(f"region {text!r}: the FASTA {letters.path} has no contig {place.chrom}; see --aliases")
    start, end = place.start, place.end
    if end > letters.lengths[key]:
        raise InputError(f"region {text!r}: {place.chrom} has {letters.lengths[key]:,} nt")
    return Interval(key, start, end)


def variant_of(text: str, letters: Letters) -> Variant:
    """A variant of its text; `chrom` as it is written.

    Args:
        text: in one of the forms of this module.
        letters: the reference, for letters that HGVS leaves out.

    Raises:
        InputError: another form, a contig that the FASTA lacks, or a place that it does not have.
    """
    given = text.strip()
    if match := _HGVS.fullmatch(given):
        return _of_hgvs(given, match, letters)
    if match := _PLAIN.fullmatch(given):
        start, _ = half_open(int(match["position"]), int(match["position"]))
        return Variant(match["contig"], start, match["ref"].upper(), match["alt"].upper())
    raise InputError(f"variant {text!r}: {_FORMS}")


def _of_hgvs(text: str, match: re.Match[str], letters: Letters) -> Variant:
    contig, key = match["contig"], letters.key(match["contig"])
    if key is None:
        raise InputError(f"variant {text!r}: the FASTA {letters.path} has no contig {contig}; see --aliases")
    start, end = half_open(int(match["first"]), int(match["last"] or match["first"]))
    if not 0 <= start < end <= letters.lengths[key]:
        raise InputError(
            f"variant {text!r}: no place on {contig}, which has {letters.lengths[key]:,} nt; first base, `_`, last base"
        )
    there = letters.raw(key, start, end).decode("latin-1").upper()
    if match["ref"]:
        if end - start > 1:
            raise InputError(f"variant {text!r}: a substitution of one letter has one position")
        return Variant(contig, start, match["ref"].upper(), match["alt"].upper())
    kind, given = match["kind"].lower(), match["letters"].upper()
    if (kind in ("ins", "delins")) != bool(given) and not (kind in ("del", "dup") and given == there):
        needed = "needs the letters that come in" if kind in ("ins", "delins") else f"has {there} there"
        raise InputError(f"variant {text!r}: {kind} {needed}; {_FORMS}")
    if kind == "delins":
        return Variant(contig, start, there, given)
    if kind == "ins":
        if end - start != 2:
            raise InputError(
                f"variant {text!r}: ins stands between two bases that lie side by side, as in g.100_101insA"
            )
        return Variant(contig, start, there[0], there[0] + given)
    if kind == "dup":
        return Variant(contig, end - 1, there[-1], there[-1] + there)
    if start == 0:
        behind = letters.raw(key, end, end + 1).decode("latin-1").upper()
        return Variant(contig, 0, there + behind, behind)
    before = letters.raw(key, start - 1, start).decode("latin-1").upper()
    return Variant(contig, start - 1, before + there, before)
