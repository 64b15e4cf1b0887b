"""MetaLayerConfig: the flat configuration of the library's users, from the sections of `config.py`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from metalayer.config import DataConfig, ModelConfig, TrainConfig, read_yaml
from metalayer.schema import FEATURES


class MetaLayerConfig(DataConfig, ModelConfig, TrainConfig):
    """Data, model and training settings in one flat object; see the sections for each field."""

    section: ClassVar[str] = ""

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a flat YAML file.

        Raises:
            ConfigError: all unknown keys and impossible values at once.
        """
        return cls(**read_yaml(Path(path)))

    def get_feature_columns(self) -> list[str]:
        """The 50 score features, in the model's order."""
        return list(FEATURES)
