"""The model directory: weights, what they mean, and where they come from.

`model.safetensors` (weights, normalisation, calibration) and `model.json` (format version, model
options, feature schema and its hash, base model, configuration, seed, data hash, genes of each
part; SHA-256 of the weights and of itself). Written beside and renamed, so a directory is whole or absent; loaded
without pickle, never against another feature schema, and only as it was written.

A model has two digests. `digest` is of all that is in its directory, so also of where it comes from: a run's name,
data, commit. `content_of` is of what its answers depend on alone: two runs that end with equal weights give one model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import metalayer
from metalayer.errors import ConfigError, ModelError, SchemaError
from metalayer.files import publish_directory
from metalayer.integrity import FILES, check_files, content_digest, listed, read_json, write_json
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import FEATURE_SCHEMA

FORMAT_VERSION = 3
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_DAMAGED = "save or download the model again"


def save_model(model: MetaSpliceModel, directory: Path, info: Mapping[str, Any]) -> None:
    """Publish `model` as `directory`, replacing what was there.

    Args:
        model: on any device.
        directory: the model directory.
        info: JSON-ready facts that travel with the weights (base_model, seed, data_hash, split ...).
    """
    with publish_directory(directory) as draft:
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, draft / WEIGHTS)
        description = {
            **info,
            "format_version": FORMAT_VERSION,
            "metalayer_version": metalayer.__version__,
            "model": model.options,
            "schema": FEATURE_SCHEMA.to_dict(),
            "schema_hash": FEATURE_SCHEMA.hash,
            FILES: listed(draft, [WEIGHTS]),
        }
        write_json(draft / DESCRIPTION, description)


def read_description(directory: Path) -> dict[str, Any]:
    """`model.json` of a model directory, checked for format and feature schema.

    Raises:
        ModelError: no such directory, a missing or damaged file, another format version.
        SchemaError: a model of another feature schema.
    """
    path = Path(directory) / DESCRIPTION
    try:
        text = path.read_text(encoding="utf-8")
        version = _format_version(text)
    except OSError as error:
        raise ModelError(f"model directory {directory}: {DESCRIPTION}: {error.strerror or error}") from None
    except ValueError:
        raise ModelError(f"model directory {directory}: {DESCRIPTION} is damaged; {_DAMAGED}") from None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"model directory {directory}: format version {version!r}; this metalayer {metalayer.__version__} reads "
            f"{FORMAT_VERSION}. Train again, or use the version that wrote it"
        )
    info = read_json(path, ModelError, _DAMAGED)
    if info.get("schema_hash") != FEATURE_SCHEMA.hash:
        raise SchemaError(
            f"model directory {directory}: feature schema {info.get('schema_hash')}; this metalayer has "
            f"{FEATURE_SCHEMA.hash}. A model runs only on the features it was trained on: train again"
        )
    return info


def _format_version(text: str) -> Any:
    """That a description names, before its digest is looked at: earlier formats had none."""
    content = json.loads(text)
    return content.get("format_version") if isinstance(content, dict) else None


def load_model(directory: Path) -> tuple[MetaSpliceModel, dict[str, Any]]:
    """The model, in evaluation mode on the CPU, and its description.

    Raises:
        ModelError: a missing or damaged file, or tensors that do not fit the description.
        SchemaError: a model of another feature schema.
    """
    info = read_description(directory)
    path = Path(directory) / WEIGHTS
    check_files(Path(directory), {WEIGHTS: "", **info.get(FILES, {})}, ModelError, _DAMAGED)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"model directory {directory}: {WEIGHTS}: {error}") from None
    try:
        model = MetaSpliceModel(**info["model"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(
            f"model directory {directory}: {DESCRIPTION} describes no model that can be built: {error}"
        ) from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise ModelError(f"model directory {directory}: {WEIGHTS} does not fit {DESCRIPTION}: {', '.join(wrong[:8])}")
    model.load_state_dict(tensors)
    model.eval()
    return model, info


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
    return content_digest([info[FILES], info["model"], info["schema"], info["schema_hash"], info.get("base_model")])
