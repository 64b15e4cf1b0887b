"""MetaLayerEvaluator: the metrics of a model on the rows of a loader.

It runs the model and puts its answers in the order of the table; what they mean is `evaluation.row_metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from metalayer.data.dataset import RowLoader
from metalayer.data.row_table import Rows
from metalayer.device import resolve_device
from metalayer.errors import EvaluationError
from metalayer.evaluation.row_metrics import check_labels, check_top_k_values, row_metrics
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import BASE_SCORES, CLASSES, ROWS, SCORE_FEATURES


class MetaLayerEvaluator:
    """Evaluates models on rows, with `row_metrics`."""

    def __init__(self, top_k_values: Sequence[int] = (10, 50, 100, 500)) -> None:
        """Set the k of the top-k accuracies.

        Raises:
            ConfigError: values that are not positive integers.
        """
        self.top_k_values = check_top_k_values(top_k_values)

    def evaluate_dataloader(
        self, model: MetaSpliceModel, loader: RowLoader, device: str | torch.device
    ) -> dict[str, Any]:
        """Metrics of a model's calibrated probabilities on every row of a loader.

        The order in which the loader gives the rows does not matter. Held are 21 bytes a row of answers,
        16 of chromosomes, and what `row_metrics` holds.

        Args:
            model: moved to `device`; its training or evaluation mode is as before afterwards.
            loader: gives each of its rows once; the table's frame has the column `chrom`.
            device: `cpu`, `cuda`, `mps`, `auto`, or a torch device.

        Returns:
            As of `row_metrics`, by chromosome too.

        Raises:
            ConfigError: a device that is not there.
            EvaluationError: rows that are left out or given twice, no chromosomes, and as in `row_metrics`.
        """
        chroms = _chromosomes(loader.table.frame)
        model.to(resolve_device(str(device)))
        with _evaluation_mode(model):
            labels, probabilities, rows = _answers(model, loader)
        return row_metrics(labels, probabilities, chroms[rows], self.top_k_values)

    def evaluate_base(self, loader: RowLoader) -> dict[str, Any]:
        """Metrics of the base model's own scores on the same rows.

        Args:
            loader: of the rows.

        Returns:
            As of `row_metrics`, by chromosome too.

        Raises:
            EvaluationError: no chromosomes, and as in `row_metrics`.
        """
        rows = np.sort(loader.rows)
        scores = loader.table.features[rows][:, [SCORE_FEATURES.index(name) for name in BASE_SCORES]]
        labels = loader.table.labels[rows].astype(np.uint8)
        return row_metrics(labels, scores, _chromosomes(loader.table.frame)[rows], self.top_k_values)


@torch.inference_mode()
def _answers(model: MetaSpliceModel, loader: RowLoader) -> tuple[NDArray[np.uint8], NDArray[np.float32], Rows]:
    """Labels (n,), calibrated probabilities (n, 3) and table rows (n,), in the order of the table."""
    n = len(loader.rows)
    labels = np.empty(n, dtype=np.uint8)
    probabilities = np.empty((n, len(CLASSES)), dtype=np.float32)
    came: list[Rows] = []
    given = 0
    device = next(model.parameters()).device
    for batch in loader:
        batch_labels = batch.labels.numpy()
        check_labels(batch_labels)
        at = slice(given, given + len(batch))
        given += len(batch)
        came.append(batch.rows.numpy())
        if given <= n:
            log_p = model(batch.windows.to(device), batch.features.to(device))
            probabilities[at] = model.calibrate(log_p, ROWS).float().cpu().numpy()
            labels[at] = batch_labels
    rows = np.concatenate([np.empty(0, np.int64), *came])
    order = np.argsort(rows, kind="stable")
    if not np.array_equal(rows[order], np.sort(loader.rows)):
        raise EvaluationError(
            f"the loader gave {given:,} rows, {len(np.unique(rows)):,} different ones, where it has {n:,}; evaluate "
            "with a loader that gives each row once"
        )
    return labels[order], probabilities[order], rows[order]


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is as it was (a frozen part may be in another mode than the rest)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _chromosomes(frame: pl.DataFrame) -> NDArray[np.object_]:
    """Chromosome of each row, (n,): one string a chromosome that its rows share, not one a row."""
    if "chrom" not in frame.columns:
        raise EvaluationError(f"the rows have no column chrom, only {', '.join(frame.columns)}")
    column = frame["chrom"]
    names = column.unique(maintain_order=True).to_list()
    if None in names:
        raise EvaluationError(f"{column.null_count():,} rows have no chromosome; fill in the column chrom")
    codes = column.cast(pl.Enum(names)).to_physical().to_numpy()
    chroms: NDArray[np.object_] = np.array(names, dtype=np.object_)[codes]
    return chroms
