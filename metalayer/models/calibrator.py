"""Calibration inside the model: what validation genes support of its corrections, and three numbers on top.

One `Calibrator` for each way of asking (`metalayer.schema.WAYS`) whose answers come out of the network on another
path. Its numbers are buffers: they travel with the weights and move with them from device to device.
Axes: C classes (donor, acceptor, neither).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metalayer.schema import CLASSES


class Calibrator(nn.Module):
    """Shrinkage factors of the corrections and softmax(scale * log p + bias); a new one changes nothing.

    Attributes:
        shrinkage: (C,), factors of the corrections of donor and acceptor log-odds, from 0 (base) to 1; neither's is 1.
        scale: (), on log-probabilities.
        bias: (C,), neither's is 0.
    """

    shrinkage: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shrinkage", torch.ones(len(CLASSES)))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("bias", torch.zeros(len(CLASSES)))

    def set_shrinkage(self, donor: float, acceptor: float) -> None:
        """Set the factors of the corrections."""
        self.shrinkage[:2] = self.shrinkage.new_tensor([donor, acceptor])

    def set_calibration(self, scale: float, bias: Sequence[float]) -> None:
        """Set scale and bias (donor, acceptor, neither)."""
        self.scale.fill_(scale)
        self.bias.copy_(self.bias.new_tensor(bias))

    @property
    def changes_nothing(self) -> bool:
        """Whether probabilities come out as they went in."""
        return float(self.scale) == 1.0 and not bool(self.bias.any())

    def forward(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated probabilities, float32 (..., C) to (..., C)."""
        return torch.softmax(self.scale * log_probabilities + self.bias, dim=-1)
