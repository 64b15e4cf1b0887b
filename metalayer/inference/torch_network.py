"""A network of torch, asked and answered in arrays; `models/numpy_network.py` offers the same without torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalayer.models.meta import MetaSpliceModel, recalibrate
from metalayer.schema import POSITIONS

Floats = NDArray[np.float32]


class TorchNetwork:
    """A network on a device, in evaluation mode."""

    def __init__(self, model: MetaSpliceModel, device: str) -> None:
        self._model = model.to(device).eval()
        self.device = model.calibrator(POSITIONS).scale.device  # a model that is a stack alone has no weights

    @torch.inference_mode()
    def rows(self, letters: NDArray[np.uint8], features: Floats) -> Floats:
        """Log-probabilities before calibration of rows: letters (B, W) and features (B, F) to (B, C)."""
        return _array(self._model(self._tensor(letters), self._tensor(features)))

    @torch.inference_mode()
    def positions(
        self, letters: NDArray[np.uint8], features: Floats, tracks: Floats, base: Floats, masked: bool = False
    ) -> Floats:
        """Log-probabilities before calibration of n exon bases: arguments as of `NumpyNetwork.positions`."""
        given = (self._tensor(array).unsqueeze(0) for array in (letters, features, tracks, base))
        return _array(self._model(*given, masked=masked).squeeze(0))

    @torch.inference_mode()
    def calibrated(self, log_probabilities: Floats, way: str) -> Floats:
        """Calibrated probabilities of the log-probabilities (n, C) of a way of asking."""
        return _array(self._model.calibrate(self._tensor(log_probabilities), way))

    def base_probabilities(self, scores: Floats) -> Floats:
        """As the function, which computes on the CPU."""
        return base_probabilities(scores)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def base_probabilities(scores: Floats) -> Floats:
    """Base scores as a network reads them, (n, C) to (n, C): what it gives while it corrects nothing.

    Stored scores are rounded and add up to 1 only nearly; compared are distributions that do.
    """
    base = torch.from_numpy(np.ascontiguousarray(scores))
    return _array(torch.softmax(recalibrate(base, torch.zeros_like(base)), dim=-1))


def _array(answer: Tensor) -> Floats:
    found: Floats = answer.cpu().numpy()
    return found
