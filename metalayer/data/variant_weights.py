"""Sample weights from SpliceVarDB: which rows and which positions of genes a variant touches, and how much they weigh.

Both conventions of a site meet here. A row is labelled at an intron base (the G of GT or AG), a position at an exon
base; either is touched at its labelled base and at the two intron bases of its dinucleotide. The largest weight wins.
Weights act on what is learned: validation and the best epoch count every row or position alike. Shrinkage factors and
calibration do too, but leave out what is doubtful: what only variants of a weight below 1 touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.discovery import find_files
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, InputError
from metalayer.file_kinds import read_table
from metalayer.genome import Gene, intron_base, normalise_build, parse_variant
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER
from metalayer.settings.sections import DataConfig

VARIANT_WEIGHTS_FILE = "variant_weights.parquet"
"""Lies beside the labelled rows, where there are variants."""
VARIANT_WEIGHTS: dict[str, float] = {
    "splice-altering": 2.0,
    "normal": 1.5,
    "non-splice-altering": 1.5,  # the spelling that code written for the file looks for
    "low-frequency": 0.5,
    "conflicting": 0.5,
}
"""Sample weight by SpliceVarDB classification; what no variant touches weighs 1."""
Unit = Literal["rows", "positions"]
COLUMN_OF_BUILD = {"GRCh38": "hg38", "GRCh37": "hg19"}
"""Column of SpliceVarDB with the coordinates of a genome build."""
CLASSIFICATION = "classification"
_TOUCHED: dict[str, pl.DataType | type[pl.DataType]] = {
    "unit": pl.String,
    "gene_id": pl.String,
    "position": pl.Int32,
    "sample_weight": pl.Float32,
    "variants": pl.List(pl.UInt32),
}
"""Columns of the file: rows by intron base, positions by exon base (both transcript sense), and which lines of the
download touch them."""


@dataclass(frozen=True)
class VariantWeights:
    """Rows and positions that a variant touches, with their weights.

    Attributes:
        table: unit, gene_id, position, sample_weight, variants.
    """

    table: pl.DataFrame

    @classmethod
    def read(cls, path: Path | None) -> VariantWeights | None:
        """Of a file; None where there were no variants to weigh with."""
        return cls(pl.read_parquet(path)) if path is not None and path.is_file() else None

    def positions(self, gene_ids: Sequence[str]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Exon bases that weigh other than 1, and their weights, by gene."""
        chosen = self.table.filter((pl.col("unit") == "positions") & pl.col("gene_id").is_in(list(gene_ids)))
        return {
            str(part["gene_id"][0]): (part["position"].cast(pl.Int64).to_numpy(), part["sample_weight"].to_numpy())
            for part in chosen.partition_by("gene_id")
        }

    def doubtful(self, unit: Unit, gene_ids: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Rows (intron bases) or positions (exon bases) that weigh less than 1, by gene."""
        below = (pl.col("unit") == unit) & (pl.col("sample_weight") < 1.0) & pl.col("gene_id").is_in(list(gene_ids))
        return {
            str(part["gene_id"][0]): part["position"].cast(pl.Int64).to_numpy()
            for part in self.table.filter(below).partition_by("gene_id")
        }

    def used(self, unit: Unit, training: pl.DataFrame) -> dict[str, Any]:
        """What of it a training used.

        Args:
            unit: rows or positions.
            training: gene_id of the training genes; of rows also their position.

        Returns:
            source, unit, and the numbers of variants, of what they weigh and of its genes: JSON-ready.
        """
        here = self.table.filter(pl.col("unit") == unit).join(training.unique(), on=training.columns, how="semi")
        return {
            "source": "splicevardb",
            "unit": unit,
            "variants": here["variants"].explode().n_unique() if len(here) else 0,
            "weighed": len(here),
            "genes": here["gene_id"].n_unique(),
        }


def variant_weights(
    rows: Path, genes: Path | None, tracks: Path | None, config: DataConfig, genome_build: str | None
) -> tuple[VariantWeights, dict[str, Any]]:
    """Find what the variants touch.

    Args:
        rows: typed rows, `splice_type` in `CLASSES`.
        genes: the typed gene table.
        tracks: canonical per-nucleotide scores, whose positions are weighed; None: there are none.
        config: `splicevardb_path`, `variant_radius_bp`.
        genome_build: build of rows and tracks, which picks the variants' coordinates.

    Returns:
        The weights, and what matched, what did not and why: JSON-ready.

    Raises:
        ArtifactError: no gene table, an unknown build, or a file without the needed columns.
    """
    if genes is None:
        raise ArtifactError(
            "data.variant_source needs a gene table, since artifact rows carry no genomic coordinate: put genes.tsv "
            "(gene_id, gene_name, chrom, strand, start, end) into data.data_root, or set data.gene_table"
        )
    column = COLUMN_OF_BUILD.get(normalise_build(genome_build or ""))
    if column is None:
        raise ArtifactError(
            f"data.variant_source: SpliceVarDB has coordinates of {' and '.join(COLUMN_OF_BUILD)}; the rows' build is "
            f"{genome_build!r}. Set data.genome_build"
        )
    variants, report = _read_variants(config, column)
    # A variant touches every reference base it replaces; an insertion its anchor base.
    bases = variants.with_columns(
        pl.int_ranges(pl.col("start"), pl.col("start") + pl.col("span")).alias("base")
    ).explode("base")
    hits = _bases_of_rows(rows, genes, config.variant_radius_bp).join(
        bases.lazy().select("chrom", "base", "variant", "weight"), on=["chrom", "base"], how="inner"
    )
    of_rows = _largest("rows", hits.collect())
    report |= _matched(variants, of_rows, "rows_weighted")
    of_positions = pl.DataFrame(schema=_TOUCHED)
    report["positions"] = None
    if tracks is not None:
        of_positions = _largest("positions", _touched_positions(TrackStore(tracks), bases, config.variant_radius_bp))
        report["positions"] = _matched(variants, of_positions, "positions_weighted")
    return VariantWeights(pl.concat([of_rows, of_positions])), report


def _largest(unit: Unit, hits: pl.DataFrame) -> pl.DataFrame:
    """Each row or position once, with its largest weight and all its variants."""
    return (
        hits.group_by("gene_id", "position")
        .agg(
            pl.col("weight").max().alias("sample_weight"),
            pl.col("variant").unique().sort().alias("variants"),
        )
        .sort("gene_id", "position")
        .select(pl.lit(unit).alias("unit"), "gene_id", "position", "sample_weight", "variants")
        .cast({"position": pl.Int32, "sample_weight": pl.Float32, "variants": pl.List(pl.UInt32)})
    )


def _matched(variants: pl.DataFrame, touched: pl.DataFrame, weighted: str) -> dict[str, Any]:
    ids = touched["variants"].explode().drop_nulls().unique().to_list()
    hit = variants.filter(pl.col("variant").is_in(ids))
    return {
        "matched": len(ids),
        "not_matched": len(variants) - len(ids),
        "matched_by_class": dict(hit.group_by("classification").len().sort("classification").rows()),
        weighted: len(touched),
        "genes": touched["gene_id"].n_unique(),
    }


def _read_variants(config: DataConfig, column: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    path = find_files(config).variants
    assert path is not None  # find_files raises where variants are asked for and not there
    table = read_splicevardb(path, column)
    places = pl.DataFrame(
        [_place(text) for text in table[column]],
        schema={"chrom": pl.String, "start": pl.Int64, "span": pl.Int64},
        orient="row",
    )
    parsed = places.hstack(
        table.with_row_index("variant").select(
            "variant",
            CLASSIFICATION,
            pl.col(CLASSIFICATION)
            .replace_strict(VARIANT_WEIGHTS, default=None, return_dtype=pl.Float64)
            .alias("weight"),
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


def read_splicevardb(path: Path, column: str, error: type[InputError] = ArtifactError) -> pl.DataFrame:
    """The table of SpliceVarDB's download, all as text; classifications in small letters and without quotes.

    Args:
        path: of the file.
        column: that of the coordinates, which must be there.
        error: what to raise.

    Raises:
        InputError: another kind of file, or one without the needed columns; of the kind `error`.
    """
    content = read_table(path, "variants", "the SpliceVarDB download, tab separated", error)
    try:
        # The file wraps some coordinates in literal quotes: read as text, quotes and all.
        table = pl.read_csv(content, separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as cause:
        raise error(f"{path}: {str(cause).splitlines()[0]}") from None
    missing = [name for name in (column, CLASSIFICATION) if name not in table.columns]
    if missing:
        raise error(f"{path}: no column {', '.join(missing)}; expected the SpliceVarDB download")
    return table.with_columns(pl.col(CLASSIFICATION).str.strip_chars('" ').str.to_lowercase())


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


def _reach_of_positions(radius_bp: int | None) -> dict[int, tuple[int, ...]]:
    """By class: where a variant touches a position, as bases downstream of its exon base, transcript sense."""
    if radius_bp is not None:
        return dict.fromkeys(range(len(CLASSES)), tuple(range(-radius_bp, radius_bp + 1)))
    # A donor's exon base is followed by GT, an acceptor's preceded by AG.
    steps = {site_class: intron_base(0, site_class) for site_class in (DONOR, ACCEPTOR)}
    return {NEITHER: (0,)} | {site_class: (0, step, 2 * step) for site_class, step in steps.items()}


def _touched_positions(store: TrackStore, bases: pl.DataFrame, radius_bp: int | None) -> pl.DataFrame:
    """gene_id, position (exon base), variant, weight: every touch of a variant on a position of the store's genes."""
    reach = _reach_of_positions(radius_bp)
    furthest = max(abs(step) for steps in reach.values() for step in steps)
    by_chrom = {
        str(part["chrom"][0]): part.sort("base").select("base", "variant", "weight").to_numpy(structured=True)
        for part in bases.partition_by("chrom")
    }
    found = [
        pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "variant": pl.UInt32, "weight": pl.Float64})
    ]
    for gene_id, gene in store.genes().items():
        near = _near(gene, by_chrom, furthest)
        if not len(near):
            continue  # most genes have none, and are not read
        labels = store.read(gene_id).labels
        index = gene.index(near["base"].astype(np.int64))
        for site_class, steps in reach.items():
            for step in steps:
                at = index - step
                inside = np.flatnonzero((at >= 0) & (at < len(labels)))
                here = inside[labels[at[inside]] == site_class]
                found.append(
                    pl.DataFrame(
                        {"position": at[here], "variant": near["variant"][here], "weight": near["weight"][here]}
                    )
                    .cast({"variant": pl.UInt32})
                    .select(pl.lit(gene_id).alias("gene_id"), "position", "variant", "weight")
                )
    return pl.concat(found)


def _near(gene: Gene, by_chrom: Mapping[str, NDArray[Any]], furthest: int) -> NDArray[Any]:
    """The touched bases within a gene and `furthest` bp around it."""
    bases = by_chrom.get(gene.interval.chrom)
    if bases is None:
        return np.empty(0)
    low, high = np.searchsorted(bases["base"], [gene.interval.start - furthest, gene.interval.end + furthest])
    return bases[low:high]
