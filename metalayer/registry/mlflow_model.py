"""The model as MLflow loads it ("models from code": MLflow runs this file, nothing is pickled)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.release import answer
from metalayer.release.contract import validate_columns
from metalayer.schema import ROWS

logger = logging.getLogger(__name__)


class SpliceModel(PythonModel):  # type: ignore[misc]
    """Rows of the score contract to calibrated probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model directory that was logged as artifact `bundle`."""
        self.predictor = Predictor.load(Path(context.artifacts["bundle"]))
        if self.predictor.masks_rows:
            logger.warning("rows: %s", self.predictor.note(ROWS))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score rows.

        Args:
            context: not used.
            model_input: columns of the score contract (`metalayer.release.contract`).
            params: `base`, whether the base scores that a row was sent with stand beside its meta scores.

        Returns:
            float64 columns donor, acceptor, neither (meta model, calibrated), with `base` also base_donor,
            base_acceptor, base_neither, in the order of the rows; `attrs` says how they were answered.

        Raises:
            RequestError: rows that break the contract.
        """
        rows = validate_columns({str(name): model_input[name].tolist() for name in model_input.columns})
        windows = encode_windows(rows.sequences, rows.index, self.predictor.schema.window_bp)
        base = bool((params or {}).get(answer.BASE))
        answers = self.predictor.predict_rows(rows.row_scores, windows)
        table = pd.DataFrame(
            (answer.beside(answers, rows.row_scores) if base else answers).astype("float64"),
            columns=list(answer.row_columns(base)),
            index=model_input.index,
        )
        table.attrs |= answer.facts(ROWS, self.predictor.note(ROWS))
        return table


set_model(SpliceModel())
