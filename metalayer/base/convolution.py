"""Valid dilated convolutions, (B, L, C) to (B, L - (width - 1) * dilation, C), in two ways.

The sum over taps, and for wide ones the spectrum: positions that lie a dilation apart are a sequence of their own, whose
pieces of `size` positions are transformed; each frequency is one product of matrices over channels, and what the end of
a piece would wrap into its start is left out. A piece gives `size - width + 1` positions, and the work does not grow
with the width. Both are float32 sums, equal to rounding; which of them is faster depends on the length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SIZES = (64, 96, 128, 168, 208, 256)
"""Positions of a piece; the spectrum of a weight is kept for each that was used."""
TAPS = {torch.float32: 11.0, torch.bfloat16: 22.0}
"""Taps of a sum that take as long as one position of a piece: measured on Zen 4."""


class Convolution(NamedTuple):
    """Weight (out, in, width) and bias (out)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Dilated:
    """A convolution with what its ways need.

    Attributes:
        weight: (out, in, 1, width), channels last, in the precision of the sum over taps.
        bias: (out).
        dilation: positions from tap to tap.
    """

    weight: Tensor
    bias: Tensor
    dilation: int
    _spectra: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        return self.weight.shape[-1]

    @property
    def lost(self) -> int:
        """Positions by which the output is shorter."""
        return (self.width - 1) * self.dilation

    def __call__(self, x: Tensor) -> Tensor:
        """In the faster way."""
        size, pieces = self.plan(x)
        return self.by_spectrum(x, size, pieces) if pieces else self.by_taps(x)

    def by_taps(self, x: Tensor) -> Tensor:
        """With oneDNN, in the one layout for which its kernels are as fast dilated as not; elsewhere undilated.

        OneDNN is named, so that torch takes no other kernel for short sequences: the numbers of a position do not depend
        on how many there are.
        """
        if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return self.by_copies(x)
        given, dilation = x.transpose(1, 2)[:, :, None], (1, self.dilation)
        out = torch.mkldnn_convolution(given, self.weight, self.bias, (0, 0), (1, 1), dilation, 1)
        return out[:, :, 0].transpose(1, 2)

    def by_copies(self, x: Tensor) -> Tensor:
        """Undilated on `dilation` interleaved copies of a part of the positions each."""
        batch, length, channels = x.shape
        rows = functional.pad(x, (0, 0, 0, -length % self.dilation)).view(batch, -1, self.dilation, channels)
        out = functional.conv1d(rows.permute(0, 2, 3, 1).flatten(0, 1), self.weight[:, :, 0], self.bias)
        out = out.view(batch, self.dilation, channels, -1).permute(0, 3, 1, 2)
        return out.reshape(batch, -1, channels)[:, : length - self.lost]

    def plan(self, x: Tensor) -> tuple[int, int]:
        """Size and number of pieces; none where the sum over taps is faster."""
        if x.device.type != "cpu" or not torch.backends.mkl.is_available():
            return 0, 0
        length = x.shape[1] - self.lost
        rows = -(-length // self.dilation)
        ways = ((size, -(-rows // (size - self.width + 1))) for size in SIZES if size > self.width)
        size, pieces = min(ways, key=lambda way: way[0] * way[1])
        is_faster = size * pieces * self.dilation * TAPS[self.weight.dtype] < length * self.width
        return (size, pieces) if is_faster else (0, 0)

    def by_spectrum(self, x: Tensor, size: int, pieces: int) -> Tensor:
        """In so many pieces of so many positions; in float32, then in the precision of `x`."""
        batch, given, channels = x.shape
        step, row = size - self.width + 1, self.dilation * channels
        needed = ((pieces - 1) * step + size) * self.dilation
        padded = functional.pad(x.float(), (0, 0, 0, max(0, needed - given))).contiguous()
        strides = (row, padded.shape[1] * channels, step * row, 1)
        found = torch.fft.rfft(padded.as_strided((size, batch, pieces, row), strides), dim=0)
        out = torch.bmm(found.reshape(len(found), -1, channels), self.spectrum(size))
        out[0] += size * self.bias.float()
        back = torch.fft.irfft(out.view(-1, batch, pieces, row), n=size, dim=0)[:step].permute(1, 2, 0, 3)
        return back.reshape(batch, -1, channels)[:, : given - self.lost].to(x.dtype)

    def spectrum(self, size: int) -> Tensor:
        """Of the weight: complex64 (size // 2 + 1, in, out)."""
        if size not in self._spectra:
            taps = self.weight[:, :, 0].permute(2, 1, 0).double()
            self._spectra[size] = torch.fft.rfft(taps, n=size, dim=0).conj().resolve_conj().to(torch.complex64)
        return self._spectra[size]
