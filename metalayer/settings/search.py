"""A hyperparameter search: which settings may be searched, and what is wrong with a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from metalayer.errors import ConfigError
from metalayer.metric_list import ValidationMetric
from metalayer.settings.mistakes import listed
from metalayer.settings.network import ModelConfig
from metalayer.settings.no_effect import is_switched_off, without_effect
from metalayer.settings.section import NO_EFFECT, Section, no_effect_text, qualified
from metalayer.settings.sections import TrainConfig


class Range(BaseModel):
    """All values from `low` to `high`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""

    @field_validator("low", "high", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticCustomError("number_wanted", "needs a number")
        return value


class SearchConfig(Section):
    """A hyperparameter search (`--pipeline search`)."""

    section: ClassVar[str] = "search"

    n_trials: int = Field(10, ge=1, le=100_000)
    """Trials to train."""
    metric: ValidationMetric = "pr_auc_splice"
    """Validation figure to maximise (the loss is minimised)."""
    space: dict[str, Range | list[Any]] | None = None
    """Settings of model and train by name: a list of choices, or `{low: …, high: …}`; None takes the default
    ranges of learning_rate, batch_size, hidden_dim, dropout and weight_decay, of those that act."""

    def choices(self) -> dict[str, Sequence[Any]] | None:
        """`space` with each range as a tuple (low, high)."""
        if self.space is None:
            return None
        return {name: (of.low, of.high) if isinstance(of, Range) else of for name, of in self.space.items()}


class _Network(ModelConfig, TrainConfig):
    section: ClassVar[str] = ""


SEARCHED = tuple(
    name for name in _Network.model_fields if name not in ("seed", "device", "threads", "early_stopping_metric")
)
"""Settings that may be searched: what the network is and how it is trained, not what judges it."""


def space_mistakes(space: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with a search space, each mistake with the setting's name in front.

    Args:
        space: by setting a list of choices, or a tuple (low, high).
        settings: all of model and train. A value that acts beside some choice of another setting is no mistake.
    """
    mistakes = [] if space else ["empty; name a setting to search"]
    settings = {name: settings[name] for name in _Network.model_fields}
    fixed = {qualified(_Network, name): value for name, value in settings.items() if name not in space}
    for name, values in space.items():
        if name not in SEARCHED:
            mistakes.append(f"{name}: is no setting of the network or its training; there are " + ", ".join(SEARCHED))
            continue
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            mistakes.append(f"{name}: given {values!r}; a list of choices or a range (low, high)")
            continue
        if isinstance(values, tuple):
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            kind = _Network.model_fields[name].annotation
            if kind not in (int, float):
                mistakes.append(f"{name}: given {values!r}; not a number, so give a list of choices")
                continue
            whole = kind is float or (numbers and all(float(v).is_integer() for v in values))
            if len(values) != 2 or not numbers or not whole or not values[0] < values[1]:
                what = "numbers" if kind is float else "whole numbers"
                mistakes.append(f"{name}: given {values!r}; a range is (low, high), two {what}")
                continue
        found: list[str] = []
        for value in values:
            idle = {} if is_switched_off(value) else without_effect(fixed, [qualified(_Network, name)])
            found += [no_effect_text(name, value, need) for need in idle.values()]
            try:
                _Network(**{**settings, name: value})
            except ConfigError as error:
                found += [line for line in listed(error) if NO_EFFECT not in line]
        mistakes += [line if line.startswith(f"{name}") else f"{name}: {line}" for line in found]
    return mistakes
