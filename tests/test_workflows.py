"""Train, evaluate, gate on a small simulation: the planted signal is found, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from metalayer.core import ArtifactLoader
from metalayer.data.gene_table import load_genes
from metalayer.data.labels import label_rows
from metalayer.data.splits import make_split
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, MetalayerError, ModelError, RegistryError, SchemaError
from metalayer.evaluation.answers import Answers, read_answers
from metalayer.evaluation.gate import decide
from metalayer.evaluation.tables import comparison_table
from metalayer.files import sha256
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.models.description import digest
from metalayer.release.golden import read_golden
from metalayer.schema import CLASSES, ROW_SCORES
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig
from metalayer.training.checkpoint import LAST
from metalayer.training.trainer import Trainer
from metalayer.workflows.champions import Champion
from metalayer.workflows.evaluate import GOLDEN, evaluate_bundle
from metalayer.workflows.train import train_bundle
from tests.conftest import artifact_files
from tests.test_loader import edit


@dataclass(frozen=True)
class Prepared:
    """Labelled rows, tracks and split of one base layer, and the configuration they were made with."""

    rows: Path
    tracks: Path | None
    manifest: dict[str, Any]
    config: RunConfig

    def train(self, output: Path, rows: Path | None = None, checkpoints: Path | None = None) -> dict[str, Any]:
        facts = {"data_hash": "d"}
        variants = self.rows.with_name(VARIANT_WEIGHTS_FILE)
        given = (self.tracks, self.manifest, self.config, output, facts, checkpoints, variants)
        return train_bundle(rows or self.rows, *given)

    def evaluate(self, bundle: Path, output: Path, *champions: Champion) -> dict[str, Any]:
        return evaluate_bundle(bundle, self.rows, self.tracks, self.manifest, self.config, champions, output)


def champion_of(bundle: Path | MetalayerError, kept: Path | None = None, version: int = 1) -> Champion:
    """A champion with its files or why they cannot be had, and the answers that an evaluation kept."""

    def files() -> Path:
        if isinstance(bundle, MetalayerError):
            raise bundle
        return bundle

    def answers() -> Answers:
        if kept is None:
            raise ModelError("no answers were kept with it")
        return read_answers(kept, sha256(kept))

    return Champion("metalayer-pwm", version, files, answers)


def prepare(data_root: Path, folder: Path, *overrides: str) -> Prepared:
    settings = [
        "data.base_model=pwm",
        "train.max_epochs=6",
        "train.learning_rate=0.003",
        "train.threads=1",
        "evaluate.n_bootstrap=200",
        *(() if "train.training_unit=genes" in overrides else ("train.batch_size=32",)),
        *(() if "model.score_encoder=false" in overrides else ("model.hidden_dim=32",)),
    ]
    config = RunConfig.load(None, [*settings, *overrides], data_root)
    ArtifactLoader(config.data).load(folder)
    labelled, genes, tracks = (folder / name for name in ("labelled.parquet", "genes.parquet", "tracks.parquet"))
    known = tracks if tracks.exists() else None
    label_rows(folder / "rows.parquet", genes, config.data, labelled, "GRCh38", known)
    manifest = make_split(labelled, genes, config.split)
    return Prepared(labelled, known, manifest, config)


@pytest.fixture(scope="module")
def prepared(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(simulation, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("trained") / "model"
    prepared.train(bundle)
    return bundle


@pytest.fixture(scope="module")
def evaluated(
    prepared: Prepared, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("evaluated")
    return prepared.evaluate(trained, folder), folder


def test_the_planted_signal_passes_the_gate(evaluated: tuple[dict[str, Any], Path], prepared: Prepared) -> None:
    evaluation, _ = evaluated
    report = evaluation["positions"]
    assert evaluation["primary"] == "positions"
    assert report["meta"]["ap_donor"] > report["base"]["ap_donor"] + 0.15
    assert report["meta"]["ap_acceptor"] > report["base"]["ap_acceptor"] + 0.15
    assert report["meta"]["ece"] < report["base"]["ece"]
    assert report["uncalibrated"]["ece"] != report["meta"]["ece"]
    assert set(report["curves"]) == {"base", "meta", "uncalibrated"}
    assert report["errors"]["fixed"]["total"] > 2 * report["errors"]["made"]["total"]
    store = TrackStore(prepared.tracks or Path())
    for one in report["errors"]["fixed"]["list"]:
        gene = store.genes()[one["gene_id"]]
        label = store.read(one["gene_id"]).labels[gene.index(one["position"] - 1)]
        assert (CLASSES[label] == one["class"]) == (one["error"] == "missed")
        assert one["genome_build"] == "GRCh38"
    assert decide(evaluation, prepared.config.gate).promoted


def test_the_pipelines_genes_carry_the_paralog_groups_of_the_gene_table(
    evaluated: tuple[dict[str, Any], Path], prepared: Prepared
) -> None:
    genes = load_genes(prepared.rows.with_name("genes.parquet"))
    grouped = sum(genes[gene_id].paralog_group is not None for gene_id in prepared.manifest["test"]["genes"])
    parts = evaluated[0]["positions"]["by_paralog"]
    assert parts.get("1", {"genes": 0})["genes"] == grouped
    assert sum(here["genes"] for here in parts.values()) == len(prepared.manifest["test"]["genes"])


def test_shuffled_labels_do_not_pass_the_gate(base_layer: Path, tmp_path: Path) -> None:
    """Labels of all genes are shuffled among their rows: there is nothing to learn, and nothing may be found."""
    for number, path in enumerate(artifact_files(base_layer)):

        def shuffle(frame: pl.DataFrame, seed: int = number) -> pl.DataFrame:
            order = np.random.default_rng(seed).permutation(len(frame))
            return frame.with_columns(frame["splice_type"].gather(order).alias("splice_type"))

        edit(path, shuffle)
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        pl.read_parquet(path).drop("label").write_parquet(path)  # the rows' labels then count
    with pytest.raises(ArtifactError, match="letters do not fit the donor and acceptor labels"):
        prepare(base_layer, tmp_path / "typed")
    shuffled = prepare(base_layer, tmp_path / "typed", "gate.min_pr_auc_splice=0", "data.allow_introns=true")
    shuffled.train(tmp_path / "model")
    decision = decide(shuffled.evaluate(tmp_path / "model", tmp_path / "out"), shuffled.config.gate)
    assert not decision.promoted
    assert "better_than_base:pr_auc_splice" in {reason.rule for reason in decision.reasons if not reason.passed}


def test_an_untrained_model_equals_its_base_and_does_not_pass(prepared: Prepared, tmp_path: Path) -> None:
    split = {part: prepared.manifest[part]["genes"] for part in ("train", "valid", "test")}
    save_model(MetaSpliceModel(hidden_dim=32), tmp_path / "model", {"base_model": "pwm", "split": split})
    evaluation = prepared.evaluate(tmp_path / "model", tmp_path / "out")
    for difference in evaluation["positions"]["difference"].values():
        assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert not decide(evaluation, prepared.config.gate).promoted


def test_training_goes_on_from_its_last_checkpoint(
    prepared: Prepared,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cut off after epoch 3, it trains the others alone and ends in the same model, bit for bit."""

    class CutOff(Exception):
        pass

    def cut_off(trainer: Trainer, epoch: dict[str, float], of: int = 0) -> None:
        end_epoch(trainer, epoch, of)
        if epoch["epoch"] == 3:
            raise CutOff

    end_epoch = Trainer._end_epoch
    checkpoints = tmp_path / "checkpoints"
    with monkeypatch.context() as patch, pytest.raises(CutOff):
        patch.setattr(Trainer, "_end_epoch", cut_off)
        prepared.train(tmp_path / "cut", checkpoints=checkpoints)
    assert not (tmp_path / "cut").exists()
    caplog.clear()
    caplog.set_level("INFO")
    told = prepared.train(tmp_path / "model", checkpoints=checkpoints)
    assert "going on after epoch 3, from the checkpoint" in caplog.text
    assert "epoch 3/6" not in caplog.text
    assert "epoch 4/6" in caplog.text
    assert [epoch["epoch"] for epoch in told["history"]] == list(range(len(told["history"])))
    assert digest(tmp_path / "model") == digest(trained)

    (checkpoints / LAST).write_bytes(b"half a file")
    prepared.train(tmp_path / "anew", checkpoints=checkpoints)
    assert "is damaged: its end, with its SHA-256, is missing" in caplog.text
    assert "training starts again" in caplog.text
    assert digest(tmp_path / "anew") == digest(trained)


def test_training_never_opens_test_genes(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    rows = pl.read_parquet(prepared.rows)
    is_test = pl.col("gene_id").is_in(prepared.manifest["test"]["genes"])
    garbled = rows.with_columns(
        [pl.when(is_test).then(pl.lit(9.9e9)).otherwise(name).cast(pl.Float32).alias(name) for name in ROW_SCORES]
        + [pl.when(is_test).then(pl.lit(0)).otherwise("label").cast(pl.UInt8).alias("label")]
    )
    garbled.write_parquet(tmp_path / "garbled.parquet")
    prepared.train(tmp_path / "model", rows=tmp_path / "garbled.parquet")
    assert digest(tmp_path / "model") == digest(trained)


def test_golden_rows_come_back_to_a_millionth(evaluated: tuple[dict[str, Any], Path], trained: Path) -> None:
    _, folder = evaluated
    golden = pl.read_parquet(folder / GOLDEN)
    assert set(golden["splice_type"].unique()) == set(CLASSES)
    golden = read_golden(folder / GOLDEN)
    rows, expected = golden.rows, golden.answers
    predictor = Predictor.load(trained)
    windows = encode_windows(rows.sequences, rows.index, predictor.schema.window_bp)
    assert np.abs(predictor.predict_rows(rows.row_scores, windows) - expected).max() < 1e-6


def test_the_champion_is_scored_on_genes_it_never_saw(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(trained)
    seen = prepared.manifest["test"]["genes"][:3]
    info = predictor.info | {"split": {"train": seen, "valid": [], "test": []}}
    save_model(predictor.model, tmp_path / "champion", info)
    champion = prepared.evaluate(trained, tmp_path / "out", champion_of(tmp_path / "champion"))["champion"]
    assert champion["scored"]
    assert champion["genes_it_was_trained_on"] == 3
    assert champion["genes"] == len(prepared.manifest["test"]["genes"]) - 3
    assert champion["difference"]["ap_donor"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_champion_that_cannot_be_scored_fails_the_gate(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(trained)
    everything = predictor.info | {"split": {"train": prepared.manifest["test"]["genes"], "valid": [], "test": []}}
    save_model(predictor.model, tmp_path / "knows_all", everything)
    (tmp_path / "damaged").mkdir()
    for name, value in (("another_kind", {"width": 7}), ("no_split", None)):
        shutil.copytree(trained, tmp_path / name)
        path = tmp_path / name / "model.json"
        description = json.loads(path.read_text())
        path.write_text(json.dumps({**description, **({"model": value} if value else {"split": None})}))
    champions = [tmp_path / name for name in ("knows_all", "damaged", "another_kind", "no_split")]
    for champion in (*champions, RegistryError("its files cannot be had")):
        evaluation = prepared.evaluate(trained, tmp_path / "out", champion_of(champion))
        assert not evaluation["champion"]["scored"]
        decision = decide(evaluation, prepared.config.gate)
        [failed] = [reason for reason in decision.reasons if not reason.passed]
        assert failed.rule == "not_worse_than_champion"
        assert "metalayer registry retire" in failed.text


def test_a_champion_that_cannot_be_loaded_is_compared_by_the_answers_kept_with_it(
    prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    """As after an upgrade that changed the format of models, or the feature schema."""
    loaded = prepared.evaluate(trained, tmp_path / "first")
    assert loaded["looks"]["decisions"] == 1
    upgraded = SchemaError("schema 0123 is not the one of this version")
    kept = champion_of(upgraded, tmp_path / "first" / "answers.parquet")
    evaluation = prepared.evaluate(trained, tmp_path / "out", kept)
    found = evaluation["champion"]
    assert (found["scored"], found["by"]) == (True, "answers kept with it")
    assert found["genes"] == len(prepared.manifest["test"]["genes"])
    assert found["difference"]["pr_auc_splice"]["value"] == 0.0
    assert found["champion"]["pr_auc_splice"] == pytest.approx(
        loaded["positions"]["meta"]["pr_auc_splice"], abs=found["exact_to"]["pr_auc_splice"]
    )
    assert decide(evaluation, prepared.config.gate).promoted

    # Genes that it was not evaluated on are no comparison.
    others = prepared.manifest["test"]["genes"][1:]
    prepared_less = replace(prepared, manifest={**prepared.manifest, "test": {"genes": others}})
    prepared_less.evaluate(trained, tmp_path / "less")
    one_gene_more = champion_of(upgraded, tmp_path / "less" / "answers.parquet")
    assert prepared.evaluate(trained, tmp_path / "out", one_gene_more)["champion"]["genes"] == len(others)


def test_the_best_of_the_line_is_found_by_what_it_says_on_the_test_genes(
    prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(trained)
    torch.manual_seed(5)
    torch.nn.init.normal_(predictor.model.head.weight, std=3.0)
    save_model(predictor.model, tmp_path / "worse", predictor.info)
    prepared.evaluate(trained, tmp_path / "first")
    kept = tmp_path / "first" / "answers.parquet"
    worse, best = champion_of(tmp_path / "worse", version=7), champion_of(SchemaError("old"), kept, version=3)
    gone = champion_of(SchemaError("older"), version=1)
    evaluation = prepared.evaluate(tmp_path / "worse", tmp_path / "out", worse, best, gone)
    assert evaluation["champion"]["version"] == 7
    assert evaluation["champion"]["difference"]["pr_auc_splice"]["value"] == 0.0
    found = evaluation["best_champion"]
    assert (found["version"], found["compared"]) == (3, 2)
    assert list(found["left_out"]) == ["1"]
    assert found["difference"]["pr_auc_splice"]["value"] < 0
    assert prepared.evaluate(trained, tmp_path / "out", worse)["best_champion"] is None


def test_without_tracks_rows_are_judged_and_the_report_says_so(
    simulation: Path, tmp_path: Path, data_config: Callable[..., DataConfig]
) -> None:
    (tmp_path / "none").mkdir()
    rows_only = prepare(
        simulation, tmp_path / "typed", f"data.nucleotide_scores={tmp_path / 'none'}", "train.max_epochs=2"
    )
    assert rows_only.tracks is None
    rows_only.train(tmp_path / "model")
    evaluation = rows_only.evaluate(tmp_path / "model", tmp_path / "out")
    assert evaluation["primary"] == "rows"
    assert evaluation["positions"] is None


def test_a_test_gene_without_tracks_is_left_out_or_rows_count(
    base_layer: Path, tmp_path: Path, trained: Path, prepared: Prepared
) -> None:
    gene = prepared.manifest["test"]["genes"][0]
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        frame = pl.read_parquet(path)
        frame.filter(pl.col("gene_id").cast(pl.String).str.strip_prefix("gene-") != gene).write_parquet(path)
    for share, unit in ((0.2, "positions"), (0.01, "rows")):
        few = prepare(base_layer, tmp_path / unit, f"data.max_bad_share={share}")
        evaluation = few.evaluate(trained, tmp_path / "out")
        assert evaluation["primary"] == unit
        assert evaluation["test_genes_without_tracks"] == [gene]
        assert f"({gene})" in comparison_table(evaluation)


GENES = (
    "train.training_unit=genes",
    "train.batch_crops=2",
    "train.weight_average=0.95",
    "train.max_epochs=8",
    "model.sequence_encoder=none",
    "model.score_encoder=false",
    "model.track_encoder=stages",
)


def test_a_model_of_tracks_passes_the_gate_on_whole_genes(simulation: Path, tmp_path: Path) -> None:
    genes = prepare(simulation, tmp_path / "typed", *GENES)
    result = genes.train(tmp_path / "model")
    assert result["positions"]["train"] > result["positions"]["valid"] > 0
    evaluation = genes.evaluate(tmp_path / "model", tmp_path / "out")
    report = evaluation["positions"]
    assert report["meta"]["ap_donor"] > report["base"]["ap_donor"] + 0.02
    assert report["meta"]["ap_acceptor"] > report["base"]["ap_acceptor"] + 0.02
    assert decide(evaluation, genes.config.gate).promoted
    # Rows carry no tracks: they are answered with the base under a calibration of their own, and that is said.
    assert "base scores" in evaluation["ways"]["rows"]["note"]
    rows, answers = evaluation["rows"], evaluation["row_answers"]
    assert answers["meta"]["ece"] <= answers["base"]["ece"]
    assert answers["meta"]["log_loss"] <= answers["base"]["log_loss"]
    assert rows["meta"]["log_loss"] <= 1.01 * rows["base"]["log_loss"]
    assert f"single rows, as in artifact tables: {evaluation['ways']['rows']['note']}" in comparison_table(evaluation)
    assert rows["uncalibrated"]["ap_donor"] == pytest.approx(rows["base"]["ap_donor"], abs=1e-3)


def test_whole_genes_need_tracks(base_layer: Path, tmp_path: Path) -> None:
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        path.unlink()
    bare = prepare(base_layer, tmp_path / "typed", *GENES)
    with pytest.raises(MetalayerError, match=r"none of the \d+ genes of the train part has per-nucleotide scores"):
        bare.train(tmp_path / "model")
    assert not (tmp_path / "model").exists()
