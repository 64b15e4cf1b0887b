"""Class labels from the annotation, sample weights from variants.

Labels stay the annotation's: donor 0, acceptor 1, neither 2 (which bases are sites: `base/introns.py` and
`site_labels.py`; which are ignored: `overlaps.py`). A variant only changes the weight of what it touches
(`variant_weights.py`); rows are never duplicated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from metalayer.data.class_label import class_code
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE, variant_weights
from metalayer.files import publish_file
from metalayer.schema import CLASSES
from metalayer.settings.sections import DataConfig


def label_rows(
    rows: Path,
    genes: Path | None,
    config: DataConfig,
    output: Path,
    genome_build: str | None,
    tracks: Path | None = None,
) -> dict[str, Any]:
    """Add `label` (UInt8) and `sample_weight` (Float32) to typed rows.

    With variants, `VARIANT_WEIGHTS_FILE` beside `output` says what they touch, rows and positions of whole genes.

    Args:
        rows: typed rows, `splice_type` in `CLASSES`.
        genes: the typed gene table; needed for variants.
        config: `variant_source`, `splicevardb_path`, `variant_radius_bp`.
        output: Parquet to publish.
        genome_build: build of the rows, which picks the variants' coordinates.
        tracks: canonical per-nucleotide scores, if there are any; read for variants.

    Returns:
        Class counts, and for variants what matched, what did not and why: JSON-ready.

    Raises:
        ArtifactError: variants asked for without a gene table, with an unknown build, or from a file
            without the needed columns.
    """
    frame = pl.scan_parquet(rows).with_columns(class_code())
    report: dict[str, Any] = {"variants": None}
    beside = output.with_name(VARIANT_WEIGHTS_FILE)
    if config.variant_source is None:
        beside.unlink(missing_ok=True)  # of other settings
        frame = frame.with_columns(pl.lit(1.0, dtype=pl.Float32).alias("sample_weight"))
    else:
        weights, report["variants"] = variant_weights(rows, genes, tracks, config, genome_build)
        with publish_file(beside) as draft:
            weights.table.write_parquet(draft, compression="zstd")
        of_rows = weights.table.filter(pl.col("unit") == "rows").select("gene_id", "position", "sample_weight")
        frame = frame.join(of_rows.lazy(), on=["gene_id", "position"], how="left", maintain_order="left").with_columns(
            pl.col("sample_weight").fill_null(1.0)
        )
    with publish_file(output) as draft:
        frame.sink_parquet(draft, compression="zstd")
    counted = pl.scan_parquet(output).group_by("splice_type").len().collect()
    report["classes"] = {name: 0 for name in CLASSES} | dict(counted.iter_rows())
    return report
