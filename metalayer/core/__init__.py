"""The entry to the library: configuration and base-layer files."""

from metalayer.core.config import MetaLayerConfig
from metalayer.core.loader import ArtifactLoader

__all__ = ["ArtifactLoader", "MetaLayerConfig"]
