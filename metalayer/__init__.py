"""metalayer: recalibrated donor, acceptor and neither probabilities from a splice model's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalayer.settings.flat import MetaLayerConfig as MetaLayerConfig

__version__ = "0.1.0"
__all__ = ["MetaLayerConfig", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "MetaLayerConfig":
        from metalayer.settings.flat import MetaLayerConfig

        return MetaLayerConfig
    raise AttributeError(f"module 'metalayer' has no attribute {name!r}")
