"""SpliceAI's networks, from the user's own Keras files: HDF5, of which the weights are read and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from metalayer.base.dilated import GROUPS, UNITS, Ensemble, NetworkWeights
from metalayer.base.layout import Layout, Shape, UnitNames
from metalayer.base.origin import ORIGINS
from metalayer.base.weight_files import finite, installed_files, refuse_other_shapes
from metalayer.device import resolve_device
from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256
from metalayer.formats.arrays import datasets

LAST = "conv1d_39"
_MEMBERS = tuple(f"spliceai{number}.h5" for number in range(1, 6))
_INSTALL = "pip install --no-deps spliceai==1.3.1"
_WEIGHTS = "model_weights"


def _layout() -> Layout:
    convolutions_of_group = 2 * UNITS + 1  # the last one is the skip
    starts = [3 + convolutions_of_group * group for group in range(len(GROUPS[10000]))]

    def unit(group: int, i: int) -> UnitNames:
        norm, conv = 1 + 2 * (UNITS * group + i), starts[group] + 2 * i
        return UnitNames(
            f"batch_normalization_{norm}", f"conv1d_{conv}", f"batch_normalization_{norm + 1}", f"conv1d_{conv + 1}"
        )

    return Layout(
        10000,
        slope=0.0,
        epsilon=1e-3,
        first="conv1d_1",
        skips=("conv1d_2", *(f"conv1d_{start + 2 * UNITS}" for start in starts)),
        units=tuple(tuple(unit(group, i) for i in range(UNITS)) for group in range(len(starts))),
        lasts={LAST: 3},
        convolution=("/kernel:0", "/bias:0"),
        normalisation=("/gamma:0", "/beta:0", "/moving_mean:0", "/moving_variance:0"),
        is_keras=True,
    )


LAYOUT = _layout()
"""Names that Keras gave to the layers; CI-SpliceAI has them too."""


def load_spliceai(weights: str | Path | None = None, device: str = "auto", precision: str = "float32") -> Ensemble:
    """Load the five members.

    Args:
        weights: folder with `spliceai1.h5` to `spliceai5.h5`; None: those of the installed distribution `spliceai`.
        device: auto, cpu, cuda or mps.
        precision: float32, bfloat16, or auto: bfloat16 where the device has instructions for it.

    Raises:
        ConfigError: no such folder, or a member that is not in it; neither a folder nor the distribution.
        ModelError: a damaged file, or one of another architecture.
    """
    found = installed_files("spliceai", "spliceai") if weights is None else _in_folder(Path(weights))
    missing = [name for name in _MEMBERS if name not in found]
    if missing:
        where = weights or ("the installed distribution spliceai" if found else "spliceai, which is not installed,")
        raise ConfigError(
            f"weights: {where} lacks {', '.join(missing)}; give the folder that holds SpliceAI's five networks, or "
            f"none after {_INSTALL}"
        )
    members = [read_keras(found[name]) for name in _MEMBERS]
    hashes = {name: sha256(found[name]) for name in _MEMBERS}
    return Ensemble("spliceai", members, hashes, resolve_device(device), ORIGINS["spliceai"], precision=precision)


def read_keras(path: Path) -> NetworkWeights:
    """One member's weights.

    Raises:
        ModelError: a damaged file, or one of another architecture.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = {_tensor_name(name): file[name] for name in datasets(file)}
            shapes: dict[str, Shape] = {name: array.shape for name, array in arrays.items()}
            refuse_other_shapes(path, shapes, LAYOUT.shapes(), "SpliceAI's network (Keras, flank 10000)")
            tensors: dict[str, Tensor] = {name: torch.from_numpy(array[()]) for name, array in arrays.items()}
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: no whole HDF5 file of numbers ({error}); copy it again") from None
    return LAYOUT.network(finite(path, tensors), LAST)


def _tensor_name(dataset: str) -> str:
    """`model_weights/conv1d_1/conv1d_1/bias:0` is `conv1d_1/bias:0`."""
    group, _, inside = dataset.partition("/")
    layer, _, name = inside.partition("/")
    return name if group == _WEIGHTS and name.startswith(f"{layer}/") else dataset


def _in_folder(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"weights: given {folder}, which is no folder; it holds {_MEMBERS[0]} to {_MEMBERS[-1]}")
    return {path.name: path for path in folder.iterdir()}
