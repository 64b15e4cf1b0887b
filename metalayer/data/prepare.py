"""From base-layer files to one training set on disk."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

import metalayer
from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.core.loader import GENES, ROWS, TRACKS
from metalayer.data.dataset import MetaLayerDataset
from metalayer.data.labels import label_rows
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE
from metalayer.files import publish_file
from metalayer.integrity import FILES, listed, write_json
from metalayer.provenance import code_hash
from metalayer.schema import CLASSES, FEATURE_SCHEMA

logger = logging.getLogger(__name__)

TRAINING_DATA, MANIFEST = "training_data.parquet", "manifest.json"
_FORMAT_VERSION = 2


class _Unset(Enum):
    FROM_CONFIG = "config.variant_source"


def prepare_training_dataset(
    config: MetaLayerConfig,
    variant_source: Literal["splicevardb"] | _Unset | None = _Unset.FROM_CONFIG,
    output_dir: str | Path = "data/meta_training",
) -> MetaLayerDataset:
    """Read, label and weigh the rows of a base model and write them as a training set.

    Writes `training_data.parquet` (gene_id, chrom, strand, position, index, sequence, splice_type, the 50
    features, label, sample_weight), `genes.parquet` and `tracks.parquet` where the base layer has them, with variants
    `variant_weights.parquet` (the rows and positions that they touch), and last of all `manifest.json` with the
    hashes of inputs and outputs. Rows pass through in batches.

    Args:
        config: which base model and files; `max_samples` and `seed` draw a sample of the rows.
        variant_source: where sample weights come from, None for no variants; left out, as configured.
        output_dir: folder to write.

    Returns:
        The training set, mapped.

    Raises:
        ArtifactError: base-layer files that cannot be used, or variants that are not there.
    """
    if not isinstance(variant_source, _Unset):
        config = config.model_copy(update={"variant_source": None})
        if variant_source is not None:
            config.variant_source = variant_source
    folder = Path(output_dir)
    loader = ArtifactLoader(config)
    (folder / MANIFEST).unlink(missing_ok=True)  # it would tell of other files
    with ThreadPoolExecutor(max_workers=1) as beside:
        hashed = beside.submit(loader.fingerprint)
        loaded = loader.load(folder, labelled=config.variant_source is None)
        data_hash = hashed.result()
    data = folder / TRAINING_DATA
    genes = folder / GENES
    variants = None
    if config.variant_source is None:
        (folder / ROWS).replace(data)
        (folder / VARIANT_WEIGHTS_FILE).unlink(missing_ok=True)  # of an earlier set
    else:
        known, tracks = (path if path.exists() else None for path in (genes, folder / TRACKS))
        variants = label_rows(folder / ROWS, known, config, data, loaded["genome_build"], tracks)["variants"]
        (folder / ROWS).unlink()
    if config.max_samples is not None:
        _sample(data, config.max_samples, config.seed)
    classes = dict(pl.scan_parquet(data).group_by("splice_type").len().collect().iter_rows())
    _write_manifest(
        folder,
        {
            "base_model": config.base_model,
            "data_hash": data_hash,
            "rows": sum(classes.values()),
            "classes": {name: int(classes.get(name, 0)) for name in CLASSES},
            "variants": variants,
            "loaded": loaded,
            "config": config.model_dump(mode="json"),
        },
    )
    return MetaLayerDataset(data)


def _sample(path: Path, n: int, seed: int) -> None:
    """Keep `n` rows drawn at random, in their order; all where there are no more."""
    total = pl.scan_parquet(path).select(pl.len()).collect().item()
    if n >= total:
        return
    logger.info("keeping %d of %d rows (max_samples)", n, total)
    kept = np.zeros(total, dtype=bool)
    kept[np.random.default_rng(seed).choice(total, n, replace=False)] = True
    with publish_file(path) as draft:
        numbered = pl.scan_parquet(path).with_row_index("row")
        chosen = pl.LazyFrame({"row": np.flatnonzero(kept).astype(np.uint32)})
        numbered.join(chosen, on="row", how="semi", maintain_order="left").drop("row").sink_parquet(
            draft, compression="zstd"
        )


def _write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    manifest = {
        "format": "metalayer training set",
        "format_version": _FORMAT_VERSION,
        "metalayer_version": metalayer.__version__,
        "code_hash": code_hash(),
        "schema_hash": FEATURE_SCHEMA.hash,
        **facts,
        FILES: listed(folder, (TRAINING_DATA, GENES, TRACKS, VARIANT_WEIGHTS_FILE)),
    }
    write_json(folder / MANIFEST, manifest)
