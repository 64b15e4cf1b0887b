"""Evidence as the track encoder reads it: numbers scaled by what training genes have, and whether there is one.

Axes: B batch, n positions, E pieces of evidence.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metalayer.models.constants import FEATURE_CLIP

_SAMPLE = 1_000_000
"""Numbers of a piece of evidence, at most, whose spread is looked at."""
_STRETCH = 1 << 20


class EvidenceScale(nn.Module):
    """Signed logarithm (counts of reads reach 1e5), robust centre and scale, clip, and a mask; 0 where missing.

    Attributes:
        dropout: share of crops in which a piece of evidence is missing in training.
        centre, scale: float32 (E,), of training genes.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, names: tuple[str, ...], dropout: float) -> None:
        """Of these names, unscaled before `fit`."""
        super().__init__()
        self.names, self.dropout = names, dropout
        self.register_buffer("centre", torch.zeros(len(names)))
        self.register_buffer("scale", torch.ones(len(names)))

    @torch.no_grad()
    def fit(self, evidence: NDArray[np.float32]) -> None:
        """Take centre (median) and scale (5th to 95th percentile, as in a normal) of training genes (N, E)."""
        for number in range(len(self.names)):
            values = _known(evidence[:, number])
            if not len(values):
                continue
            values = np.sign(values) * np.log1p(np.abs(values))
            low, middle, high = np.percentile(values, [5, 50, 95])
            spread = values.std()
            scale = (high - low) / 3.29 if high - low > 1e-6 else spread if spread > 1e-6 else 1.0
            self.centre[number], self.scale[number] = float(middle), float(scale)

    def forward(self, evidence: Tensor, inside: Tensor) -> Tensor:
        """Read evidence.

        Args:
            evidence: float32 (B, E, n), NaN where missing.
            inside: bool (B, 1, n), within the gene.

        Returns:
            float32 (B, 2 E, n): the numbers, then 1 where there is one.
        """
        known = ~evidence.isnan() & inside
        if self.training:
            known = known & (torch.rand(*evidence.shape[:2], 1, device=evidence.device) >= self.dropout)
        values = evidence.nan_to_num()
        compressed = torch.sign(values) * torch.log1p(values.abs())
        scaled = ((compressed - self.centre[:, None]) / self.scale[:, None]).clamp(-FEATURE_CLIP, FEATURE_CLIP)
        return torch.cat([scaled * known, known.to(scaled.dtype)], dim=1)

    def described(self) -> dict[str, dict[str, float]]:
        """By name the centre and scale of its signed logarithm ln(1 + |x|), and the dropout: JSON-ready."""
        return {
            name: {"centre": float(self.centre[i]), "scale": float(self.scale[i]), "dropout": self.dropout}
            for i, name in enumerate(self.names)
        }


def _known(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Numbers that are not missing, evenly thinned where there are very many."""
    stretches = range(0, len(values), _STRETCH)
    counts = [int((~np.isnan(values[at : at + _STRETCH])).sum()) for at in stretches]
    step, seen = max(1, -(-sum(counts) // _SAMPLE)), 0
    found = [np.empty(0, np.float64)]
    for at, count in zip(stretches, counts, strict=True):
        stretch = values[at : at + _STRETCH]
        found.append(stretch[~np.isnan(stretch)][-seen % step :: step].astype(np.float64))
        seen += count
    return np.concatenate(found)
