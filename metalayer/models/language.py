"""Language models as sequence encoders: letters in chunks of fixed length, read in their inner part.

A language model's state of a base depends on where the base is in what the model is given, so this is part of the
definition. Of a stretch, base i is read from chunk k = i // S, which covers letters [kS - m, kS + S + m), at offset
m + i - kS: every base is read in the inner S of the C = S + 2m letters of its chunk. Windows are read at an offset of
the same inner part: drawn for each row in training, C // 2 otherwise.
Axes: B batch, C letters of a chunk (`chunk_bp`), S stride (`stride_bp`), n positions, D channels of a state, E output.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from metalayer.errors import ConfigError
from metalayer.models.encoders import SequenceEncoder
from metalayer.settings.encoders import LanguageOptions

_LETTERS_AT_ONCE = 65_536
"""Letters that the backbone is given at a time: memory does not grow with the stretch."""
_PRETRAINED_SHARE = 0.1


class LanguageEncoder(SequenceEncoder):
    """A backbone that gives each letter of a chunk a state, and a trainable projection of the states.

    Attributes:
        backbone: the language model.
        states_dim: channels D.
        frozen: whether the backbone stays as it is; its states are then functions of the letters alone.
    """

    checkpoint: dict[str, Any]
    # Measured: Fourier transforms take ONNX Runtime seven times as long.
    eager_because = "a language model: tokenizers and Fourier transforms are no good in ONNX Runtime"

    def __init__(
        self, backbone: nn.Module, states_dim: int, checkpoint: Mapping[str, Any], options: LanguageOptions
    ) -> None:
        """Read a backbone.

        Args:
            backbone: the language model, its weights in place.
            states_dim: channels D of `states`.
            checkpoint: source, revision, sha256, pretrained and architecture.
            options: of the encoder.

        Raises:
            ConfigError: more layers to unfreeze than there are.
        """
        super().__init__()
        self.backbone, self.states_dim, self.checkpoint = backbone, states_dim, dict(checkpoint)
        self.chunk_bp, self.stride_bp = options.chunk_bp, options.stride_bp
        self.margin_bp = (options.chunk_bp - options.stride_bp) // 2
        self.radius_bp = self.margin_bp + options.stride_bp - 1
        self.output_dim = options.output_dim
        self.project = nn.Linear(states_dim, options.output_dim)
        self.frozen = False
        share = options.learning_rate_share
        self.slow_share = share or (_PRETRAINED_SHARE if checkpoint["pretrained"] else 1.0)
        if options.unfreeze_layers is not None:
            blocks = self.blocks()
            if options.unfreeze_layers > len(blocks):
                raise ConfigError(
                    f"unfreeze_layers: given {options.unfreeze_layers}; {checkpoint['source']} has {len(blocks)}"
                )
            backbone.requires_grad_(False)
            for block in blocks[-options.unfreeze_layers :]:
                block.requires_grad_(True)
        if not options.bundle_encoder:
            self.register_state_dict_post_hook(_without_backbone)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_backbone_is_there)  # type: ignore[no-untyped-call]

    @abstractmethod
    def states(self, chunks: Tensor) -> Tensor:
        """Chunks of letters uint8 (B, C) to float32 (B, C, D), a state of each letter."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The backbone's blocks, first to last."""

    def freeze(self) -> None:
        """Leave the backbone as it is from now on; the projection learns."""
        self.frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As of every module, but for a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def slow_parameters(self) -> list[nn.Parameter]:
        """The backbone's."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def forward(self, tokens: Tensor) -> Tensor:
        """Windows uint8 (B, 2 * radius_bp + 1), or states of their centres float (B, D), to float32 (B, E)."""
        if tokens.is_floating_point():
            return self._projected(tokens)
        offsets = torch.full((len(tokens),), self.chunk_bp // 2, device=tokens.device)
        if self.training:
            offsets = self.margin_bp + torch.randint(self.stride_bp, (len(tokens),), device=tokens.device)
        return self._projected(self.states_at(tokens, offsets))

    def dense(self, tokens: Tensor) -> Tensor:
        """A stretch uint8 (B, n + 2 * radius_bp), or its states float (B, n, D), to float32 (B, n, E)."""
        return self._projected(tokens if tokens.is_floating_point() else self.dense_states(tokens))

    def _projected(self, states: Tensor) -> Tensor:
        projected: Tensor = self.project(states.float())
        return projected

    def states_at(self, windows: Tensor, offsets: Tensor) -> Tensor:
        """States of the centres of windows uint8 (B, 2 * radius_bp + 1), each at its offset int64 (B,): (B, D)."""
        rows = torch.arange(self.chunk_bp, device=windows.device)
        chunks = windows.gather(1, (self.radius_bp - offsets)[:, None] + rows)
        groups = zip(*(torch.split(x, self._chunks_at_once) for x in (chunks, offsets)), strict=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return torch.cat([self._states(part)[torch.arange(len(part)), at] for part, at in groups])

    def dense_states(self, tokens: Tensor) -> Tensor:
        """States of a stretch uint8 (B, n + 2 * radius_bp), base 0 being the first of its chunk: (B, n, D)."""
        chunks = tokens[:, self.stride_bp - 1 :].unfold(1, self.chunk_bp, self.stride_bp)  # (B, chunks, C)
        n = tokens.shape[1] - 2 * self.radius_bp
        return self.inner_states(chunks.flatten(0, 1)).reshape(len(tokens), -1, self.states_dim)[:, :n]

    def inner_states(self, chunks: Tensor) -> Tensor:
        """States of the inner part of chunks uint8 (B, C): (B, S, D)."""
        inner = slice(self.margin_bp, self.margin_bp + self.stride_bp)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return torch.cat([self._states(part)[:, inner] for part in torch.split(chunks, self._chunks_at_once)])

    def _states(self, chunks: Tensor) -> Tensor:
        """`states`; of no chunk too, a process's share of a short last batch, where every parameter is used."""
        return self.states(chunks) if len(chunks) else self.states(chunks.new_zeros((1, self.chunk_bp)))[:0]

    @property
    def _chunks_at_once(self) -> int:
        return max(1, _LETTERS_AT_ONCE // self.chunk_bp)

    @property
    def identity(self) -> str:
        """Hash, in hex, of all that states depend on: weights, architecture, chunks."""
        what = [type(self).__name__, self.chunk_bp, self.stride_bp, self.checkpoint["architecture"]]
        total = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        for name, value in sorted(self.backbone.state_dict().items()):
            total.update(
                name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
        return total.hexdigest()


def _without_backbone(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}backbone.")]:
        del state[name]


def _backbone_is_there(module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if "backbone." not in name]
