"""The baseline of base-layer speed: the published network as it stands, dilated and padded, in 5,000-nt windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUPS = {80: ((11, 1),), 400: ((11, 1), (11, 4)), 2000: ((11, 1), (11, 4), (21, 10))}
GROUPS[10000] = (*GROUPS[2000], (41, 25))
WINDOW = 5_000


class ResidualUnit(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.batchnorm1, self.batchnorm2 = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
        padding = dilation * (width - 1) // 2
        self.conv1 = nn.Conv1d(32, 32, width, dilation=dilation, padding=padding)
        self.conv2 = nn.Conv1d(32, 32, width, dilation=dilation, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        act = nn.functional.leaky_relu
        h = self.conv1(act(self.batchnorm1(x), 0.1))
        return x + self.conv2(act(self.batchnorm2(h), 0.1))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(32, 32, 1)


class PlainSpliceAI(nn.Module):
    def __init__(self, flank: int) -> None:
        super().__init__()
        self.flank = flank
        self.initial_conv, self.initial_skip = nn.Conv1d(4, 32, 1), Skip()
        units: list[nn.Module] = []
        for width, dilation in GROUPS[flank]:
            units += [*(ResidualUnit(width, dilation) for _ in range(4)), Skip()]
        self.residual_units = nn.ModuleList(units)
        self.final_conv = nn.Conv1d(32, 3, 1)

    def forward(self, letters: Tensor) -> Tensor:
        """(B, 4, n + flank) to (B, 3, n): neither, acceptor, donor."""
        x = self.initial_conv(letters)
        skip = self.initial_skip.conv(x)
        for unit in self.residual_units:
            if isinstance(unit, Skip):
                skip = skip + unit.conv(x)
            else:
                x = unit(x)
        half = self.flank // 2
        return torch.softmax(self.final_conv(skip[..., half : skip.shape[-1] - half]), dim=1)
