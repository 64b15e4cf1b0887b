"""Training, checkpoints, evaluation of loaders, hyperparameter search; names are imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalayer.training.evaluator import MetaLayerEvaluator as MetaLayerEvaluator
    from metalayer.training.search import hyperparameter_search as hyperparameter_search
    from metalayer.training.trainer import Trainer as Trainer

_WHERE = {"MetaLayerEvaluator": "evaluator", "Trainer": "trainer", "hyperparameter_search": "search"}
__all__ = ["MetaLayerEvaluator", "Trainer", "hyperparameter_search"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"metalayer.training.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'metalayer.training' has no attribute {name!r}")
