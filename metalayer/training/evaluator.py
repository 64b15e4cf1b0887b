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
from metalayer.errors import EvaluationError
from metalayer.evaluation.row_metrics import check_labels, check_top_k_values, row_metrics
from metalayer.models.device import resolve_device
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import CLASSES


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

        The order in which the loader gives the rows does not matter. Held are 14 bytes a row of answers,
        8 of chromosomes, and what `row_metrics` holds.

        Args:
            model: moved to `device`; its training or evaluation mode is as before afterwards.
            loader: gives each row of its table once; the table's frame has the column `chrom`.
            device: `cpu`, `cuda`, `mps`, `auto`, or a torch device.

        Returns:
            As of `row_metrics`, by chromosome too.

        Raises:
            ConfigError: a device that is not there.
            EvaluationError: rows that are left out or given twice, no chromosomes, and as of `row_metrics`.
        """
        chroms = _chromosomes(loader.dataset.frame)
        model.to(resolve_device(str(device)))
        with _evaluation_mode(model):
            labels, probabilities = _answers(model, loader)
        return row_metrics(labels, probabilities, chroms, self.top_k_values)


@torch.inference_mode()
def _answers(model: MetaSpliceModel, loader: RowLoader) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels (n,) and calibrated probabilities (n, 3), in the order of the table."""
    n = len(loader.dataset)
    labels = np.empty(n, dtype=np.uint8)
    probabilities = np.empty((n, len(CLASSES)), dtype=np.float32)
    came = np.zeros(n, dtype=np.bool_)
    given = 0
    device = model.calibration_scale.device
    for batch in loader:
        rows, batch_labels = batch.rows.cpu().numpy(), batch.labels.cpu().numpy()
        check_labels(batch_labels)
        log_p = model(batch.windows.to(device), batch.features.to(device))
        probabilities[rows] = model.calibrate(log_p).float().cpu().numpy()
        labels[rows] = batch_labels
        came[rows] = True
        given += len(rows)
    if given != n or not came.all():
        raise EvaluationError(
            f"the loader gave {given:,} rows, {np.count_nonzero(came):,} different ones, of a table of {n:,}; evaluate "
            "with a loader that gives each row once"
        )
    return labels, probabilities


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
