"""Artifacts to labelled, weighted, split, verified tables, and to batches of tensors.

The names of the training guide are imported when they are asked for, so that reading tables costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalayer.data.dataset import MetaLayerDataset as MetaLayerDataset
    from metalayer.data.loaders import create_dataloaders as create_dataloaders
    from metalayer.data.prepare import prepare_training_dataset as prepare_training_dataset
    from metalayer.data.verify import verify_dataset as verify_dataset

_WHERE = {
    "MetaLayerDataset": "dataset",
    "create_dataloaders": "loaders",
    "prepare_training_dataset": "prepare",
    "verify_dataset": "verify",
}
__all__ = ["MetaLayerDataset", "create_dataloaders", "prepare_training_dataset", "verify_dataset"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"metalayer.data.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'metalayer.data' has no attribute {name!r}")
