"""Scores of whole genes, gene by gene, whichever command wrote them, and what they are where genes overlap."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.scored import MANIFEST_KEY, ScoredGenome, genome_order
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.genome import Interval, normalise_chrom, normalise_gene_id
from metalayer.integrity import open_parquet
from metalayer.release.answer import BASE_COLUMNS
from metalayer.schema import BASE_SCORES
from metalayer.sites.stretch import BASE, META, SITES, Stretch
from metalayer.workflows.places import CONTIG

logger = logging.getLogger(__name__)

_AGAIN = "copy it again, or score again"


class WholeGeneScores:
    """A file of scores of whole genes, whichever command wrote it.

    Attributes:
        systems: `BASE` and `META`, those that it has.
        contigs: names of its contigs in the reference, by ours, where it says them.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ArtifactError: absent, damaged, or no scores of whole genes.
        """
        self.path = Path(path)
        file = open_parquet(self.path, _AGAIN)
        names, metadata = file.schema_arrow.names, file.metadata.metadata or {}
        self.contigs: dict[str, str] = {}
        self._columns: dict[str, tuple[str, ...]] = {}
        if MANIFEST_KEY in metadata:
            self.contigs = dict(ScoredGenome(self.path).manifest.get("contigs") or {})
            self._columns = {META: SITES}
        elif set(SITES) <= set(names) and CONTIG in names:
            self._columns = {BASE: BASE_COLUMNS[:2], META: SITES}
        elif not any(name.split(".")[0] in BASE_SCORES for name in names):
            raise ArtifactError(
                f"{path}: no scores of whole genes; they are what `metalayer score` writes of per-nucleotide scores, "
                "`--pipeline score`, or per-nucleotide scores themselves"
            )
        self.systems = tuple(self._columns) or (BASE,)

    def stretches(self) -> Iterator[Stretch]:
        """Its genes in genome order.

        Raises:
            ArtifactError: damaged within, or genes that are not whole.
        """
        if self._columns:
            yield from self._scored()
        else:
            yield from self._of_base()

    def _scored(self) -> Iterator[Stretch]:
        file = open_parquet(self.path, _AGAIN)
        wanted = [
            "gene_id",
            "chrom",
            "strand",
            "position",
            *(name for names in self._columns.values() for name in names),
        ]
        if CONTIG in file.schema_arrow.names:
            wanted.append(CONTIG)
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=wanted)
            gene_id, chrom, strand = (str(rows[name][0].as_py()) for name in ("gene_id", "chrom", "strand"))
            position = rows["position"].to_numpy()
            if len(rows["gene_id"].unique()) != 1 or not (np.diff(position) == 1).all():
                raise ArtifactError(f"{self.path}: gene {gene_id} is not whole in one part of the file; {_AGAIN}")
            if CONTIG in wanted:
                self.contigs.setdefault(chrom, str(rows[CONTIG][0].as_py()))
            scores = {
                system: np.stack([rows[name].to_numpy() for name in names], axis=1)
                for system, names in self._columns.items()
            }
            yield Stretch(chrom, strand, int(position[0]) - 1, scores, (gene_id,))

    def _of_base(self) -> Iterator[Stretch]:
        no_sites = pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "splice_type": pl.String})
        with tempfile.TemporaryDirectory() as folder:
            tracks = Path(folder) / "tracks.parquet"
            found = write_tracks([self.path], tracks, {}, lambda: no_sites)
            if found.genes_dropped:
                causes = ", ".join(f"{one} ({why})" for one, why in list(found.genes_dropped.items())[:5])
                logger.warning("%s: genes that are left out: %s", self.path, causes)
            store = TrackStore(tracks)
            self.contigs |= store.contigs
            for gene in sorted(store.genes().values(), key=genome_order):
                scores = store.read(gene.gene_id).scores[:, :2]
                scores = scores if gene.strand == "+" else scores[::-1]
                span = gene.interval
                yield Stretch(
                    span.chrom, gene.strand, span.start, {BASE: np.ascontiguousarray(scores)}, (gene.gene_id,)
                )


def merged(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Those of a strand that overlap as one, with the highest score of each position; in the order of their starts.

    Raises:
        ArtifactError: genes out of order.
    """
    held: dict[str, Stretch] = {}
    for one in stretches:
        before = held.get(one.strand)
        if before is None:
            held[one.strand] = one
        elif before.chrom == one.chrom and before.start <= one.start < before.end:
            held[one.strand] = _joined(before, one)
        else:
            if before.chrom == one.chrom and one.start < before.start:
                raise ArtifactError(f"gene {one.names[0]} stands before genes that lie before it; score again")
            yield before
            held[one.strand] = one
    yield from held.values()


def _joined(one: Stretch, other: Stretch) -> Stretch:
    size = max(one.end, other.end) - one.start
    scores = {}
    for name in one.scores:
        values = np.full((size, len(SITES)), np.nan, np.float32)
        for part in (one, other):
            place = slice(part.start - one.start, part.end - one.start)
            values[place] = np.fmax(values[place], part.scores[name])
        scores[name] = values
    return replace(one, scores=scores, names=(*one.names, *other.names))


def chosen(
    stretches: Iterable[Stretch], genes: Collection[str], regions: Collection[tuple[str, Interval]]
) -> Iterator[tuple[Stretch, Stretch]]:
    """Genes by id and parts within regions, each with its strands; all of them where neither is given.

    Yields:
        The whole gene, and the part of it that is chosen.

    Args:
        stretches: in genome order.
        genes: ids, with or without `gene-` or `gene:` before them.
        regions: strands (`+`, `-`, or both as `+-`) and places.
    """
    ids = {normalise_gene_id(gene) for gene in genes}
    for one in stretches:
        if not (genes or regions) or normalise_gene_id(one.names[0]) in ids:
            yield one, one
            continue
        for strands, place in regions:
            if one.strand in strands and normalise_chrom(place.chrom) == one.chrom:
                part = one.cut(place.start, place.end)
                if part is not None:
                    yield one, part
