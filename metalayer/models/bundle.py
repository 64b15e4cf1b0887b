"""The model directory: weights, what they mean, and where they come from.

`model.safetensors` (weights, normalisation, calibration) and `model.json` (format version, model
options, feature schema and its hash, base model, configuration, seed, data hash, genes of each
part; SHA-256 of the weights and of itself). Written beside and renamed, so a directory is whole or absent; loaded
without pickle, never against another feature schema, and only as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import metalayer
from metalayer.errors import ConfigError, ModelError
from metalayer.files import publish_directory
from metalayer.integrity import FILES, listed, write_json
from metalayer.models.description import (
    DESCRIPTION,
    FORMAT_VERSION,
    WEIGHTS,
    check_shapes,
    read_description,
    read_weights,
)
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import FEATURE_SCHEMA


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


def load_model(directory: Path) -> tuple[MetaSpliceModel, dict[str, Any]]:
    """The model, in evaluation mode on the CPU, and its description.

    Raises:
        ModelError: a missing or damaged file, or tensors that do not fit the description.
        SchemaError: a model of another feature schema.
    """
    info = read_description(directory)
    tensors = read_weights(directory, info, load_file)
    try:
        model = MetaSpliceModel(**info["model"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(
            f"model directory {directory}: {DESCRIPTION} describes no model that can be built: {error}"
        ) from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    check_shapes(directory, expected, given)
    model.load_state_dict(tensors)
    model.eval()
    return model, info
