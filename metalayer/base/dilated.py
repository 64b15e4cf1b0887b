"""The dilated residual network that SpliceAI and those after it share, computed without waste.

Every convolution is valid, not padded: with the whole flank given, what padding would touch is cropped
anyway, so the result is the same. Blocks of a sequence follow each other: each unit keeps the last positions
that its convolutions have read and goes on from there, so nothing is computed twice. What is linear is folded:
the second normalisation of a unit into its first convolution, the letters into a table, skips and what reads
their sum into one matrix each. The residual stream is float32 whatever the convolutions are. Axes: C channels,
L positions; positions come first, since oneDNN is fastest where the channels of a position lie side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metalayer.base.convolution import Convolution, Dilated
from metalayer.base.origin import Origin
from metalayer.device import kernels, resolve_precision
from metalayer.genome import N_TOKEN, encode
from metalayer.schema import BASE_SCORES, SPLICED_SCORE

GROUPS = {
    80: ((11, 1),),
    400: ((11, 1), (11, 4)),
    2000: ((11, 1), (11, 4), (21, 10)),
    10000: ((11, 1), (11, 4), (21, 10), (41, 25)),
}
"""Flank (both sides, nt) to width and dilation of each group of units."""
UNITS = 4
"""Units in a group."""
CHANNELS = 32
BLOCK, BLOCK_OF_GPU = 12_000, 200_000
"""Positions computed at a time: on a CPU what lies between convolutions stays in its caches, and is small enough for
the C library to use its memory again; a GPU wants more of them."""
_CLASSES_OF = {BASE_SCORES: (2, 1, 0), (SPLICED_SCORE,): (1,)}
"""Scores to the network's classes: neither, acceptor, donor, or not spliced, spliced."""


class Normalisation(NamedTuple):
    """Of a batch, as learned: each (channels)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor


class UnitWeights(NamedTuple):
    """Of one residual unit, in the order of the computation."""

    norm_1: Normalisation
    conv_1: Convolution
    norm_2: Normalisation
    conv_2: Convolution


@dataclass(frozen=True)
class NetworkWeights:
    """What a file holds of one network, whatever it calls it.

    Attributes:
        flank: nt that the network sees, both sides together; a key of `GROUPS`.
        slope: of the leaky rectifier; 0 is the plain one.
        epsilon: of the normalisations.
        first: 1x1, letters to channels.
        skips: 1x1, of the first convolution's output, then of each group's.
        units: by group, `UNITS` each.
        last: 1x1, with a rectifier between where there are several: channels to classes, as neither, acceptor, donor.
        taps: numbers of units, ascending, counted over all groups from 0. `last` reads their outputs, the last unit's
            first, and the letters below the sum of the skips; none: that sum alone.
    """

    flank: int
    slope: float
    epsilon: float
    first: Convolution
    skips: tuple[Convolution, ...]
    units: tuple[tuple[UnitWeights, ...], ...]
    last: tuple[Convolution, ...]
    taps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Unit:
    """One residual unit: scale and shift of the first normalisation, then two convolutions in their own precision."""

    scale: Tensor
    shift: Tensor
    conv_1: Dilated
    conv_2: Dilated
    slope: float

    @property
    def lost(self) -> int:
        """Positions by which a convolution's output is shorter, and the unit's on either side."""
        return self.conv_1.lost

    def entered(self, x: Tensor) -> Tensor:
        """What the first convolution reads (..., C), in its precision: normalised and rectified."""
        return functional.leaky_relu_(torch.addcmul(self.shift, x, self.scale), self.slope).to(self.conv_1.weight.dtype)

    def __call__(self, x: Tensor, before: _Ends) -> tuple[Tensor, _Ends]:
        """Positions (L, C) to as many, `lost` behind; without ends of what went before, to (L - 2 lost, C)."""
        x = torch.cat((before.x, x))
        h = functional.leaky_relu_(self.conv_1.by_taps(self.entered(x)[None]), self.slope)[0]
        h = torch.cat((before.h, h))
        out = self.conv_2.by_taps(h[None])[0]
        ends = _Ends(x[-self.lost :].clone(), h[-self.lost :].clone())
        stop = len(x) - self.lost
        return x[stop - len(out) : stop].add_(out), ends


class _Ends(NamedTuple):
    """The last positions (lost, C) of what a unit's convolutions have read: with them it goes on at the next block."""

    x: Tensor
    h: Tensor


class Network:
    """One member of an ensemble.

    Attributes:
        half: letters that it sees on either side.
        dtype: of the convolutions.
        units: in their order.
        first: of each token, what the first unit reads: (tokens, C).
        reads: by the number of units before, what the sum before the last layers takes of their output: (numbers, C).
        letters: of each token, what that sum takes of the letter, with its bias: (tokens, numbers).
        last: layers behind the sum, each with a rectifier before it.
    """

    def __init__(self, weights: NetworkWeights, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.half = weights.flank // 2
        self.dtype = dtype
        self.units = [
            _unit(unit, weights.slope, weights.epsilon, dilation, device, dtype)
            for (_, dilation), group in zip(GROUPS[weights.flank], weights.units, strict=True)
            for unit in group
        ]

        def on_device(part: Tensor) -> Tensor:
            return part.float().to(device)

        first, (head, *last) = _matrix(weights.first), map(_matrix, weights.last)
        self.first = on_device(_of_letters(*first))
        skips, *tapped = torch.split(head.weight, CHANNELS, dim=1)  # the skips' sum, taps, letters
        reads = {UNITS * group: skips @ _matrix(skip).weight for group, skip in enumerate(weights.skips)}
        for tap, read in zip(reversed(weights.taps), tapped, strict=False):
            reads[tap + 1] = reads.get(tap + 1, 0) + read
        self.reads = {point: on_device(read) for point, read in reads.items()}
        letters = tapped[-1] if weights.taps else torch.zeros(len(skips), N_TOKEN, dtype=torch.double)
        bias = head.bias + skips @ sum(_matrix(skip).bias for skip in weights.skips)
        self.letters = on_device(_of_letters(letters, bias))
        self.last = [Convolution(on_device(weight), on_device(bias)) for weight, bias in last]

    def __call__(self, tokens: Tensor, block: int) -> Tensor:
        """Letters int64 (n + flank) to probabilities (classes, n) in the network's order, `block` at a time."""
        out = functional.embedding(tokens, self.letters).T.contiguous()

        def read(point: int, x: Tensor, end: int) -> None:
            if point in self.reads:
                out[:, end - len(x) : end] += self.reads[point] @ x.T

        nothing = self.first.new_empty(0, CHANNELS)
        ends = [_Ends(nothing, nothing.to(self.dtype)) for _ in self.units]
        end = 0
        while end < len(tokens):
            x = functional.embedding(tokens[end : end + block + (0 if end else 2 * self.half)], self.first)
            end += len(x)
            read(0, x, end)
            lost = 0
            for number, unit in enumerate(self.units):
                x, ends[number] = unit(x, ends[number])
                lost += unit.lost
                read(number + 1, x, end - lost)
        return self.probabilities(out[:, self.half : len(tokens) - self.half])

    def probabilities(self, out: Tensor) -> Tensor:
        """The sum before the last layers, (numbers, n), to probabilities (classes, n) in the network's order."""
        for weight, bias in self.last:
            out = torch.addmm(bias[:, None], weight, functional.relu(out))
        return torch.softmax(out, dim=0)


def _matrix(convolution: Convolution) -> Convolution:
    """Of a width of 1: weight (out, in) and bias in double."""
    return Convolution(convolution.weight[:, :, 0].double(), convolution.bias.double())


def _of_letters(weight: Tensor, bias: Tensor) -> Tensor:
    """What a 1x1 convolution (out, letters) makes of each token: (tokens, out); N has no letter."""
    return torch.cat((weight.T, weight.new_zeros(1, len(weight)))) + bias


def _unit(weights: UnitWeights, slope: float, epsilon: float, dilation: int, device: str, dtype: torch.dtype) -> Unit:
    """Folded in double on the CPU, which every machine has; then moved in the precision of its use."""

    def normalisation(given: Normalisation) -> tuple[Tensor, Tensor]:
        norm = Normalisation(*(part.double() for part in given))
        scale = norm.weight / torch.sqrt(norm.variance + epsilon)
        return scale, norm.bias - norm.mean * scale

    def convolution(weight: Tensor, bias: Tensor) -> Dilated:
        flat = weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last)
        return Dilated(flat.to(device), bias.to(dtype).to(device), dilation)

    scale, shift = normalisation(weights.norm_1)
    folded, added = normalisation(weights.norm_2)
    weight, bias = weights.conv_1.weight.double(), weights.conv_1.bias.double()
    return Unit(
        scale.float().to(device),
        shift.float().to(device),
        convolution(weight * folded[:, None, None], bias * folded + added),
        convolution(*weights.conv_2),
        slope,
    )


class Ensemble:
    """Networks of one flank: the mean of their probabilities, at every base of a stretch of DNA.

    Attributes:
        name: as in `<base_model>_eval`.
        flank: nt that the networks see, both sides together.
        device: of the computation.
        weights: SHA-256 of each file, by name.
        origin: of the weights.
        columns: what the scores are; `BASE_SCORES`, or `SPLICED_SCORE` alone.
        neither_factor: by which the mean probability of neither is multiplied, before the three are divided by their
            sum.
        precision: of the convolutions, float32 or bfloat16; what lies between them is float32.
        kernels: the instructions that they run on.
        networks: the members.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[NetworkWeights],
        weights: Mapping[str, str],
        device: str,
        origin: Origin,
        *,
        precision: str = "float32",
        columns: tuple[str, ...] = BASE_SCORES,
        neither_factor: float = 1.0,
    ) -> None:
        """Fold the weights of the members, which have one flank, and move them to the device.

        Raises:
            ConfigError: a precision that the device does not have (`resolve_precision`).
        """
        self.name, self.flank, self.device, self.weights = name, members[0].flank, device, dict(weights)
        self.origin, self.columns, self.neither_factor = origin, columns, neither_factor
        self.precision = resolve_precision(precision, device)
        self.kernels = kernels(device, self.precision)
        self.networks = [Network(member, device, getattr(torch, self.precision)) for member in members]

    @property
    def flank_bp(self) -> int:
        """Letters on either side that a score depends on."""
        return self.flank // 2

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        """Like `BaseModel.score`: float32 (L, 3), donor, acceptor, neither, at exon bases; or (L, 1), spliced."""
        n, half = len(sequence), self.flank_bp
        tokens = np.full(n + 2 * half, N_TOKEN, dtype=np.uint8)
        before, after = encode(upstream)[-half:] if upstream else encode(""), encode(downstream)[:half]
        tokens[half - len(before) : half] = before
        tokens[half : half + n] = encode(sequence)
        tokens[half + n : half + n + len(after)] = after
        return self.score_tokens(tokens)

    @torch.inference_mode()
    def score_tokens(self, tokens: NDArray[np.uint8], block: int | None = None) -> NDArray[np.float32]:
        """Tokens uint8 (L + flank) to float32 (L, columns), `block` positions at a time."""
        block = block or (BLOCK if self.device == "cpu" else BLOCK_OF_GPU)
        letters = torch.from_numpy(tokens.astype(np.int64)).to(self.device)
        total: Any = sum(network(letters, block) for network in self.networks)
        return self.scores(total)

    def scores(self, total: Tensor) -> NDArray[np.float32]:
        """The sum over the networks of their probabilities, (classes, L), to float32 (L, columns)."""
        mean = total / len(self.networks)
        if self.neither_factor != 1.0:
            mean[0] *= self.neither_factor
            mean /= mean.sum(dim=0)
        return np.ascontiguousarray(mean[list(_CLASSES_OF[self.columns])].T.cpu().numpy())
