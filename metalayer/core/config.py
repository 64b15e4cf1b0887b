"""The guide's import of the flat configuration, which is in `settings/flat.py`."""

from metalayer.settings.flat import PRESETS, MetaLayerConfig

__all__ = ["PRESETS", "MetaLayerConfig"]
