"""The track encoder: the base model's donor and acceptor scores far around a base.

A 5-value context cannot say where the exon's other end is; the tracks can. Each stage reads, beside the bases next
to one, the highest log-odds of either class at growing distances on either side: what an exon or intron of such a
length would need there. It corrects the log-odds, and the next stage reads the corrected ones, so that what is
learned of a site reaches the sites beyond it.

No padding, no normalisation, fixed offsets alone: a window says what the whole gene says. Outside the gene
tracks are 0.
Axes: B batch, n positions, C classes, T channels, E pieces of evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metalayer.models.coding import CodingSignals
from metalayer.models.constants import (
    LOG_ODDS_CENTRE,
    LOG_ODDS_LIMIT,
    LOG_ODDS_SCALE,
    LOG_ODDS_SHIFT,
    PROBABILITY_SCALE,
    TRACK_FLOOR,
    TRACK_WIDTH_BP,
)
from metalayer.models.encoders import crop
from metalayer.models.evidence import EvidenceScale
from metalayer.schema import CLASSES, NEITHER
from metalayer.settings.encoders import StageOptions


def track_channels(tracks: Tensor) -> tuple[Tensor, Tensor]:
    """Base scores as the encoder reads them.

    Args:
        tracks: float32 (B, n, C), 0 outside the gene.

    Returns:
        Donor and acceptor probability, float32 (B, 2, n), and their log-odds against neither, (B, 2, n); both
        scaled, and 0 outside the gene.
    """
    tracks = tracks.transpose(1, 2)
    logarithm = tracks.clamp_min(TRACK_FLOOR).log()
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

    def __init__(self, options: StageOptions, signals: int, first: bool, evidence: int = 0) -> None:
        super().__init__()
        channels, local_channels = options.channels, options.local_channels
        self.distances = tuple(options.distances)
        self.spare = max(self.distances[-1] - 1, TRACK_WIDTH_BP // 2)
        self.local = nn.Conv1d((4 if first else 5) + evidence, local_channels, TRACK_WIDTH_BP)
        read = local_channels + 4 + 4 * (len(self.distances) - 1) + signals + evidence
        layers: list[nn.Module] = []
        for width in (read, channels):
            layers += [nn.Conv1d(width, channels, 1), nn.ReLU(), nn.Dropout1d(options.dropout)]
        self.mix = nn.Sequential(*layers)
        self.out = _last_layer(channels)

    def forward(
        self, probabilities: Tensor, odds: Tensor, signals: Tensor, evidence: Tensor, exon: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read (B, 2, n + 2 * spare) twice, signals of the letters, evidence and the last exon logit, as long.

        Returns:
            Features (B, T, n), correction of the log-odds (B, 2, n) and exon logit (B, 1, n).
        """
        near = [probabilities, odds, evidence, *([] if exon is None else [exon])]
        local = functional.relu(self.local(crop(torch.cat(near, dim=1), self.spare - TRACK_WIDTH_BP // 2)))
        far = maxima(odds, self.distances, self.spare) - LOG_ODDS_CENTRE
        here = [crop(values, self.spare) for values in (probabilities, odds, signals, evidence)]
        features = self.mix(torch.cat([local, far, *here], dim=1))
        out = self.out(features)
        return features, out[:, :NEITHER], out[:, NEITHER:]


class TrackEncoder(nn.Module):
    """Stages one after the other, each with the log-odds that the one before corrected, read both ways.

    Exons read backwards, donors and acceptors swapped, are exons: in training each crop is read one way or the
    other by chance, which doubles what there is to learn from; afterwards the mean of both readings counts.

    Attributes:
        radius_bp: scores seen on either side of the position that is read.
        letters_bp: letters seen on either side; 0 where none are.
        output_dim: channels T.
        evidence: scales the evidence that it reads; None where it reads none.
    """

    def __init__(self, options: StageOptions, evidence: tuple[str, ...] = (), evidence_dropout: float = 0.0) -> None:
        """Build the encoder.

        Args:
            options: of the encoder.
            evidence: names of that which it reads.
            evidence_dropout: share of crops in which each is missing in training.
        """
        super().__init__()
        self.output_dim, self.both_ways = options.channels, options.both_ways
        self.coding = CodingSignals() if options.letters else None
        signals = 0 if self.coding is None else self.coding.channels
        self.evidence = EvidenceScale(evidence, evidence_dropout) if evidence else None
        self.stages = nn.ModuleList(
            TrackStage(options, signals, first=number == 0, evidence=2 * len(evidence))
            for number in range(options.stages)
        )
        self.radius_bp = sum(stage.spare for stage in self._each())
        self.letters_bp = 0 if self.coding is None else self.radius_bp + self.coding.reach_bp

    def _each(self) -> Iterator[TrackStage]:
        for stage in self.stages:
            assert isinstance(stage, TrackStage)
            yield stage

    def forward(self, tracks: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Read base scores.

        Args:
            tracks: float32 (B, n + 2 * radius_bp, C + E), scores, then evidence, NaN where missing; 0 outside the
                gene.
            tokens: uint8 (B, n + 2 * letters_bp), N outside the gene; not read without `letters`.

        Returns:
            Features float32 (B, n, T); what corrects the log-odds of donor and acceptor against neither at
            exon bases, (B, n, 2); and the logit that a position is of an exon, (B, n).
        """
        scores = tracks[..., : len(CLASSES)]
        probabilities, odds = track_channels(scores)
        signals = evidence = probabilities[:, :0]
        if self.evidence is not None:
            inside = scores.sum(dim=-1).unsqueeze(1) > 0
            evidence = self.evidence(tracks[..., len(CLASSES) :].transpose(1, 2), inside)
        if self.coding is not None:
            assert tokens is not None
            signals = self.coding(tokens)
        forwards = (probabilities, odds, signals)
        if not self.both_ways:
            answer = self._read(forwards, evidence)
        elif self.training:
            turned = torch.rand(len(tracks), 1, 1, device=tracks.device) < 0.5
            seen = (torch.where(turned, mirrored(x), x) for x in forwards)
            features, correction, exon = self._read(seen, torch.where(turned, evidence.flip(-1), evidence))
            answer = (
                torch.where(turned, features.flip(-1), features),
                torch.where(turned, mirrored(correction), correction),
                torch.where(turned, exon.flip(-1), exon),
            )
        else:
            features, correction, exon = self._read(forwards, evidence)
            back = self._read((mirrored(x) for x in forwards), evidence.flip(-1))
            answer = (
                (features + back[0].flip(-1)) / 2,
                (correction + mirrored(back[1])) / 2,
                (exon + back[2].flip(-1)) / 2,
            )
        features, correction, exon = answer
        return features.transpose(1, 2), correction.transpose(1, 2), exon.squeeze(1)

    def _read(self, given: Iterable[Tensor], evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read probabilities, odds and signals, and evidence: features (B, T, n), correction and exon logit.

        The correction of the log-odds is (B, 2, n), the exon logit (B, 1, n).
        """
        probabilities, odds, signals = given
        correction: Tensor | None = None
        exon: Tensor | None = None
        for stage in self._each():
            features, change, exon = stage(probabilities, odds, signals, evidence, exon)
            correction = change if correction is None else crop(correction, stage.spare) + change
            probabilities, signals, evidence = (crop(x, stage.spare) for x in (probabilities, signals, evidence))
            odds = crop(odds, stage.spare) + LOG_ODDS_SCALE * change
        assert correction is not None and exon is not None
        return features, correction, exon


def mirrored(values: Tensor) -> Tensor:
    """Pairs of channels (B, 2 k, n) read backwards: donor and acceptor, or upstream and downstream, change places."""
    batch, channels, n = values.shape
    return values.reshape(batch, channels // 2, 2, n).flip(-2, -1).reshape(values.shape)
