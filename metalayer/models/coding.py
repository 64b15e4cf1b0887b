"""What the letters say of coding: how like exons they read on either side of a base, and how far without a stop.

A site true to its motif bounds an exon on one side alone. Exons prefer other hexamers than introns do, which the
training genes count; and an exon that codes has no stop codon in one of the three frames. After GENSCAN (Burge and
Karlin 1997), without its frames. Every signal is read upstream and downstream alike, so that it can be mirrored.
Axes: B batch, n positions, m letters.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from metalayer.genome import N_TOKEN
from metalayer.models.constants import (
    CODING_CHANNELS,
    CODING_REACH_BP,
    CODING_SCALE,
    CODING_WINDOWS,
    HEXAMER,
    OPEN_BP,
    STOP_CODONS,
)

_PSEUDO_COUNT = 20_000.0
"""Hexamers of exons, as frequent as in introns, that are seen beside the real ones."""
_LIMIT = 2.0


class CodingSignals(nn.Module):
    """Six signals of each base, upstream and downstream each: mean hexamers of `CODING_WINDOWS`, and the open stretch.

    Attributes:
        reach_bp: letters read on either side of a base.
        channels: 6.
        hexamers: float32 (4096,), log frequency in exons less that in introns; 0 before `fit`.
    """

    hexamers: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.reach_bp, self.channels = CODING_REACH_BP, CODING_CHANNELS
        self.register_buffer("hexamers", torch.zeros(4**HEXAMER))

    def fit(self, tokens: NDArray[np.uint8], exons: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        """Count hexamers of training genes.

        Args:
            tokens: uint8 (N,), genes one after the other, transcript sense.
            exons: uint8 (N,), 1 in an exon, 0 in an intron, anything else unknown.
            starts: int64 (G + 1,), where each gene begins.
        """
        counts = np.zeros((2, 4**HEXAMER))
        for start, end in pairwise(starts.tolist()):
            number, known = _numbers(torch.from_numpy(np.array(tokens[start:end]))[None])
            states = exons[start : start + number.shape[1]]
            for state in (0, 1):
                chosen = number[0][known[0] & torch.from_numpy(states == state)]
                counts[state] += np.bincount(chosen.numpy(), minlength=counts.shape[1])
        intron = (counts[0] + 1) / (counts[0] + 1).sum()
        exon = (counts[1] + _PSEUDO_COUNT * intron) / (counts[1].sum() + _PSEUDO_COUNT)
        self.hexamers.copy_(torch.from_numpy(np.clip(np.log(exon / intron), -_LIMIT, _LIMIT)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Read letters.

        Args:
            tokens: uint8 (B, n + 2 * reach_bp), N outside the gene.

        Returns:
            float32 (B, 6, n): pairs of upstream and downstream.
        """
        n, reach = tokens.shape[1] - 2 * self.reach_bp, self.reach_bp
        number, known = _numbers(tokens)
        values = self.hexamers[number] * known
        signals = []
        for window in CODING_WINDOWS:
            means = CODING_SCALE * functional.avg_pool1d(values[:, None], window, stride=1)[:, 0]
            upstream = reach - HEXAMER + 1 - window + 1  # the last of them ends at the base
            signals += [means[:, upstream : upstream + n], means[:, reach : reach + n]]
        signals += [torch.log1p(bases) / 2 - 2 for bases in _open(tokens, reach, n)]
        return torch.stack(signals, dim=1)


def _numbers(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the hexamer that begins at each letter, int64 (B, m - 5), and whether all its letters are known."""
    count = max(0, tokens.shape[1] - HEXAMER + 1)
    number = torch.zeros((len(tokens), count), dtype=torch.int64, device=tokens.device)
    known = torch.ones((len(tokens), count), dtype=torch.bool, device=tokens.device)
    for i in range(HEXAMER):
        letters = tokens[:, i : i + count]
        number = 4 * number + letters.clamp_max(3)
        known &= letters != N_TOKEN
    return number, known


def _open(tokens: Tensor, reach: int, n: int) -> tuple[Tensor, Tensor]:
    """Bases without a stop codon in the best frame, up to each base and from it on, float32 (B, n) each."""
    codons = tokens.shape[1] - 2
    stop = torch.zeros((len(tokens), codons), dtype=torch.bool, device=tokens.device)
    for codon in STOP_CODONS:
        stop |= torch.stack([tokens[:, i : i + codons] == letter for i, letter in enumerate(codon)]).all(dim=0)
    places = torch.arange(codons, device=tokens.device)
    here = (places % 3 == torch.arange(3, device=tokens.device)[:, None]) & stop[:, None]
    far = 2 * codons
    before = torch.where(here, places, -far).cummax(dim=-1).values.amin(dim=1)
    after = torch.where(here, places, far).flip(-1).cummin(dim=-1).values.flip(-1).amax(dim=1)
    base = torch.arange(reach, reach + n, device=tokens.device)
    upstream = base - 2 - before[:, reach - 2 : reach - 2 + n]
    downstream = after[:, reach : reach + n] - base
    return upstream.clamp(0, OPEN_BP).float(), downstream.clamp(0, OPEN_BP).float()
