"""Whole runs with language models: the preset, rows and genes, then answers without the checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from metalayer import cli
from metalayer.core import MetaLayerConfig
from metalayer.inference import Predictor
from metalayer.models.bundle import load_model
from metalayer.release.engine import Engine
from metalayer.release.folder import RUNTIME, runtime, write_release
from metalayer.release.golden import read_golden
from metalayer.schema import BASE_SCORES
from metalayer.workflows.evaluate import GOLDEN
from tests import checkpoints
from tests.releases import make_bundle, rewrite
from tests.test_workflows import prepare

SMALL = {"chunk_bp": 48, "stride_bp": 16, "output_dim": 8}


def settings(cache: Path, **encoder: Any) -> list[str]:
    values = {
        "sequence_encoder_config": {**SMALL, **encoder},
        **({"embedding_cache": str(cache)} if encoder.get("freeze") else {}),
        **{"device": "cpu", "threads": 1, "hidden_dim": 16, "max_epochs": 2},
    }
    return [part for name, value in values.items() for part in ("--set", f"{name}={yaml.safe_dump(value).strip()}")]


@pytest.mark.parametrize("unit", ["rows", "genes"])
def test_the_preset_trains_on_a_checkpoint_that_is_here(simulation: Path, tmp_path: Path, unit: str) -> None:
    place, out, cache = tmp_path / "checkpoint", tmp_path / "out", tmp_path / "cache"
    checkpoints.hyenadna(place)
    command = ["train", "--config", "hyenadna", "--base-model", "pwm", "--data-root", str(simulation)]
    command += ["--output-dir", str(out), "--set", f"training_unit={unit}"]
    command += settings(cache, model_size=str(place), freeze=True)
    assert cli.main(command) == 0
    assert list(cache.rglob("chunks/*.arrow" if unit == "genes" else "rows/*.arrow"))
    history = json.loads((out / "history.json").read_text())
    assert history[2]["train_loss"] < history[1]["train_loss"]
    shutil.rmtree(place)
    model, info = load_model(out / "model")
    assert (info["model"]["sequence_encoder"], info["trained_on"]) == ("hyenadna", unit)
    assert MetaLayerConfig.from_yaml(out / "config.yaml").sequence_encoder_config["freeze"] is True
    data, scored = out / "data" / "training_data.parquet", tmp_path / "scored.tsv"
    assert cli.main(["score", str(data), "--model", str(out), "--output", str(scored)]) == 0
    assert len(scored.read_text().splitlines()) == len(pl.read_parquet(data)) + 1
    tracks = pl.read_parquet(next(simulation.glob("nucleotide_scores/*.parquet"))).filter(pl.col("strand") == "+")
    gene = tracks.partition_by("gene_id", maintain_order=True)[0]
    sequence = "".join(gene["base"].cast(pl.String))
    answer = Predictor(model, info, "").predict_tracks(sequence, gene.select(BASE_SCORES).to_numpy())
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-6)


def test_letters_in_words_train_too(simulation: Path, tmp_path: Path) -> None:
    place = checkpoints.esm(tmp_path / "checkpoint", [*checkpoints.kmers(3), *"ACGTN"])
    command = ["train", "--encoder", "huggingface", "--base-model", "pwm", "--data-root", str(simulation)]
    command += ["--output-dir", str(tmp_path / "out"), "--set", "max_samples=400"]
    assert cli.main([*command, *settings(tmp_path / "cache", model=str(place), unfreeze_layers=1)]) == 0
    assert not (tmp_path / "cache").exists()  # it learns
    assert cli.main([*command, *settings(tmp_path / "cache", model=str(place), unfreeze_layers=1), "--resume"]) == 0


def test_the_preset_trains_on_score_files(simulation: Path, tmp_path: Path) -> None:
    checkpoints.hyenadna(tmp_path / "checkpoint")
    scores = [str(path) for path in simulation.glob("nucleotide_scores/*.parquet")]
    command = ["train", "--config", "hyenadna", "--base-model", "pwm", "--scores", *scores]
    command += ["--output-dir", str(tmp_path)]
    command += settings(tmp_path / "cache", model_size=str(tmp_path / "checkpoint"), freeze=True)
    assert cli.main([*command, "--set", "max_epochs=1"]) == 0
    _, info = load_model(tmp_path / "model")
    assert (info["model"]["sequence_encoder"], info["trained_on"]) == ("hyenadna", "genes")


@pytest.mark.parametrize("kind", ["hyenadna", "huggingface"])
def test_the_pipelines_steps_end_in_a_release_that_answers(simulation: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "checkpoint"
    if kind == "hyenadna":
        options = {"model_size": str(checkpoints.hyenadna(place)), "freeze": True, **SMALL}
    else:
        options = {"model": str(checkpoints.bpe_bert(place)), "freeze": True, **SMALL}
    overrides = {"model.sequence_encoder": kind, "train.embedding_cache": str(tmp_path / "cache")}
    overrides |= {"model.sequence_encoder_config": options, "train.max_epochs": 2}
    run = prepare(simulation, tmp_path / "data", *(f"{key}={json.dumps(value)}" for key, value in overrides.items()))
    run.train(tmp_path / "bundle")
    shutil.rmtree(place)
    evaluation = run.evaluate(tmp_path / "bundle", tmp_path / "evaluation")
    assert evaluation["primary"] == "positions"
    (tmp_path / "release").mkdir()
    golden = tmp_path / "evaluation" / GOLDEN
    write_release(tmp_path / "release", tmp_path / "bundle", golden, {"name": "m", "version": "1"})
    engine = Engine(tmp_path / "release")  # it answers its golden rows
    rows, expected = read_golden(golden).rows, read_golden(golden).answers
    np.testing.assert_allclose(np.concatenate(list(engine.score(rows))), expected, atol=1e-6)


def test_a_release_names_what_its_encoder_needs(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "m")
    assert runtime(bundle) == RUNTIME
    model = json.loads((bundle / "model.json").read_text())["model"]
    rewrite(bundle / "model.json", model={**model, "sequence_encoder": "huggingface"})
    assert "transformers" in runtime(bundle)
