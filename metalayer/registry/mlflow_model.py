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
from metalayer.release.contract import NOTE, WAY, validate_columns
from metalayer.schema import CLASSES, ROWS

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
            params: not used.

        Returns:
            float64 columns donor, acceptor, neither, in the order of the rows; `attrs` says how they were answered.

        Raises:
            RequestError: rows that break the contract.
        """
        rows = validate_columns({str(name): model_input[name].tolist() for name in model_input.columns})
        windows = encode_windows(rows.sequences, rows.index, self.predictor.schema.window_bp)
        answers = self.predictor.predict_rows(rows.row_scores, windows)
        table = pd.DataFrame(answers.astype("float64"), columns=list(CLASSES), index=model_input.index)
        table.attrs |= {WAY: ROWS, NOTE: self.predictor.note(ROWS)}
        return table


set_model(SpliceModel())
