"""OpenSpliceAI and SpliceAI networks from the user's own weights, computed without waste.

Every convolution is valid, not padded: with the whole flank given, what padding would touch is cropped
anyway, so the result is the same and the flank's ends are never computed. A block of units with dilation
d runs undilated on d interleaved copies of a d-th of the positions ("space to batch"), which is the same
sum in another order, and the second normalisation of a unit is folded into its first convolution. Axes:
B batch, C channels, L positions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metalayer.device import resolve_device
from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256
from metalayer.genome import N_TOKEN, encode

_FILE = re.compile(r"^model_(?P<flank>\d+)nt_rs(?P<seed>\w+)\.pt$")
_GROUPS = {
    80: ((11, 1),),
    400: ((11, 1), (11, 4)),
    2000: ((11, 1), (11, 4), (21, 10)),
    10000: ((11, 1), (11, 4), (21, 10), (41, 25)),
}
"""Flank (both sides, nt) to width and dilation of each group of units."""
_UNITS = 4
_SLOPE, _EPSILON = 0.1, 1e-5
_COUNTER = "num_batches_tracked"  # of a normalisation; means nothing once trained
_CHANNELS = 32
BLOCK = 30_000
"""Positions computed at a time: memory does not grow with the gene, and the flank is computed rarely."""
_TO_OURS = (2, 1, 0)  # the network says neither, acceptor, donor


@dataclass(frozen=True)
class _Unit:
    """One residual unit: scale and shift of the first normalisation, then two convolutions."""

    scale: Tensor
    shift: Tensor
    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, L) to (B, C, L - 2 (W - 1))."""
        h = functional.leaky_relu(torch.addcmul(self.shift, x, self.scale), _SLOPE)
        h = functional.leaky_relu(functional.conv1d(h, self.weight_1, self.bias_1), _SLOPE, inplace=True)
        lost = self.weight_1.shape[-1] - 1
        return functional.conv1d(h, self.weight_2, self.bias_2).add_(x[..., lost : x.shape[-1] - lost])


class Network:
    """One member of an ensemble."""

    def __init__(self, path: Path, flank: int, device: str) -> None:
        """Read a state dict.

        Args:
            path: state dict, read without running code.
            flank: nt that the network sees, both sides together.
            device: of the computation.

        Raises:
            ModelError: a damaged file, or one whose tensors are not those of this flank's network.
        """
        self.groups = _GROUPS[flank]
        self._half = flank // 2
        state = _read(path, flank)

        def convolution(name: str) -> tuple[Tensor, Tensor]:
            return state[f"{name}.weight"].to(device), state[f"{name}.bias"].to(device)

        self._first, self._last = convolution("initial_conv"), convolution("final_conv")
        self._skips = [convolution("initial_skip.conv")]
        self._units: list[list[_Unit]] = []
        for group in range(len(self.groups)):
            first = group * (_UNITS + 1)
            self._units.append([_unit(state, f"residual_units.{first + i}.", device) for i in range(_UNITS)])
            self._skips.append(convolution(f"residual_units.{first + _UNITS}.conv"))

    def __call__(self, letters: Tensor) -> Tensor:
        """One-hot (1, 4, n + flank) to probabilities (1, 3, n), in the network's order."""
        n = letters.shape[-1] - 2 * self._half
        x = functional.conv1d(letters, *self._first)
        skip = functional.conv1d(x[..., self._half : self._half + n], *self._skips[0])
        spare = self._half
        for (width, dilation), units, after in zip(self.groups, self._units, self._skips[1:], strict=True):
            x = _dilated(x, units, width, dilation)
            spare -= _UNITS * (width - 1) * dilation
            skip = skip + functional.conv1d(x[..., spare : spare + n], *after)
        return torch.softmax(functional.conv1d(skip, *self._last), dim=1)


def _dilated(x: Tensor, units: list[_Unit], width: int, dilation: int) -> Tensor:
    """Units of one dilation: (1, C, L) to (1, C, L - 2 * 4 * (W - 1) * dilation)."""
    length = x.shape[-1]
    out = length - 2 * _UNITS * (width - 1) * dilation
    if dilation > 1:
        x = functional.pad(x, (0, -length % dilation))
        x = x.view(x.shape[1], -1, dilation).permute(2, 0, 1).contiguous()
    for unit in units:
        x = unit(x)
    if dilation > 1:
        x = x.permute(1, 2, 0).reshape(1, x.shape[1], -1)
    return x[..., :out]


def _unit(state: dict[str, Tensor], prefix: str, device: str) -> _Unit:
    """Folded in double on the CPU, which every machine has; then moved as float32."""

    def normalisation(name: str) -> tuple[Tensor, Tensor]:
        part = {
            key: state[f"{prefix}{name}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")
        }
        scale = part["weight"] / torch.sqrt(part["running_var"] + _EPSILON)
        return scale, part["bias"] - part["running_mean"] * scale

    scale, shift = normalisation("batchnorm1")
    folded, added = normalisation("batchnorm2")
    weight, bias = state[prefix + "conv1.weight"].double(), state[prefix + "conv1.bias"].double()
    parts = (
        scale[:, None],
        shift[:, None],
        weight * folded[:, None, None],
        bias * folded + added,
        state[prefix + "conv2.weight"],
        state[prefix + "conv2.bias"],
    )
    return _Unit(*(part.float().to(device) for part in parts))


def _read(path: Path, flank: int) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises what its reader stumbles over, of many kinds
        raise ModelError(f"{path}: damaged, or it holds more than tensors ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        inside = f" with {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        raise ModelError(
            f"{path}: holds a {type(state).__name__}{inside}; expected a state dict, name to tensor and nothing else"
        )
    given = {str(name): tuple(value.shape) for name, value in state.items() if not str(name).endswith(_COUNTER)}
    expected = _shapes(flank)
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        told = ", ".join(
            f"{name} {given.get(name, 'missing')} (expected {expected.get(name, 'none')})" for name in wrong[:5]
        )
        other = [str(known) for known in _GROUPS if _shapes(known) == given]
        what = f"it is one of flank {other[0]}: rename it" if other else told
        raise ModelError(
            f"{path}: {len(wrong)} tensors are not those of a network of flank {flank}, as the name says; {what}"
        )
    broken = [name for name in expected if not torch.isfinite(state[name]).all()]
    if broken:
        raise ModelError(f"{path}: {len(broken)} tensors hold NaN or infinite weights, the first {broken[0]}")
    return {name: state[name].float() for name in expected}


def _shapes(flank: int) -> dict[str, tuple[int, ...]]:
    c = _CHANNELS
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, channels: int, width: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, channels, width), (out,)

    convolution("initial_conv", c, 4, 1)
    convolution("initial_skip.conv", c, c, 1)
    convolution("final_conv", 3, c, 1)
    for group, (width, _) in enumerate(_GROUPS[flank]):
        first = group * (_UNITS + 1)
        for i in range(first, first + _UNITS):
            for number in (1, 2):
                convolution(f"residual_units.{i}.conv{number}", c, c, width)
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"residual_units.{i}.batchnorm{number}.{name}"] = (c,)
        convolution(f"residual_units.{first + _UNITS}.conv", c, c, 1)
    return shapes


class OpenSpliceAI:
    """An ensemble of networks: the mean of its members' probabilities."""

    def __init__(self, weights: str | Path, flank: int | None = None, device: str = "auto") -> None:
        """Load the members.

        Args:
            weights: folder with `model_<flank>nt_rs<seed>.pt` state dicts.
            flank: nt that the networks see, both sides together; needed where the folder holds several.
            device: auto, cpu, cuda or mps.

        Raises:
            ConfigError: no such folder, no such file in it, an unknown flank, or several without a choice.
            ModelError: a damaged file, or one of another architecture.
        """
        self.flank, files = _members(Path(weights), flank)
        self.device = resolve_device(device)
        self.weights = {path.name: sha256(path) for path in files}
        self._networks = [Network(path, self.flank, self.device) for path in files]

    @property
    def name(self) -> str:
        """As in `<base_model>_eval`."""
        return f"openspliceai_{self.flank}"

    @property
    def flank_bp(self) -> int:
        """Letters on either side that a score depends on."""
        return self.flank // 2

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        """As of `BaseModel`: float32 (L, 3), donor, acceptor, neither, at exon bases."""
        n, half = len(sequence), self.flank_bp
        tokens = np.full(n + 2 * half, N_TOKEN, dtype=np.uint8)
        before, after = encode(upstream)[-half:] if upstream else encode(""), encode(downstream)[:half]
        tokens[half - len(before) : half] = before
        tokens[half : half + n] = encode(sequence)
        tokens[half + n : half + n + len(after)] = after
        return self.score_tokens(tokens)

    @torch.inference_mode()
    def score_tokens(self, tokens: NDArray[np.uint8], block: int = BLOCK) -> NDArray[np.float32]:
        """Tokens uint8 (L + flank) to float32 (L, 3), `block` positions at a time."""
        n = len(tokens) - self.flank
        out = np.empty((n, 3), dtype=np.float32)
        lookup = torch.eye(N_TOKEN + 1, N_TOKEN, device=self.device)  # N is a row of zeros
        for start in range(0, n, block):
            piece = torch.from_numpy(tokens[start : start + block + self.flank].astype(np.int64)).to(self.device)
            letters = lookup[piece].T.unsqueeze(0).contiguous()
            total: Any = sum(network(letters) for network in self._networks)
            mean = (total / len(self._networks)).squeeze(0)[list(_TO_OURS)]
            out[start : start + block] = mean.T.cpu().numpy()
        return out


def _members(folder: Path, flank: int | None) -> tuple[int, list[Path]]:
    if not folder.is_dir():
        raise ConfigError(f"weights: given {folder}, which is no folder; it holds model_<flank>nt_rs<seed>.pt files")
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.match(path.name)
        if match:
            found.setdefault(int(match["flank"]), []).append(path)
    there = ", ".join(f"{f} ({len(paths)} files)" for f, paths in sorted(found.items())) or "none"
    if not found or (flank is not None and flank not in found):
        asked = f" of flank {flank}" if flank is not None else ""
        raise ConfigError(f"weights: {folder} holds no model_<flank>nt_rs<seed>.pt{asked}; flanks there: {there}")
    if flank is None and len(found) > 1:
        raise ConfigError(f"weights: {folder} holds networks of several flanks: {there}; choose with the option flank")
    chosen = flank if flank is not None else next(iter(found))
    if chosen not in _GROUPS:
        raise ConfigError(f"weights: flank {chosen} in {folder}; known networks see {', '.join(map(str, _GROUPS))} nt")
    return chosen, found[chosen]
