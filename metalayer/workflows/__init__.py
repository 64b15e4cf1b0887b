"""One call for each part of the main job; each is imported when it is asked for, so that none costs another's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalayer.workflows.train_meta import train_meta_model as train_meta_model

__all__ = ["train_meta_model"]


def __getattr__(name: str) -> Any:
    if name == "train_meta_model":
        from metalayer.workflows.train_meta import train_meta_model

        return train_meta_model
    raise AttributeError(f"module 'metalayer.workflows' has no attribute {name!r}")
