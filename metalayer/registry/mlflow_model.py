"""The model as MLflow loads it ("models from code": MLflow runs this file, nothing is pickled)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.inference.predictor import sequence_track
from metalayer.release import answer
from metalayer.release.contract import validate_columns, validate_sequence
from metalayer.schema import POSITIONS, ROWS

logger = logging.getLogger(__name__)


class SpliceModel(PythonModel):  # type: ignore[misc]
    """Rows of the score contract, or of a model with a stack sequences, to calibrated probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model directory that was logged as artifact `bundle`."""
        self.predictor = Predictor.load(Path(context.artifacts["bundle"]))
        if self.predictor.masks_rows:
            logger.warning("rows: %s", self.predictor.note(ROWS))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score rows, or sequences.

        Args:
            context: not used.
            model_input: columns of the score contract (`metalayer.release.contract`); of a model with a stack a line a
                sequence, its scores as lists.
            params: `base`, whether the base scores that a row was sent with stand beside its meta scores.

        Returns:
            float64 columns donor, acceptor, neither (meta model, calibrated), with `base` also base_donor,
            base_acceptor, base_neither, in the order of the rows, of sequences each a list; `attrs` says how they were
            answered.

        Raises:
            InputError: rows or sequences that break the contract, or scores of other base models.
        """
        if self.predictor.stack:
            return self._sequences(model_input, base=bool((params or {}).get(answer.BASE)))
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

    def _sequences(self, model_input: pd.DataFrame, *, base: bool) -> pd.DataFrame:
        lines = []
        for given in model_input.to_dict("records"):
            asked = validate_sequence({str(name): _plain(value) for name, value in given.items()})
            track = sequence_track(asked.sequence, asked.bases)
            scores = self.predictor.predict_gene_track(track)
            scores = np.concatenate([scores, self.predictor.best_base(track)], axis=1) if base else scores
            columns = zip(answer.row_columns(base), scores.T, strict=True)
            lines.append({name: column.astype("float64").tolist() for name, column in columns})
        table = pd.DataFrame(lines, columns=list(answer.row_columns(base)), index=model_input.index)
        table.attrs |= answer.facts(POSITIONS, self.predictor.note(POSITIONS))
        return table


def _plain(value: Any) -> Any:
    """Lists as the contract has them: MLflow makes arrays of them."""
    return value.tolist() if isinstance(value, np.ndarray) else value


set_model(SpliceModel())
