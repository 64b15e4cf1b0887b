"""MetaLayerConfig: the flat configuration of the library's users, from the sections data, model and train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt

from metalayer.errors import ConfigError
from metalayer.files import publish_file
from metalayer.schema import FEATURES
from metalayer.settings.door import flattened
from metalayer.settings.mistakes import joined, listed
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import DataConfig, EvaluateConfig, TrainConfig
from metalayer.yaml12 import read_mapping

PRESETS = Path(__file__).resolve().parents[1] / "configs"
"""Configurations that come with the package."""

_UNREAD_WITH_SCORES = tuple(
    name
    for name in (*DataConfig.model_fields, "max_samples", "train_split", "test_split", "num_workers", "top_k_values")
    if name not in ("base_model", "gene_table", "aliases", "allow_introns", "evidence")
)
_ALL_POSITIONS = "which trains on all positions of the files it names"


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
        """Read a YAML file: a path, or else the preset of that name (`lightweight`, `configs/hyenadna.yaml`).

        Settings are flat or in sections, see `door.py`.

        Raises:
            ConfigError: no such file or preset, or all unknown keys and impossible values at once.
        """
        values = flattened(read_mapping(_find(Path(path))))
        odd = [repr(key) for key in values if not isinstance(key, str)]
        if odd:
            raise ConfigError(f"configuration file {path}: unknown key {', '.join(odd)}; keys are words")
        return cls(**values)

    @classmethod
    def overridden(cls, written: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a file with those asked for in their place; what these take the effect from is left out.

        Args:
            written: by name, valid together.
            asked: by name, as given.
        """
        acting = cls.acting({**cls().model_dump(), **written, **asked})
        return {name: value for name, value in written.items() if name in acting} | dict(asked)

    @classmethod
    def for_scores(cls, values: Mapping[str, Any], *, separate: bool) -> Self:
        """Settings of training on per-nucleotide files that are named one by one, which reads no base-layer folder.

        Args:
            values: those that were given, by name.
            separate: whether there are files to validate on, so that no genes are drawn.

        Raises:
            ConfigError: all mistakes, among them settings of base-layer files, of variants and of rows.
        """
        values = {"training_unit": "genes", **values}
        unread = [key for key in _UNREAD_WITH_SCORES if values.get(key) is not None]
        mistakes = [f"{key}: does not go with --scores, {_ALL_POSITIONS}; given {values[key]}" for key in unread]
        if separate and values.get("val_split") is not None:
            unread.append("val_split")
            mistakes.append(
                f"val_split: does not go with --valid-scores, the genes to validate on; given {values['val_split']}"
            )
        if values["training_unit"] == "rows":
            mistakes.append(f"training_unit rows: does not go with --scores, {_ALL_POSITIONS}")
            values["training_unit"] = "genes"
        try:
            config = cls(**{key: value for key, value in values.items() if key not in unread})
        except ConfigError as error:
            raise ConfigError(joined([*mistakes, *listed(error)])) from None
        if mistakes:
            raise ConfigError(joined(mistakes))
        return config

    def to_yaml(self, path: str | Path) -> None:
        """Write all settings that act; `from_yaml` gives an equal configuration."""
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
