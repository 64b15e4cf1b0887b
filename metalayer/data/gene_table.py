"""The gene table: where each gene lies. TSV in, typed Parquet out, ids and chromosomes normalised once."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from metalayer.contigs import Contigs
from metalayer.errors import ArtifactError
from metalayer.file_kinds import read_table
from metalayer.genome import Gene
from metalayer.schema import GENE_COLUMNS

_REQUIRED = tuple(name for name in GENE_COLUMNS if name != "gene_name")


def normalised_gene_id(column: str = "gene_id") -> pl.Expr:
    """`gene-TP73` to `TP73`, as `genome.normalise_gene_id`, on a column."""
    return pl.col(column).cast(pl.String).str.strip_chars().str.replace("^gene[-:]", "")


def normalised_chrom(column: str = "chrom") -> pl.Expr:
    """`chr1` to `1`, as `genome.normalise_chrom`, on a column."""
    return pl.col(column).cast(pl.String).str.strip_chars().str.replace(r"^(?i)chr(.)", "$1")


def with_keys(frame: pl.DataFrame, contigs: Contigs) -> pl.DataFrame:
    """A frame whose `chrom`, of names without `chr`, has those that a table of aliases stands for."""
    if contigs.path is None:
        return frame
    keys = {name: contigs.key(name) for name in frame["chrom"].drop_nulls().unique().to_list()}
    return frame.with_columns(pl.col("chrom").replace(keys))


def read_gene_table(path: Path, contigs: Contigs | None = None) -> pl.DataFrame:
    """Read and check a gene table.

    Args:
        path: tab-separated.
        contigs: which names are of one chromosome; None for the rules alone.

    Returns:
        gene_id, gene_name, chrom, strand, start, end (1-based inclusive), paralog_group and contig (null where
        unknown or absent).

    Raises:
        ArtifactError: missing columns, values that are not a gene, duplicate ids.
    """
    content = read_table(path, "gene table", f"a table of {', '.join(GENE_COLUMNS)}, tab separated", ArtifactError)
    try:
        frame = pl.read_csv(content, separator="\t", infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"gene table {path}: {error}") from None
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        raise ArtifactError(
            f"gene table {path}: no column {', '.join(missing)}; needs {', '.join(GENE_COLUMNS)} (tab separated, "
            "start and end 1-based inclusive), paralog_group and contig are optional"
        )
    for name in ("gene_name", "paralog_group", "contig"):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    frame = frame.select(
        normalised_gene_id().alias("gene_id"),
        pl.col("gene_name").fill_null(""),
        normalised_chrom().alias("chrom"),
        pl.col("strand"),
        pl.col("start").cast(pl.Int64, strict=False),
        pl.col("end").cast(pl.Int64, strict=False),
        *(pl.when(pl.col(name).str.len_chars() > 0).then(name).alias(name) for name in ("paralog_group", "contig")),
    )
    frame = with_keys(frame, contigs or Contigs())
    wrong = frame.filter(
        pl.any_horizontal(
            pl.col("gene_id", "chrom", "strand", "start", "end").is_null(),
            ~pl.col("strand").is_in(["+", "-"]),
            pl.col("start") < 1,
            pl.col("end") < pl.col("start"),
        )
    )
    if len(wrong):
        raise ArtifactError(
            f"gene table {path}: {len(wrong)} lines are no gene, the first {wrong.row(0, named=True)}; needs strand + "
            "or - and 1 <= start <= end"
        )
    twice = frame.filter(pl.col("gene_id").is_duplicated())
    if len(twice):
        raise ArtifactError(f"gene table {path}: gene {twice['gene_id'][0]!r} stands there {len(twice)} times or more")
    return frame


def genes_from_frame(frame: pl.DataFrame) -> dict[str, Gene]:
    """Gene by id, from the columns that `read_gene_table` returns."""
    return {
        row["gene_id"]: Gene.from_table(
            row["gene_id"],
            row["chrom"],
            row["strand"],
            row["start"],
            row["end"],
            row["gene_name"] or "",
            row["paralog_group"],
        )
        for row in frame.iter_rows(named=True)
    }


def contigs_of(frame: pl.DataFrame) -> dict[str, str]:
    """Names of chromosomes in the user's files, by ours, from the columns that `read_gene_table` returns."""
    if "contig" not in frame.columns:  # as earlier versions wrote it
        return {}
    return dict(frame.select("chrom", "contig").drop_nulls().unique(maintain_order=True).iter_rows())


def load_genes(path: Path | None) -> dict[str, Gene]:
    """Gene by id from the typed Parquet; empty where there is no gene table."""
    return genes_from_frame(pl.read_parquet(path)) if path else {}
