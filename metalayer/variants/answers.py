"""Answers in the forms that people's next tools read: INFO tags of VCF, and rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from metalayer.variants.definition import KINDS, SHORT, Change, Effect
from metalayer.variants.scoring import META, SPLICEAI, Allele, GeneEffect

META_TAG, DETAIL_TAG, SKIPPED_TAG = "MetaLayer", "MetaLayerDetail", "MetaLayerSkipped"
PROBABILITY_TAG, PROBABILITY_FORMAT = "MetaLayerProbability", "ALLELE|SYMBOL|PROBABILITY|KIND"
FORMAT = "|".join(["ALLELE", "SYMBOL", *(f"DS_{kind}" for kind in SHORT), *(f"DP_{kind}" for kind in SHORT)])
"""Fields of an entry, as SpliceAI has them."""
DETAIL_FORMAT = "|".join(
    [
        *("ALLELE", "SYMBOL", "GENE_ID", "STRAND", "MODEL"),
        *(f"{field}_{kind}" for kind in SHORT for field in ("POS", "REF", "ALT", "ANNOTATED")),
    ]
)
FACTS_LINE, FACTS_KEY = "##metalayerVariants=", "metalayer.variants"
"""Where VCF and Parquet have, as JSON, what decided the scores (`Opened.facts`)."""
_TAGS = {"spliceai": "SpliceAI", "cispliceai": "CISpliceAI", "pangolin": "biPangolin", "pwm": "PWM"}
ESCAPES = str.maketrans({one: f"%{ord(one):02X}" for one in "%;=,| \t\r\n"})
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("chrom",), str),
    "pos": int,
    **dict.fromkeys(("id", "ref", "alt", "skipped", "gene_id", "gene_name", "strand", "model"), str),
    **{
        f"{kind}_{field}": of
        for kind in KINDS
        for field, of in (
            *(("score", float), ("position", int), ("offset", int)),
            *(("ref", float), ("alt", float), ("annotated", bool)),
        )
    },
}
"""Of the table: name and type."""
CALIBRATED_COLUMNS: dict[str, type] = {"kind": str, "probability": float}
"""Further ones, with a table of probabilities (`calibration.Calibrated`)."""


def tags_of(names: Sequence[str]) -> dict[str, str]:
    """The INFO tag of each name of scores: that of the base model's own tool, `META_TAG` of ours."""
    short = {name: META_TAG if name == META else _TAGS.get(name) or _tag_of_flank(name) for name in names}
    twice = {tag for tag in short.values() if list(short.values()).count(tag) > 1}
    return {name: f"{tag}_{name.rpartition('_')[2]}" if tag in twice else tag for name, tag in short.items()}


def _tag_of_flank(name: str) -> str:
    return "OpenSpliceAI" if name.startswith("openspliceai") else name


def info_of(alleles: Sequence[Allele], tags: Mapping[str, str], position: int, way: str) -> dict[str, str]:
    """The INFO fields of a record, those that it has.

    Args:
        alleles: what is known of each.
        tags: by name of the scores.
        position: 0-based POS as it is written.
        way: how haplotypes were compared.
    """
    found: dict[str, list[str]] = {}
    for allele in alleles:
        for gene in allele.genes:
            for name, changes in gene.effects.items():
                found.setdefault(tags[name], []).append(_entry(allele.alt, gene, changes, position, ours=name == META))
                if changes and way != SPLICEAI:
                    found.setdefault(DETAIL_TAG, []).append(_detail(allele.alt, gene, name, changes))
    reasons = list(dict.fromkeys(allele.reason for allele in alleles if allele.reason))
    if len(reasons) == 1 and all(allele.reason for allele in alleles):
        found[SKIPPED_TAG] = reasons
    elif reasons:
        found[SKIPPED_TAG] = [f"{allele.alt}|{allele.reason}" for allele in alleles if allele.reason]
    return {tag: ",".join(entries) for tag, entries in sorted(found.items(), key=lambda item: _order(item[0]))}


def _order(tag: str) -> int:
    return [META_TAG, DETAIL_TAG, SKIPPED_TAG].index(tag) if tag.startswith(META_TAG) else -1


def _entry(alt: str, gene: GeneEffect, changes: Effect | None, position: int, *, ours: bool) -> str:
    first = [alt, gene.symbol.translate(ESCAPES)]
    if changes is None:
        return "|".join([*first, *["."] * 2 * len(SHORT)])
    decimals = 4 if ours else 2
    offsets = [offset(change, position, gene.strand if ours else "+") for change in changes]
    return "|".join([*first, *(f"{change.score:.{decimals}f}" for change in changes), *map(str, offsets)])


def offset(change: Change, position: int, strand: str) -> int:
    """Bases from POS to where a change is, positive downstream on the strand."""
    return change.position - position if strand == "+" else position - change.position


def _detail(alt: str, gene: GeneEffect, name: str, changes: Effect) -> str:
    fields = [alt, gene.symbol.translate(ESCAPES), gene.gene_id.translate(ESCAPES), gene.strand, name]
    for change in changes:
        place = f"{change.position + 1}" + (f"^{change.inserted}" if change.inserted else "")
        fields += [place, f"{change.reference:.4f}", f"{change.alternative:.4f}", str(int(change.annotated))]
    return "|".join(fields)


def rows_of(
    contig: str, position: int, name: str | None, ref: str, alleles: Sequence[Allele]
) -> Iterator[dict[str, Any]]:
    """Rows of the table, with the keys of `COLUMNS`: one for an allele, gene and model; one for an allele without."""
    for allele in alleles:
        variant = {"chrom": contig, "pos": position + 1, "id": name, "ref": ref, "alt": allele.alt}
        if not allele.genes:
            yield dict.fromkeys(COLUMNS) | variant | {"skipped": allele.reason}
        for gene in allele.genes:
            place = {"gene_id": gene.gene_id, "gene_name": gene.symbol, "strand": gene.strand}
            for model, changes in gene.effects.items():
                row = dict.fromkeys(COLUMNS) | variant | place | {"model": model}
                for kind, change in zip(KINDS, changes or (), strict=False):
                    row |= {
                        f"{kind}_score": change.score,
                        f"{kind}_position": change.position + 1,
                        f"{kind}_offset": offset(change, position, gene.strand),
                        f"{kind}_ref": change.reference,
                        f"{kind}_alt": change.alternative,
                        f"{kind}_annotated": change.annotated,
                    }
                yield row


def to_json(alleles: Sequence[Allele]) -> str:
    """One line, for `from_json`."""
    return json.dumps(
        [[a.alt, a.reason, [[g.gene_id, g.symbol, g.strand, dict(g.effects)] for g in a.genes]] for a in alleles]
    )


def from_json(text: str) -> list[Allele]:
    """What `to_json` wrote, to the last digit."""
    found = []
    for alt, reason, genes in json.loads(text):
        scored = []
        for gene_id, symbol, strand, effects in genes:
            changes: dict[str, Effect | None] = {
                name: None if four is None else cast(Effect, tuple(Change(*one) for one in four))
                for name, four in effects.items()
            }
            scored.append(GeneEffect(gene_id, symbol, strand, changes))
        found.append(Allele(alt, scored or (), reason))
    return found
