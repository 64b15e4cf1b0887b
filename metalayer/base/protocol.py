"""What a base model offers, and how to get one by name."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metalayer.base.origin import Origin
from metalayer.base.pwm import PwmModel
from metalayer.errors import ConfigError

logger = logging.getLogger(__name__)


class BaseModel(Protocol):
    """Scores every position of a stretch of DNA.

    Attributes:
        name: as in `<base_model>_eval`.
        flank_bp: letters on either side that a score depends on.
        columns: what it gives, as columns of a per-nucleotide file.
        origin: of its weights.
    """

    @property
    def name(self) -> str:
        """As in `<base_model>_eval`."""

    @property
    def flank_bp(self) -> int:
        """Letters on either side that a score depends on."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it gives: `BASE_SCORES`, or `SPLICED_SCORE` alone where it does not tell donors from acceptors."""

    @property
    def origin(self) -> Origin:
        """Licence of its weights, and what they were trained on."""

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        """Probabilities of every base of `sequence`.

        Args:
            sequence: letters (L), transcript sense.
            upstream: letters right before it; at most the last `flank_bp` count, missing ones are N.
            downstream: letters right after it; at most the first `flank_bp` count, missing ones are N.

        Returns:
            float32 (L, `columns`), sites at exon bases: the last exonic base of a donor, the first of an
            acceptor.

        Raises:
            InputError: a letter other than ACGTN.
        """


def _spliceai(weights: str | Path | None = None, device: str = "auto", precision: str = "float32") -> BaseModel:
    from metalayer.base.spliceai import load_spliceai

    return load_spliceai(weights, device, precision)


def _cispliceai(weights: str | Path | None = None, device: str = "auto", precision: str = "float32") -> BaseModel:
    from metalayer.base.cispliceai import load_cispliceai

    return load_cispliceai(weights, device, precision)


def _pangolin(weights: str | Path, device: str = "auto", precision: str = "float32") -> BaseModel:
    from metalayer.base.pangolin import load_pangolin

    return load_pangolin(weights, device, precision)


def _pangolin_spliced(weights: str | Path, device: str = "auto", precision: str = "float32") -> BaseModel:
    from metalayer.base.pangolin import load_spliced

    return load_spliced(weights, device, precision)


def _openspliceai(
    weights: str | Path, flank: int | None = None, device: str = "auto", precision: str = "float32"
) -> BaseModel:
    from metalayer.base.openspliceai import load_openspliceai

    return load_openspliceai(weights, flank, device, precision)


BASE_MODELS: dict[str, Callable[..., BaseModel]] = {
    "cispliceai": _cispliceai,
    "openspliceai": _openspliceai,
    "pangolin": _pangolin,
    "pangolin_spliced": _pangolin_spliced,
    "pwm": PwmModel,
    "spliceai": _spliceai,
}
"""Name to what makes the model from its options; a new base model registers here."""
_BUILT_IN = frozenset({"pwm"})


def is_built_in(name: str) -> bool:
    """Whether a base model needs nothing of the user, such as weights, so that a server can run it."""
    return name in _BUILT_IN


def load_base_model(name: str, **options: Any) -> BaseModel:
    """A base model by name.

    Args:
        name: one of `BASE_MODELS`. `pwm` is built in; all others take `device`, `precision` and the user's `weights`,
            which `cispliceai` and `spliceai` find by themselves in the installed distribution of that name;
            `openspliceai` takes `flank` too.
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
    model = factory(**options)
    _log_licence(model.name, model.origin.licence)
    return model


@cache
def _log_licence(name: str, licence: str | None) -> None:
    """Once in a process."""
    if licence:
        logger.info("%s: its weights are under %s", name, licence)
