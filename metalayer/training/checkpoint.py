"""Checkpoints of a training run: all that the next epoch depends on, loadable without running code.

Read with `weights_only=True`: tensors, numbers, text, lists and dictionaries, nothing else; and only as it was written,
by the SHA-256 at its end, since torch itself takes other weights for those of a file with flipped bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import metalayer
from metalayer.errors import ModelError, SchemaError
from metalayer.files import publish_file
from metalayer.integrity import seal_archive, sealed_archive
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import FEATURE_SCHEMA

FORMAT_VERSION = 3
BEST, LAST = "best_model.pt", "last_model.pt"


def save_checkpoint(path: Path, model: MetaSpliceModel, state: Mapping[str, Any]) -> None:
    """Publish a checkpoint.

    Args:
        path: file to write.
        model: weights, normalisation and options; on any device.
        state: of the trainer: tensors, numbers, text, lists and dictionaries.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "metalayer_version": metalayer.__version__,
        "schema": FEATURE_SCHEMA.to_dict(),
        "schema_hash": FEATURE_SCHEMA.hash,
        "model_options": model.options,
        "model": {name: value.cpu() for name, value in model.state_dict().items()},
        **state,
    }
    with publish_file(path) as draft:
        torch.save(content, draft)
        seal_archive(draft)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        ModelError: no such file, a damaged one, one that holds code, or another format version.
        SchemaError: a model of another feature schema.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: no such file; a training run writes {LAST} and {BEST}")
    try:
        content = torch.load(sealed_archive(path), map_location="cpu", weights_only=True)
    except ValueError as error:
        raise ModelError(
            f"checkpoint {path} is damaged: {error}; copy it again, go on from the other one ({LAST}, {BEST}), or "
            "remove it and train again"
        ) from None
    except Exception as error:  # noqa: BLE001  torch raises what its reader stumbles over, of many kinds
        raise ModelError(f"checkpoint {path} is damaged or holds more than tensors: {type(error).__name__}") from None
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        version = content.get("format_version") if isinstance(content, dict) else None
        raise ModelError(
            f"checkpoint {path}: format version {version!r}; this metalayer {metalayer.__version__} reads "
            f"{FORMAT_VERSION}. Train again, or use the version that wrote it"
        )
    if content["schema_hash"] != FEATURE_SCHEMA.hash:
        raise SchemaError(
            f"checkpoint {path}: feature schema {content['schema_hash']}; this metalayer has {FEATURE_SCHEMA.hash}. A "
            "model runs only on the features it was trained on: train again"
        )
    return content


def restored_model(content: Mapping[str, Any]) -> MetaSpliceModel:
    """The model of a checkpoint, in evaluation mode.

    Raises:
        ModelError: weights that do not fit the options.
    """
    model = MetaSpliceModel(**content["model_options"])
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ModelError(f"checkpoint: the weights do not fit the model's options: {error}") from None
    return model.eval()
