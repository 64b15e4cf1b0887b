"""What a model directory says of itself, and the digests of a model: read without torch.

A model has two digests. `digest` is of all that is in its directory, so also of where it comes from: a run's name,
data, commit. `content_of` is of what its answers depend on alone: two runs that end with equal weights give one model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

import metalayer
from metalayer.errors import ModelError, SchemaError
from metalayer.integrity import FILES, check_files, content_digest, read_json
from metalayer.schema import FEATURE_SCHEMA

FORMAT_VERSION = 3
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
Array = TypeVar("Array")
_DAMAGED = "save or download the model again"


def read_description(directory: Path, who: str | None = None) -> dict[str, Any]:
    """`model.json` of a model directory, checked for format and feature schema.

    Args:
        directory: the model directory.
        who: what messages call it; None: by its path.

    Raises:
        ModelError: no such directory, a missing or damaged file, another format version.
        SchemaError: a model of another feature schema.
    """
    path, who = Path(directory) / DESCRIPTION, who or f"model directory {directory}"
    try:
        text = path.read_text(encoding="utf-8")
        version = _format_version(text)
    except OSError as error:
        raise ModelError(f"{who}: {DESCRIPTION}: {error.strerror or error}") from None
    except ValueError:
        raise ModelError(f"{who}: {DESCRIPTION} is damaged; {_DAMAGED}") from None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{who}: format version {version!r}; this metalayer {metalayer.__version__} reads "
            f"{FORMAT_VERSION}. Train again, or use the version that wrote it"
        )
    info = read_json(path, ModelError, _DAMAGED)
    if info.get("schema_hash") != FEATURE_SCHEMA.hash:
        raise SchemaError(
            f"{who}: feature schema {info.get('schema_hash')}; this metalayer has "
            f"{FEATURE_SCHEMA.hash}. A model runs only on the features it was trained on: train again"
        )
    return info


def _format_version(text: str) -> Any:
    """That a description names, before its digest is looked at: earlier formats had none."""
    content = json.loads(text)
    return content.get("format_version") if isinstance(content, dict) else None


def read_weights(
    directory: Path, info: Mapping[str, Any], load: Callable[[Path], dict[str, Array]]
) -> dict[str, Array]:
    """The weights of a model directory, whose file must be the one that its description names.

    Args:
        directory: the model directory.
        info: its description.
        load: `load_file` of safetensors, for torch or for numpy.

    Raises:
        ModelError: missing or damaged.
    """
    check_files(Path(directory), {WEIGHTS: "", **info.get(FILES, {})}, ModelError, _DAMAGED)
    try:
        return load(Path(directory) / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"model directory {directory}: {WEIGHTS}: {error}") from None


def check_shapes(
    directory: Path, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> None:
    """See that the tensors of a file are those of the network that its description builds, by name and shape.

    Raises:
        ModelError: they are not.
    """
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise ModelError(f"model directory {directory}: {WEIGHTS} does not fit {DESCRIPTION}: {', '.join(wrong[:8])}")


def digest(directory: Path, golden: Path | None = None) -> str:
    """SHA-256 of weights and description, in hex: the identity of a model, with where it comes from.

    Args:
        directory: the model directory.
        golden: rows with the answers expected of the model: other rows, another digest.
    """
    total = hashlib.sha256()
    for path in (Path(directory) / WEIGHTS, Path(directory) / DESCRIPTION, *([golden] if golden else [])):
        total.update(path.read_bytes())
    return total.hexdigest()


def content_of(directory: Path) -> str:
    """SHA-256 of what the answers of a model depend on, in hex: equal for two runs that end with the same model.

    Weights with their normalisation and calibration, the options that say which network they are of, the features and
    how these are computed, and whose base scores are read. A graph for ONNX Runtime is made of these.

    Raises:
        ModelError, SchemaError: as in `read_description`.
    """
    info = read_description(directory)
    facts = [info[FILES], info["model"], info["schema"], info["schema_hash"], info.get("base_model")]
    return content_digest([*facts, info["stack"]] if info.get("stack") else facts)
