"""The base-layer writer: a base model's tracks to artifact files, in the form that `metalayer` reads.

Rows are a sample of positions in the INTRON-base convention, each with the scores of its own pass: the
donor pass reads all tracks at the base before it and takes the context from the donor track, the
acceptor pass reads at the base after it and takes the context from the acceptor track. The
per-nucleotide files hold every position in the EXON-base convention. Genes stream through one by one.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.base.nucleotides import SCORES_FOLDER, NucleotideFile, file_name, remove_stale
from metalayer.errors import InputError
from metalayer.features import derived_features
from metalayer.files import publish_directory
from metalayer.gene_track import GeneTrack, refuse_no_probabilities
from metalayer.genome import (
    Gene,
    chrom_in_file_names,
    decode,
    exon_base,
    intron_base,
    same_build,
)
from metalayer.schema import (
    ACCEPTOR,
    ARTIFACT_COLUMNS,
    ARTIFACT_WINDOW_BP,
    BASE_SCORES,
    CLASSES,
    DONOR,
    NEITHER,
    ROW_SCORES,
    evidence_column,
)
from metalayer.site_labels import SiteMarks, row_classes

logger = logging.getLogger(__name__)

GENES_PER_CHUNK = 500
CALL_THRESHOLD = 0.5
"""Own-type score from which the base model calls a site: TP and FP above it, FN and TN below."""
SAMPLE_SEED = 42
HARD_NEGATIVE_SCORE = 0.05
"""Every non-site with this own-type score or more becomes a row."""
NEGATIVES_PER_SITE = 1.2
"""True negatives drawn per site and false positive of the same gene and pass ..."""
NEGATIVES_PER_GENE = 5
"""... and this many more, so that a gene without sites has rows too."""


@dataclass
class WriteReport:
    """What was written."""

    genes: int = 0
    positions: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("TP", "FN", "FP", "TN"), 0))
    sites: dict[str, int] = field(default_factory=lambda: {"donor": 0, "acceptor": 0})
    sites_without_row: int = 0
    """Acceptors that share a donor's row (1-nt introns), and sites whose intron base lies outside the gene."""
    files: list[str] = field(default_factory=list)

    def count_sites(self, labels: NDArray[np.uint8]) -> None:
        """Count the sites of a gene."""
        for name in self.sites:
            self.sites[name] += int((labels == CLASSES.index(name)).sum())


def artifact_directory(root: Path, base_model: str, annotation_source: str, build: str) -> Path:
    """Where the artifact rows of a base model lie under a data root.

    A folder of the build that is there already, perhaps by its other name (`hg38` for GRCh38), is taken.
    """
    builds = root / "data" / annotation_source
    there = sorted(path.name for path in builds.iterdir() if path.is_dir()) if builds.is_dir() else []
    if build not in there:
        build = next((name for name in there if same_build(name, build)), build)
    return builds / build / f"{base_model}_eval" / "meta_models"


def write_artifacts(
    root: Path,
    genes: Iterable[GeneTrack],
    *,
    base_model: str,
    annotation_source: str,
    build: str,
    seed: int = SAMPLE_SEED,
    long_chroms: Collection[str] = (),
    contigs: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> WriteReport:
    """Write the artifact rows and the per-nucleotide scores of one base-layer pass.

    All files of the pass appear together after the last gene, and replace those of an earlier pass of
    the same base model; if anything fails, what was there before stays.

    Args:
        root: data root; gets `data/...` and `nucleotide_scores/`.
        genes: genes of one chromosome after those of another.
        base_model: name of the base model.
        annotation_source: folder of the annotation.
        build: folder of the genome build; `BUILD_UNKNOWN` is not written into the score files.
        seed: draws the true negatives, gene by gene.
        long_chroms: those with genes beyond `LARGEST_32_BIT`: positions in their score files are int64, else int32.
        contigs: names of chromosomes in the FASTA, by ours, for the metadata of their score files.
        metadata: more for the metadata of the score files.

    Raises:
        InputError: no gene, a gene twice, or a chromosome whose genes do not follow each other.
    """
    report = WriteReport()
    rows_dir = artifact_directory(root, base_model, annotation_source, build)
    scores_dir = root / SCORES_FOLDER
    seen_genes: set[str] = set()
    seen_chroms: set[str] = set()
    with contextlib.ExitStack() as drafts:
        rows_draft = drafts.enter_context(publish_directory(rows_dir))
        chunk: _Chunk | None = None
        tracks: NucleotideFile | None = None
        for item in genes:
            gene_id, chrom = item.gene.gene_id, item.gene.interval.chrom
            if gene_id in seen_genes:
                raise InputError(f"gene {gene_id} comes twice; write each gene once")
            seen_genes.add(gene_id)
            if chunk is None or tracks is None or chunk.chrom != chrom:
                if chrom in seen_chroms:
                    raise InputError(
                        f"genes of chromosome {chrom} come in two places ({gene_id}); sort the genes by chromosome"
                    )
                seen_chroms.add(chrom)
                if chunk is not None and tracks is not None:
                    chunk.write(rows_draft, report)
                    tracks.close()
                name = file_name(base_model, chrom)
                tracks = drafts.enter_context(
                    NucleotideFile.publish(
                        scores_dir / name,
                        base_model,
                        chrom,
                        build,
                        is_long=chrom in long_chroms,
                        contigs=contigs,
                        columns=(*BASE_SCORES, *map(evidence_column, item.evidence)),
                        marked=item.marks is not None,
                        metadata=metadata,
                    )
                )
                report.files.append(f"{SCORES_FOLDER}/{name}")
                chunk = _Chunk(chrom, 1)
            elif len(chunk.genes) == GENES_PER_CHUNK:
                chunk.write(rows_draft, report)
                chunk = _Chunk(chrom, chunk.first + GENES_PER_CHUNK)
            chunk.genes.append(artifact_rows(item, seed, report))
            numbers = np.column_stack([item.scores, *item.evidence.values()])
            tracks.write(item.gene, item.tokens, numbers, item.labels, item.marks)
            report.genes += 1
            report.positions += len(item.gene)
        if chunk is None:
            raise InputError("no genes to write; the base-layer pass was given an empty list")
        chunk.write(rows_draft, report)
    remove_stale(scores_dir, base_model, {Path(name).name for name in report.files})
    logger.info("wrote %d genes, %d positions, rows %s", report.genes, report.positions, report.rows)
    return report


ScoredGene = tuple[Gene, NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], SiteMarks]
"""Gene, tokens uint8 (L,), scores float32 (L, columns), labels uint8 (L,) and of which isoforms they are sites."""


def write_scores(
    root: Path,
    genes: Iterable[ScoredGene],
    *,
    base_model: str,
    columns: Sequence[str],
    build: str,
    long_chroms: Collection[str] = (),
    contigs: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> WriteReport:
    """Write the per-nucleotide scores alone, of a base model whose scores make no artifact rows.

    All files appear together after the last gene.

    Args:
        root: data root; gets `nucleotide_scores/`.
        genes: those of a chromosome together.
        base_model: name of the base model.
        columns: names of the scores.
        build: of the genome; `BUILD_UNKNOWN` is not written.
        long_chroms: as in `write_artifacts`.
        contigs: as in `write_artifacts`.
        metadata: as in `write_artifacts`.

    Raises:
        InputError: no gene, or scores that are no probabilities.
    """
    report = WriteReport()
    with contextlib.ExitStack() as drafts:
        for chrom, of_chrom in groupby(genes, key=lambda item: item[0].interval.chrom):
            name = file_name(base_model, chrom)
            report.files.append(f"{SCORES_FOLDER}/{name}")
            file = drafts.enter_context(
                NucleotideFile.publish(
                    root / SCORES_FOLDER / name,
                    base_model,
                    chrom,
                    build,
                    is_long=chrom in long_chroms,
                    contigs=contigs,
                    columns=columns,
                    marked=True,
                    metadata=metadata,
                )
            )
            for gene, tokens, scores, labels, marks in of_chrom:
                refuse_no_probabilities(gene.gene_id, scores)
                file.write(gene, tokens, scores, labels, marks)
                report.genes += 1
                report.positions += len(gene)
                report.count_sites(labels)
            file.close()
        if not report.genes:
            raise InputError("no genes to write; the base-layer pass was given an empty list")
    remove_stale(root / SCORES_FOLDER, base_model, {Path(name).name for name in report.files})
    logger.info("wrote %d genes, %d positions of %s", report.genes, report.positions, ", ".join(columns))
    return report


class _Chunk:
    """The rows of up to `GENES_PER_CHUNK` genes of one chromosome."""

    def __init__(self, chrom: str, first: int) -> None:
        self.chrom = chrom
        self.first = first
        self.genes: list[pl.DataFrame] = []

    def write(self, directory: Path, report: WriteReport) -> None:
        chunk = f"chunk_{self.first}_{self.first + len(self.genes) - 1}"
        name = f"analysis_sequences_{chrom_in_file_names(self.chrom)}_{chunk}.tsv"
        pl.concat(self.genes).write_csv(directory / name, separator="\t")
        report.files.append(name)


def artifact_rows(item: GeneTrack, seed: int, report: WriteReport | None = None) -> pl.DataFrame:
    """The artifact rows of one gene, ascending in position.

    Rows: every site (on the pass of its type), every non-site whose own-type score reaches
    `HARD_NEGATIVE_SCORE`, and true negatives drawn from the rest of either pass. A position is a row
    once: a donor before an acceptor, a site before a non-site, then the pass with the larger score.

    Args:
        item: the gene.
        seed: with the gene's id, draws the true negatives.
        report: gets the counts.

    Returns:
        n rows, columns `ARTIFACT_COLUMNS`.
    """
    report = report or WriteReport()
    length = len(item.gene)
    site_class, pass_of_site, lost = _site_rows(item.labels)
    own = np.full((2, length), -1.0)  # own-type score by pass; -1 where the pass has no base to read
    for kind in (DONOR, ACCEPTOR):
        at = intron_base(np.arange(length), kind)
        inside = (at >= 0) & (at < length)
        own[kind, at[inside]] = item.scores[inside, kind]
    is_site = site_class != NEITHER
    better = np.where(own[DONOR] >= own[ACCEPTOR], DONOR, ACCEPTOR)
    hard = ~is_site & (own.max(axis=0) >= HARD_NEGATIVE_SCORE)
    pass_of = np.where(is_site, pass_of_site, better)
    chosen = is_site | hard
    called = own[pass_of, np.arange(length)] >= CALL_THRESHOLD
    rng = np.random.default_rng([seed, zlib.crc32(item.gene.gene_id.encode())])
    for site_pass in (DONOR, ACCEPTOR):
        wanted = int((chosen & (pass_of == site_pass) & (is_site | called)).sum() * NEGATIVES_PER_SITE)
        pool = np.flatnonzero(~chosen & (own[site_pass] >= 0.0) & (own[site_pass] < HARD_NEGATIVE_SCORE))
        drawn = rng.choice(pool, size=min(wanted + NEGATIVES_PER_GENE, len(pool)), replace=False)
        chosen[drawn] = True
        pass_of[drawn] = site_pass
    position = np.flatnonzero(chosen)
    frame = _frame(item, position, pass_of[position], site_class[position], called[position])
    report.count_sites(item.labels)
    report.sites_without_row += lost
    for kind, count in frame.group_by("pred_type").len().iter_rows():
        report.rows[kind] += count
    return frame


def _site_rows(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.intp], int]:
    """Class and pass by intron base, (L,) each, and how many sites have no row of their own."""
    site_class = row_classes(labels)
    lost = int((labels != NEITHER).sum() - (site_class != NEITHER).sum())
    return site_class, np.where(site_class == ACCEPTOR, ACCEPTOR, DONOR), lost


def _pass_scores(
    scores: NDArray[np.float32], position: NDArray[np.intp], passes: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The seven scores of rows as their pass reads them, 0 in the context beyond the gene: float64 (n, 7)."""
    base = np.where(passes == DONOR, exon_base(position, DONOR), exon_base(position, ACCEPTOR))
    padded = np.zeros((len(scores) + 4, len(CLASSES)))
    padded[2:-2] = scores
    columns = [padded[base + 2, kind] for kind in (DONOR, ACCEPTOR, NEITHER)]
    columns += [padded[base + 2 + shift, passes] for shift in (-2, -1, 1, 2)]
    return np.stack(columns, axis=1)


def _transcripts(item: GeneTrack, position: NDArray[np.intp], site_class: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Transcripts with the site of each row, int64 (n,): 0 of no site, 1 where it is not known how many."""
    found: NDArray[np.int64] = (site_class != NEITHER).astype(np.int64)
    if item.marks is not None:
        for kind in (DONOR, ACCEPTOR):
            at = np.flatnonzero(site_class == kind)
            found[at] = np.maximum(1, item.marks.transcripts[exon_base(position[at], kind)])
    return found


def _frame(
    item: GeneTrack,
    position: NDArray[np.intp],
    passes: NDArray[np.intp],
    site_class: NDArray[np.uint8],
    called: NDArray[np.bool_],
) -> pl.DataFrame:
    gene, length = item.gene, len(item.gene)
    row_scores = _pass_scores(item.scores, position, passes)
    start = np.maximum(position - ARTIFACT_WINDOW_BP // 2, 0)
    end = np.minimum(position + ARTIFACT_WINDOW_BP // 2, length)
    letters = decode(item.tokens)
    site = site_class != NEITHER
    columns: dict[str, Any] = {name: row_scores[:, i] for i, name in enumerate(ROW_SCORES)}
    columns |= derived_features(row_scores)
    for name in ("donor_is_local_peak", "acceptor_is_local_peak"):
        columns[name] = columns[name].astype(np.int64)
    columns |= {
        "position": position,
        "score": row_scores[np.arange(len(position)), passes],
        "window_start": start,
        "window_end": end,
        "transcript_count": _transcripts(item, position, site_class),
        # A gene of one letter has no rows, and its sequences are text all the same.
        "sequence": pl.Series([letters[a:b] for a, b in zip(start, end, strict=True)], dtype=pl.String),
    }
    kinds = np.where(site, np.where(called, "TP", "FN"), np.where(called, "FP", "TN"))
    transcript = f"rna-{gene.gene_id}.1"
    frame = pl.DataFrame(columns).with_columns(
        pl.lit(f"gene-{gene.gene_id}").alias("gene_id"),
        pl.lit(gene.strand).alias("strand"),
        pl.lit(gene.interval.chrom).alias("chrom"),
        pl.Series("site", site),
        pl.Series("called", called),
        pl.Series("pred_type", kinds.astype(str)),
        pl.Series("class", site_class),
    )
    # As the base layer writes it: a non-site has "" for a transcript and null for what does not apply.
    return frame.with_columns(
        pl.when("site").then(pl.lit(transcript)).otherwise(pl.lit("")).alias("transcript_id"),
        pl.when("called").then("position").alias("predicted_position"),
        pl.when("site").then("position").alias("true_position"),
        pl.when("site")
        .then(pl.col("class").replace_strict([DONOR, ACCEPTOR, NEITHER], list(CLASSES), return_dtype=pl.String))
        .alias("splice_type"),
    ).select(ARTIFACT_COLUMNS)
