"""The network and its parts; torch is imported when the network is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalayer.models.meta import MetaSpliceModel as MetaSpliceModel

__all__ = ["MetaSpliceModel"]


def __getattr__(name: str) -> Any:
    if name == "MetaSpliceModel":
        from metalayer.models.meta import MetaSpliceModel

        return MetaSpliceModel
    raise AttributeError(f"module 'metalayer.models' has no attribute {name!r}")
