"""OpenSpliceAI's networks, from the user's own state dicts."""

from __future__ import annotations

import re
from pathlib import Path

from metalayer.base.dilated import GROUPS, UNITS, Ensemble, NetworkWeights
from metalayer.base.layout import Layout, UnitNames
from metalayer.base.origin import ORIGINS
from metalayer.base.weight_files import finite, load_torch, refuse_other_shapes, state_dict
from metalayer.device import resolve_device
from metalayer.errors import ConfigError
from metalayer.files import sha256

_FILE = re.compile(r"^model_(?P<flank>\d+)nt_rs(?P<seed>\w+)\.pt$")
_LAST = "final_conv"


def load_openspliceai(
    weights: str | Path, flank: int | None = None, device: str = "auto", precision: str = "float32"
) -> Ensemble:
    """Load the members.

    Args:
        weights: folder with `model_<flank>nt_rs<seed>.pt` state dicts.
        flank: nt that the networks see, both sides together; needed where the folder holds several.
        device: auto, cpu, cuda or mps.
        precision: float32, bfloat16, or auto: bfloat16 where the device has instructions for it.

    Raises:
        ConfigError: no such folder, no such file in it, an unknown flank, or several without a choice; a device or
            precision that this machine does not have.
        ModelError: a damaged file, or one of another architecture.
    """
    chosen, files = _members(Path(weights), flank)
    members = [read_state_dict(path, chosen) for path in files]
    hashes = {path.name: sha256(path) for path in files}
    return Ensemble(
        f"openspliceai_{chosen}", members, hashes, resolve_device(device), ORIGINS["openspliceai"], precision=precision
    )


def read_state_dict(path: Path, flank: int) -> NetworkWeights:
    """One member's weights.

    Args:
        path: state dict, read without running code.
        flank: nt that the network sees, both sides together.

    Raises:
        ModelError: a damaged file, or one whose tensors are not those of this flank's network.
    """
    state = state_dict(path, load_torch(path))
    given = {name: tuple(value.shape) for name, value in state.items()}
    other = [known for known in GROUPS if known != flank and _layout(known).shapes() == given]
    refuse_other_shapes(
        path,
        given,
        _layout(flank).shapes(),
        f"a network of flank {flank}, as the name says",
        f"it is one of flank {other[0]}: rename it" if other else "",
    )
    return _layout(flank).network(finite(path, state), _LAST)


def _layout(flank: int) -> Layout:
    starts = range(0, len(GROUPS[flank]) * (UNITS + 1), UNITS + 1)  # every fifth unit is a skip

    def unit(number: int) -> UnitNames:
        return UnitNames(*(f"residual_units.{number}.{n}" for n in ("batchnorm1", "conv1", "batchnorm2", "conv2")))

    return Layout(
        flank,
        slope=0.1,
        epsilon=1e-5,
        first="initial_conv",
        skips=("initial_skip.conv", *(f"residual_units.{start + UNITS}.conv" for start in starts)),
        units=tuple(tuple(unit(start + i) for i in range(UNITS)) for start in starts),
        lasts={_LAST: 3},
    )


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
    if chosen not in GROUPS:
        raise ConfigError(f"weights: flank {chosen} in {folder}; known networks see {', '.join(map(str, GROUPS))} nt")
    return chosen, found[chosen]
