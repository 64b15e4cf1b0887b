"""MetaLayerConfig: the flat configuration of the library's users, from the sections of `config.py`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PositiveInt

from metalayer.config import DataConfig, EvaluateConfig, ModelConfig, TrainConfig
from metalayer.errors import ConfigError
from metalayer.files import publish_file
from metalayer.schema import FEATURES
from metalayer.yaml12 import read_mapping

PRESETS = Path(__file__).resolve().parents[1] / "configs"
"""Configurations that come with the package."""


class MetaLayerConfig(DataConfig, ModelConfig, TrainConfig):
    """Data, model and training settings in one flat object.

    Every assignment is checked, also of single encoder options
    (`config.sequence_encoder_config["freeze"] = True`). `str(config)` is its YAML.
    """

    section: ClassVar[str] = ""

    max_samples: int | None = Field(None, ge=1)
    """Rows of a prepared training set, drawn at random; None takes all."""
    train_split: float = Field(0.8, gt=0.0, lt=1.0)
    """Share of genes to train on."""
    val_split: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of genes to validate on."""
    test_split: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of genes to test on; the three add up to 1."""
    num_workers: int = Field(0, ge=0, le=256)
    """Processes that fetch batches; 0 is the fastest, as fetching is indexing into mapped memory."""
    top_k_values: tuple[PositiveInt, ...] = EvaluateConfig().top_k_values
    """k of the top-k accuracies, beside k = number of true sites."""

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a flat YAML file: a path, or else the preset of that name (`lightweight`, `configs/hyenadna.yaml`).

        Raises:
            ConfigError: no such file or preset, or all unknown keys and impossible values at once.
        """
        values = read_mapping(_find(Path(path)))
        odd = [repr(key) for key in values if not isinstance(key, str)]
        if odd:
            raise ConfigError(f"configuration file {path}: unknown key {', '.join(odd)}; keys are words")
        return cls(**values)

    def to_yaml(self, path: str | Path) -> None:
        """Write all settings; `from_yaml` gives an equal configuration."""
        with publish_file(Path(path)) as draft:
            draft.write_text(str(self), encoding="utf-8")

    def get_device(self) -> str:
        """`device`, with `auto` resolved.

        Raises:
            ConfigError: a device that this machine does not have, naming those it has.
        """
        from metalayer.device import resolve_device

        return resolve_device(self.device)

    def get_feature_columns(self) -> list[str]:
        """The 50 score features, in the model's order."""
        return list(FEATURES)


def _find(path: Path) -> Path:
    """The file, or else the preset of that name."""
    presets = {preset.stem: preset for preset in sorted(PRESETS.glob("*.yaml"))}
    if path.exists():
        return path
    if path.stem in presets and path.parent in (Path(), Path("configs")):
        return presets[path.stem]
    raise ConfigError(f"configuration: given {path}, which is no file and no preset; presets are {', '.join(presets)}")
