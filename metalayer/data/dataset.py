"""Labelled rows as arrays, and their batches.

Letters are uint8 tokens and become one-hot on the device; features are raw (the model normalises).
A batch is indexed out of contiguous (or memory-mapped) arrays as a whole, which is faster than
collating rows one by one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from metalayer.data.mapped import Columns, check_columns, map_parquet
from metalayer.data.row_table import IDENTITY, Rows, RowTable
from metalayer.data.states import MappedStates
from metalayer.errors import ConfigError
from metalayer.schema import ARTIFACT_WINDOW_BP, CLASSES


@dataclass(frozen=True)
class Batch:
    """B rows.

    Attributes:
        windows: uint8 (B, W), the labelled base at W // 2; or states of a frozen language model, float16 (B, D).
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

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return self.windows, self.features

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(
            self.windows.to(device, non_blocking=True),
            self.features.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.weights.to(device, non_blocking=True),
            self.rows,
        )

    def pin_memory(self) -> Batch:
        """In page-locked memory, from where a GPU fetches while it computes."""
        return Batch(
            self.windows.pin_memory(),
            self.features.pin_memory(),
            self.labels.pin_memory(),
            self.weights.pin_memory(),
            self.rows,
        )


class MetaLayerDataset(RowTable):
    """A training set on disk, mapped into memory: nothing of it is held but what is being read.

    The first use of its rows makes the mapped file (see `data.mapped`), and checks their values.
    """

    def __init__(
        self,
        data_path: str | Path,
        sequence_col: str = "sequence",
        feature_cols: Sequence[str] | None = None,
        label_col: str = "label",
        weight_col: str = "sample_weight",
        window_bp: int = ARTIFACT_WINDOW_BP,
    ) -> None:
        """Map a Parquet of `prepare_training_dataset`, or one like it.

        Args:
            data_path: Parquet with sequences, the seven row scores, labels and, for splitting, gene_id and
                chrom; perhaps `index` (0-based labelled base in the sequence, else its middle), derived
                features (43 or 50 columns, or fewer) and weights.
            sequence_col: transcript-sense letters.
            feature_cols: features to take from the file, None for all that are there; the rest of the 50 is
                computed from the row scores and the sequence.
            label_col: 0, 1, 2 or donor, acceptor, neither.
            weight_col: sample weights; a file without it weighs all rows 1.
            window_bp: width of the windows.

        Raises:
            ArtifactError: no such file, or no Parquet.
            SchemaError: columns that cannot be used; on first use, values that cannot (see `data.mapped`).
        """
        self.path = Path(data_path)
        self.window_bp = window_bp
        features = None if feature_cols is None else tuple(feature_cols)
        self._columns = Columns(sequence_col, features, label_col, weight_col)
        self._rows = check_columns(self.path, self._columns)

    def __len__(self) -> int:
        return self._rows

    def __getattr__(self, name: str) -> Any:
        """Map the file when an array, or read it when the frame, is first asked for."""
        if name in ("windows", "features", "labels", "weights"):
            self.__dict__.update(vars(map_parquet(self.path, self._columns, self.window_bp)))
        elif name == "frame":
            scan = pl.scan_parquet(self.path)
            there = scan.collect_schema().names()
            self.__dict__["frame"] = scan.select([name for name in IDENTITY if name in there]).collect()
        else:
            raise AttributeError(f"MetaLayerDataset has no attribute {name!r}")
        return self.__dict__[name]

    def beside(self, name: str) -> Path | None:
        """A file that `prepare_training_dataset` left beside the training set, or None."""
        path = self.path.with_name(name)
        return path if path.is_file() else None


class RowView(Dataset[Batch]):
    """Some rows of a table, each with the weight that it has here."""

    def __init__(self, table: RowTable, rows: Rows, weights: NDArray[np.float32]) -> None:
        self.table = table
        self.rows = rows
        self.weights = weights
        self.states: MappedStates | None = None

    @property
    def frame(self) -> pl.DataFrame:
        """Of the whole table: what `Batch.rows` counts in."""
        return self.table.frame

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Rows) -> Batch:
        rows = self.rows[at]
        return Batch(
            torch.from_numpy(self.table.windows[rows] if self.states is None else self.states[at]),
            torch.from_numpy(self.table.features[rows]),
            torch.from_numpy(self.table.labels[rows]),
            torch.from_numpy(self.weights[at]),
            torch.from_numpy(rows),
        )


class BatchSampler(Sampler[Rows]):
    """Which rows make each batch of each epoch: a function of seed and epoch, and nothing else.

    In several processes each takes its share of every batch, so that all together see the batches of one.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
    ) -> None:
        """Plan batches of `batch_size` of `n` rows.

        Args:
            n: rows.
            batch_size: rows a batch, over all processes.
            shuffle: draw another order each epoch.
            seed: draws it.
        """
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.rank, self.world_size = 0, 1
        self.epoch = 0
        self._chance: NDArray[np.float64] | None = None

    def balance(self, labels: NDArray[np.int64] | None) -> None:
        """Draw rows with replacement from now on, so that the classes of `labels` (n,) come equally often.

        None: every row once an epoch.
        """
        if labels is None:
            self._chance = None
            return
        share = 1.0 / np.bincount(labels, minlength=len(CLASSES))[labels]
        self._chance = np.asarray(share / share.sum(), dtype=np.float64)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def __iter__(self) -> Iterator[Rows]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        if self._chance is not None:
            order = rng.choice(self.n, self.n, p=self._chance)
        else:
            order = rng.permutation(self.n) if self.shuffle else np.arange(self.n)
        for start in range(0, self.n, self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.world_size]


class RowLoader(DataLoader[Batch]):
    """Batches of rows: every row once an epoch, in an order drawn again from the seed where it shuffles.

    Attributes:
        table: where the rows are.
        rows: their numbers there, int64 (n,).
        weights: float32 (n,), of each.
    """

    def __init__(
        self,
        table: RowTable,
        batch_size: int,
        *,
        rows: Rows | None = None,
        weights: NDArray[np.float32] | None = None,
        shuffle: bool = False,
        seed: int = 42,
        num_workers: int = 0,
    ) -> None:
        """Load rows of a table.

        Args:
            table: in memory or mapped.
            batch_size: rows a batch.
            rows: which rows; None takes all.
            weights: of those rows; None takes the table's.
            shuffle: in another order each epoch.
            seed: draws the order.
            num_workers: processes that fetch; 0 fetches in this one.

        Raises:
            ConfigError: an impossible batch size.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: given {batch_size}; a batch holds at least 1 row")
        self.table = table
        self.rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
        self._weights = table.weights[self.rows] if weights is None else weights
        self.weights = self._weights
        self.rows_in_batch = batch_size
        self.batches = BatchSampler(len(self.rows), batch_size, shuffle=shuffle, seed=seed)
        super().__init__(
            RowView(table, self.rows, self.weights),
            batch_size=None,
            sampler=self.batches,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # seeds workers; torch's own generator is the dropout's
        )

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of this epoch."""
        self.batches.set_epoch(epoch)

    @property
    def seed(self) -> int:
        """Draws the order."""
        return self.batches.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.batches.seed = seed

    @property
    def loss_scale(self) -> float:
        """One over the mean weight of the rows."""
        return 1.0 / float(self.weights.mean())

    @property
    def identity(self) -> bytes:
        """Of which rows these are: a hash of their numbers and labels."""
        order = np.argsort(self.rows)
        return hashlib.sha256(self.rows[order].tobytes() + b"|" + self.labels[order].tobytes()).digest()

    def share(self, rank: int, world_size: int) -> None:
        """Give this process its share of every batch from now on."""
        self.batches.rank, self.batches.world_size = rank, world_size

    def balance(self, on: bool = True) -> None:
        """Draw rows, with replacement, so that the classes come equally often from now on; or every row once.

        Balanced rows weigh what the table says: the positions that they stand for would undo the balance.

        Raises:
            ConfigError: a class that has no row.
        """
        view = self.dataset
        assert isinstance(view, RowView)
        self.weights = view.weights = self.table.weights[self.rows] if on else self._weights
        if not on:
            self.batches.balance(None)
            return
        absent = [name for i, name in enumerate(CLASSES) if not (self.labels == i).any()]
        if absent:
            raise ConfigError(f"balance_classes: there is no row of class {', '.join(absent)} to draw")
        self.batches.balance(self.labels)

    def use_states(self, states: MappedStates | None) -> None:
        """Give states of a frozen language model, one of each row, in place of windows from now on; or windows."""
        view = self.dataset
        assert isinstance(view, RowView)
        view.states = states
        self._iterator = None  # workers that stay have copies of what they were started with

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes of the rows, int64 (n,)."""
        return self.table.labels[self.rows]

    @property
    def features(self) -> NDArray[np.float32]:
        """Raw features of the rows, float32 (n, F)."""
        return self.table.features[self.rows]


def _as_it_is(batch: Any) -> Any:
    return batch
