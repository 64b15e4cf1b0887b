"""CI-SpliceAI's networks, from its frozen TensorFlow graph: five members in one file, by the layer names of Keras."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from metalayer.base.dilated import Ensemble, NetworkWeights
from metalayer.base.graph_def import float_constants
from metalayer.base.origin import CISPLICEAI, ORIGINS
from metalayer.base.spliceai import LAST, LAYOUT
from metalayer.base.weight_files import finite, installed_files, refuse_other_shapes
from metalayer.device import resolve_device
from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256

_FILE = "CI-SpliceAI.pb"
_MEMBERS = 5
_CONSTANT = re.compile(
    r"model_1/(?P<layer>\w+)/(?P<operation>conv1d|BiasAdd|batchnorm)(?:_(?P<member>\d))?/(?P<read>.+)/resource"
)
_TENSORS = {
    ("conv1d", "ExpandDims_1/ReadVariableOp"): "kernel:0",
    ("BiasAdd", "ReadVariableOp"): "bias:0",
    ("batchnorm", "mul/ReadVariableOp"): "gamma:0",
    ("batchnorm", "ReadVariableOp_2"): "beta:0",
    ("batchnorm", "ReadVariableOp_1"): "moving_mean:0",
    ("batchnorm", "ReadVariableOp"): "moving_variance:0",
}
"""Operation on a variable, and which reading of it, to the name that Keras has for the variable."""


def load_cispliceai(weights: str | Path | None = None, device: str = "auto", precision: str = "float32") -> Ensemble:
    """Load the five members.

    Args:
        weights: `CI-SpliceAI.pb` or a folder with it; None: that of the installed distribution `cispliceai`.
        device: auto, cpu, cuda or mps.
        precision: float32, bfloat16, or auto: bfloat16 where the device has instructions for it.

    Raises:
        ConfigError: no such file; neither a file nor the distribution.
        ModelError: a damaged file, or another graph.
    """
    if weights is None:
        path = installed_files("cispliceai", _FILE).get(_FILE)
    else:
        path = Path(weights, _FILE) if Path(weights).is_dir() else Path(weights)
    if path is None or not path.is_file():
        where = "the distribution cispliceai is not installed" if path is None else f"{path} is no file"
        raise ConfigError(
            f"weights: {where}; give {_FILE} or the folder that holds it, or none after "
            f"pip install --no-deps {CISPLICEAI}"
        )
    hashes = {path.name: sha256(path)}
    return Ensemble(
        "cispliceai", read_graph(path), hashes, resolve_device(device), ORIGINS["cispliceai"], precision=precision
    )


def read_graph(path: Path) -> list[NetworkWeights]:
    """The members' weights.

    Raises:
        ModelError: a damaged file, or another graph.
    """
    members: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, array in float_constants(path).items():
        match = _CONSTANT.fullmatch(name)
        if match:
            tensor = _TENSORS.get((match["operation"], match["read"]), name)
            members[int(match["member"] or 0)][f"{match['layer']}/{tensor}"] = torch.from_numpy(array)
    if sorted(members) != list(range(_MEMBERS)):
        raise ModelError(
            f"{path}: holds the weights of {len(members)} networks; the graph of CI-SpliceAI ({_FILE}) has {_MEMBERS}"
        )
    networks = []
    for member, tensors in sorted(members.items()):
        where = f"{path}, network {member + 1} of {_MEMBERS}"
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        refuse_other_shapes(where, shapes, LAYOUT.shapes(), "CI-SpliceAI's network")
        networks.append(LAYOUT.network(finite(where, tensors), LAST))
    return networks
