"""Sequence encoders: tokens around a labelled base, or a whole gene, to features of each base.

Every encoder is shift-equivariant and reads at the labelled base, so one set of weights serves
windows (training, serving) and whole genes (dense inference) with the same result. An encoder states
its `radius_bp`: the letters it sees on either side.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from metalayer.errors import ConfigError
from metalayer.genome import N_TOKEN


def one_hot(tokens: Tensor) -> Tensor:
    """Tokens uint8 (B, L) to float32 (B, 4, L); N is all zeros, never A."""
    letters = torch.arange(N_TOKEN, device=tokens.device, dtype=tokens.dtype)
    return (tokens.unsqueeze(1) == letters[:, None]).to(torch.float32)


class SequenceEncoder(nn.Module):
    """What every sequence encoder offers.

    Attributes:
        radius_bp: letters seen on either side of the base that is read.
        output_dim: channels E of the result.
    """

    radius_bp: int
    output_dim: int

    def forward(self, tokens: Tensor) -> Tensor:
        """Windows uint8 (B, 2 * radius_bp + 1) to float32 (B, E) at their centre."""
        raise NotImplementedError

    def dense(self, tokens: Tensor) -> Tensor:
        """A stretch uint8 (B, n + 2 * radius_bp) to float32 (B, n, E), one row a base."""
        raise NotImplementedError


class CnnEncoder(SequenceEncoder):
    """Motif detectors of several widths, then a pyramid of width-3 convolutions.

    Level i of the pyramid has dilation 2^i. Reading one base needs only every 2^i-th position of
    level i, so a window runs the same weights as strided convolutions: half the work a level, and
    about 1/100 of running the dilated stack over the whole window. No normalisation over positions
    and no pooling: what is read depends on the letters around the base and on nothing else.
    """

    def __init__(
        self,
        kernel_sizes: tuple[int, ...] | list[int] = (7, 11),
        num_filters: int = 32,
        output_dim: int = 64,
        levels: int = 6,
    ) -> None:
        """Build the encoder.

        Args:
            kernel_sizes: odd widths in bp of the motif detectors.
            num_filters: detectors of each width.
            output_dim: channels E.
            levels: pyramid levels; the pyramid sees 2^(levels + 1) - 1 detector positions.

        Raises:
            ConfigError: an even or non-positive width, or sizes below 1.
        """
        super().__init__()
        kernels = tuple(int(k) for k in kernel_sizes)
        if not kernels or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ConfigError(
                f"sequence_encoder_config.kernel_sizes: given {list(kernel_sizes)}; needs odd widths in bp"
            )
        for name, value, low, high in (
            ("num_filters", num_filters, 1, 4096),
            ("output_dim", output_dim, 1, 4096),
            ("levels", levels, 0, 12),
        ):
            if not low <= value <= high:
                raise ConfigError(f"sequence_encoder_config.{name}: given {value}; allowed {low} to {high}")
        self.output_dim = output_dim
        self.motif_radius_bp = max(kernels) // 2
        self.radius_bp = self.motif_radius_bp + 2**levels - 1
        self.motifs = nn.ModuleList(nn.Conv1d(4, num_filters, k) for k in kernels)
        self.mix = nn.Conv1d(num_filters * len(kernels), output_dim, 1)
        self.pyramid = nn.ModuleList(nn.Conv1d(output_dim, output_dim, 3) for _ in range(levels))

    @staticmethod
    def _convolutions(modules: nn.ModuleList) -> Iterator[nn.Conv1d]:
        for module in modules:
            assert isinstance(module, nn.Conv1d)
            yield module

    def _detect(self, tokens: Tensor) -> Tensor:
        letters = one_hot(tokens)
        length = letters.shape[-1]
        found = []
        for conv in self._convolutions(self.motifs):
            spare = self.motif_radius_bp - conv.kernel_size[0] // 2  # narrower detectors read the same centres
            found.append(conv(letters[..., spare : length - spare]))
        return functional.gelu(self.mix(functional.gelu(torch.cat(found, dim=1))))

    def forward(self, tokens: Tensor) -> Tensor:
        """Windows uint8 (B, 2 * radius_bp + 1) to float32 (B, E) at their centre."""
        x = self._detect(tokens)
        for conv in self._convolutions(self.pyramid):
            x = x[..., 1::2][..., : (x.shape[-1] - 1) // 2] + functional.gelu(
                functional.conv1d(x, conv.weight, conv.bias, stride=2)
            )
        return x.squeeze(-1)

    def dense(self, tokens: Tensor) -> Tensor:
        """A stretch uint8 (B, n + 2 * radius_bp) to float32 (B, n, E), one row a base."""
        x = self._detect(tokens)
        for level, conv in enumerate(self._convolutions(self.pyramid)):
            step = 2**level
            x = x[..., step:-step] + functional.gelu(functional.conv1d(x, conv.weight, conv.bias, dilation=step))
        return x.transpose(1, 2)


class NoEncoder(SequenceEncoder):
    """No sequence: the scores alone."""

    radius_bp = 0
    output_dim = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Nothing: float32 (B, 0)."""
        return torch.zeros((tokens.shape[0], 0), device=tokens.device)

    def dense(self, tokens: Tensor) -> Tensor:
        """Nothing: float32 (B, n, 0)."""
        return torch.zeros((*tokens.shape, 0), device=tokens.device)


ENCODERS: dict[str, Callable[..., SequenceEncoder]] = {"cnn": CnnEncoder, "none": NoEncoder}
"""Name to class; a new encoder registers here."""


def build_encoder(name: str, options: Mapping[str, Any]) -> SequenceEncoder:
    """The encoder `name` with its options.

    Raises:
        ConfigError: an unknown name or option, naming those that exist.
    """
    if name not in ENCODERS:
        raise ConfigError(f"model.sequence_encoder: given {name!r}; allowed are {', '.join(sorted(ENCODERS))}")
    known = [] if name == "none" else list(inspect.signature(ENCODERS[name]).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"model.sequence_encoder_config: unknown {', '.join(map(repr, unknown))}; {hint}"
            f"encoder {name!r} takes {', '.join(known) or 'no options'}"
        )
    try:
        return ENCODERS[name](**options)
    except TypeError as error:
        raise ConfigError(f"model.sequence_encoder_config: given {dict(options)}; {error}") from None
