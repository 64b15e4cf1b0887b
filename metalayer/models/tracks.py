"""The track encoder: the base model's donor and acceptor scores far around a base.

A 5-value context cannot say where the exon's other end is; the tracks can. Small networks of two kinds, which
err apart, read them, and their mean is taken.

- Stages: each reads, beside the bases next to one, the highest log-odds of either class at growing distances on
  either side: what an exon or intron of such a length would need there. It corrects the log-odds, and the next
  stage reads the corrected ones, so that what is learned of a site reaches the sites beyond it.
- A stack of dilated convolutions: every position near by, at its exact distance.

No padding, no normalisation, fixed offsets alone: a window says what the whole gene says. Outside the gene
tracks are 0.
Axes: B batch, n positions, C classes, T channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metalayer.models.encoders import crop
from metalayer.schema import NEITHER

PROBABILITY_SCALE = 4.0
LOG_ODDS_SHIFT, LOG_ODDS_LIMIT, LOG_ODDS_SCALE = 8.0, 16.0, 0.25
"""Log-odds of a class against neither, shifted and clipped to [0, 16]: odds from e^-8 to e^8 are told apart."""
WIDTH_BP = 11
"""Of the convolutions."""
DILATIONS = (1, 4, 16, 40)
"""Of the stack: it sees 305 bp on either side."""
_FLOOR = 1e-10
_CENTRE = 2.0
"""Scaled log-odds of even odds: subtracted from the maxima."""


def track_channels(tracks: Tensor) -> tuple[Tensor, Tensor]:
    """Base scores as the encoder reads them.

    Args:
        tracks: float32 (B, n, C), 0 outside the gene.

    Returns:
        Donor and acceptor probability, float32 (B, 2, n), and their log-odds against neither, (B, 2, n); both
        scaled, and 0 outside the gene.
    """
    tracks = tracks.transpose(1, 2)
    logarithm = tracks.clamp_min(_FLOOR).log()
    odds = (logarithm[:, :NEITHER] - logarithm[:, NEITHER:] + LOG_ODDS_SHIFT).clamp(0.0, LOG_ODDS_LIMIT)
    inside = tracks.sum(dim=1, keepdim=True) > 0
    return PROBABILITY_SCALE * tracks[:, :NEITHER], LOG_ODDS_SCALE * odds * inside


def maxima(values: Tensor, distances: Sequence[int], spare: int) -> Tensor:
    """The highest value at each range of distances upstream and downstream.

    Maxima over 1, 2, 4 ... positions, of which two overlapping ones cover any range: exact, whatever the block.

    Args:
        values: (B, K, n + 2 * spare).
        distances: ascending edges in bp: ranges [d0, d1), [d1, d2) ...
        spare: positions on either side, at least the last edge less 1.

    Returns:
        (B, 2 * K * (len(distances) - 1), n).
    """
    n = values.shape[-1] - 2 * spare
    doubled = [values]
    while 2 ** len(doubled) <= max(high - low for low, high in pairwise(distances)):
        last, step = doubled[-1], 2 ** (len(doubled) - 1)
        doubled.append(torch.maximum(last[..., :-step], last[..., step:]))
    found = []
    for low, high in pairwise(distances):
        level = (high - low).bit_length() - 1
        covered = doubled[level]
        for first in (spare - high + 1, spare + low):
            second = first + (high - low) - 2**level
            found.append(torch.maximum(covered[..., first : first + n], covered[..., second : second + n]))
    return torch.cat(found, dim=1)


def _last_layer(channels: int) -> nn.Conv1d:
    """Correction of the two log-odds and exon logit, zero before training."""
    layer = nn.Conv1d(channels, 3, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class TrackStage(nn.Module):
    """One reading of the tracks: features of each position, and what corrects its log-odds."""

    def __init__(
        self, channels: int, local_channels: int, distances: Sequence[int], dropout: float, first: bool
    ) -> None:
        super().__init__()
        self.distances = tuple(distances)
        self.spare = max(self.distances[-1] - 1, WIDTH_BP // 2)
        self.local = nn.Conv1d(4 if first else 5, local_channels, WIDTH_BP)
        read = local_channels + 4 + 4 * (len(self.distances) - 1)
        layers: list[nn.Module] = []
        for width in (read, channels):
            layers += [nn.Conv1d(width, channels, 1), nn.ReLU(), nn.Dropout1d(dropout)]
        self.mix = nn.Sequential(*layers)
        self.out = _last_layer(channels)

    def forward(self, probabilities: Tensor, odds: Tensor, exon: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Read (B, 2, n + 2 * spare) twice, and the last stage's exon logit, (B, 1, n + 2 * spare).

        Returns:
            Features (B, T, n), correction of the log-odds (B, 2, n) and exon logit (B, 1, n).
        """
        near = [probabilities, odds, *([] if exon is None else [exon])]
        local = functional.relu(self.local(crop(torch.cat(near, dim=1), self.spare - WIDTH_BP // 2)))
        far = maxima(odds, self.distances, self.spare) - _CENTRE
        here = [crop(probabilities, self.spare), crop(odds, self.spare)]
        features = self.mix(torch.cat([local, far, *here], dim=1))
        out = self.out(features)
        return features, out[:, :NEITHER], out[:, NEITHER:]


class TrackStages(nn.Module):
    """Stages one after the other, each with the log-odds that the one before corrected.

    Attributes:
        radius_bp: positions seen on either side of the one that is read.
    """

    def __init__(
        self, stages: int, channels: int, local_channels: int, distances: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            TrackStage(channels, local_channels, distances, dropout, first=number == 0) for number in range(stages)
        )
        self.radius_bp = sum(stage.spare for stage in self._each())

    def _each(self) -> Iterator[TrackStage]:
        for stage in self.stages:
            assert isinstance(stage, TrackStage)
            yield stage

    def forward(self, probabilities: Tensor, odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read (B, 2, n + 2 * radius_bp) twice.

        Returns:
            Features (B, T, n), correction of the log-odds (B, 2, n) and exon logit (B, 1, n).
        """
        correction: Tensor | None = None
        exon: Tensor | None = None
        for stage in self._each():
            features, change, exon = stage(probabilities, odds, exon)
            correction = change if correction is None else crop(correction, stage.spare) + change
            probabilities, odds = crop(probabilities, stage.spare), crop(odds, stage.spare) + LOG_ODDS_SCALE * change
        assert correction is not None and exon is not None
        return features, correction, exon


class DilatedStack(nn.Module):
    """A residual stack of dilated convolutions.

    Attributes:
        radius_bp: positions seen on either side of the one that is read.
    """

    def __init__(self, channels: int, stack_channels: int, dropout: float) -> None:
        super().__init__()
        self.radius_bp = WIDTH_BP // 2 * sum(DILATIONS)
        self.read = nn.Conv1d(4, stack_channels, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(stack_channels, stack_channels, WIDTH_BP, dilation=dilation) for dilation in DILATIONS
        )
        self.mix = nn.Sequential(nn.Conv1d(stack_channels, channels, 1), nn.ReLU(), nn.Dropout1d(dropout))
        self.out = _last_layer(channels)

    def forward(self, probabilities: Tensor, odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `TrackStages.forward`."""
        x = functional.relu(self.read(torch.cat([probabilities, odds], dim=1)))
        for layer, dilation in zip(self.layers, DILATIONS, strict=True):
            x = crop(x, WIDTH_BP // 2 * dilation) + functional.relu(layer(x))
        features = self.mix(x)
        out = self.out(features)
        return features, out[:, :NEITHER], out[:, NEITHER:]


class TrackEncoder(nn.Module):
    """The mean of several small networks, each of which learns from its own share of the crops.

    A few hundred sites fix a network only loosely; the mean of several that erred apart errs less. In
    training each crop goes to one of them, so that all together cost what one does.

    Attributes:
        radius_bp: positions seen on either side of the one that is read.
        output_dim: channels T.
    """

    def __init__(
        self,
        members: int = 1,
        dilated_members: int = 1,
        stages: int = 2,
        channels: int = 24,
        local_channels: int = 12,
        stack_channels: int = 16,
        distances: Sequence[int] = (1, 4, 10, 20, 35, 55, 80, 110, 150, 200, 300, 500),
        dropout: float = 0.0,
    ) -> None:
        """Build the encoder.

        Args:
            members: networks of stages.
            dilated_members: stacks of dilated convolutions beside them.
            stages: readings of a network of stages, every one as far as the last distance.
            channels: T.
            local_channels: of a stage's convolution over the bases next to one.
            stack_channels: of the dilated convolutions.
            distances: edges in bp of the ranges whose maxima are read, on either side.
            dropout: share of channels dropped in training.
        """
        super().__init__()
        self.output_dim = channels
        staged = [TrackStages(stages, channels, local_channels, distances, dropout) for _ in range(members)]
        dilated = [DilatedStack(channels, stack_channels, dropout) for _ in range(dilated_members)]
        self.members = nn.ModuleList([*staged, *dilated])
        self.radius_bp = max(member.radius_bp for member in self._each())

    def _each(self) -> Iterator[TrackStages | DilatedStack]:
        for member in self.members:
            assert isinstance(member, TrackStages | DilatedStack)
            yield member

    def forward(self, tracks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read base scores.

        Args:
            tracks: float32 (B, n + 2 * radius_bp, C), 0 outside the gene.

        Returns:
            Features float32 (B, n, T); what corrects the log-odds of donor and acceptor against neither at
            exon bases, (B, n, 2); and the logit that a position is of an exon, (B, n).
        """
        inputs, count = track_channels(tracks), len(self.members)
        apart = self.training and len(tracks) >= count
        answers = []
        for i, member in enumerate(self._each()):
            share = slice(i, None, count) if apart else slice(None)
            answers.append(member(*(crop(x[share], self.radius_bp - member.radius_bp) for x in inputs)))
        if apart:
            order = torch.cat([torch.arange(i, len(tracks), count) for i in range(count)]).argsort()
            features, correction, exon = (torch.cat(part)[order] for part in zip(*answers, strict=True))
        else:
            features, correction, exon = (torch.stack(part).mean(dim=0) for part in zip(*answers, strict=True))
        return features.transpose(1, 2), correction.transpose(1, 2), exon.squeeze(1)
