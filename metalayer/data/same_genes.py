"""Which genes are the same data as others: by name, by place, by letters.

What a model was trained on is known again with another version of its id, in an overlapping gene under any name, and in
a copy of equal letters (a pseudoautosomal gene on the other chromosome, another assembly). Used where genes must not be
on two sides of a split, and where a model is judged on genes that it may have seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metalayer.data.tracks import TrackStore
from metalayer.genome import Gene, normalise_build, one_based, unversioned

SEEN_KEY = "seen_genes"
"""Of a model directory's description: what `described` gives of its training and validation genes."""


@dataclass(frozen=True)
class KnownGene:
    """A gene, as far as it is known.

    Attributes:
        gene_id: its name.
        gene: where it lies; None where unknown.
        build: of its coordinates; None where unknown, so that they may be of any.
        letters: `content_hash` of its letters in transcript sense; empty where unknown or all N.
        paralog_group: of a gene table; None where unknown.
    """

    gene_id: str
    gene: Gene | None = None
    build: str | None = None
    letters: str = ""
    paralog_group: str | None = None


@dataclass(frozen=True)
class Same:
    """Why a gene is the same data as another.

    Attributes:
        by: `name`, `place`, `letters` or `paralogs`.
        other: id of the other gene.
    """

    by: str
    other: str

    def __str__(self) -> str:
        verb = {
            "name": "is",
            "place": "overlaps",
            "letters": "has the letters of",
            "paralogs": "is a paralog of",
        }
        return f"{verb[self.by]} {self.other}"


def known_genes(store: TrackStore, gene_ids: Iterable[str]) -> list[KnownGene]:
    """Those genes that a store has, with place, letters and paralog groups."""
    places, build = store.genes(), store.genome_build
    there = (places[gene_id] for gene_id in gene_ids if gene_id in store)
    return [KnownGene(one.gene_id, one, build, store.letters_of(one.gene_id), one.paralog_group) for one in there]


def alike(genes: Sequence[KnownGene]) -> list[list[str]]:
    """Ids of genes that have the same letters, or are of one paralog group; an id may be in several of the lists."""
    lists: dict[tuple[str, str], list[str]] = {}
    for one in genes:
        for kind, value in (("letters", one.letters), ("paralogs", one.paralog_group)):
            if value:
                lists.setdefault((kind, value), []).append(one.gene_id)
    return [ids for ids in lists.values() if len(ids) > 1]


def described(genes: Sequence[KnownGene]) -> list[list[Any]]:
    """JSON-ready: [gene_id, build, chrom, strand, start, end, letters] of each placed gene, 1-based inclusive."""
    return [
        [
            *(one.gene_id, one.build, one.gene.interval.chrom, one.gene.strand),
            *one_based(one.gene.interval.start, one.gene.interval.end),
            one.letters,
        ]
        for one in genes
        if one.gene
    ]


def seen_by(info: Mapping[str, Any]) -> list[KnownGene]:
    """Genes that a model was trained or validated on, by its description; of older models, their names alone."""
    placed = [
        KnownGene(gene_id, Gene.from_table(gene_id, chrom, strand, start, end), build, letters)
        for gene_id, build, chrom, strand, start, end, letters in info.get(SEEN_KEY) or ()
    ]
    there, split = {one.gene_id for one in placed}, info.get("split") or {}
    named = {gene_id for part in ("train", "valid") for gene_id in split.get(part, ()) if gene_id not in there}
    return [*placed, *map(KnownGene, sorted(named))]


def same_as(genes: Sequence[KnownGene], others: Sequence[KnownGene]) -> dict[str, Same]:
    """Those genes that are the same data as one of the others, and why: by gene id.

    By name (in any version), by place (on either strand, in one build), by letters, and by paralog group where both
    have one.
    """
    names = {unversioned(one.gene_id): one.gene_id for one in reversed(others)}
    letters = {one.letters: one.gene_id for one in reversed(others) if one.letters}
    groups = {one.paralog_group: one.gene_id for one in reversed(others) if one.paralog_group}
    places = _Places(others)
    found: dict[str, Same] = {}
    for one in genes:
        ways = (
            ("name", names.get(unversioned(one.gene_id))),
            ("place", places.overlapping(one)),
            ("letters", letters.get(one.letters) if one.letters else None),
            ("paralogs", groups.get(one.paralog_group) if one.paralog_group else None),
        )
        if way := next(((by, other) for by, other in ways if other is not None), None):
            found[one.gene_id] = Same(*way)
    return found


class _Places:
    """Genes by chromosome, with what reaches furthest of those that begin before each."""

    def __init__(self, genes: Sequence[KnownGene]) -> None:
        self._by_chrom: dict[tuple[str | None, str], tuple[list[int], list[Gene]]] = {}
        placed = sorted((one for one in genes if one.gene), key=lambda one: one.gene.interval.start if one.gene else 0)
        for one in placed:
            assert one.gene
            starts, furthest = self._by_chrom.setdefault((_build(one), one.gene.interval.chrom), ([], []))
            starts.append(one.gene.interval.start)
            reaching = furthest[-1] if furthest and furthest[-1].interval.end >= one.gene.interval.end else one.gene
            furthest.append(reaching)

    def overlapping(self, one: KnownGene) -> str | None:
        """A gene that shares a position, where the builds are the same or one of them is unknown."""
        if one.gene is None:
            return None
        build, interval = _build(one), one.gene.interval
        for (other, chrom), (starts, furthest) in self._by_chrom.items():
            if chrom == interval.chrom and (build == other or None in (build, other)):
                before = bisect_left(starts, interval.end)
                if before and furthest[before - 1].interval.end > interval.start:
                    return furthest[before - 1].gene_id
        return None


def _build(one: KnownGene) -> str | None:
    return normalise_build(one.build) if one.build else None
