"""Labelled rows in memory, as tensors, and their batches.

Letters are uint8 tokens and become one-hot on the device; features are raw (the model normalises).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalayer.data.windows import encode_windows
from metalayer.errors import SchemaError
from metalayer.schema import ARTIFACT_WINDOW_BP, FEATURES


@dataclass(frozen=True)
class Batch:
    """B rows.

    Attributes:
        windows: uint8 (B, W), the labelled base at W // 2.
        features: float32 (B, F), raw.
        labels: int64 (B,).
        weights: float32 (B,).
        rows: int64 (B,), row numbers in the table.
    """

    windows: Tensor
    features: Tensor
    labels: Tensor
    weights: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        tensors = (self.windows, self.features, self.labels, self.weights, self.rows)
        return Batch(*(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True)
class RowTable:
    """All rows of one part.

    Attributes:
        frame: gene_id, chrom, position, splice_type, sequence, index of each row.
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
        """Rows of these genes from labelled rows, ordered by chromosome, gene and position.

        Raises:
            SchemaError: a feature or label column is missing.
        """
        scan = pl.scan_parquet(path)
        missing = [name for name in (*FEATURES, "label", "sample_weight") if name not in scan.collect_schema().names()]
        if missing:
            raise SchemaError(f"{path}: no column {', '.join(missing)}; label the rows that ArtifactLoader wrote")
        rows = scan.filter(pl.col("gene_id").is_in(list(gene_ids))).sort("chrom", "gene_id", "position").collect()
        return cls(
            frame=rows.select("gene_id", "chrom", "strand", "position", "splice_type", "sequence", "index"),
            windows=encode_windows(rows["sequence"], rows["index"].to_numpy(), window_bp),
            features=np.ascontiguousarray(rows.select(FEATURES).to_numpy(), dtype=np.float32),
            labels=rows["label"].to_numpy().astype(np.int64),
            weights=rows["sample_weight"].to_numpy().astype(np.float32),
        )


class RowLoader:
    """Batches of a table: every row once an epoch, in an order drawn anew from the seed.

    Indexing whole batches out of contiguous arrays, without worker processes, is faster than
    collating rows one by one.
    """

    def __init__(
        self,
        table: RowTable,
        batch_size: int,
        *,
        weights: NDArray[np.float32] | None = None,
        shuffle: bool = False,
        seed: int = 42,
    ) -> None:
        self.table = table
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._windows = torch.from_numpy(table.windows)
        self._features = torch.from_numpy(table.features)
        self._labels = torch.from_numpy(table.labels)
        self.weights = table.weights if weights is None else weights
        self._weights = torch.from_numpy(self.weights)
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def dataset(self) -> RowTable:
        """The table, under the name that torch's loaders give it."""
        return self.table

    def __len__(self) -> int:
        return math.ceil(len(self.table) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.table)
        order = torch.randperm(n, generator=self._generator) if self.shuffle else torch.arange(n)
        for start in range(0, n, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield Batch(self._windows[rows], self._features[rows], self._labels[rows], self._weights[rows], rows)
