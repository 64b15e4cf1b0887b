"""Labelled rows as arrays: letters, features, labels and which gene each row is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.windows import encode_windows
from metalayer.errors import SchemaError
from metalayer.schema import ARTIFACT_WINDOW_BP, FEATURES

Rows = NDArray[np.int64]
"""Numbers of rows."""
IDENTITY = ("gene_id", "chrom", "strand", "position", "splice_type")
"""Columns that say which row it is."""


@dataclass
class RowTable:
    """Rows with what a network reads of them.

    Attributes:
        frame: gene_id, chrom, position, splice_type ... of each row.
        windows: uint8 (n, W).
        features: float32 (n, F).
        labels: int64 (n,).
        weights: float32 (n,), the rows' own (from variants).
    """

    frame: pl.DataFrame
    windows: NDArray[np.uint8]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def read(cls, path: Path, gene_ids: Sequence[str], window_bp: int = ARTIFACT_WINDOW_BP) -> RowTable:
        """Rows of these genes in memory, ordered by chromosome, gene and position, with sequence and index.

        Raises:
            SchemaError: a feature or label column is missing.
        """
        scan = pl.scan_parquet(path)
        missing = [name for name in (*FEATURES, "label", "sample_weight") if name not in scan.collect_schema().names()]
        if missing:
            raise SchemaError(f"{path}: no column {', '.join(missing)}; label the rows that ArtifactLoader wrote")
        rows = scan.filter(pl.col("gene_id").is_in(list(gene_ids))).sort("chrom", "gene_id", "position").collect()
        return cls(
            frame=rows.select(*IDENTITY, "sequence", "index"),
            windows=encode_windows(rows["sequence"], rows["index"].to_numpy(), window_bp),
            features=np.ascontiguousarray(rows.select(FEATURES).to_numpy(), dtype=np.float32),
            labels=rows["label"].to_numpy().astype(np.int64),
            weights=rows["sample_weight"].to_numpy().astype(np.float32),
        )

    def of_genes(self, gene_ids: Sequence[str]) -> Rows:
        """Numbers of the rows of these genes, ascending."""
        return np.flatnonzero(self.frame["gene_id"].is_in(list(gene_ids)).to_numpy())

    def by_gene(self) -> list[tuple[str, str, slice]]:
        """gene_id, chrom and rows of each gene; rows of a gene follow each other, as `read` orders them."""
        gene_ids, chroms = self.frame["gene_id"].to_numpy(), self.frame["chrom"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], gene_ids[1:] != gene_ids[:-1]]))
        ends = np.append(starts[1:], len(gene_ids))
        return [
            (str(gene_ids[start]), str(chroms[start]), slice(int(start), int(end)))
            for start, end in zip(starts, ends, strict=True)
        ]
