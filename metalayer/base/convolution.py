"""Valid dilated convolutions, (B, L, C) to (B, L - (width - 1) * dilation, C), in two ways.

The sum over taps, and the spectrum: positions that lie a dilation apart are rows of a matrix, `SIZE` of which are a
piece. A piece is multiplied by the matrix of a Fourier transform, each frequency by its own matrix over channels, and
the result by that of the way back; what the end of the piece would wrap into its start is left out. A piece gives
`SIZE - width + 1` rows, and its work does not grow with the width. It is products of matrices alone, since what gathers
numbers for a fast transform takes longer than these. Both ways are float32 sums, equal up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 80
"""Rows of a piece."""
ROWS = 100
"""Positions that lie in one row of the pieces which are multiplied at a time."""
TAPS = {torch.float32: 10.0, torch.bfloat16: 20.0}
"""Taps of a sum, in its precision, that take as long as one position of a piece in float32: measured on Zen 4."""


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

    @property
    def width(self) -> int:
        """Taps."""
        return self.weight.shape[-1]

    @property
    def lost(self) -> int:
        """Positions by which the output is shorter."""
        return (self.width - 1) * self.dilation

    def __call__(self, x: Tensor) -> Tensor:
        """In the faster way, or most of it in one and what is left in the other."""
        step, per_piece = (SIZE - self.width + 1) * self.dilation, SIZE * self.dilation * TAPS[self.weight.dtype]
        length = x.shape[1] - self.lost
        if x.device.type != "cpu" or per_piece > step * self.width:
            return self.by_taps(x)
        pieces, left = divmod(length, step)
        pieces, left = (pieces + 1, 0) if left * self.width > per_piece else (pieces, left)
        if not pieces:
            return self.by_taps(x)
        out = self.by_spectrum(x, pieces)
        return torch.cat((out, self.by_taps(x[:, pieces * step :])), dim=1) if left else out[:, :length]

    def by_taps(self, x: Tensor) -> Tensor:
        """With oneDNN, in the one layout for which its kernels are as fast dilated as not; elsewhere undilated.

        OneDNN is named, so that torch takes no other kernel for short sequences: the numbers of a position do not
        depend on how many there are.
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

    def by_spectrum(self, x: Tensor, pieces: int) -> Tensor:
        """The positions of so many pieces, (B, pieces * step, C); beyond the end of `x` there is 0."""
        batch, _, channels = x.shape
        count, row = SIZE // 2 + 1, self.dilation * channels
        step, size = (SIZE - self.width + 1) * self.dilation, SIZE * self.dilation
        forth, back = _transform(x.device)
        back = back[: SIZE - self.width + 1]
        real, imaginary, negative, bias = self._spectrum
        out = torch.empty(batch, pieces * step, channels, device=x.device)
        places = [(number, piece * step) for number in range(batch) for piece in range(pieces)]
        at_a_time = min(max(1, ROWS // self.dilation), len(places))
        both = torch.empty(2, 2 * count * at_a_time * row, device=x.device)
        for first in range(0, len(places), at_a_time):
            some = places[first : first + at_a_time]
            found, made = both[:, : 2 * count * len(some) * row].view(2, 2 * count, len(some), row)
            for i, (number, start) in enumerate(some):
                piece = x[number, start : start + size].float()
                piece = functional.pad(piece, (0, 0, 0, size - len(piece))) if len(piece) < size else piece
                torch.mm(forth, piece.view(SIZE, row), out=found[:, i])
            cosine, sine = (half.view(count, -1, channels) for half in found.split(count))
            to_cosine, to_sine = (half.view(count, -1, channels) for half in made.split(count))
            torch.bmm(cosine, real, out=to_cosine).baddbmm_(sine, negative)
            torch.bmm(cosine, imaginary, out=to_sine).baddbmm_(sine, real)
            to_cosine[0] += bias
            for i, (number, start) in enumerate(some):
                torch.mm(back, made[:, i], out=out[number, start : start + step].view(-1, row))
        return out.to(x.dtype)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the weight: real, imaginary and negative imaginary part, (SIZE // 2 + 1, in, out); then of the bias."""
        taps = self.weight[:, :, 0].permute(2, 1, 0).double()
        found = torch.fft.rfft(taps, n=SIZE, dim=0).conj()
        real, imaginary = found.real.float().contiguous(), found.imag.float().contiguous()
        return real, imaginary, -imaginary, SIZE * self.bias.float()


@cache
def _transform(device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows to frequencies, real parts before imaginary ones, (SIZE + 2, SIZE), and back, (SIZE, SIZE + 2)."""
    angle = 2 * torch.pi / SIZE * torch.outer(torch.arange(SIZE // 2 + 1), torch.arange(SIZE)).double()
    cosine, sine = torch.cos(angle), -torch.sin(angle)
    often = torch.full((SIZE // 2 + 1, 1), 2.0 / SIZE).double()
    often[0] = often[-1] = 1 / SIZE
    forth, back = torch.cat((cosine, sine)), torch.cat((cosine * often, sine * often)).T
    return forth.float().to(device), back.float().contiguous().to(device)
