"""What answers on the page of `metalayer view`: a model directory, or base models alone; no release, no golden rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.base.protocol import is_built_in, load_base_model
from metalayer.inference import Predictor
from metalayer.integrity import content_digest
from metalayer.release import answer
from metalayer.release.contract import RequestError, SequenceInput
from metalayer.release.engine import Engine, Pace

_DIGITS = 12
NO_MODEL = "there is no model beside the base model here; give `metalayer view` one with --model"


class ModelAtHand(Engine):
    """A model directory that answers as it is."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        """Load it; errors as of `Predictor.load`."""
        self._predictor = Predictor.load(directory, device)
        base = str(self._predictor.info.get("base_model"))
        self.pace, self._onnx = Pace(), None
        self._base = load_base_model(base) if is_built_in(base) else None
        self.digest, self.name = self._predictor.digest, f"metalayer-{base}"
        self.version = f"unregistered-{self.digest[:_DIGITS]}"
        self._facts = {"name": self.name, "version": self.version, "alias": None}
        self.runs_in = f"torch on {self._predictor.device}" if self.answers_rows else "nothing: rows are not answered"


class BaseAlone(Engine):
    """Base models without a model of ours: genes and variants have their scores, rows and sequences of ours none."""

    def __init__(self, bases: Sequence[str]) -> None:
        """Take their names."""
        self.pace, self.name, self.version = Pace(), "+".join(bases), "base"
        self.digest, self.runs_in = content_digest(list(bases)), "nothing: there is no model"

    @property
    def predictor(self) -> None:
        """There is none."""
        return None

    @property
    def score_fields(self) -> dict[str, tuple[str, ...]]:
        """None are read."""
        return {}

    @property
    def answers_rows(self) -> bool:
        """No."""
        return False

    def refuse_rows(self) -> None:
        """Refuse all.

        Raises:
            RequestError: 501.
        """
        raise RequestError(NO_MODEL, 501)

    def score_sequence(self, given: SequenceInput) -> Iterator[NDArray[np.float32]]:
        """Refuse all; errors as of `refuse_rows`."""
        raise RequestError(NO_MODEL, 501)

    def answered(self, way: str, given: SequenceInput | None = None) -> dict[str, str]:
        """What every answer says of itself."""
        return answer.facts(way, "scores of base models alone")

    def describe(self) -> dict[str, Any]:
        """What answers, JSON-ready: as of `Engine`, with nothing of a model."""
        return {
            "name": self.name,
            "version": self.version,
            "alias": None,
            "digest": self.digest,
            "base_model": self.name,
            "score_fields": {},
            "ways": {},
            "rows_run_in": self.runs_in,
            "metrics": {},
            "held_out": None,
        }
