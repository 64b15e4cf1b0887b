"""What a kind of file calls the layers of the dilated network: the tensors to expect, and the network they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from metalayer.base.convolution import Convolution
from metalayer.base.dilated import CHANNELS, GROUPS, NetworkWeights, Normalisation, UnitWeights

Shape = tuple[int, ...]


class UnitNames(NamedTuple):
    """Names of the layers of one residual unit."""

    norm_1: str
    conv_1: str
    norm_2: str
    conv_2: str


@dataclass(frozen=True)
class Layout:
    """Names of layers, and how the tensors of a layer are called and lie.

    Attributes:
        flank: as in `NetworkWeights`, like `slope` and `epsilon`.
        first: layer; also in `skips` and `units` (by group).
        lasts: last layers, which read the sum of the skips, and how many numbers each gives.
        convolution: ends of the names of a convolution's weight and bias.
        normalisation: ends of the names of a normalisation's weight, bias, mean and variance.
        is_keras: weights of convolutions are (width, in, out); else (out, in, width).
    """

    flank: int
    slope: float
    epsilon: float
    first: str
    skips: tuple[str, ...]
    units: tuple[tuple[UnitNames, ...], ...]
    lasts: Mapping[str, int]
    convolution: tuple[str, str] = (".weight", ".bias")
    normalisation: tuple[str, str, str, str] = (".weight", ".bias", ".running_mean", ".running_var")
    is_keras: bool = False

    def shapes(self) -> dict[str, Shape]:
        """Tensors of the network, by name."""
        shapes: dict[str, Shape] = {}

        def convolution(layer: str, out: int, channels: int, width: int) -> None:
            weight, bias = (layer + end for end in self.convolution)
            shapes[weight] = (width, channels, out) if self.is_keras else (out, channels, width)
            shapes[bias] = (out,)

        convolution(self.first, CHANNELS, 4, 1)
        for skip in self.skips:
            convolution(skip, CHANNELS, CHANNELS, 1)
        for (width, _), units in zip(GROUPS[self.flank], self.units, strict=True):
            for unit in units:
                for layer in (unit.conv_1, unit.conv_2):
                    convolution(layer, CHANNELS, CHANNELS, width)
                for layer in (unit.norm_1, unit.norm_2):
                    shapes |= {layer + end: (CHANNELS,) for end in self.normalisation}
        for layer, out in self.lasts.items():
            convolution(layer, out, CHANNELS, 1)
        return shapes

    def network(self, tensors: Mapping[str, Tensor], last: str) -> NetworkWeights:
        """The network of tensors that have these shapes, ending in one of the last layers."""

        def convolution(layer: str) -> Convolution:
            weight, bias = (tensors[layer + end] for end in self.convolution)
            return Convolution(weight.permute(2, 1, 0).contiguous() if self.is_keras else weight, bias)

        def normalisation(layer: str) -> Normalisation:
            return Normalisation(*(tensors[layer + end] for end in self.normalisation))

        def unit(names: UnitNames) -> UnitWeights:
            return UnitWeights(
                normalisation(names.norm_1),
                convolution(names.conv_1),
                normalisation(names.norm_2),
                convolution(names.conv_2),
            )

        return NetworkWeights(
            self.flank,
            self.slope,
            self.epsilon,
            convolution(self.first),
            tuple(map(convolution, self.skips)),
            tuple(tuple(map(unit, units)) for units in self.units),
            (convolution(last),),
        )
