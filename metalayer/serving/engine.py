"""The engine: one release, loaded once, checked against its golden rows, answering rows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.windows import encode_windows
from metalayer.errors import ModelError
from metalayer.inference import Predictor
from metalayer.schema import CLASSES
from metalayer.serving.release import GOLDEN, read_facts
from metalayer.serving.schemas import FIELDS, REQUIRED, RequestError, Rows, validate_columns

GOLDEN_TOLERANCE = 1e-6
"""Largest allowed difference of a golden row's probability from the expected one."""

logger = logging.getLogger(__name__)


class Engine:
    """A release that answers.

    Attributes:
        name: registered name.
        version: registered version, as text.
        digest: SHA-256 of the model.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        """Load a release, warm it up and check it on its golden rows.

        Raises:
            ModelError: missing or damaged files, or answers that differ from those expected.
            SchemaError: a model of another feature schema.
        """
        directory = Path(directory)
        self._facts = read_facts(directory)
        self._predictor = Predictor.load(directory, device)
        self.name, self.version = str(self._facts["name"]), str(self._facts["version"])
        self.digest = self._predictor.digest
        self._check(directory / GOLDEN)
        logger.info("model %s version %s (%s) is ready", self.name, self.version, self.digest[:12])

    def score(self, rows: Rows) -> NDArray[np.float32]:
        """Calibrated probabilities; a row's bytes do not depend on the rows beside it.

        Returns:
            float32 (n, 3): donor, acceptor, neither.
        """
        windows = encode_windows(rows.sequences, rows.index, self._predictor.schema.window_bp)
        return self._predictor.predict_rows(rows.row_scores, windows)

    def describe(self) -> dict[str, Any]:
        """What is served and where it comes from, JSON-ready."""
        info = self._predictor.info
        return {
            "name": self.name,
            "version": self.version,
            "alias": self._facts.get("alias"),
            "digest": self.digest,
            "base_model": info.get("base_model"),
            "feature_schema": {**self._predictor.schema.to_dict(), "hash": self._predictor.schema.hash},
            "rows": self._predictor.masked_rows or "answered from all that the model reads",
            "metrics": self._facts.get("metrics", {}),
            "data_hash": self._facts.get("data_hash", info.get("data_hash")),
            "git_commit": self._facts.get("git_commit", info.get("git_commit")),
        }

    def _check(self, golden: Path) -> None:
        rows, expected = read_golden(golden)
        difference = float(np.abs(self.score(rows) - expected).max())
        if not difference <= GOLDEN_TOLERANCE:  # NaN fails too
            raise ModelError(
                f"model {self.name} version {self.version}: golden rows differ by {difference:.2g} from the expected "
                f"probabilities, allowed is {GOLDEN_TOLERANCE:g}; not serving it. Package the model again in this "
                "environment"
            )


def read_golden(path: Path) -> tuple[Rows, NDArray[np.float64]]:
    """Golden rows and the probabilities expected of them, float64 (n, 3).

    Raises:
        ModelError: a file that cannot be read or holds no valid rows.
    """
    try:
        table = pl.read_parquet(path)
        inputs = [name for name in FIELDS if name in table.columns or name in REQUIRED]
        rows = validate_columns({name: table[name].to_list() for name in inputs})
        return rows, table.select(pl.col(CLASSES).cast(pl.Float64)).to_numpy()
    except (OSError, pl.exceptions.PolarsError, RequestError) as error:
        raise ModelError(f"golden rows {path}: {error}; package the model again") from None
