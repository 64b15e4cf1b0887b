"""Class labels from the annotation, sample weights from SpliceVarDB.

Labels stay the annotation's: donor 0, acceptor 1, neither 2. A variant only changes the weight of the
rows it touches (the largest weight wins, rows are never duplicated).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from metalayer.config import DataConfig
from metalayer.data.class_label import class_code
from metalayer.data.discovery import find_files
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_file
from metalayer.genome import intron_base, parse_variant
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

VARIANT_WEIGHTS: dict[str, float] = {
    "splice-altering": 2.0,
    "normal": 1.5,
    "non-splice-altering": 1.5,  # the spelling that code written for the file looks for
    "low-frequency": 0.5,
    "conflicting": 0.5,
}
"""Sample weight by SpliceVarDB classification; a row that no variant touches weighs 1."""
_COLUMN_OF_BUILD = {"GRCh38": "hg38", "GRCh37": "hg19"}


def label_rows(
    rows: Path, genes: Path | None, config: DataConfig, output: Path, genome_build: str | None
) -> dict[str, Any]:
    """Add `label` (UInt8) and `sample_weight` (Float32) to typed rows.

    Args:
        rows: typed rows, `splice_type` in `CLASSES`.
        genes: the typed gene table; needed for variants.
        config: `variant_source`, `splicevardb_path`, `variant_radius_bp`.
        output: Parquet to publish.
        genome_build: build of the rows, which picks the variants' coordinates.

    Returns:
        Class counts, and for variants what matched, what did not and why: JSON-ready.

    Raises:
        ArtifactError: variants asked for without a gene table, with an unknown build, or from a file
            without the needed columns.
    """
    frame = pl.scan_parquet(rows).with_columns(class_code())
    report: dict[str, Any] = {"variants": None}
    if config.variant_source is None:
        frame = frame.with_columns(pl.lit(1.0, dtype=pl.Float32).alias("sample_weight"))
    else:
        weights, report["variants"] = _variant_weights(rows, genes, config, genome_build)
        frame = frame.join(weights.lazy(), on=["gene_id", "position"], how="left", maintain_order="left").with_columns(
            pl.col("sample_weight").fill_null(1.0)
        )
    with publish_file(output) as draft:
        frame.sink_parquet(draft, compression="zstd")
    counted = pl.scan_parquet(output).group_by("splice_type").len().collect()
    report["classes"] = {name: 0 for name in CLASSES} | dict(counted.iter_rows())
    return report


def _variant_weights(
    rows: Path, genes: Path | None, config: DataConfig, genome_build: str | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """gene_id, position, sample_weight of the rows that a variant touches, and the counts."""
    if genes is None:
        raise ArtifactError(
            "data.variant_source needs a gene table, since artifact rows carry no genomic coordinate: put genes.tsv "
            "(gene_id, gene_name, chrom, strand, start, end) into data.data_root, or set data.gene_table"
        )
    if genome_build not in _COLUMN_OF_BUILD:
        raise ArtifactError(
            f"data.variant_source: SpliceVarDB has coordinates of {' and '.join(_COLUMN_OF_BUILD)}; the rows' build is "
            f"{genome_build!r}. Set data.genome_build"
        )
    variants, counts = _read_variants(config, _COLUMN_OF_BUILD[genome_build])
    # A variant touches every reference base it replaces; an insertion its anchor base.
    bases = variants.with_columns(
        pl.int_ranges(pl.col("start"), pl.col("start") + pl.col("span")).alias("base")
    ).explode("base")
    touched = _bases_of_rows(rows, genes, config.variant_radius_bp)
    hits = touched.join(bases.lazy(), on=["chrom", "base"], how="inner").collect()
    matched = set(hits["variant"].unique())
    weights = hits.group_by("gene_id", "position").agg(pl.col("weight").max().cast(pl.Float32).alias("sample_weight"))
    by_class = variants.with_columns(pl.col("variant").is_in(list(matched)).alias("hit"))
    counts |= {
        "matched": len(matched),
        "not_matched": len(variants) - len(matched),
        "matched_by_class": dict(by_class.filter("hit").group_by("classification").len().sort("classification").rows()),
        "rows_weighted": len(weights),
    }
    return weights, counts


def _read_variants(config: DataConfig, column: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    path = find_files(config).variants
    assert path is not None  # find_files raises where variants are asked for and not there
    try:
        # The file wraps some coordinates in literal quotes: read as text, quotes and all.
        table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{path}: {str(error).splitlines()[0]}") from None
    missing = [name for name in (column, "classification") if name not in table.columns]
    if missing:
        raise ArtifactError(f"{path}: no column {', '.join(missing)}; expected the SpliceVarDB download")
    places = pl.DataFrame(
        [_place(text) for text in table[column]],
        schema={"chrom": pl.String, "start": pl.Int64, "span": pl.Int64},
        orient="row",
    )
    kind = pl.col("classification").str.strip_chars('" ').str.to_lowercase()
    parsed = places.hstack(
        table.with_row_index("variant").select(
            "variant",
            kind.alias("classification"),
            kind.replace_strict(VARIANT_WEIGHTS, default=None, return_dtype=pl.Float64).alias("weight"),
        )
    )
    good = parsed.drop_nulls(["chrom", "start"])
    known = good.drop_nulls("weight")
    counts = {
        "in_file": len(table),
        "unreadable_coordinates": len(parsed) - len(good),
        "unknown_classification": len(good) - len(known),
    }
    return known, counts


def _place(text: str | None) -> tuple[str, int, int] | tuple[None, None, None]:
    """Chromosome, 0-based start and number of reference bases of a variant; None where it is no variant."""
    try:
        variant = parse_variant(text or "")
    except InputError:
        return None, None, None
    return variant.chrom, variant.interval.start, len(variant.interval)


def _bases_of_rows(rows: Path, genes: Path, radius_bp: int | None) -> pl.LazyFrame:
    """gene_id, position, chrom, base: the 0-based genomic bases at which a variant touches a row."""
    if radius_bp is None:
        # The labelled base and the two intron bases of its dinucleotide, transcript sense: a donor row
        # is the G of GT, an acceptor row the G of AG.
        reach = (
            pl.when(pl.col("splice_type") == "donor")
            .then(pl.lit(sorted((0, intron_base(0, DONOR)))))
            .when(pl.col("splice_type") == "acceptor")
            .then(pl.lit(sorted((0, intron_base(0, ACCEPTOR)))))
            .otherwise(pl.lit([0]))
        )
    else:
        reach = pl.lit(list(range(-radius_bp, radius_bp + 1)))
    at = pl.col("position").cast(pl.Int64) + pl.col("offset")
    return (
        pl.scan_parquet(rows)
        .select("gene_id", "position", "splice_type")
        .join(pl.scan_parquet(genes).select("gene_id", "chrom", "strand", "start", "end"), on="gene_id", how="inner")
        .with_columns(reach.alias("offset"))
        .explode("offset")
        .with_columns(
            pl.when(pl.col("strand") == "+")
            .then(pl.col("start") - 1 + at)
            .otherwise(pl.col("end") - 1 - at)
            .alias("base")
        )
        .select("gene_id", "position", "chrom", "base")
    )
