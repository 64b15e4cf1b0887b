"""`metalayer ablate`: variants trained alike, judged as `metalayer evaluate` judges, kept and never made up."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metalayer import cli
from metalayer.core import MetaLayerConfig
from metalayer.errors import ConfigError, SplitError, TrainingError
from metalayer.evaluation.ablation import ablation_table, compare_variants, resampled
from metalayer.evaluation.plots import ablation_png
from metalayer.evaluation.report import evaluate
from metalayer.metric_list import JUDGED
from metalayer.models.description import read_description
from metalayer.settings.sections import EvaluateConfig
from metalayer.training.checkpoint import LAST, load_checkpoint
from metalayer.training.trainer import Trainer
from metalayer.workflows import ablate as module
from metalayer.workflows.ablate import VARIANTS, ablate, chosen_variants
from tests.scored_genes import make_genes

SMALL = {
    "none": {},
    "stages": {
        "score_encoder": False,
        "track_encoder": "stages",
        "track_encoder_config": {"channels": 8, "distances": [1, 10, 100]},
    },
}
CONFIG = {
    "training_unit": "genes",
    "hidden_dim": 8,
    "batch_crops": 12,
    "learning_rate": 0.01,
    "max_epochs": 2,
    "patience": 1,
    "threads": 1,
    "device": "cpu",
}


def score_files(simulation: Path) -> dict[str, list[Path]]:
    found = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    return {"scores": found[:3], "valid_scores": found[3:5], "test_scores": found[5:6]}


def run(simulation: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    given = {**score_files(simulation), "variants": SMALL, "seeds": [1, 2], **changes}
    config = MetaLayerConfig(**{**CONFIG, **given.pop("config", {})})
    return ablate(config=config, output_dir=folder, evaluation=EvaluateConfig(n_bootstrap=200), **given)


def command_line(simulation: Path, folder: Path) -> list[str]:
    files = score_files(simulation).items()
    words = [word for name, paths in files for word in (f"--{name.replace('_', '-')}", *map(str, paths))]
    return ["ablate", *words, "--output-dir", str(folder)]


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {variant["name"]: variant["compared"] for variant in report["variants"]}


@pytest.fixture(scope="module")
def finished(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two variants with two seeds."""
    folder = tmp_path_factory.mktemp("ablation") / "out"
    return folder, run(simulation, folder)


@pytest.fixture
def copied(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_all_variants_have_the_same_genes_crops_and_epochs(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    for seed in ("1", "2"):
        runs = [folder / "runs" / name / f"seed-{seed}" for name in SMALL]
        splits = [read_description(place / "model")["split"] for place in runs]
        assert splits[0] == splits[1]
        checkpoints = [load_checkpoint(place / LAST) for place in runs]
        assert checkpoints[0]["sampler"] == checkpoints[1]["sampler"] == {"epoch": 2, "seed": int(seed)}
        assert checkpoints[0]["steps_done"] == checkpoints[1]["steps_done"] > 0
        assert checkpoints[0]["rows"] == checkpoints[1]["rows"]
    for variant in report["variants"]:
        assert [one["epochs"] for one in variant["runs"].values()] == [2, 2]  # a patience of 1 ends none
        assert all(one["seconds"] > 0 for one in variant["runs"].values())
    assert json.loads((folder / "ablation.json").read_text()) == json.loads(json.dumps(report))
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_are_those_of_evaluate(
    finished: tuple[Path, dict[str, Any]], copied: Path, simulation: Path, tmp_path: Path
) -> None:
    """Base, each seed's model and, for a single seed, the difference."""
    folder, report = finished
    single = run(simulation, copied, seeds=[1])  # the runs are there
    test = str(score_files(simulation)["test_scores"][0])
    for name in SMALL:
        model, path = folder / "runs" / name / "seed-1", tmp_path / f"{name}.json"
        arguments = ["evaluate", "--model", str(model), "--scores", test, "--output", str(path), "--device", "cpu"]
        assert cli.main(arguments) == 0
        judged, found = json.loads(path.read_text()), figures(single)[name]
        assert judged["genes_seen_in_training"] == []
        assert {key: judged[key] for key in ("genes", "positions", "sites")} == {
            key: report[key] for key in ("genes", "positions", "sites")
        }
        for metric in JUDGED:
            assert report["base"][metric]["value"] == pytest.approx(judged["base"][metric], abs=1e-9)
            assert figures(report)[name]["by_seed"][metric][0] == pytest.approx(judged["meta"][metric], abs=1e-6)
            assert found["minus_base"][metric]["value"] == pytest.approx(
                judged["difference"][metric]["value"], abs=1e-6
            )
    assert figures(single)["none"]["minus_base"]["ap_donor"]["value"] != 0.0


def test_intervals_are_those_of_evaluate_and_means_are_over_seeds() -> None:
    config = EvaluateConfig(n_bootstrap=200)
    genes = make_genes(systems=("base", "a", "b"), gain=0.5)
    (resamples, base), (_, a), (_, b) = (resampled(genes, name, config) for name in ("base", "a", "b"))
    found = compare_variants(base, {"first": [a], "second": [b], "both": [a, b]}, resamples, config.confidence)
    report, against_a = evaluate(genes, config, candidate="b"), evaluate(genes, config, "a", "b")
    for metric in JUDGED:
        second, both = found["variants"]["second"], found["variants"]["both"]
        assert found["base"][metric]["low"] == report["intervals"]["base"][metric][0]
        assert second["average_precision"][metric]["high"] == report["intervals"]["b"][metric][1]
        assert second["minus_base"][metric] == report["difference"][metric]
        assert second["minus_reference"][metric] == against_a["difference"][metric]
        mean = np.mean([a[metric], b[metric]], axis=0)
        assert both["average_precision"][metric]["value"] == mean[0]
        gap = mean - base[metric]
        reach = 2.200985 * np.std(gap[1:]) * np.sqrt(12 / 11)  # Student's t of 11 degrees of freedom
        assert both["minus_base"][metric]["low"] == pytest.approx(gap[0] - reach, abs=1e-6)
        assert both["by_seed"][metric] == [a[metric][0], b[metric][0]]
    assert found["reference"] == "first"
    assert found["variants"]["first"]["minus_reference"] is None


def test_a_finished_run_is_kept(
    finished: tuple[Path, dict[str, Any]], copied: Path, simulation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is there")

    for name in ("ablation.md", "ablation.json", "ablation.png"):
        (copied / name).unlink()
    monkeypatch.setattr(module, "train_on_scores", refuse)
    monkeypatch.setattr(module, "score_positions", refuse)
    assert figures(run(simulation, copied)) == figures(finished[1])
    assert (copied / "ablation.md").read_text() == (finished[0] / "ablation.md").read_text()


def test_other_test_genes_are_judged_without_training(
    finished: tuple[Path, dict[str, Any]], copied: Path, simulation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train_on_scores", None)
    other = sorted(simulation.glob("nucleotide_scores/*.parquet"))[6:7]
    report = run(simulation, copied, test_scores=other)
    assert not any(variant["errors"] for variant in report["variants"])
    assert report["base"] != finished[1]["base"]
    assert figures(report)["none"]["by_seed"] != figures(finished[1])["none"]["by_seed"]


def test_a_killed_run_goes_on_from_its_last_epoch_and_the_same_seed_gives_the_same(
    finished: tuple[Path, dict[str, Any]], simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, epochs = Trainer.train_on, []

    def cut_off(self: Trainer, batches: Any, model: Any = None, epoch: int = 1) -> float:
        epochs.append(epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return whole(self, batches, model, epoch)

    monkeypatch.setattr(Trainer, "train_on", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(simulation, tmp_path, seeds=[1])
    found = figures(run(simulation, tmp_path, seeds=[1]))
    assert epochs == [1, 2, 2, 1, 2]
    for name in SMALL:
        for metric in JUDGED:
            assert found[name]["by_seed"][metric][0] == figures(finished[1])[name]["by_seed"][metric][0]


@pytest.mark.parametrize("what", ["a file", "a setting", "a weight", "code"])
def test_other_inputs_train_anew(copied: Path, simulation: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    trained = []

    def train(
        scores: list[Path], valid_scores: list[Path], config: MetaLayerConfig, folder: Path, resume: bool
    ) -> None:
        assert not (folder / LAST).exists()
        trained.append((folder.parent.name, folder.name))
        raise TrainingError("seen")

    monkeypatch.setattr(module, "train_on_scores", train)
    changes: dict[str, Any] = {}
    if what == "a file":
        changes["scores"] = score_files(simulation)["scores"][:2]
    elif what == "a setting":
        changes["variants"] = {**SMALL, "none": {"dropout": 0.3}}
    elif what == "code":
        monkeypatch.setattr(module, "code_hash", lambda: "that of other code")
    else:
        monkeypatch.setattr(module, "_network_hash", lambda config: "that of other weights")
    report = run(simulation, copied, seeds=[1], **changes)
    expected = [("none", "seed-1")] if what == "a setting" else [("none", "seed-1"), ("stages", "seed-1")]
    assert trained == expected
    assert report["variants"][0]["errors"] == {"1": "seen"}


def test_the_network_hash_sees_weights_and_seed() -> None:
    one, same, other = (MetaLayerConfig(**CONFIG, sequence_encoder="none", seed=seed) for seed in (1, 1, 2))
    assert module._network_hash(one) == module._network_hash(same) != module._network_hash(other)


def test_a_failing_variant_has_no_number_and_the_others_are_kept(
    finished: tuple[Path, dict[str, Any]],
    copied: Path,
    simulation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One seed of three fails, so there is no mean; the command says why, and ends with 1."""
    shutil.rmtree(copied / "runs" / "stages" / "seed-2")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "train_on_scores", fail)
    report = run(simulation, copied)
    none, stages = report["variants"]
    assert none["compared"] == figures(finished[1])["none"]
    assert stages["compared"] is None
    assert stages["errors"] == {"2": "RuntimeError: out of memory"}
    assert list(stages["runs"]) == ["1"]
    table = (copied / "ablation.md").read_text()
    assert len(re.findall(r"\| stages +\| failed +\|", table)) == 3
    assert "stages, seed 2, failed: RuntimeError: out of memory" in table

    reversed_ = run(simulation, copied, variants=dict(reversed(SMALL.items())))
    assert reversed_["reference"] == "stages"
    assert figures(reversed_)["none"]["minus_reference"] is None

    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML
    command = [*command_line(simulation, tmp_path / "out"), "--config", str(tmp_path / "config.yaml")]
    assert cli.main([*command, "--variants", "none", "--seeds", "1"]) == 1
    assert "none, seed 1, failed: RuntimeError: out of memory" in capsys.readouterr().out


def test_a_variant_that_cannot_be_built_is_refused_before_training(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them at once, in the configuration's own words; nothing is written."""
    (tmp_path / "variants.yaml").write_text(
        "deep: {sequence_encoder: cnn, sequence_encoder_config: {levels: 11}}\n"
        "typo: {sequence_encodr: cnn}\n"
        "wide: {hidden_dim: 0}\n"
        "long: {max_epochs: 9, crop_bp: 64}\n"
    )
    command = command_line(simulation, tmp_path / "out")
    assert cli.main([*command, "--variants-file", str(tmp_path / "variants.yaml")]) == 2
    error = capsys.readouterr().err
    for message in (
        "variant deep: encoder 'cnn' with fusion 'concat' sees",
        "variant typo: configuration: sequence_encodr: unknown key; did you mean 'sequence_encoder'?",
        "variant wide: configuration: hidden_dim: given 0",
        "variant long: crop_bp, max_epochs: alike for all variants; set it in --config",
    ):
        assert message in error
    assert not (tmp_path / "out").exists()
    for more, message in (
        (["--variants", "none", "cn"], "variant 'cn': unknown; there are none, cnn"),
        (["--max-epochs", "0"], "max_epochs: given 0"),
        (["--seeds", "-1"], "variant none: configuration: seed: given -1"),
        (["--config", "lightweight"], "max_samples: does not go with --scores"),
    ):
        assert cli.main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["scores", "valid_scores"])
def test_test_genes_that_were_trained_or_selected_on_are_refused(simulation: Path, tmp_path: Path, part: str) -> None:
    files = score_files(simulation)
    option = f"--{part.replace('_', '-')}"
    with pytest.raises(SplitError, match=f"in {option} and in --test-scores"):
        run(simulation, tmp_path, test_scores=[*files["test_scores"], files[part][-1]])
    assert not (tmp_path / "runs").exists()


def test_without_valid_scores_all_variants_hold_out_the_same_genes(simulation: Path, tmp_path: Path) -> None:
    run(simulation, tmp_path, valid_scores=[], seeds=[1], config={"max_epochs": 1, "val_split": 0.3})
    one, other = (read_description(tmp_path / "runs" / name / "seed-1" / "model")["split"] for name in SMALL)
    assert one == other
    assert one["valid"]


def test_variants_by_name(tmp_path: Path) -> None:
    assert list(chosen_variants([], None)) == ["none", "cnn", "tracks", "cnn+tracks"]
    assert VARIANTS["cnn+tracks"].items() >= {**VARIANTS["cnn"], "track_encoder": "stages"}.items()
    path = tmp_path / "variants.yaml"
    path.write_text("gated: {sequence_encoder: cnn, fusion: gated}\ncnn: {sequence_encoder: cnn, dropout: 0.3}\n")
    assert chosen_variants([], path) == {
        "gated": {"sequence_encoder": "cnn", "fusion": "gated"},
        "cnn": {"sequence_encoder": "cnn", "dropout": 0.3},
    }
    assert list(chosen_variants(["none", "gated", "none"], path)) == ["none", "gated"]
    path.write_text("../up: {}\nbase: {}\ncnn: cnn\n1: {}\n")
    with pytest.raises(ConfigError) as refused:
        chosen_variants([], path)
    for message in ("variant '../up': a name is", "variant 'base': a name", "variant cnn: given 'cnn'", "variant 1: a"):
        assert message in str(refused.value)


def test_an_encoder_that_was_not_pretrained_is_called_that() -> None:
    assert module._title("cnn", MetaLayerConfig(sequence_encoder="cnn")) == "cnn"
    for name, title in (("hyenadna", "hyenadna"), ("hyenadna-random", "hyenadna-random (random-initialised tiny)")):
        assert module._title(name, MetaLayerConfig(**VARIANTS[name])) == title


def test_table_and_plot_without_intervals_and_with_a_failure(tmp_path: Path) -> None:
    """One gene has no interval, which is said; a failure is drawn without a dot."""
    config = EvaluateConfig(n_bootstrap=100)
    genes = make_genes(n_genes=1)
    (resamples, base), (_, meta) = (resampled(genes, name, config) for name in ("base", "meta"))
    found = compare_variants(base, {"good": [meta], "bad": None}, resamples, config.confidence)
    variants = [
        {
            "name": name,
            "title": name,
            "parameters": 1234,
            "trained_parameters": 0,
            "runs": {"1": {"best_epoch": 0, "seconds": 1.0}} if compared else {},
            "errors": {} if compared else {"1": "no loss"},
            "compared": compared,
        }
        for name, compared in found["variants"].items()
    ]
    report = {
        **found,
        "unit": "positions",
        "genes": 1,
        **resamples.facts(),
        "positions": 300,
        "sites": {"donor": 8, "acceptor": 8},
        "confidence": 0.95,
        "resamples": 100,
        "seeds": [1],
        "max_epochs": 1,
        "variants": variants,
    }
    table = ablation_table(report)
    assert table.count("(no interval)") == 9  # of each metric: base, good, and good minus base
    assert "bad, seed 1, failed: no loss" in table
    assert "nan" not in table.lower()
    ablation_png(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
