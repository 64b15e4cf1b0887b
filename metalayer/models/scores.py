"""The score encoder and its normalisation, whose statistics live in the model.

Statistics come from training rows alone (`FeatureNormaliser.fit`) and are saved with the weights, so
that a row gives the same numbers in training, evaluation, batch inference and serving.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metalayer.models.constants import FEATURE_CLIP
from metalayer.schema import FEATURES, RATIO_FEATURES


class FeatureNormaliser(nn.Module):
    """Signed logarithm of ratios, robust centre and scale, clip.

    Ratios reach 1e9 and more (a score over a context of 1e-10): after ln(1 + |x|) they reach 20.
    """

    is_ratio: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, features: tuple[str, ...] = FEATURES) -> None:
        super().__init__()
        self.register_buffer("is_ratio", torch.tensor([name in RATIO_FEATURES for name in features]))
        self.register_buffer("centre", torch.zeros(len(features)))
        self.register_buffer("scale", torch.ones(len(features)))

    def _compress(self, features: Tensor) -> Tensor:
        return torch.where(self.is_ratio, torch.sign(features) * torch.log1p(features.abs()), features)

    @torch.no_grad()
    def fit(self, features: NDArray[np.float32]) -> None:
        """Take centre (median) and scale (5th to 95th percentile, as in a normal) from training rows (n, F)."""
        values = self._compress(torch.from_numpy(features).to(self.is_ratio.device)).cpu().numpy().astype(np.float64)
        low, middle, high = np.percentile(values, [5, 50, 95], axis=0)
        scale = (high - low) / 3.29
        spread = values.std(axis=0)
        # A column that is nearly always the same (a peak flag): its standard deviation; constant: 1.
        scale = np.where(scale > 1e-6, scale, np.where(spread > 1e-6, spread, 1.0))
        self.centre.copy_(torch.from_numpy(middle))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, features: Tensor) -> Tensor:
        """Raw features float32 (..., F) to normalised ones of the same shape."""
        return ((self._compress(features) - self.centre) / self.scale).clamp(-FEATURE_CLIP, FEATURE_CLIP)


class ScoreEncoder(nn.Module):
    """Two layers over the normalised features: (..., F) to (..., H)."""

    def __init__(self, num_features: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.output_dim = hidden_dim
        self.layers = nn.Sequential(
            nn.Linear(num_features, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features (..., F) to (..., H)."""
        encoded: Tensor = self.layers(features)
        return encoded


class NoScores(nn.Module):
    """No score features."""

    output_dim = 0
