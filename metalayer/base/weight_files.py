"""Files of weights of others, read as data: no code of theirs runs, and all tensors are as expected or none is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metalayer.errors import ModelError

_NAMED = 5


def installed_files(distribution: str, beginning: str) -> dict[str, Path]:
    """Files of an installed distribution, of which nothing is imported.

    Args:
        distribution: its name.
        beginning: of the names of the files.

    Returns:
        Name to path; empty where the distribution is not installed.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    return {file.name: Path(str(file.locate())) for file in files if file.name.startswith(beginning)}


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, of tensors and plain values alone.

    Raises:
        ModelError: a file that cannot be opened, is damaged, or holds code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        why = error.strerror or error
        raise ModelError(f"{path}: cannot be read ({why}); name a file of weights that this user may read") from None
    except Exception as error:  # noqa: BLE001  torch raises what its reader stumbles over, of many kinds
        raise ModelError(f"{path}: damaged, or it holds more than tensors ({type(error).__name__})") from None


def state_dict(path: Path, given: object) -> dict[str, Tensor]:
    """What was loaded, as a state dict without the counters of its normalisations, which mean nothing once trained.

    Raises:
        ModelError: something else.
    """
    if not isinstance(given, dict) or not all(isinstance(value, Tensor) for value in given.values()):
        inside = f" with {', '.join(map(str, list(given)[:_NAMED]))}" if isinstance(given, dict) else ""
        raise ModelError(
            f"{path}: holds a {type(given).__name__}{inside}; expected a state dict, name to tensor and nothing else"
        )
    return {str(name): value for name, value in given.items() if not str(name).endswith("num_batches_tracked")}


def refuse_other_shapes(
    where: Path | str,
    given: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    network: str,
    instead: str = "",
) -> None:
    """Refuse tensors other than those of a network.

    Args:
        where: that they are in.
        given: shapes by name.
        expected: likewise.
        network: what they should be of, in words.
        instead: what they are of, where that is known.

    Raises:
        ModelError: a tensor is missing, or is none of the network, or has another shape.
    """
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        listed = ", ".join(
            f"{name} {given.get(name, 'missing')} (expected {expected.get(name, 'none')})" for name in wrong[:_NAMED]
        )
        raise ModelError(f"{where}: {len(wrong)} tensors are not those of {network}; {instead or listed}")


def finite(where: Path | str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as float32.

    Raises:
        ModelError: NaN or infinite weights.
    """
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ModelError(f"{where}: {len(broken)} tensors hold NaN or infinite weights, the first {broken[0]}")
    return {name: tensor.float() for name, tensor in tensors.items()}
