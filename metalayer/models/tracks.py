"""The track encoder: the base model's donor and acceptor scores far around a base.

A 5-value context cannot say where the exon's other end is; the tracks can. Dilated convolutions
without padding, pooling or normalisation read them, so a window says what the whole gene says. Outside
the gene the tracks are 0, which is no probability and is told apart from a base without a site.
Axes: B batch, n positions, C classes, T channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from metalayer.models.encoders import crop
from metalayer.schema import NEITHER

PROBABILITY_SCALE = 4.0
LOG_ODDS_SHIFT, LOG_ODDS_LIMIT, LOG_ODDS_SCALE = 8.0, 16.0, 0.25
"""Log-odds of a class against neither, shifted and clipped to [0, 16]: odds from e^-8 to e^8 are told apart."""
_FLOOR = 1e-10


def track_channels(tracks: Tensor) -> Tensor:
    """Base scores as the encoder reads them.

    Args:
        tracks: float32 (B, n, C), 0 outside the gene.

    Returns:
        float32 (B, 5, n): donor and acceptor probability, their log-odds against neither (0 outside), and
        whether the position lies in the gene.
    """
    inside = (tracks.sum(dim=-1, keepdim=True) > 0).to(tracks.dtype)
    logarithm = tracks.clamp_min(_FLOOR).log()
    odds = (logarithm[..., :NEITHER] - logarithm[..., NEITHER:] + LOG_ODDS_SHIFT).clamp(0.0, LOG_ODDS_LIMIT)
    channels = [PROBABILITY_SCALE * tracks[..., :NEITHER], LOG_ODDS_SCALE * odds * inside, inside]
    return torch.cat(channels, dim=-1).transpose(1, 2)


class TrackEncoder(nn.Module):
    """A residual stack of dilated convolutions over the two tracks.

    Attributes:
        radius_bp: positions seen on either side of the one that is read.
        output_dim: channels T.
    """

    def __init__(
        self,
        channels: int = 16,
        kernel_size: int = 11,
        dilations: Sequence[int] = (1, 4, 16, 40),
    ) -> None:
        """Build the encoder.

        Args:
            channels: T.
            kernel_size: odd width of each convolution.
            dilations: of each convolution, in bp.
        """
        super().__init__()
        self.output_dim = channels
        self.spare = tuple(kernel_size // 2 * step for step in dilations)
        self.radius_bp = sum(self.spare)
        self.mix = nn.Conv1d(5, channels, 1)
        self.stack = nn.ModuleList(nn.Conv1d(channels, channels, kernel_size, dilation=step) for step in dilations)

    def forward(self, tracks: Tensor) -> Tensor:
        """Base scores float32 (B, n + 2 * radius_bp, C), 0 outside the gene, to features float32 (B, n, T)."""
        x = self.mix(track_channels(tracks))
        for spare, conv in zip(self.spare, self.stack, strict=True):
            x = crop(x, spare) + functional.relu(conv(x))
        features: Tensor = x.transpose(1, 2)
        return features
