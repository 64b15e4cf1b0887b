"""The model as MLflow loads it ("models from code": MLflow runs this file, nothing is pickled)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.schema import CLASSES
from metalayer.serving.schemas import validate_columns


class SpliceModel(PythonModel):  # type: ignore[misc]
    """Rows of the score contract to calibrated probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model directory that was logged as artifact `bundle`."""
        self.predictor = Predictor.load(Path(context.artifacts["bundle"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score rows.

        Args:
            context: not used.
            model_input: columns of the score contract (`metalayer.serving.schemas`).
            params: not used.

        Returns:
            float64 columns donor, acceptor, neither, in the order of the rows.

        Raises:
            RequestError: rows that break the contract.
        """
        rows = validate_columns({str(name): model_input[name].tolist() for name in model_input.columns})
        windows = encode_windows(rows.sequences, rows.index, self.predictor.schema.window_bp)
        answers = self.predictor.predict_rows(rows.row_scores, windows)
        return pd.DataFrame(answers.astype("float64"), columns=list(CLASSES), index=model_input.index)


set_model(SpliceModel())
