"""Rows in ONNX Runtime say what the model says, whatever they are batched with; other models stay in torch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metalayer.errors import ModelError
from metalayer.inference import Predictor
from metalayer.inference.predictor import ROW_CHUNK
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.models.description import digest
from metalayer.registry.bento import build_bento, find_bento
from metalayer.release import onnx
from metalayer.release.contract import validate_columns
from metalayer.release.engine import Engine
from metalayer.release.folder import ONNX
from metalayer.release.onnx import OnnxRows
from tests import checkpoints, releases
from tests.releases import expected, make_bundle, make_golden, make_release, score_rows
from tests.test_models import perturbed

FORMS: dict[str, dict[str, Any]] = {
    "cnn": {},
    "gated": {"fusion": "gated"},
    "cross attention": {"fusion": "cross_attention"},
    "scores alone": {"sequence_encoder": "none"},
    "letters alone": {"score_encoder": False},
    "masked tracks": {"track_encoder": "stages"},
    "tracks alone": {"sequence_encoder": "none", "score_encoder": False, "track_encoder": "stages"},
}


def save(model: MetaSpliceModel, directory: Path) -> Path:
    save_model(model, directory, {"base_model": "pwm"})
    return directory


def inputs(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.dirichlet([0.1, 0.1, 0.5], n), rng.random((n, 4))], axis=1)
    return scores.astype(np.float32), rng.integers(0, 5, (n, 500), dtype=np.uint8)


@pytest.mark.parametrize(
    "form", [name if name in ("cnn", "masked tracks") else pytest.param(name, marks=pytest.mark.slow) for name in FORMS]
)
def test_every_form_says_what_torch_says_bit_for_bit_in_any_company(tmp_path: Path, form: str) -> None:
    model = MetaSpliceModel(hidden_dim=32, **FORMS[form])
    bundle = save(model if model.fuse is None else perturbed(model), tmp_path / "bundle")
    assert onnx.prepare(bundle) == ""
    graph, predictor = OnnxRows(bundle / ONNX, digest(bundle)), Predictor.load(bundle)
    scores, windows = inputs(3 * ROW_CHUNK + 5)
    together = predictor.predict_rows(scores, windows, graph)
    assert np.abs(together - predictor.predict_rows(scores, windows)).max() <= 1e-6
    backwards = predictor.predict_rows(scores[::-1], windows[::-1], graph)
    assert np.array_equal(backwards[::-1], together)
    for row in (0, ROW_CHUNK, len(scores) - 1):
        alone = predictor.predict_rows(scores[row : row + 1], windows[row : row + 1], graph)
        assert alone.tobytes() == together[row].tobytes()


def test_a_release_with_a_graph_runs_it(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    rows = score_rows(70)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    answers = {}
    for engine in (Engine(release), _with_graph(release)):
        answers[engine.describe()["rows_run_in"]] = np.concatenate(list(engine.score(validate_columns(columns))))
    assert list(answers) == [f"torch: the release has no {ONNX}", "ONNX Runtime"]
    for found in answers.values():
        assert np.abs(found - expected(tmp_path / "bundle", rows)).max() <= 1e-6


def _with_graph(release: Path) -> Engine:
    assert onnx.prepare(release) == ""
    return Engine(release)


@pytest.mark.parametrize("kind", ["hyenadna", "huggingface"])
def test_language_models_stay_in_torch(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "checkpoint"
    checkpoints.hyenadna(place) if kind == "hyenadna" else checkpoints.bpe_bert(place)
    given = {"chunk_bp": 48, "stride_bp": 16, "output_dim": 8}
    given |= {"model_size" if kind == "hyenadna" else "model": str(place)}
    bundle = save(MetaSpliceModel(kind, sequence_encoder_config=given, hidden_dim=16), tmp_path / "bundle")
    with caplog.at_level("INFO"):
        assert onnx.prepare(bundle).startswith("a language model")
    assert "stay in torch: a language model" in caplog.text
    assert not (bundle / ONNX).exists()


def test_another_answer_than_torchs_fails_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    bundle = make_bundle(tmp_path / "bundle")
    golden = make_golden(bundle, tmp_path / "golden.parquet")
    calibrate = MetaSpliceModel.calibrate

    def slightly_off(self: MetaSpliceModel, given: torch.Tensor, way: str) -> torch.Tensor:
        return calibrate(self, given * 1.1 if torch.compiler.is_exporting() else given, way)

    monkeypatch.setattr(MetaSpliceModel, "calibrate", slightly_off)
    monkeypatch.setattr(onnx, "_export", releases._export)
    monkeypatch.setattr(releases, "_graphs", {})  # not the graph of another test
    with pytest.raises(ModelError, match=r"differ by .* from torch's, allowed is 1e-05; the model is not packaged"):
        build_bento(bundle, golden, name="metalayer-pwm", version=1, facts={}, registered="d" * 64)
    assert find_bento("metalayer-pwm", 1, "d" * 64) is None


def test_a_model_that_rounds_too_far_stays_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "ROUNDING_TOLERANCE", 0.0)
    bundle = make_bundle(tmp_path / "bundle")
    assert onnx.prepare(bundle).startswith("ONNX Runtime rounds by")
    assert not (bundle / ONNX).exists()


def test_the_graph_of_another_model_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    release = make_release(tmp_path / "one")
    other = make_bundle(tmp_path / "other", seed=1)
    onnx.prepare(other)
    shutil.copyfile(other / ONNX, release / ONNX)
    with pytest.raises(ModelError, match="beside model"):
        Engine(release)
    (release / ONNX).write_bytes((other / ONNX).read_bytes()[:1000])
    with pytest.raises(ModelError, match="package the model again"):
        Engine(release)
