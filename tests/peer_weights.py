"""Made-up weights in the files of SpliceAI, CI-SpliceAI, Pangolin and biPangolin, and the plain network they are of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WIDTHS = (11,) * 8 + (21,) * 4 + (41,) * 4
DILATIONS = (1,) * 4 + (4,) * 4 + (10,) * 4 + (25,) * 4
HALF = 5000
PANGOLIN = {f"final.{fold}.{tuned}.3.v2": tuned for fold in (1, 2, 3) for tuned in (0, 2, 4, 6)}
LAYERS = ("skip", "resblock_15", "resblock_11", "resblock_7", "resblock_3", "resblock_1")
GRAPH = "CI-SpliceAI.pb"


class Block(nn.Module):
    def __init__(self, width: int, dilation: int, epsilon: float) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm1d(32, eps=epsilon), nn.BatchNorm1d(32, eps=epsilon)
        self.conv1, self.conv2 = (nn.Conv1d(32, 32, width, dilation=dilation, padding="same") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(torch.relu(self.bn1(x)))
        return x + self.conv2(torch.relu(self.bn2(h)))


class Plain(nn.Module):
    """The network as published, dilated and padded, with the layer names of Pangolin's state dicts.

    `heads` are the numbers that each of `conv_last1` and so on gives.
    """

    def __init__(self, seed: int, epsilon: float, heads: Iterable[int]) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.skip = nn.Conv1d(4, 32, 1), nn.Conv1d(32, 32, 1)
        shapes = zip(WIDTHS, DILATIONS, strict=True)
        self.resblocks = nn.ModuleList(Block(width, dilation, epsilon) for width, dilation in shapes)
        self.convs = nn.ModuleList(nn.Conv1d(32, 32, 1) for _ in range(4))
        for number, out in enumerate(heads, 1):
            self.add_module(f"conv_last{number}", nn.Conv1d(32, out, 1))
        for name, value in self.state_dict().items():
            if ".bn" in name and "num" not in name:
                value.copy_(torch.rand_like(value) + 0.5)
        self.eval()

    @torch.inference_mode()
    def layers(self, letters: Tensor) -> dict[str, Tensor]:
        """(1, 4, n + 10000) to what each block gives, and the sum of the skips: (1, 32, n) each."""
        x = self.conv1(letters)
        found = {"skip": self.skip(x)}
        for number, block in enumerate(self.resblocks):
            x = found[f"resblock_{number}"] = block(x)
            if number % 4 == 3:
                found["skip"] = found["skip"] + self.convs[number // 4](x)
        return {name: value[..., HALF:-HALF] for name, value in found.items()}

    @torch.inference_mode()
    def head(self, letters: Tensor, number: int) -> Tensor:
        """Probabilities (numbers of the head, n)."""
        return torch.softmax(getattr(self, f"conv_last{number}")(self.layers(letters)["skip"]), dim=1)[0]


class Probe(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps = nn.Sequential(nn.Conv1d(196, 64, 1), nn.ReLU(), nn.Conv1d(64, 3, 1))

    @torch.inference_mode()
    def forward(self, letters: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        read = [layers[name] for name in LAYERS] + [letters[..., HALF:-HALF]]
        return torch.softmax(self.steps(torch.cat(read, dim=1)), dim=1)[0]


def spliceai_network(seed: int) -> Plain:
    return Plain(seed, 1e-3, [3])


def pangolin_network(seed: int) -> Plain:
    return Plain(seed, 1e-5, [2, 1] * 4)


def keras_names(network: Plain) -> dict[str, NDArray[np.float32]]:
    """The weights of `spliceai_network` as Keras calls them, kernels (width, in, out)."""
    layers = {"conv1": "conv1d_1", "skip": "conv1d_2", "conv_last1": "conv1d_39"}
    layers |= {f"convs.{group}": f"conv1d_{(11, 20, 29, 38)[group]}" for group in range(4)}
    for block in range(16):
        first = (3, 12, 21, 30)[block // 4] + 2 * (block % 4)
        for number in (1, 2):
            layers[f"resblocks.{block}.conv{number}"] = f"conv1d_{first + number - 1}"
            layers[f"resblocks.{block}.bn{number}"] = f"batch_normalization_{2 * block + number}"
    found = {}
    for name, value in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if part == "num_batches_tracked":
            continue
        array = value.numpy()
        if layers[layer].startswith("conv"):
            keras = {"weight": "kernel", "bias": "bias"}[part]
            array = array.transpose(2, 1, 0) if part == "weight" else array
        else:
            keras = {
                "weight": "gamma",
                "bias": "beta",
                "running_mean": "moving_mean",
                "running_var": "moving_variance",
            }[part]
        found[f"{layers[layer]}/{keras}:0"] = np.ascontiguousarray(array)
    return found


def write_h5(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """As Keras 2.0 saves a model, without its configuration."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"model_weights/{name.split('/')[0]}/{name}"] = array
        file["model_weights"].create_group("activation_1")  # layers without weights are there too


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def node(name: str, operation: str, inputs: Iterable[str] = (), value: bytes = b"") -> bytes:
    """A node of a graph."""
    out = _field(1, name) + _field(2, operation) + b"".join(_field(3, one) for one in inputs)
    out += _field(5, _field(1, "dtype") + _field(2, _field(6, 1)))
    return _field(1, out + (_field(5, _field(1, "value") + _field(2, _field(8, value))) if value else b""))


def tensor(array: NDArray[np.generic], kind: int = 1, content: bytes | None = None) -> bytes:
    shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
    return _field(1, kind) + _field(2, shape) + _field(4, array.tobytes() if content is None else content)


def write_graph(path: Path, members: Iterable[Mapping[str, NDArray[np.generic]]]) -> None:
    """As TensorFlow freezes an ensemble in one graph: member m is marked at the operations on a variable."""
    reads = {
        "kernel:0": "conv1d{}/ExpandDims_1/ReadVariableOp",
        "bias:0": "BiasAdd{}/ReadVariableOp",
        "gamma:0": "batchnorm{}/mul/ReadVariableOp",
        "beta:0": "batchnorm{}/ReadVariableOp_2",
        "moving_mean:0": "batchnorm{}/ReadVariableOp_1",
        "moving_variance:0": "batchnorm{}/ReadVariableOp",
    }
    out = [node("x", "Placeholder")]
    for member, arrays in enumerate(members):
        for name, array in arrays.items():
            layer, variable = name.split("/")
            read = f"model_1/{layer}/{reads[variable].format(f'_{member}' if member else '')}"
            out += [
                node(f"{read}/resource", "Const", value=tensor(array)),
                node(read, "Identity", [f"{read}/resource"]),
            ]
            if variable == "gamma:0":  # a number that stands elsewhere than in the content of its tensor
                number = _field(1, 1) + _field(5, np.float32(1e-3).tobytes())
                out.append(node(read.replace("mul/ReadVariableOp", "add/y"), "Const", value=number))
    out.append(node("perm", "Const", value=tensor(np.arange(3, dtype=np.int32), kind=3)))
    path.write_bytes(b"".join(out) + _field(4, _field(1, 561)))


def write_probe(path: Path, probe: Probe, network: str) -> None:
    config = {
        "probe_layer": LAYERS,
        "kernel_size": 1,
        "hidden_dim": 64,
        "include_sequence": True,
        "pangolin_model_file": network,
    }
    torch.save({"state_dict": probe.steps.state_dict(), "config": config}, path)


def install(site: Path, name: str, files: Iterable[Path]) -> None:
    """Make a distribution of files that lie below `site`, which is on the path where modules are looked for."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f'"{path.relative_to(site).as_posix()}",,\n' for path in files))


def write_bipangolin(site: Path, factor: float) -> dict[str, Probe]:
    """The distribution of the probes, made up: one of each file of Pangolin, and their correction."""
    folder = site / "bipangolin" / "data" / "probes"
    folder.mkdir(parents=True)
    probes = {name: Probe(seed) for seed, name in enumerate(PANGOLIN)}
    for name, probe in probes.items():
        write_probe(folder / f"probe.{name}.{LAYERS}+seq.k1.h64.pt", probe, name)
    correction = {"recommended_k": 1.0, "empirical_sweep": {"best_k": factor}}
    (folder / "optimal_correction.json").write_text(json.dumps(correction))
    install(site, "bipangolin", folder.iterdir())
    return probes


def write_pangolin(folder: Path) -> dict[str, Plain]:
    networks = {name: pangolin_network(seed) for seed, name in enumerate(PANGOLIN)}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / name)
    return networks
