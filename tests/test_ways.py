"""Ways of asking: rows carry no tracks, and what they are answered has a calibration of its own and says so."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metalayer import cli
from metalayer.evaluation.calibration import Calibration, Corrections, beyond_chance, fit
from metalayer.gene_track import GeneTrack
from metalayer.inference import Predictor
from metalayer.inference.torch_network import base_probabilities
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.release.engine import Engine
from metalayer.release.folder import write_release
from metalayer.release.onnx import prepare
from metalayer.schema import CLASSES, NEITHER, ROW_SCORES
from metalayer.serving.app import create_app
from metalayer.serving.arrow import MEDIA_TYPE
from metalayer.serving.state import Serving
from tests.dense import dense_rows, windowed_rows
from tests.releases import make_golden, score_rows
from tests.test_tracks import PARTS, build, gene_track, randomised

ASK_ELSEWHERE = (
    "this model reads base scores around a position, which rows do not carry: ask for whole sequences "
    "(/v1/score_sequence, Predictor.predict_tracks)"
)
ROWS_CALIBRATION = (0.8, (0.3, -0.4, 0.0))


def tracks_alone() -> MetaSpliceModel:
    """A model that reads tracks and nothing else, whose ways are calibrated otherwise."""
    model = randomised(build(PARTS[0]))
    model.calibrator("positions").set_calibration(1.3, (-2.0, -1.0, 0.0))
    model.calibrator("positions").set_shrinkage(0.5, 0.25)
    model.calibrator("rows").set_calibration(*ROWS_CALIBRATION)
    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ways") / "bundle"
    save_model(tracks_alone(), folder, {"base_model": "pwm", "split": {"train": ["A"], "valid": [], "test": []}})
    return folder


@pytest.fixture(scope="module", params=["torch", "onnx"])
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Engine:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder, bundle, make_golden(bundle, folder / "golden"), {"name": "metalayer-pwm", "version": "1"})
    if request.param == "onnx":
        assert prepare(folder) == ""
    return Engine(folder)


def call(engine: Engine, method: str, path: str, **options: object) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(Serving(engine)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("parts", PARTS)
def test_masked_the_whole_gene_says_what_its_rows_say(parts: dict[str, object]) -> None:
    model, track = randomised(build(parts)), gene_track()
    dense = dense_rows(model, track, masked=True)
    at = np.arange(len(track))
    np.testing.assert_allclose(dense, windowed_rows(model, track, at, masked=True), atol=2e-5)
    read = dense_rows(model, track)
    assert np.abs(read - dense).max() > 0.01


def test_masked_positions_and_rows_have_the_same_probabilities() -> None:
    """A donor's exon base lies one base upstream of its row; acceptors that are next to impossible do not matter."""
    model, track = tracks_alone(), gene_track()
    donor = np.random.default_rng(5).uniform(0.01, 0.9, len(track)).astype(np.float32)
    scores = np.stack([donor, np.full_like(donor, 1e-7), 1 - donor], axis=1)
    track = GeneTrack(track.gene, track.tokens, scores, track.labels)
    predictor = Predictor(model, {}, "")
    dense = predictor.calibrated(predictor.log_probabilities(track, "rows"), "rows")
    rows = np.zeros((len(track), len(ROW_SCORES)), dtype=np.float32)
    rows[1:, :3] = scores[:-1]
    rows[0, 2] = 1.0
    answers = predictor.predict_rows(rows, np.full((len(track), 500), 4, np.uint8))
    np.testing.assert_allclose(answers[1:], dense[:-1], atol=1e-5)
    assert np.abs(predictor.predict_gene_track(track) - dense).max() > 0.1


def test_each_way_is_answered_under_its_own_calibration(served: Engine, bundle: Path) -> None:
    rows = score_rows(70)
    answers = call(served, "POST", "/v1/score", json={"rows": rows}).json()["rows"]
    given = np.array([[row[name] for name in CLASSES] for row in answers])
    base = base_probabilities(pl.DataFrame(rows).select(ROW_SCORES[:3]).to_numpy().astype(np.float32))
    np.testing.assert_allclose(given, Calibration(*ROWS_CALIBRATION).apply(base), atol=2e-6)
    backwards = call(served, "POST", "/v1/score", json={"rows": rows[::-1]}).json()["rows"]
    assert backwards[::-1] == answers
    assert call(served, "POST", "/v1/score", json={"rows": rows[7:8]}).json()["rows"] == answers[7:8]
    model, _ = load_model(bundle)
    assert model.calibrator("positions").shrinkage.tolist() == [0.5, 0.25, 1.0]
    assert model.calibrator("rows").scale.item() == pytest.approx(0.8)


def test_every_answer_and_the_model_say_which_was_used(served: Engine) -> None:
    note = f"recalibrated base scores; {ASK_ELSEWHERE}"
    ways = call(served, "GET", "/v1/model").json()["ways"]
    assert ways["rows"] == {
        "note": note,
        "own_calibration": True,
        "shrinkage": [1.0, 1.0],
        "scale": pytest.approx(0.8),
        "bias": pytest.approx([0.3, -0.4, 0.0]),
    }
    assert ways["positions"]["scale"] == pytest.approx(1.3)
    letters = {"sequence": "ACGT" * 50}
    for path, body, way in (
        ("/v1/score", {"rows": score_rows(3)}, "rows"),
        ("/v1/score_sequence", letters, "positions"),
    ):
        answer = call(served, "POST", path, json=body).json()
        assert (answer["way"], answer["note"]) == (way, ways[way]["note"])
        arrow = call(served, "POST", path, json=body, headers={"Accept": MEDIA_TYPE})
        schema = pa.ipc.open_stream(arrow.content).schema
        assert schema.metadata == {b"way": way.encode(), b"note": ways[way]["note"].encode()}
        described = call(served, "GET", "/openapi.json").json()["paths"][path]["post"]["responses"]["200"]
        assert described["content"]["application/json"]["schema"]["required"] == list(answer)


def test_a_model_without_tracks_has_one_calibration_for_both(engine: Engine) -> None:
    ways = call(engine, "GET", "/v1/model").json()["ways"]
    assert ways["rows"] == ways["positions"]
    assert not ways["rows"]["own_calibration"]
    model = MetaSpliceModel(hidden_dim=16)
    assert model.calibrator("rows") is model.calibrator("positions")


def test_a_base_that_is_not_recalibrated_is_not_called_so() -> None:
    model = tracks_alone()
    model.calibrator("rows").set_calibration(1.0, (0.0, 0.0, 0.0))
    assert Predictor(model, {}, "").note("rows") == f"base scores as they are; {ASK_ELSEWHERE}"
    fused = Predictor(build(PARTS[3]), {}, "")
    assert fused.note("rows").startswith("answered from a row's scores and letters alone; this model also reads base")


def test_metalayer_score_says_how_rows_are_answered(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pl.DataFrame(score_rows(5)).write_parquet(tmp_path / "in.parquet")
    given = ["score", str(tmp_path / "in.parquet"), "--model", str(bundle), "--device", "cpu", "--output"]
    with caplog.at_level(logging.WARNING):
        for name in ("out.parquet", "out.tsv"):
            assert cli.main([*given, str(tmp_path / name)]) == 0
    note = f"recalibrated base scores; {ASK_ELSEWHERE}"
    assert caplog.messages.count(f"rows: {note}") == 2
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    assert (metadata[b"way"], metadata[b"note"]) == (b"rows", note.encode())


def test_the_model_as_mlflow_loads_it_says_so_too(bundle: Path) -> None:
    from metalayer.registry.mlflow_model import SpliceModel

    model = SpliceModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(bundle)}))
    frame = pl.DataFrame(score_rows(3)).to_pandas()
    assert model.predict(None, frame).attrs == {"way": "rows", "note": f"recalibrated base scores; {ASK_ELSEWHERE}"}


def made_up(n_genes: int, seed: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities too sure by `scale`, labels drawn from what they should be, gene numbers."""
    rng = np.random.default_rng(seed)
    right = rng.dirichlet([0.05, 0.05, 2.0], 2000 * n_genes) + 1e-9
    right /= right.sum(axis=1, keepdims=True)
    labels = (rng.random(len(right))[:, None] > np.cumsum(right, axis=1)).sum(axis=1)
    sure = Calibration(scale).apply(right)
    return sure, labels, np.repeat(np.arange(n_genes), 2000)


def by_gene(p: np.ndarray, labels: np.ndarray, genes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, None]]:
    return [(p[genes == gene], labels[genes == gene], None) for gene in np.unique(genes)]


def test_a_calibration_is_beyond_chance_where_other_genes_would_gain() -> None:
    off, labels, genes = made_up(10, 0, 2.0)
    assert beyond_chance(fit(off, labels), by_gene(off, labels, genes))
    assert not beyond_chance(fit(off, labels), [(off, labels, None)])  # one gene shows nothing
    assert not beyond_chance(Calibration(), by_gene(off, labels, genes))
    found = [
        beyond_chance(fit(right, labels), by_gene(right, labels, genes))
        for right, labels, genes in (made_up(6, seed, 1.0) for seed in range(20))
    ]
    assert sum(found) <= 1
    # One gene in ten has sites at three times the rate: a bias of its own, and no evidence of others.
    right, labels, genes = made_up(10, 1, 1.0)
    extra = (genes == 0) & (right[:, :2].max(axis=1) > 0.05)
    labels[extra] = right[extra, :2].argmax(axis=1)
    calibration = fit(right, labels)
    assert calibration.bias != (0.0, 0.0, 0.0)
    assert not beyond_chance(calibration, by_gene(right, labels, genes))


def test_where_a_model_corrects_nothing_no_factor_is_drawn_from_rounding() -> None:
    base = np.log(np.random.default_rng(0).dirichlet([0.1, 0.1, 1.0], 5000) + 1e-9)
    rounded = base + np.random.default_rng(1).normal(scale=1e-7, size=base.shape)
    labels = np.full(5000, NEITHER)
    labels[:50] = 0
    found = Corrections()
    for start in range(0, 5000, 500):
        at = slice(start, start + 500)
        found.add(base[at], rounded[at], labels[at])
    assert found.shrinkage_factors() == (0.0, 0.0)
