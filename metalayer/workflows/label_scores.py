"""Labels of per-nucleotide scores that are there already, from an annotation: which sites, and of which isoforms."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.base.annotation import AnnotatedGene, in_words, read_annotation
from metalayer.base.installed_tables import annotation_file
from metalayer.contigs import Contigs, listed
from metalayer.data.gene_names import MAX_UNKNOWN
from metalayer.data.gene_table import normalised_gene_id
from metalayer.data.nucleotide_scores import genes_in, write_tracks
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_file, scratch_directory
from metalayer.genome import Gene, unversioned
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, open_parquet, seal_metadata
from metalayer.schema import (
    ALTERNATIVE,
    BASE_MODEL_KEY,
    CLASSES,
    CONTIGS_KEY,
    GENOME_BUILD_KEY,
    KIND_UNKNOWN,
    MARK_COLUMNS,
    NEITHER,
    PRINCIPAL,
    SITE_KINDS,
)
from metalayer.site_labels import SiteMarks
from metalayer.workflows.annotated_genome import labels_in_words, principal_sources

logger = logging.getLogger(__name__)

_BATCH_ROWS = 1_000_000
_MIN_COVERED = 0.5
"""Share of a gene that one of another id must cover to be the same."""
_KEPT_METADATA = (
    BASE_MODEL_KEY,
    GENOME_BUILD_KEY,
    CONTIGS_KEY,
    "metalayer.format_version",
    "metalayer.site_convention",
)


@dataclass(frozen=True)
class _Labels:
    """Of a gene, in ascending genomic position.

    Attributes:
        start: 0-based.
        labels: uint8 (L,).
        marks: of the same L.
        outside: sites of the annotation beyond the L.
        only_junctions: the annotation has no transcripts of the gene.
    """

    start: int
    labels: NDArray[np.uint8]
    marks: SiteMarks
    outside: int
    only_junctions: bool

    @classmethod
    def of(cls, gene: Gene, annotated: AnnotatedGene, which: str) -> _Labels:
        """Those of an annotated gene where a gene of the scores lies."""
        labels, marks = annotated.labels(which), annotated.marks()
        if gene.strand == "-":
            labels, marks = labels[::-1], marks.backwards()
        here, there = gene.interval, annotated.gene.interval
        low, high = max(here.start, there.start), min(here.end, there.end)
        to, of = slice(low - here.start, high - here.start), slice(low - there.start, high - there.start)
        own, own_marks = np.full(len(gene), NEITHER, np.uint8), SiteMarks.none(len(gene))
        own[to], own_marks.kinds[to], own_marks.transcripts[to] = labels[of], marks.kinds[of], marks.transcripts[of]
        outside = np.count_nonzero(marks.kinds) - np.count_nonzero(own_marks.kinds)
        return cls(here.start, own, own_marks, int(outside), bool(annotated.junctions))

    def at(self, positions: NDArray[np.int64], before: NDArray[np.uint8] | None, which: str) -> _Labels:
        """Of some positions (n,), 1-based.

        A table of junctions does not say which are of the principal transcript. Sites that are labelled already are:
        they stay, and what the table adds is alternative.

        Args:
            positions: which.
            before: uint8 (n,), labels that are there.
            which: sites that are labels.
        """
        index = positions - 1 - self.start
        labels, kinds = self.labels[index].copy(), self.marks.kinds[index].copy()
        if self.only_junctions and before is not None:
            known = before != NEITHER
            labels[known], kinds[known] = before[known], PRINCIPAL
            kinds[kinds == KIND_UNKNOWN] = ALTERNATIVE
            if which == "principal":
                labels[~known] = NEITHER
        return _Labels(self.start, labels, SiteMarks(kinds, self.marks.transcripts[index]), 0, self.only_junctions)


def label_scores(
    scores: Path,
    annotation: Path,
    output: Path,
    *,
    labels: str = "all",
    ignore_alternative: bool = False,
    aliases: Path | None = None,
    allow_introns: bool = False,
) -> dict[str, Any]:
    """Write a per-nucleotide file again with labels of an annotation; all other columns stay as they are.

    Args:
        scores: per-nucleotide Parquet, of one base model or several.
        annotation: as in `AnnotatedGenome.read`, or a name as in `annotation_file`.
        output: Parquet to publish.
        labels: which sites are labels, one of `schema.LABELS`.
        ignore_alternative: mark sites of other isoforms alone as ignored.
        aliases: names of contigs, where the files have different ones.
        allow_introns: introns may begin and end with anything, not GT or GC and AG alone.

    Returns:
        genes (how many), genes_left_out (ids), labelled (sites), sites (how many of each kind), sites_outside (of the
        annotation, beyond the genes), principal_by (genes, by what says which transcript is principal).

    Raises:
        ArtifactError: a file that cannot be used, or whose letters and scores do not fit the labels.
        InputError: an annotation that cannot be used, or that lacks more than half of the genes.
    """
    contigs = Contigs.of(aliases)
    annotation = annotation_file(annotation)
    there = genes_in(scores)
    known = read_annotation(annotation, contigs=contigs)
    matched = _matched(there, known.genes, contigs)
    lacking = [gene.gene_id for gene in there if gene.gene_id not in matched]
    if len(lacking) > MAX_UNKNOWN * len(there):
        raise InputError(
            f"{annotation} has no gene for {len(lacking)} of {len(there)} genes of {scores} ({listed(lacking)}), by id "
            "or by place. Are both of one genome build?"
        )
    places, counts = {gene.gene_id: gene for gene in there}, Counter[str]()

    @lru_cache(1)
    def labels_of(gene_id: str) -> _Labels:
        found = _Labels.of(places[gene_id], matched[gene_id], labels)
        counts["outside"] += found.outside
        return found

    file = open_parquet(scores, "copy or write it again")
    schema = _schema(file)
    with scratch_directory(output) as folder:
        made = folder / output.name
        with pq.ParquetWriter(made, schema, compression="zstd", **PAGE_CHECKSUMS) as writer:
            for gene_id, part in _parts(file, scores):
                if gene_id in matched:
                    frame = _labelled(part, labels_of(gene_id), labels, counts, ignore=ignore_alternative)
                    table = pa.table([frame[name].to_arrow() for name in schema.names], schema.names)
                    writer.write_table(table.cast(schema), row_group_size=len(frame))
        _check(made, folder / "checked", contigs, allow_introns=allow_introns)
        with publish_file(output) as draft:
            made.replace(draft)
    sources = principal_sources(matched.values())
    for line in (*labels_in_words(labels, sources), *in_words(known.handled)):
        logger.info("%s: %s", annotation.name, line)
    if lacking:
        logger.warning(
            "%d of %d genes are not in %s: left out (%s)", *(len(lacking), len(there), annotation, listed(lacking))
        )
    if outside := counts["outside"]:
        logger.info("%s sites of %s lie beyond the genes of %s", f"{outside:,}", annotation.name, scores.name)
    return {
        "genes": len(matched),
        "genes_left_out": lacking,
        "labelled": counts["labelled"],
        "sites": {kind: counts[kind] for kind in SITE_KINDS[PRINCIPAL:] if counts[kind]},
        "sites_outside": outside,
        "principal_by": sources,
    }


def _matched(genes: list[Gene], annotated: list[AnnotatedGene], contigs: Contigs) -> dict[str, AnnotatedGene]:
    """The annotated gene of each gene, by its id: that of the same id, else the one that has most in common with it."""
    by_id: dict[str, list[AnnotatedGene]] = {}
    by_strand: dict[tuple[str, str], list[AnnotatedGene]] = {}
    for one in annotated:
        by_id.setdefault(unversioned(one.gene.gene_id), []).append(one)
        by_strand.setdefault((one.gene.interval.chrom, one.gene.strand), []).append(one)
    found = {}
    for gene in genes:
        place = (contigs.key(gene.interval.chrom), gene.strand)
        named = [
            one
            for one in by_id.get(unversioned(gene.gene_id), [])
            if (one.gene.interval.chrom, one.gene.strand) == place and _shared(gene, one.gene) > 0
        ]
        exact = [one for one in named if one.gene.gene_id == gene.gene_id] or named
        if len(exact) == 1:
            found[gene.gene_id] = exact[0]
            continue
        near = [one for one in by_strand.get(place, []) if _shared(gene, one.gene) >= _MIN_COVERED * len(gene)]
        if near:
            found[gene.gene_id] = max(near, key=partial(_likeness, gene))
    return found


def _shared(gene: Gene, other: Gene) -> int:
    """Positions of both, of genes of one chromosome; 0 or less for none."""
    return min(gene.interval.end, other.interval.end) - max(gene.interval.start, other.interval.start)


def _likeness(gene: Gene, one: AnnotatedGene) -> float:
    """Positions of both genes over those of either."""
    shared = _shared(gene, one.gene)
    return shared / (len(gene) + len(one.gene) - shared)


def _schema(file: pq.ParquetFile) -> pa.Schema:
    """The columns that are there, and those of labels."""
    old, text = file.schema_arrow, pa.dictionary(pa.int32(), pa.string())
    own = dict(zip(("label", *MARK_COLUMNS), (text, text, pa.int32()), strict=True))
    known = {field.name: field.type for field in old}
    metadata = {key: (old.metadata or {}).get(key.encode(), b"").decode() for key in _KEPT_METADATA}
    kinds = known | own | {"ignored": pa.bool_()}
    return pa.schema(list(kinds.items()), seal_metadata({key: value for key, value in metadata.items() if value}))


def _parts(file: pq.ParquetFile, path: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows of one gene after those of another, with its id without `gene-`; a gene may come in several parts."""
    try:
        for batch in file.iter_batches(_BATCH_ROWS):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            for part in frame.partition_by("gene_id", maintain_order=True):
                yield str(part.select(normalised_gene_id()).item(0, 0)), part
    except PARQUET_ERRORS as error:
        raise ArtifactError(f"{path}: damaged within ({error}); copy or write it again") from None


def _labelled(part: pl.DataFrame, found: _Labels, which: str, counts: Counter[str], *, ignore: bool) -> pl.DataFrame:
    """Rows with labels and marks."""
    before = None
    if "label" in part.columns:
        text = part["label"].cast(pl.String).str.to_lowercase()
        before = text.replace_strict(
            list(CLASSES), range(len(CLASSES)), default=NEITHER, return_dtype=pl.UInt8
        ).to_numpy()
    here = found.at(part["position"].cast(pl.Int64).to_numpy(), before, which)
    kinds = here.marks.kinds
    ignored = (
        part["ignored"].fill_null(value=False) if "ignored" in part.columns else pl.repeat(False, len(part), eager=True)
    )
    if ignore:
        ignored |= pl.Series(kinds == ALTERNATIVE)
    counts["labelled"] += int(np.count_nonzero(here.labels != NEITHER))
    counts.update({kind: int(np.count_nonzero(kinds == code)) for code, kind in enumerate(SITE_KINDS)})
    return part.with_columns(
        pl.Series("label", np.array(CLASSES)[here.labels]),
        pl.Series(MARK_COLUMNS[0], np.array(SITE_KINDS)[kinds]),
        pl.Series(MARK_COLUMNS[1], here.marks.transcripts),
        ignored.alias("ignored"),
    )


def _check(path: Path, scratch: Path, contigs: Contigs, *, allow_introns: bool) -> None:
    """Read a file as training and evaluation will, with the checks of letters, labels and scores."""

    def no_rows() -> pl.DataFrame:
        raise AssertionError("the file has labels")

    write_tracks([path], scratch, {}, no_rows, contigs=contigs, allow_introns=allow_introns)
