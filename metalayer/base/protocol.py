"""What a base model offers, and how to get one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metalayer.base.pwm import PwmModel
from metalayer.errors import ConfigError


class BaseModel(Protocol):
    """Scores every position of a stretch of DNA.

    Attributes:
        name: as in `<base_model>_eval`.
        flank_bp: letters on either side that a score depends on.
    """

    @property
    def name(self) -> str:
        """As in `<base_model>_eval`."""

    @property
    def flank_bp(self) -> int:
        """Letters on either side that a score depends on."""

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        """Donor, acceptor and neither probability of every base of `sequence`.

        Args:
            sequence: letters (L), transcript sense.
            upstream: letters right before it; at most the last `flank_bp` count, missing ones are N.
            downstream: letters right after it; at most the first `flank_bp` count, missing ones are N.

        Returns:
            float32 (L, 3), sites at exon bases: the last exonic base of a donor, the first of an
            acceptor.

        Raises:
            InputError: a letter other than ACGTN.
        """


def _openspliceai(weights: str | Path, flank: int | None = None, device: str = "auto") -> BaseModel:
    from metalayer.base.openspliceai import OpenSpliceAI

    return OpenSpliceAI(weights, flank, device)


BASE_MODELS: dict[str, Callable[..., BaseModel]] = {"openspliceai": _openspliceai, "pwm": PwmModel}
"""Name to what makes the model from its options; a new base model registers here."""


def load_base_model(name: str, **options: Any) -> BaseModel:
    """A base model by name.

    Args:
        name: `pwm` (built in), or `openspliceai` (`weights`: folder with the user's state dicts; `flank`; `device`).
        options: of that model.

    Raises:
        ConfigError: an unknown name or option, naming those that exist.
    """
    factory = BASE_MODELS.get(name)
    if factory is None:
        raise ConfigError(f"base model {name!r} is unknown; there are {', '.join(sorted(BASE_MODELS))}")
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigError(f"base model {name!r}: {error}; its options are {known}") from None
    return factory(**options)
