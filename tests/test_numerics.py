"""Numbers do not depend on how a file stores scores, nor on what else is in a batch; what agrees, and how closely."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from releases import make_release
from scored_genes import make_genes

from metalayer.data.score_files import ScoreFile
from metalayer.evaluation.calibration import fit
from metalayer.evaluation.metrics import ECE_BINS, CalibrationCounts, GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.row_metrics import row_metrics
from metalayer.features import feature_matrix
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene, Interval
from metalayer.inference import Predictor
from metalayer.release import onnx
from metalayer.release.folder import ONNX
from metalayer.release.onnx import OnnxRows
from metalayer.schema import BASE_SCORES, NEITHER, ROWS
from metalayer.settings.sections import EvaluateConfig

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "serving.md").read_text("utf-8")
QUICK = EvaluateConfig(n_bootstrap=100, top_k_values=(3, 50))


def decimal_rows(n: int, seed: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and float64 probabilities of few decimals: sums that meet the edges of bins, ties, equal classes."""
    rng = np.random.default_rng(seed)
    unit = 10**decimals
    parts = rng.multinomial(unit, rng.dirichlet([0.5, 0.5, 0.5], n))
    labels = rng.choice(3, n).astype(np.uint8)
    return labels, parts / unit


@pytest.mark.parametrize("decimals", [1, 2, 3, 9])
@pytest.mark.parametrize("seed", range(5))
def test_a_file_of_float64_gives_the_numbers_of_its_float32(seed: int, decimals: int) -> None:
    labels, double = decimal_rows(2000, seed, decimals)
    single = double.astype(np.float32)
    assert row_metrics(labels, double) == row_metrics(labels, single)
    assert fit(double, labels) == fit(single, labels)
    reports = [
        evaluate(
            [GeneScores(f"G{i}", "1", labels[i::8], {"base": p[i::8], "meta": p[::-1][i::8]}) for i in range(8)], QUICK
        )
        for p in (double, single)
    ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sum_of_decimals_is_in_the_bin_of_its_decimal(kind: type) -> None:
    hundredths = np.array([(d, a) for d in range(101) for a in range(101 - d)])
    probabilities = (hundredths / 100).astype(kind)
    scores = probabilities[:, 0].astype(np.float64) + probabilities[:, 1]
    counts = CalibrationCounts(len(scores))
    for number in range(len(scores)):
        counts.add(number, np.zeros(1, bool), scores[number : number + 1])
    expected = np.minimum(hundredths.sum(axis=1) * ECE_BINS // 100, ECE_BINS - 1)
    assert np.array_equal(counts.items.argmax(axis=1), expected)


def test_metrics_do_not_depend_on_the_order_of_rows_or_genes() -> None:
    labels, p = decimal_rows(3000, 0, 2)
    order = np.random.default_rng(1).permutation(len(labels))
    one, other = row_metrics(labels, p), row_metrics(labels[order], p[order])
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, abs=1e-12), name
    genes = make_genes(decimals=2)
    reports = [evaluate(given, QUICK)["meta"] for given in (genes, genes[::-1])]
    assert reports[0] == pytest.approx(reports[1], abs=1e-12)


def test_score_files_of_either_kind_become_the_same_tracks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.1, 0.1, 2.0], 300)
    frame = pl.DataFrame(
        {
            "gene_id": ["G"] * 300,
            "chrom": ["1"] * 300,
            "strand": ["+"] * 300,
            "position": np.arange(1, 301),
            "base": rng.choice(list("ACGT"), 300),
            **{name: p[:, i] for i, name in enumerate(BASE_SCORES)},
            "label": np.where(np.arange(300) == 50, "donor", np.where(np.arange(300) == 90, "acceptor", "neither")),
        }
    )
    read = []
    for kind in (pl.Float64, pl.Float32):
        path = tmp_path / f"{kind}.parquet"
        frame.with_columns(pl.col(*BASE_SCORES).cast(kind)).write_parquet(path)
        read.append(ScoreFile.read([path], tmp_path / f"{kind}.tracks", {}).store.read("G").scores)
    assert np.array_equal(read[0], read[1])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_release(tmp_path_factory.mktemp("numerics"))
    assert onnx.prepare(path) == ""
    return path


@pytest.fixture(scope="module")
def predictor(release: Path) -> Predictor:
    return Predictor.load(release)


def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.dirichlet([0.1, 0.1, 0.5], n), rng.random((n, 4))], axis=1)
    return scores.astype(np.float32), rng.integers(0, 5, (n, 500), dtype=np.uint8)


def track(n: int) -> GeneTrack:
    rng = np.random.default_rng(2)
    scores = rng.dirichlet([0.05, 0.05, 2.0], n).astype(np.float32)
    gene = Gene("G", Interval("1", 0, n), "+")
    return GeneTrack(gene, rng.integers(0, 4, n).astype(np.uint8), scores, np.full(n, NEITHER, np.uint8))


def stated(line: str) -> str:
    """How closely the page says that two agree."""
    (cells,) = [row.split("|") for row in DOCS.splitlines() if row.startswith(f"| {line} |")]
    return cells[2].strip()


def check(line: str, one: np.ndarray, other: np.ndarray) -> None:
    assert one.shape == other.shape
    if stated(line) == "bit for bit":
        assert one.tobytes() == other.tobytes()
    else:
        assert stated(line) == "1e-6"
        assert np.abs(one - other).max() <= 1e-6


def test_a_row_in_any_company(release: Path, predictor: Predictor) -> None:
    scores, windows = rows(133)
    graph = OnnxRows(release / ONNX, predictor.digest)
    order = np.random.default_rng(3).permutation(133)
    for forward in (graph, predictor.forward_rows):
        together = predictor.predict_rows(scores, windows, forward)
        shuffled = predictor.predict_rows(scores[order], windows[order], forward)
        check("a row, in any place of any batch", together[order], shuffled)
        for part in (slice(0, 1), slice(40, 77), slice(132, 133)):
            alone = predictor.predict_rows(scores[part], windows[part], forward)
            check("a row, in any place of any batch", together[part], alone)
    features = feature_matrix(scores, windows)
    logs = predictor.row_log_probabilities(features, windows)
    assert predictor.row_log_probabilities(features[order], windows[order]).tobytes() == logs[order].tobytes()
    assert predictor.row_log_probabilities(features[70:71], windows[70:71]).tobytes() == logs[70:71].tobytes()
    check(
        "rows as the gate judges them, and as torch serves them",
        predictor.calibrated(logs, ROWS),
        predictor.predict_rows(scores, windows),
    )


def test_rows_in_onnx_runtime_and_in_torch(release: Path, predictor: Predictor) -> None:
    scores, windows = rows(300)
    graph = OnnxRows(release / ONNX, predictor.digest)
    answers = predictor.predict_rows(scores, windows, graph), predictor.predict_rows(scores, windows)
    check("a row, in ONNX Runtime and in torch", *answers)


@pytest.mark.parametrize("block", [1, 64, 700, 3000])
def test_a_gene_in_blocks_of_any_size(predictor: Predictor, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictor.predict_gene_track(track(1500))
    check("a gene or sequence, asked again", whole, predictor.predict_gene_track(track(1500)))
    monkeypatch.setattr(predictor, "position_block", block)
    check("a gene, in blocks of any size", whole, predictor.predict_gene_track(track(1500)))
