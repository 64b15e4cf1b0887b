"""Pangolin's networks, from the user's own state dicts, and biPangolin's probes, which tell donors from acceptors.

Pangolin gives one probability that a base is spliced, for four tissues, from files tuned for each. Here it is the mean
over folds and tissues: on human genes the largest of the tissues finds sites no better, and its log loss is higher.
A probe of biPangolin reads the layers of one such network, and gives neither, acceptor, donor.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from metalayer.base.convolution import Convolution
from metalayer.base.dilated import CHANNELS, GROUPS, UNITS, Ensemble, NetworkWeights
from metalayer.base.layout import Layout, UnitNames
from metalayer.base.origin import ORIGINS
from metalayer.base.weight_files import finite, installed_files, load_torch, refuse_other_shapes, state_dict
from metalayer.device import resolve_device
from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256
from metalayer.schema import SPLICED_SCORE

logger = logging.getLogger(__name__)

_FOLDS, _TISSUES = (1, 2, 3), {0: "heart", 2: "liver", 4: "brain", 6: "testis"}
_FILES = {f"final.{fold}.{tuned}.3.v2": tuned for fold in _FOLDS for tuned in _TISSUES}
"""Name to what the file is tuned for: P(spliced) of a tissue."""
_LASTS = {f"conv_last{number}": 2 if number % 2 else 1 for number in range(1, 9)}
"""By tissue a pair, not spliced and spliced, and then the usage of a site."""
_TAPS = (1, 3, 7, 11, 15)
_PROBED = ("skip", *(f"resblock_{unit}" for unit in reversed(_TAPS)))
_HIDDEN = 64
_PROBE_SHAPES = {
    "0.weight": (_HIDDEN, (1 + len(_TAPS)) * CHANNELS + 4, 1),
    "0.bias": (_HIDDEN,),
    "2.weight": (3, _HIDDEN, 1),
    "2.bias": (3,),
}
_CORRECTION = "optimal_correction.json"
_INSTALL = "pip install --no-deps bipangolin==0.5.0"


def _layout() -> Layout:
    def unit(number: int) -> UnitNames:
        return UnitNames(*(f"resblocks.{number}.{layer}" for layer in ("bn1", "conv1", "bn2", "conv2")))

    groups = range(len(GROUPS[10000]))
    return Layout(
        10000,
        slope=0.0,
        epsilon=1e-5,
        first="conv1",
        skips=("skip", *(f"convs.{group}" for group in groups)),
        units=tuple(tuple(unit(UNITS * group + i) for i in range(UNITS)) for group in groups),
        lasts=_LASTS,
    )


LAYOUT = _layout()


def load_pangolin(weights: str | Path, device: str = "auto", precision: str = "float32") -> Ensemble:
    """Load the networks, with the probes of the installed distribution `bipangolin`; without it like `load_spliced`.

    Args:
        weights: folder with the twelve files `final.<fold>.<0, 2, 4, 6>.3.v2`.
        device: auto, cpu, cuda or mps.
        precision: float32, bfloat16, or auto: bfloat16 where the device has instructions for it.

    Raises:
        ConfigError: no such folder, or a file that is not in it or not in the distribution.
        ModelError: a damaged file, or one of another architecture.
    """
    probes = installed_files("bipangolin", "probe.") | installed_files("bipangolin", _CORRECTION)
    if not probes:
        logger.warning(
            "pangolin: the distribution bipangolin, which tells donors from acceptors, is not installed (%s): one "
            "score, for sites of both kinds, and no artifact rows",
            _INSTALL,
        )
        return load_spliced(weights, device, precision)
    files = _files(Path(weights))
    of = {name: [probe for probe in sorted(probes) if probe.startswith(f"probe.{name}.")] for name in files}
    missing = [f"probe.{name}.*.pt" for name, found in of.items() if len(found) != 1]
    if missing or _CORRECTION not in probes:
        raise ConfigError(
            f"the installed distribution bipangolin has not one {', '.join(missing) or _CORRECTION}; {_INSTALL}"
        )
    members, hashes = [], {path.name: sha256(path) for path in (*files.values(), probes[_CORRECTION])}
    for name, path in files.items():
        (probe,) = of[name]
        last = read_probe(probes[probe], name)
        members.append(replace(read_network(path, _FILES[name]), last=last, taps=_TAPS))
        hashes[probe] = sha256(probes[probe])
    factor = _read_correction(probes[_CORRECTION])
    where = resolve_device(device)
    return Ensemble("pangolin", members, hashes, where, ORIGINS["pangolin"], precision=precision, neither_factor=factor)


def load_spliced(weights: str | Path, device: str = "auto", precision: str = "float32") -> Ensemble:
    """Load the networks alone: one score, for sites of both kinds.

    Args, Raises: like `load_pangolin`.
    """
    files = _files(Path(weights))
    members = [read_network(path, _FILES[name]) for name, path in files.items()]
    hashes = {path.name: sha256(path) for path in files.values()}
    columns, where = (SPLICED_SCORE,), resolve_device(device)
    return Ensemble(
        "pangolin_spliced", members, hashes, where, ORIGINS["pangolin_spliced"], precision=precision, columns=columns
    )


def read_network(path: Path, tuned: int) -> NetworkWeights:
    """One file's weights, ending in not spliced and spliced for the tissue that the file is tuned for.

    Raises:
        ModelError: a damaged file, or one of another architecture.
    """
    state = state_dict(path, load_torch(path))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    refuse_other_shapes(path, shapes, LAYOUT.shapes(), "Pangolin's network")
    return LAYOUT.network(finite(path, state), f"conv_last{tuned + 1}")


def read_probe(path: Path, network: str) -> tuple[Convolution, Convolution]:
    """The two convolutions of a probe.

    Args:
        path: a state dict beside what it belongs to.
        network: name of the file whose layers it reads.

    Raises:
        ModelError: a damaged file, or a probe of other layers or of another network.
    """
    given = load_torch(path)
    config = given.get("config") if isinstance(given, dict) else None
    expected = {"probe_layer": _PROBED, "kernel_size": 1, "include_sequence": True, "pangolin_model_file": network}
    if not isinstance(config, dict) or any(config.get(name) != value for name, value in expected.items()):
        raise ModelError(
            f"{path}: no probe of biPangolin for {network} that reads {', '.join(_PROBED)} and the letters"
        )
    state = state_dict(path, given.get("state_dict"))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    refuse_other_shapes(path, shapes, _PROBE_SHAPES, "a probe of biPangolin")
    state = finite(path, state)
    return (
        Convolution(state["0.weight"], state["0.bias"]),
        Convolution(state["2.weight"], state["2.bias"]),
    )


def _read_correction(path: Path) -> float:
    """By how much neither is more frequent in genes than where the probes were trained."""
    try:
        factor = float(json.loads(path.read_text("utf-8"))["empirical_sweep"]["best_k"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: no number at empirical_sweep, best_k ({error!r}); {_INSTALL}") from None
    if not 0 < factor < float("inf"):
        raise ModelError(f"{path}: empirical_sweep, best_k is {factor}; needed is a finite number above 0. {_INSTALL}")
    return factor


def _files(folder: Path) -> Mapping[str, Path]:
    """The twelve files, by name."""
    if not folder.is_dir():
        raise ConfigError(f"weights: given {folder}, which is no folder; it holds {', '.join(_FILES)}")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"weights: {folder} lacks {', '.join(missing)}; the files are in the folder pangolin/models of Pangolin's "
            "repository"
        )
    return {name: folder / name for name in _FILES}
