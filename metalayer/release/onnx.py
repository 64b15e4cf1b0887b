"""The network of rows in ONNX Runtime: exported when a model is packaged, run by servers on a CPU.

The graph takes chunks of `ROW_CHUNK` rows and nothing else, one thread each, so that a row's bytes do
not depend on the rows beside it. It carries the digest of its model, and is packaged only if it says
what the model says. Models that are better off in torch say so (`SequenceEncoder.eager_because`).
The only file that imports onnxruntime, and with `prepare` alone onnxscript.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metalayer.errors import ModelError
from metalayer.features import feature_matrix
from metalayer.genome import N_TOKEN
from metalayer.inference.predictor import ROW_CHUNK, Predictor
from metalayer.models.meta import MetaSpliceModel
from metalayer.release.folder import ONNX
from metalayer.schema import BASE_SCORES, ROW_SCORES, ROWS

ROUNDING_TOLERANCE, PARITY_TOLERANCE = 1e-6, 1e-5
"""Differences of a probability from torch's: up to the first, which golden rows are held to, the graph is taken; up
to the second it is rounding, and the model stays in torch; beyond it the graph is wrong, and there is no package."""
OPSET = 20
"""The first with GELU as one operator."""
_DIGEST = "digest"
_PARITY_ROWS = 8 * ROW_CHUNK

logger = logging.getLogger(__name__)


class OnnxRows:
    """A loaded graph; callable from several threads."""

    def __init__(self, path: Path, model_digest: str) -> None:
        """Load the graph of a model.

        Raises:
            ModelError: a damaged file, or the graph of another model.
        """
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        unreadable = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # servers have a worker a core
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except unreadable as error:
            raise ModelError(f"{path}: {error}; package the model again") from None
        given = self._session.get_modelmeta().custom_metadata_map.get(_DIGEST)
        if given != model_digest:
            raise ModelError(f"{path}: of model {given}, beside model {model_digest}; package the model again")
        self._inputs = {node.name for node in self._session.get_inputs()}  # what the model does not read is no input

    def __call__(self, letters: NDArray[np.uint8], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Letters (n, W) and features (n, F) to calibrated probabilities, float32 (n, 3); n is `ROW_CHUNK`."""
        given = {"letters": letters, "features": features}
        answer: NDArray[np.float32] = self._session.run(
            None, {name: value for name, value in given.items() if name in self._inputs}
        )[0]
        return answer


def prepare(directory: Path) -> str:
    """Put the graph into a model directory or release, unless it is there, and compare it with torch.

    Args:
        directory: with weights and description.

    Returns:
        Why there is none, in words; empty where there is one.

    Raises:
        ModelError: a damaged model, or a graph whose probabilities differ by more than `PARITY_TOLERANCE`.
    """
    predictor = Predictor.load(directory)
    if predictor.stack:
        return predictor.note(ROWS)
    if why := str(predictor.model.encoder.eager_because):
        logger.info("rows of the model stay in torch: %s", why)
        return why
    path = Path(directory) / ONNX
    if not path.is_file():
        _export(predictor, path)
    row_scores, windows = _made_up(predictor.model.window_bp)
    answers = predictor.predict_rows(row_scores, windows, OnnxRows(path, predictor.digest))
    difference = float(np.abs(answers - predictor.predict_rows(row_scores, windows)).max())
    if not difference <= PARITY_TOLERANCE:  # NaN fails too
        raise ModelError(
            f"rows in ONNX Runtime: probabilities differ by {difference:.2g} from torch's, allowed is "
            f"{PARITY_TOLERANCE:g}; the model is not packaged"
        )
    logger.info("rows in ONNX Runtime: probabilities differ by at most %.2g from torch's", difference)
    if difference > ROUNDING_TOLERANCE:
        path.unlink()
        why = f"ONNX Runtime rounds by {difference:.2g}, allowed is {ROUNDING_TOLERANCE:g}"
        logger.warning("rows of the model stay in torch: %s", why)
        return why
    return ""


class _CalibratedRows(nn.Module):
    def __init__(self, model: MetaSpliceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, letters: Tensor, features: Tensor) -> Tensor:
        return self.model.calibrate(self.model(letters, features), ROWS)


def _export(predictor: Predictor, path: Path) -> None:
    row_scores, windows = _made_up(predictor.model.window_bp)
    features = feature_matrix(row_scores[:ROW_CHUNK], windows[:ROW_CHUNK])
    with _quiet():
        program: Any = torch.onnx.export(
            _CalibratedRows(predictor.model).eval(),
            (torch.from_numpy(windows[:ROW_CHUNK]), torch.from_numpy(features)),
            input_names=["letters", "features"],
            output_names=["probabilities"],
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.conv1d.default: _conv1d},
            verbose=False,
        )
    program.model.metadata_props[_DIGEST] = predictor.digest
    program.save(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, of packages that it does without and of torch's own deprecated calls."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        exporter.setLevel(level)


def _conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: tuple[int] = (1,),
    padding: tuple[int] = (0,),
    dilation: tuple[int] = (1,),
    groups: int = 1,
) -> Any:
    """A convolution over an axis more, of length 1: ONNX Runtime is a fifth faster over two axes than over one."""
    from onnxscript import opset20 as op

    axis = op.Constant(value_ints=[2])
    found = op.Conv(
        op.Unsqueeze(x, axis),
        op.Unsqueeze(weight, axis),
        bias,
        strides=[1, *stride],
        pads=[0, *padding, 0, *padding],
        dilations=[1, *dilation],
        group=groups,
    )
    return op.Squeeze(found, axis)


def _made_up(window_bp: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Row scores (n, 7) and windows (n, W), certain scores and windows of N alone among them."""
    rng = np.random.default_rng(0)
    base = rng.dirichlet(np.full(len(BASE_SCORES), 0.2), _PARITY_ROWS)
    base[: len(BASE_SCORES)] = np.eye(len(BASE_SCORES))
    context = rng.random((_PARITY_ROWS, len(ROW_SCORES) - len(BASE_SCORES)))
    windows = rng.integers(0, N_TOKEN + 1, (_PARITY_ROWS, window_bp), dtype=np.uint8)
    windows[::16] = N_TOKEN
    return np.concatenate([base, context], axis=1).astype(np.float32), windows
