"""HyenaDNA: the published architecture and checkpoint layout, read natively.

A causal language model of single nucleotides (Nguyen et al. 2023, arXiv:2306.15794). Each block mixes positions
with a long convolution whose filter is a small network of the position. Checkpoints are a `config.json` and a
`model.safetensors`; nothing of theirs is run. Axes: B batch, L positions, D = d_model channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from metalayer.errors import ModelError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NUCLEOTIDE_IDS = (7, 8, 9, 10, 11)
"""Of A, C, G, T, N in every checkpoint's vocabulary."""
_PREFIX, _UNREAD = "hyena.backbone.", ("lm_head.weight",)
_EPSILON = 1e-5
_DECAY_FLOOR = 0.05
"""Share of a filter that its decay leaves at any distance."""


@dataclass(frozen=True)
class HyenaConfig:
    """The fields of a checkpoint's `config.json` that are used, by their published names."""

    d_model: int
    n_layer: int
    max_seq_len: int
    d_inner: int
    emb_dim: int = 5
    filter_order: int = 64
    num_inner_mlps: int = 2
    short_filter_order: int = 3
    activation_freq: float = 10
    train_freq: bool = True
    vocab_size: int = 12
    pad_vocab_size_multiple: int = 8
    initializer_range: float = 0.02

    @classmethod
    def read(cls, directory: Path) -> Self:
        """That of a checkpoint directory.

        Raises:
            ModelError: no `config.json`, or one of another architecture.
        """
        path = Path(directory) / CONFIG
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"HyenaDNA checkpoint {directory}: {CONFIG}: {error}") from None
        if not isinstance(content, dict) or content.get("model_type") != "hyenadna":
            raise ModelError(
                f"HyenaDNA checkpoint {directory}: {CONFIG} is not of model_type 'hyenadna'; give another directory, "
                "or use sequence_encoder 'huggingface'"
            )
        if content.get("hyena_order", 2) != 2:
            raise ModelError(f"HyenaDNA checkpoint {directory}: hyena_order {content['hyena_order']}; only 2 is read")
        known = [field.name for field in fields(cls)]
        try:
            return cls(**{name: content[name] for name in known if name in content})
        except TypeError as error:
            raise ModelError(f"HyenaDNA checkpoint {directory}: {CONFIG} lacks a setting: {error}") from None

    @property
    def rows(self) -> int:
        """Rows of the embedding: the vocabulary, rounded up."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple


class HyenaDna(nn.Module):
    """Token ids int64 (B, L) to the last hidden state float32 (B, L, D).

    Attributes:
        config: the architecture.
        positions: longest L.
        gradient_checkpointing: compute each block again in the backward pass instead of keeping what is in it.
    """

    def __init__(self, config: HyenaConfig, positions: int | None = None) -> None:
        """Build with random weights, drawn as HyenaDNA draws them.

        Args:
            config: the architecture.
            positions: longest L to be given; None: as long as the checkpoint goes. Filters are the same.

        Raises:
            ModelError: more positions than the architecture has.
        """
        super().__init__()
        self.config, self.positions = config, positions or config.max_seq_len
        self.gradient_checkpointing = False
        if self.positions > config.max_seq_len:
            raise ModelError(f"HyenaDNA: {self.positions} positions asked of a model of {config.max_seq_len}")
        self.embeddings = nn.ModuleDict({"word_embeddings": nn.Embedding(config.rows, config.d_model)})
        self.layers = nn.ModuleList(_Block(config, self.positions) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, _EPSILON)
        self.apply(self._draw)
        for name, weight in self.named_parameters():
            if name.endswith(("out_proj.weight", "fc2.weight")):  # each block adds two of them to the residual
                nn.init.normal_(weight, std=config.initializer_range / math.sqrt(2 * config.n_layer))

    def _draw(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.Conv1d):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids int64 (B, L) to float32 (B, L, D); no mask: padding is a token like any other."""
        x: Tensor = self.embeddings["word_embeddings"](input_ids)
        for block in self.layers:
            again = self.gradient_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        normed: Tensor = self.ln_f(x)
        return normed.float()


class _Block(nn.Module):
    """h + mixer(norm1(h)), then h + mlp(norm2(h)); the residual h (B, L, D) stays float32."""

    def __init__(self, config: HyenaConfig, positions: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, _EPSILON)
        self.mixer = _Mixer(config, positions)
        self.norm2 = nn.LayerNorm(config.d_model, _EPSILON)
        self.mlp = _Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.norm1(x)).float() + x.float()
        added: Tensor = self.mlp(self.norm2(x)).float() + x
        return added


class _Mlp(nn.Module):
    def __init__(self, config: HyenaConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class _Mixer(nn.Module):
    """Order 2: short causal convolution, then out_proj(long(v * x1) * x0)."""

    def __init__(self, config: HyenaConfig, positions: int) -> None:
        super().__init__()
        d, width = config.d_model, config.short_filter_order
        self.in_proj = nn.Linear(d, 3 * d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, width, padding=width - 1, groups=3 * d)
        self.filter_fn = _LongConvolution(config, positions)
        self.out_proj = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        short = self.short_filter(self.in_proj(x).transpose(1, 2))[..., : x.shape[1]]
        gate, other, v = short.chunk(3, dim=1)
        out: Tensor = self.out_proj((self.filter_fn(v * other) * gate).transpose(1, 2))
        return out


class _LongConvolution(nn.Module):
    """y = v * k + bias v for v (B, D, L), in float32 whatever autocast says; k (D, L) is a network of the position."""

    def __init__(self, config: HyenaConfig, positions: int) -> None:
        super().__init__()
        width = config.filter_order
        self.bias = nn.Parameter(torch.randn(config.d_model))
        # One vector for all layers of the filter; published files store it under any of their indices.
        self.freq = nn.Parameter(torch.full((1, width), float(config.activation_freq)), config.train_freq)
        inner = [nn.Linear(width, width) for _ in range(config.num_inner_mlps)]
        layers = [nn.Linear(config.emb_dim, width), *inner, nn.Linear(width, config.d_model, bias=False)]
        self.implicit_filter = nn.ModuleDict({str(2 * i): layer for i, layer in enumerate(layers)})
        z, t = _positions(config.max_seq_len, config.emb_dim, positions)
        self.pos_emb = _Constants(z=z, t=t)
        slow, fast = math.log(0.01) / 1.5, math.log(0.01) / 0.3
        self.modulation = _Constants(deltas=torch.linspace(slow, fast, config.d_model)[None, None])

    def filter(self, length: int) -> Tensor:
        """k: float32 (D, L)."""
        *hidden, last = self.implicit_filter.values()
        k: Tensor = self.pos_emb.z[:, :length]
        for layer in hidden:
            k = torch.sin(self.freq * layer(k))
        decay = torch.exp(-self.pos_emb.t[:, :length] * self.modulation.deltas.abs())
        out: Tensor = (last(k) * (decay + _DECAY_FLOOR))[0].transpose(0, 1)
        return out

    def forward(self, v: Tensor) -> Tensor:
        length = v.shape[-1]
        with torch.autocast(v.device.type, enabled=False):
            v = v.float()
            spectrum = torch.fft.rfft(v, 2 * length) * torch.fft.rfft(self.filter(length), 2 * length)
            convolved: Tensor = torch.fft.irfft(spectrum, 2 * length)[..., :length]
            return convolved + v * self.bias[:, None]


class _Constants(nn.Module):
    """What a checkpoint holds and does not learn: z (1, L, emb_dim) and t (1, L, 1), or deltas (1, 1, D)."""

    z: Tensor
    t: Tensor
    deltas: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def _positions(length: int, emb_dim: int, kept: int) -> tuple[Tensor, Tensor]:
    """The first `kept` of z float32 (1, length, emb_dim) and t float32 (1, length, 1)."""
    bands = (emb_dim - 1) // 2
    t = torch.linspace(0, 1, length)[:kept, None]
    w = 2 * math.pi * torch.arange(kept)[:, None] / length
    f = torch.linspace(1e-4, bands - 1, bands)[None]
    return torch.cat([t, torch.cos(-f * w), torch.sin(-f * w)], dim=-1)[None], t[None]


def load_hyenadna(path: str | Path, positions: int | None = None) -> HyenaDna:
    """A checkpoint directory as a model in evaluation mode, on the CPU.

    Args:
        path: directory with `config.json` and `model.safetensors` in the published layout.
        positions: as in `HyenaDna`.

    Raises:
        ModelError: a file that is absent or damaged, or tensors that are missing, extra or of another shape,
            all of them.
    """
    path = Path(path)
    model = HyenaDna(HyenaConfig.read(path), positions)
    try:
        stored = load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"HyenaDNA checkpoint {path}: {WEIGHTS}: {error}") from None
    tensors, extra = _by_our_names(stored)
    own = model.state_dict()
    expected = {name: tuple(value.shape) for name, value in own.items()}
    for name in expected:
        if "pos_emb." in name:
            expected[name] = (1, model.config.max_seq_len, expected[name][2])
    if not model.config.train_freq:  # then files do not hold it
        tensors = {**{name: value for name, value in own.items() if name.endswith("freq")}, **tensors}
    mistakes = [f"missing: {_published(name)} {shape}" for name, shape in expected.items() if name not in tensors]
    mistakes += [f"extra: {name}" for name in extra]
    mistakes += [f"extra: {_published(name)}" for name in tensors if name not in expected]
    for name in tensors.keys() & expected.keys():
        if tuple(tensors[name].shape) != expected[name]:
            mistakes.append(f"{_published(name)}: of shape {tuple(tensors[name].shape)}, not {expected[name]}")
    if mistakes:
        raise ModelError(f"HyenaDNA checkpoint {path} does not fit its {CONFIG}:\n  " + "\n  ".join(sorted(mistakes)))
    cut = {name: value[:, : model.positions] if "pos_emb." in name else value for name, value in tensors.items()}
    model.load_state_dict(cut)
    return model.eval()


def _by_our_names(stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by their name here, and the names of those that are of no backbone or contradict another."""
    tensors: dict[str, Tensor] = {}
    extra = []
    for name, value in stored.items():
        if name in _UNREAD:
            continue
        ours = name.removeprefix(_PREFIX)
        if ".implicit_filter." in ours and ours.endswith(".freq"):
            ours = ours[: ours.index("implicit_filter.")] + "freq"
        if not name.startswith(_PREFIX) or (ours in tensors and not torch.equal(tensors[ours], value)):
            extra.append(name)
        else:
            tensors[ours] = value
    return tensors, extra


def _published(name: str) -> str:
    if name.endswith("filter_fn.freq"):
        name = name.removesuffix("freq") + "implicit_filter.1.freq"
    return _PREFIX + name
