"""Answers in the forms that people's next tools read: INFO tags of VCF, and rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from metalayer.variants.definition import KINDS, SHORT, Change, Effect
from metalayer.variants.meaning import Meaning, ShownExon
from metalayer.variants.scoring import META, SPLICEAI, Allele, GeneEffect
from metalayer.variants.words import place_in_words, span_in_words

if TYPE_CHECKING:
    import pyarrow as pa

META_TAG, DETAIL_TAG, SKIPPED_TAG = "MetaLayer", "MetaLayerDetail", "MetaLayerSkipped"
PROBABILITY_TAG, PROBABILITY_FORMAT = "MetaLayerProbability", "ALLELE|SYMBOL|PROBABILITY|KIND"
FORMAT = "|".join(["ALLELE", "SYMBOL", *(f"DS_{kind}" for kind in SHORT), *(f"DP_{kind}" for kind in SHORT)])
"""Fields of an entry, as SpliceAI has them."""
DETAIL_FORMAT = "|".join(
    [
        *("ALLELE", "SYMBOL", "GENE_ID", "STRAND", "MODEL", "Consequence", "TRANSCRIPT", "LENGTH", "FRAME"),
        *(f"{field}_{kind}" for kind in SHORT for field in ("POS", "REF", "ALT", "ANNOTATED")),
    ]
)
"""`Consequence` is spelled as `bcftools +split-vep` looks for it."""
FACTS_LINE, FACTS_KEY = "##metalayerVariants=", "metalayer.variants"
"""Where VCF and Parquet have, as JSON, what decided the scores (`Opened.facts`)."""
_TAGS = {"spliceai": "SpliceAI", "cispliceai": "CISpliceAI", "pangolin": "biPangolin", "pwm": "PWM"}
ESCAPES = str.maketrans({one: f"%{ord(one):02X}" for one in "%;=,| \t\r\n"})
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("chrom",), str),
    "pos": int,
    **dict.fromkeys(("id", "ref", "alt", "skipped", "gene_id", "gene_name", "strand", "model"), str),
    **dict.fromkeys(("consequence", "transcript"), str),
    "length_change": int,
    **dict.fromkeys(("frame", "exons_before", "exons_after", "alternatives"), str),
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


def arrow_schema(columns: Mapping[str, type], metadata: Mapping[str, str]) -> pa.Schema:
    """The table's columns in Arrow; numbers are float32 and int64."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float32(), bool: pa.bool_()}
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()], metadata=dict(metadata))


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
    meaning = gene.meanings[name]
    fields += [terms_in_one(meaning.terms), meaning.transcript.translate(ESCAPES), *_length_and_frame(meaning)]
    for change in changes:
        place = place_in_words((change.position, change.inserted))
        fields += [place, f"{change.reference:.4f}", f"{change.alternative:.4f}", str(int(change.annotated))]
    return "|".join(fields)


def terms_in_one(terms: Sequence[str]) -> str:
    """Names of what happens, as VEP joins its own."""
    return "&".join(terms)


def _length_and_frame(meaning: Meaning) -> tuple[str, str]:
    """Empty where they are not known."""
    return str(meaning.length) if meaning.frame else "", meaning.frame or ""


def exons_in_words(exons: Sequence[ShownExon]) -> str:
    """In transcript order, each from its lower end to its higher one, 1-based, with commas between."""
    return ",".join(span_in_words(exon.first, exon.last) for exon in exons)


def _meaning_columns(meaning: Meaning | None) -> dict[str, Any]:
    if meaning is None:
        return {}
    others = [f"{terms_in_one(one.terms)}:{one.probability:.2f}" for one in meaning.alternatives]
    return {
        "consequence": terms_in_one(meaning.terms),
        "transcript": meaning.transcript,
        "length_change": meaning.length if meaning.frame else None,
        "frame": meaning.frame,
        "exons_before": exons_in_words(meaning.before),
        "exons_after": exons_in_words(meaning.after),
        "alternatives": ",".join(others),
    }


def changes_as_json(changes: Effect | None, position: int, strand: str) -> dict[str, dict[str, Any]]:
    """Fields of each change by its kind; positions are 1-based, offsets from POS downstream in the gene.

    Args:
        changes: None where there are no numbers.
        position: 0-based POS.
        strand: of the gene.
    """
    return {
        kind: {
            "score": change.score,
            "position": change.position + 1,
            "offset": offset(change, position, strand),
            "ref": change.reference,
            "alt": change.alternative,
            "annotated": change.annotated,
        }
        for kind, change in zip(KINDS, changes or (), strict=False)
    }


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
                row |= _meaning_columns(gene.meanings.get(model))
                for kind, fields in changes_as_json(changes, position, gene.strand).items():
                    row |= {f"{kind}_{name}": value for name, value in fields.items()}
                yield row


def to_json(alleles: Sequence[Allele]) -> str:
    """One line, for `from_json`; without tracks."""
    return json.dumps([[a.alt, a.reason, [_gene_to_json(g) for g in a.genes]] for a in alleles])


def _gene_to_json(gene: GeneEffect) -> list[Any]:
    meanings = {name: meaning.to_json() for name, meaning in gene.meanings.items()}
    return [gene.gene_id, gene.symbol, gene.strand, dict(gene.effects), meanings]


def from_json(text: str) -> list[Allele]:
    """What `to_json` wrote, to the last digit."""
    found = []
    for alt, reason, genes in json.loads(text):
        scored = []
        for gene_id, symbol, strand, effects, meanings in genes:
            changes: dict[str, Effect | None] = {
                name: None if four is None else cast(Effect, tuple(Change(*one) for one in four))
                for name, four in effects.items()
            }
            named = {name: Meaning.from_json(meaning) for name, meaning in meanings.items()}
            scored.append(GeneEffect(gene_id, symbol, strand, changes, named))
        found.append(Allele(alt, scored or (), reason))
    return found
