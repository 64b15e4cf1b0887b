"""Sequence encoders: tokens around a labelled base, or a whole gene, to features of each base.

Every encoder is shift-equivariant and reads at the labelled base, so one set of weights serves
windows (training, serving) and whole genes (dense inference) with the same result. An encoder states
its `radius_bp`: the letters it sees on either side. Beside what it reads at a base it can offer
features of the bases around it (`neighbourhood`), as cheap as the base's own: a fusion attends to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from metalayer.genome import N_TOKEN
from metalayer.settings.encoders import (
    CnnOptions,
    HuggingFaceOptions,
    HyenaDnaOptions,
    NoSequenceOptions,
    SequenceEncoderOptions,
    SequenceOptions,
)


def one_hot(tokens: Tensor) -> Tensor:
    """Tokens uint8 (B, L) to float32 (B, 4, L); N is all zeros, never A."""
    letters = torch.arange(N_TOKEN, device=tokens.device, dtype=tokens.dtype)
    return (tokens.unsqueeze(1) == letters[:, None]).to(torch.float32)


def crop(features: Tensor, spare: int) -> Tensor:
    """Channels over positions (B, C, L) without `spare` positions at either end."""
    return features[..., spare : features.shape[-1] - spare]


class SequenceEncoder(nn.Module):
    """What every sequence encoder offers.

    A neighbourhood reaches `reach_bp` bases to either side of the base that is read; its features come
    from `neighbour_radius_bp` letters around each of its bases, whatever `radius_bp` is.

    Attributes:
        radius_bp: letters seen on either side of the base that is read.
        output_dim: channels E of the result.
        neighbour_radius_bp: letters that a neighbour's features see on either side of it.
        neighbour_dim: channels D of a neighbour; 0 where the encoder has no neighbourhood.
        checkpoint: what it was built from, JSON-ready, where its options are not enough to build it again.
        pads: whether what a batch is padded to depends on its rows, and so the last bits of each row's result.
        slow_share: share of the learning rate at which `slow_parameters` learn.
        eager_because: why servers run the model in torch and not in ONNX Runtime, in words; empty where they do not.
    """

    radius_bp: int
    output_dim: int
    neighbour_radius_bp: int = 0
    neighbour_dim: int = 0
    checkpoint: dict[str, Any] | None = None
    pads: bool = False
    slow_share: float = 1.0
    eager_because: str = ""

    def freeze(self) -> None:
        """Leave the weights as they are from now on."""
        self.requires_grad_(False)

    def slow_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at a share of the learning rate, of those that learn."""
        return []

    def forward(self, tokens: Tensor) -> Tensor:
        """Windows uint8 (B, 2 * radius_bp + 1) to float32 (B, E) at their centre."""
        raise NotImplementedError

    def dense(self, tokens: Tensor) -> Tensor:
        """A stretch uint8 (B, n + 2 * radius_bp) to float32 (B, n, E), one row a base."""
        raise NotImplementedError

    def radius_with(self, reach_bp: int) -> int:
        """Letters on either side that a base and its neighbourhood need together: r below."""
        return max(self.radius_bp, self.neighbour_radius_bp + reach_bp)

    def neighbourhood(self, tokens: Tensor, reach_bp: int) -> tuple[Tensor, Tensor]:
        """`forward`, and the features of the bases around each centre.

        Args:
            tokens: windows uint8 (B, 2 * r + 1), r = `radius_with(reach_bp)`.
            reach_bp: bases on either side.

        Returns:
            float32 (B, E) and float32 (B, 2 * reach_bp + 1, D).
        """
        raise NotImplementedError

    def dense_neighbourhood(self, tokens: Tensor, reach_bp: int) -> tuple[Tensor, Tensor]:
        """`dense`, and the features of all bases of the stretch and `reach_bp` beyond either end.

        Args:
            tokens: a stretch uint8 (B, n + 2 * r), r = `radius_with(reach_bp)`.
            reach_bp: bases on either side.

        Returns:
            float32 (B, n, E) and float32 (B, n + 2 * reach_bp, D): the neighbourhood of base i is its
            rows i to i + 2 * reach_bp.
        """
        raise NotImplementedError


class CnnEncoder(SequenceEncoder):
    """Motif detectors of several widths, then a pyramid of width-3 convolutions.

    Level i of the pyramid has dilation 2^i. Reading one base needs only every 2^i-th position of
    level i, so a window runs the same weights as strided convolutions: half the work a level, and
    about 1/100 of running the dilated stack over the whole window. No normalisation over positions
    and no pooling: what is read depends on the letters around the base and on nothing else. The
    neighbourhood is what the motif detectors found, before the pyramid, which reads it anyway.
    """

    def __init__(self, options: CnnOptions) -> None:
        """Build the encoder."""
        super().__init__()
        kernels, channels = options.kernel_sizes, options.output_dim
        self.output_dim = self.neighbour_dim = channels
        self.neighbour_radius_bp = max(kernels) // 2
        self.radius_bp = self.neighbour_radius_bp + 2**options.levels - 1
        self.motifs = nn.ModuleList(nn.Conv1d(4, options.num_filters, k) for k in kernels)
        self.mix = nn.Conv1d(options.num_filters * len(kernels), channels, 1)
        self.pyramid = nn.ModuleList(nn.Conv1d(channels, channels, 3) for _ in range(options.levels))

    @staticmethod
    def _convolutions(modules: nn.ModuleList) -> Iterator[nn.Conv1d]:
        for module in modules:
            assert isinstance(module, nn.Conv1d)
            yield module

    def _detect(self, tokens: Tensor) -> Tensor:
        letters = one_hot(tokens)
        found = []
        for conv in self._convolutions(self.motifs):
            spare = self.neighbour_radius_bp - conv.kernel_size[0] // 2  # narrower detectors read the same centres
            found.append(conv(crop(letters, spare)))
        return functional.gelu(self.mix(functional.gelu(torch.cat(found, dim=1))))

    def _read(self, x: Tensor) -> Tensor:
        for conv in self._convolutions(self.pyramid):
            x = x[..., 1::2][..., : (x.shape[-1] - 1) // 2] + functional.gelu(
                functional.conv1d(x, conv.weight, conv.bias, stride=2)
            )
        return x.squeeze(-1)

    def _read_dense(self, x: Tensor) -> Tensor:
        for level, conv in enumerate(self._convolutions(self.pyramid)):
            step = 2**level
            x = crop(x, step) + functional.gelu(functional.conv1d(x, conv.weight, conv.bias, dilation=step))
        return x.transpose(1, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Windows uint8 (B, 2 * radius_bp + 1) to float32 (B, E) at their centre."""
        if torch.compiler.is_exporting():
            return self._channels_last(tokens)
        return self._read(self._detect(tokens))

    def _channels_last(self, tokens: Tensor) -> Tensor:
        """`forward` as matrix products of positions with channels last, the same up to rounding.

        ONNX Runtime takes a seventh less time for it: its convolutions change the order of their inputs and back.
        """
        convs = list(self._convolutions(self.motifs))
        spare = [self.neighbour_radius_bp - conv.kernel_size[0] // 2 for conv in convs]
        kernels = [functional.pad(conv.weight, (n, n)) for conv, n in zip(convs, spare, strict=True)]
        biases = [conv.bias for conv in convs if conv.bias is not None]
        letters = one_hot(tokens).unsqueeze(2)
        found = functional.conv2d(letters, torch.cat(kernels).unsqueeze(2), torch.cat(biases))
        x = functional.gelu(found.permute(0, 2, 3, 1).squeeze(1))  # (B, P, channels)
        x = functional.gelu(functional.linear(x, self.mix.weight.squeeze(-1), self.mix.bias))
        for conv in self._convolutions(self.pyramid):
            before, here, after = x[:, :-1:2], x[:, 1::2], x[:, 2::2]
            weight = conv.weight.transpose(1, 2).flatten(1)
            x = here + functional.gelu(functional.linear(torch.cat([before, here, after], dim=2), weight, conv.bias))
        return x.squeeze(1)

    def dense(self, tokens: Tensor) -> Tensor:
        """A stretch uint8 (B, n + 2 * radius_bp) to float32 (B, n, E), one row a base."""
        return self._read_dense(self._detect(tokens))

    def neighbourhood(self, tokens: Tensor, reach_bp: int) -> tuple[Tensor, Tensor]:
        """As `forward`, with the motifs around each centre; see the base class."""
        centre, around = self._crops(self._detect(tokens), reach_bp)
        return self._read(centre), around.transpose(1, 2)

    def dense_neighbourhood(self, tokens: Tensor, reach_bp: int) -> tuple[Tensor, Tensor]:
        """As `dense`, with the motifs of the stretch and beyond its ends; see the base class."""
        centre, around = self._crops(self._detect(tokens), reach_bp)
        return self._read_dense(centre), around.transpose(1, 2)

    def _crops(self, found: Tensor, reach_bp: int) -> tuple[Tensor, Tensor]:
        """What the pyramid reads, and the neighbourhood, of the motifs of `radius_with(reach_bp)` letters."""
        radius = self.radius_with(reach_bp)
        return crop(found, radius - self.radius_bp), crop(found, radius - self.neighbour_radius_bp - reach_bp)


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


Checkpoint = Mapping[str, Any]
"""`SequenceEncoder.checkpoint` of a model that is built again."""


def _cnn(options: CnnOptions, _: Checkpoint | None) -> SequenceEncoder:
    return CnnEncoder(options)


def _hyenadna(options: HyenaDnaOptions, checkpoint: Checkpoint | None) -> SequenceEncoder:
    from metalayer.models.hyenadna_encoder import HyenaDnaEncoder

    return HyenaDnaEncoder(options, checkpoint)


def _huggingface(options: HuggingFaceOptions, checkpoint: Checkpoint | None) -> SequenceEncoder:
    from metalayer.models.huggingface import HuggingFaceEncoder

    return HuggingFaceEncoder(options, checkpoint)


def _none(_: NoSequenceOptions, __: Checkpoint | None) -> SequenceEncoder:
    return NoEncoder()


ENCODERS: dict[type[SequenceOptions], Callable[[Any, Checkpoint | None], SequenceEncoder]] = {
    CnnOptions: _cnn,
    HyenaDnaOptions: _hyenadna,
    HuggingFaceOptions: _huggingface,
    NoSequenceOptions: _none,
}
"""Type of the options (`settings/encoders.py`) to what builds the encoder; a new encoder registers here."""


def build_encoder(options: SequenceEncoderOptions, checkpoint: Checkpoint | None = None) -> SequenceEncoder:
    """The encoder that has these options; `freeze` leaves its weights as they are.

    Args:
        options: of the encoder.
        checkpoint: of a model that is built again; None of a new one.

    Raises:
        ConfigError: a checkpoint that is not there, or options that it cannot have.
        ModelError: a checkpoint that is damaged, or another than that of the model.
    """
    encoder = ENCODERS[type(options)](options, checkpoint)
    if options.freeze:
        encoder.freeze()
    return encoder
