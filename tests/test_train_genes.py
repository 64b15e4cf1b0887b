"""`metalayer train --scores`: from per-nucleotide files to a model that `metalayer evaluate` compares with its base."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.core import MetaLayerConfig
from metalayer.evaluation.calibration import Corrections, mixed
from metalayer.inference import Predictor
from metalayer.models.bundle import load_model
from metalayer.schema import ACCEPTOR, BASE_SCORES, NEITHER

QUICK = [
    "--set",
    "max_epochs=2",
    "--set",
    "threads=1",
    "--set",
    "device=cpu",
    "--set",
    "track_encoder_config={channels: 8}",
]


def scores(folder: Path) -> list[Path]:
    return sorted(folder.glob("nucleotide_scores/*.parquet"))


def train(files: list[Path], output: Path, *more: str) -> int:
    return cli.main(["train", "--scores", *map(str, files), "--output-dir", str(output), *QUICK, *more])


@pytest.fixture(scope="module")
def trained(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of all files but the last two, validated on the last but one."""
    folder = tmp_path_factory.mktemp("genes") / "model"
    files = scores(simulation)
    assert train(files[:-2], folder, "--valid-scores", str(files[-2]), "--seed", "3") == 0
    return folder


def test_it_writes_what_a_training_run_writes(trained: Path, simulation: Path) -> None:
    for name in ("best_model.pt", "last_model.pt", "config.yaml", "history.json", "history.png", "model", "logs"):
        assert (trained / name).exists(), name
    assert sorted(path.name for path in (trained / "data").iterdir()) == [
        "train_tracks.parquet",
        "valid_tracks.parquet",
    ]
    config = MetaLayerConfig.from_yaml(trained / "config.yaml")
    assert (config.training_unit, config.seed, config.track_encoder) == ("genes", 3, "stages")
    _, info = load_model(trained / "model")
    files = scores(simulation)
    genes = [set(pl.read_parquet(f)["gene_id"].cast(pl.String).str.strip_prefix("gene-")) for f in files]
    assert set(info["split"]["valid"]) == genes[-2]
    assert set(info["split"]["train"]) == set().union(*genes[:-2])
    assert info["trained_on"] == "genes"
    assert info["calibration"]["positions"]["fitted_on"] == "positions"


def test_evaluate_and_predict(trained: Path, simulation: Path, tmp_path: Path) -> None:
    held_out = scores(simulation)[-1]
    report = tmp_path / "report.json"
    assert cli.main(["evaluate", "--model", str(trained), "--scores", str(held_out), "--output", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["genes_seen_in_training"] == []
    frame = pl.read_parquet(held_out)
    assert found["positions"] == len(frame)
    gene = frame.filter(pl.col("strand") == "+").partition_by("gene_id", maintain_order=True)[0]
    answer = Predictor.load(trained).predict_tracks(
        "".join(gene["base"].cast(pl.String)), gene.select(BASE_SCORES).to_numpy()
    )
    assert answer.shape == (len(gene), 3)
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("base_model", ["openspliceai_80", "mine"])
def test_training_on_genes_of_the_bases_own_training_is_said(
    simulation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, base_model: str
) -> None:
    file = next(path for path in scores(simulation) if path.stem.endswith("chr2"))
    settings = ("--base-model", base_model, "--set", "max_epochs=1")
    with caplog.at_level(logging.WARNING):
        assert train([file], tmp_path / "m", *settings) == 0
    said = [text for text in caplog.messages if text.startswith("training genes: ")]
    assert len(said) == (base_model != "mine")
    for text in said:
        assert "are on chromosome 2, on which openspliceai_80, as published, was trained" in text
        assert text.endswith("human chromosomes that are new to the base: 1, 3, 5, 7, 9")


def test_without_valid_scores_whole_genes_are_held_out(simulation: Path, tmp_path: Path) -> None:
    assert train(scores(simulation), tmp_path / "m", "--set", "max_epochs=1") == 0
    _, info = load_model(tmp_path / "m" / "model")
    train_genes, valid_genes = (set(info["split"][part]) for part in ("train", "valid"))
    assert not train_genes & valid_genes
    assert len(train_genes | valid_genes) == 44
    assert 4 <= len(valid_genes) <= 10
    assert info["base_model"] == "pwm"  # as the files say


def test_a_run_that_was_cut_off_goes_on(simulation: Path, trained: Path, tmp_path: Path) -> None:
    files = scores(simulation)
    where = tmp_path / "m"
    rest = ("--valid-scores", str(files[-2]), "--seed", "3")
    assert train(files[:-2], where, *rest, "--set", "max_epochs=1") == 0
    other = json.loads((where / "history.json").read_text())
    assert len(other) == 2
    assert train(files[:-2], where, *rest, "--resume") == 0
    assert len(json.loads((where / "history.json").read_text())) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config", "lightweight"], "goes with|training_unit rows|does not go with --scores"),
        (["--set", "training_unit=rows"], "training_unit rows: does not go with --scores"),
        (["--data-root", "somewhere"], "data_root: does not go with --scores"),
        (["--set", "crop_bp=3"], "crop_bp: given 3"),
        (["--valid-scores", "none.parquet"], "given none.parquet, which is no file"),
    ],
)
def test_settings_that_do_not_fit(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert train(scores(simulation)[:1], tmp_path / "m", *more) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "m" / "model").exists()


def test_valid_scores_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--valid-scores", "x.parquet"]) == 2
    assert "--valid-scores goes with --scores" in capsys.readouterr().err


def damaged(frame: pl.DataFrame, how: str) -> pl.DataFrame:
    changes: dict[str, Any] = {
        "gap": lambda: pl.concat([frame[:100], frame[101:]]),
        "duplicate": lambda: pl.concat([frame[:100], frame[99:]]),
        "no label": lambda: frame.drop("label"),
        "no letters": lambda: frame.drop("base"),
        "scores": lambda: frame.with_columns(pl.lit(0.9).cast(pl.Float32).alias("donor_score")),
    }
    return changes[how]()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("gap", "a gap of 1"),
        ("duplicate", "a duplicate or wrong order"),
        ("no label", "no column label"),
        ("no letters", "no column base"),
        ("scores", "not adding up to 1"),
    ],
)
def test_files_that_cannot_be_used(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    damaged(pl.read_parquet(scores(simulation)[0]), how).write_parquet(tmp_path / "bad.parquet")
    assert train([tmp_path / "bad.parquet"], tmp_path / "m") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m" / "model").exists()


def test_genes_on_both_sides_are_refused(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = scores(simulation)
    assert train(files[:2], tmp_path / "m", "--valid-scores", str(files[1])) == 2
    assert "are in --scores and in --valid-scores" in capsys.readouterr().err
    renamed = pl.read_parquet(files[1]).with_columns(("other-" + pl.col("gene_id").cast(pl.String)).alias("gene_id"))
    renamed.write_parquet(tmp_path / "renamed.parquet")
    assert train(files[:2], tmp_path / "m", "--valid-scores", str(tmp_path / "renamed.parquet")) == 2
    assert "overlaps" in capsys.readouterr().err


def shrinkage_factors(
    log_base: np.ndarray, log_p: np.ndarray, labels: np.ndarray, genes: np.ndarray
) -> tuple[float, float]:
    found = Corrections()
    for gene in np.unique(genes):
        found.add(log_base[genes == gene], log_p[genes == gene], labels[genes == gene])
    return found.shrinkage_factors()


def test_the_shrinkage_factor_of_a_correction_is_what_genes_support() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    labels = np.where(rng.random(n) < 0.05, rng.integers(0, 2, n), NEITHER)
    log_base = np.log(np.tile([0.025, 0.025, 0.95], (n, 1)))
    right = log_base.copy()
    right[np.arange(n), labels] += 2.0
    right = mixed(right, right, 1.0)
    wrong = mixed(log_base, np.log(rng.dirichlet([1, 1, 1], n)), 1.0)
    genes = np.arange(n) * 10 // n
    assert all(0.95 < share < 1.0 for share in shrinkage_factors(log_base, right, labels, genes))
    assert shrinkage_factors(log_base, right, labels, np.zeros(n, dtype=int)) == (1.0, 1.0)
    assert shrinkage_factors(log_base, wrong, labels, genes) == (0.0, 0.0)
    donors = mixed(log_base, right, (1.0, 0.0))
    donors[:, ACCEPTOR] += rng.normal(size=n)  # what is said of acceptors is noise
    share, nothing = shrinkage_factors(log_base, mixed(donors, donors, 1.0), labels, genes)
    assert 0.9 < share < 1.0
    assert nothing < 0.2
    too_sure = mixed(log_base, np.where(rng.random((n, 1)) < 0.5, right * 3, wrong), 1.0)
    assert all(0.0 < share < 0.95 for share in shrinkage_factors(log_base, too_sure, labels, genes))
    one_gene = np.where((genes == 3)[:, None], right, log_base)  # a gain that one gene of ten shows is no evidence
    assert shrinkage_factors(log_base, one_gene, labels, genes) == (0.0, 0.0)
    np.testing.assert_allclose(mixed(log_base, right, 0.0), log_base, atol=1e-12)
    np.testing.assert_allclose(mixed(log_base, right, 1.0), right, atol=1e-12)
