"""`metalayer register`: a trained model directory through evaluation, gate, registry and Bento."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from releases import rewrite

from metalayer import cli
from metalayer.data.same_genes import SEEN_KEY
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.registry import bento
from metalayer.release.folder import read_facts
from metalayer.settings.judging import judging

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"
LENIENT = ["--set", "gate.min_pr_auc_splice=0.01", "--set", "gate.require_better_than_base=false"]
LENIENT += ["--set", "evaluate.n_bootstrap=200"]


def genes_of(*files: Path) -> list[str]:
    tables = [pl.read_parquet(path, columns=["gene_id"])["gene_id"].cast(pl.String) for path in files]
    return sorted(pl.concat(tables).str.strip_prefix("gene-").unique())


def make_model(folder: Path, train: list[str], valid: list[str], *, learned: float = 0.0) -> Path:
    """A model directory as of `metalayer train`; with nothing learned it says what its base says."""
    torch.manual_seed(1)
    model = MetaSpliceModel(hidden_dim=16)
    if learned:
        torch.nn.init.normal_(model.head.weight, std=learned)
    split = {"train": train, "valid": valid, "test": []}
    save_model(model, folder / "model", {"base_model": "pwm", "split": split})
    return folder


@pytest.fixture
def files(simulation: Path) -> list[Path]:
    return sorted(simulation.glob("nucleotide_scores/*.parquet"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(bento, "_run_build", _as_if_built)  # BentoML itself is tested elsewhere
    return tmp_path


def _as_if_built(context: Path, home: Path, name: str, version: str) -> None:
    target = bento.bento_directory(home, f"{name}:{version}")
    (target / "src").mkdir(parents=True)
    (context / "release").rename(target / "src" / "release")
    (target / "bento.yaml").write_bytes((context / "bentofile.yaml").read_bytes())


@pytest.fixture
def register(simulation: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(model: Path, scores: list[Path], *more: str) -> tuple[int, str, str]:
        table = ["--gene-table", str(simulation / "genes.tsv"), "--device", "cpu"]
        code = cli.main(["register", str(model), "--scores", *map(str, scores), *table, *more])
        return code, *capfd.readouterr()

    return run


def test_one_that_passes_and_one_that_does_not(
    home: Path, files: list[Path], register: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    from metalayer.registry import line, versions

    train, valid = genes_of(*files[:3]), genes_of(files[3])
    own = make_model(home / "own", train, valid)
    code, out, err = register(own, files, *LENIENT)  # its own genes are in the files too
    assert code == 0, out + err
    said = next(text for text in caplog.messages if "were trained or validated on" in text)
    assert f" of 44 genes were trained or validated on ({len(train) + len(valid)} by name" in said
    first = versions.known_version(NAME, 1)
    assert line.read(NAME).champion == 1
    assert "gate: promoted" in out
    assert f"Bento   {NAME}:1-{first.digest[:12]}\n" in out
    serve, query, status = out.splitlines()[-3:]
    assert (serve, status) == ("serve   metalayer serve --model pwm", "exit status 0: promoted")
    assert "http://127.0.0.1:3000/docs" in query
    folder = next((home / "state" / "reports").iterdir())
    assert f"report  {folder}/report.html" in out
    assert "SIM" in (folder / "report.html").read_text()  # genes that it had seen, by name
    found = json.loads((folder / "evaluation.json").read_text())
    errors, changes = (
        pl.read_csv(folder / "errors.tsv", separator="\t", infer_schema=False),
        found["positions"]["errors"],
    )
    assert len(errors.filter(pl.col("outcome") != "left")) == changes["fixed"]["total"] + changes["made"]["total"]
    assert f"metalayer serve --model {NAME.removeprefix('metalayer-')}" in (folder / "report.html").read_text()
    assert found["primary"] == "positions"
    assert found["positions"]["genes"] == int(said.split("are not counted; ")[1].split()[0])
    assert first.tags["test_set"] == found["looks"]["test_set"]
    tag = f"{NAME}:1-{first.digest[:12]}"
    carried = read_facts(bento.bento_directory(bento.bentoml_home(), tag) / "src" / "release")["held_out"]
    for who in ("base", "meta"):
        assert carried["metrics"][who]["ap_donor"] == found["positions"][who]["ap_donor"]
        bins = found["positions"]["calibration"][who]["bins"]
        assert [(one["count"], one["sites"]) for one in carried["bins"][who]] == [
            (one["count"], one["sites"]) for one in bins
        ]

    # The same model again is the champion's own; nothing is registered.
    code, out, _ = register(own / "model", files, *LENIENT)
    assert code == 0
    assert "nothing is registered, packaged or moved" in out

    # Another is compared with the champion, and stays, as a challenger that can be asked for.
    other = make_model(home / "other", train, valid, learned=5.0)
    code, out, err = register(other, files[4:])
    assert code == 3
    lines = out.splitlines()
    assert lines[0] == "gate: rejected"
    assert lines[2].startswith("  why     worse than the ")
    assert lines[3].startswith("  next    train on more genes")
    assert "(version 1): difference" in out
    assert f"model   {NAME} version 2, alias challenger" in out
    assert "metalayer serve --model pwm/2" in out
    assert lines[-1] == "exit status 3: rejected, nothing was promoted"
    assert line.read(NAME).champion == 1
    assert versions.known_version(NAME, 2).tags["decision"] == "rejected"

    # Each decision is a run of MLflow, which is over, and counts on these test genes.
    import mlflow

    from metalayer.registry import tracking

    with tracking.service(tracking.default_tracking_uri()) as client:
        runs = client.search_runs([client.get_experiment_by_name("metalayer").experiment_id])
        assert isinstance(client, mlflow.MlflowClient)
        experiment = client.get_experiment_by_name("metalayer")
        run = next(one for one in runs if one.info.run_id == versions.known_version(NAME, 1).run_id)
        files = {one.path for one in client.list_artifacts(run.info.run_id)}
        described = client.get_model_version(NAME, "2").description
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("base_pr_auc_splice" in run.data.metrics for run in runs)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert files == {"config.yaml", "decision.json", "evaluation.json", "plots", "report.html"}
    assert "**Gate: promoted**" in run.data.tags["mlflow.note.content"]
    assert "| donor AP | " in run.data.tags["mlflow.note.content"]
    for name, group in (("meta_ap_donor", "meta/ap_donor"), ("base_ap_donor_low", "base/interval/ap_donor_low")):
        assert run.data.metrics[group] == run.data.metrics[name]
    inputs = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    assert run.data.tags["test_set"].startswith(inputs["pwm, test genes"].dataset.digest)
    assert len(inputs["pwm, test genes"].dataset.digest) == 36
    assert [tag.value for one in inputs.values() for tag in one.tags] == ["test", "test"]
    assert "Recalibrates the scores of pwm. Trained on " in described
    assert "donor AP" in described
    assert "Gate: rejected (" in described


def test_what_cannot_be_registered(home: Path, files: list[Path], register: Callable) -> None:
    train = genes_of(*files)
    seen = make_model(home / "seen", train, train[:1])
    code, _, err = register(seen, files)
    assert code == 2
    assert f"{len(train)} genes, of which the model was trained or validated on {len(train)}" in err
    assert "the 0 that are left have no donor and no acceptor: give files of genes that it has not seen" in err

    rewrite(seen / "model" / "model.json", split={}, **{SEEN_KEY: []})
    assert "does not say which genes it was trained on" in register(seen, files)[2]
    rewrite(seen / "model" / "model.json", base_model=None)
    assert "names no base model" in register(seen, files)[2]
    rewrite(seen / "model" / "model.json", base_model="a+b")
    assert (
        "model.head: given network with base models a, b, of which it reads the mean alone" in register(seen, files)[2]
    )
    rewrite(seen / "model" / "model.json", format_version=2)
    code, _, err = register(seen, files)
    assert code == 1
    assert "format version 2" in err

    for model, words in (("pwm", "pwm, which is no model directory"), (str(home), "a folder without a model")):
        code, _, err = register(model, files)
        assert code == 2
        assert words in err
    own = make_model(home / "own", train[:2], train[2:3])
    code, _, err = register(own, [home / "absent.parquet"])
    assert (code, "absent.parquet, which is no file" in err) == (2, True)
    code, _, err = register(own, files, "--set", "train.max_epochs=3")
    assert (code, "allowed are settings of evaluate and gate" in err) == (2, True)
    code, _, err = register(own, files, "--set", "gate.margn=0.1")
    assert (code, "gate.margn" in err) == (2, True)
    from metalayer.registry import versions

    assert versions.all_versions() == []
    assert not (home / "state" / "reports").exists()


def test_genes_that_the_base_was_trained_on_are_not_held_out(
    home: Path, files: list[Path], register: Callable, tmp_path: Path
) -> None:
    def judged(name: str) -> dict:
        return json.loads((max((home / "state" / "reports").iterdir(), key=by_time) / name).read_text())

    def by_time(folder: Path) -> int:
        return folder.stat().st_mtime_ns

    own = make_model(home / "own", genes_of(files[0])[:1], genes_of(files[0])[1:2])
    description = own / "model" / "model.json"
    of = {
        path: pl.read_parquet(path, columns=["chrom"])["chrom"].cast(pl.String)[0].removeprefix("chr") for path in files
    }
    new, old = ([path for path in files if (of[path] in "13579") == is_new] for is_new in (True, False))
    rewrite(description, base_model="openspliceai_80")

    # Where some are new to the base, these alone are judged.
    code, out, err = register(own, files, *LENIENT)
    assert code == 0, out + err
    seen = judged("evaluation.json")["seen_by_base"]
    assert seen["left_out"]
    assert set(seen["genes"]) == set(genes_of(*old))
    assert judged("evaluation.json")["positions"]["genes"] == seen["of"] - len(seen["genes"])
    assert judged("evaluation.json")["test_genes"] == len(genes_of(*new)) - 2
    assert "are left out" in out

    # Where none is, others are asked for.
    code, _, err = register(own, old, *LENIENT)
    assert code == 2
    assert (
        "Give files of genes on chromosomes that are new to the base (1, 3, 5, 7, 9), or count these all the same"
        in err
    )
    allowed = ["--set", "gate.allow_seen_by_base=true"]
    code, out, err = register(own, old, *LENIENT, *allowed)
    assert code == 0, out + err
    assert judged("evaluation.json")["test_genes"] == len(genes_of(*old))
    assert "they count all the same (gate.allow_seen_by_base)" in out

    # Where none can be, the model is rejected, unless that is accepted.
    rewrite(description, base_model="cispliceai")
    code, out, _ = register(own, new[:2], *LENIENT)
    assert code == 3
    assert "  why     test genes are not held out of the base: " in out
    assert "  next    no human chromosome is new to the base, so no human gene is held out" in out
    code, out, err = register(own, new[:2], *LENIENT, *allowed)
    assert code == 0, out + err


def test_settings_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("gate: {margin: 0.02}\ntrain: {max_epochs: 7}\n")
    found = judging(tmp_path / "run.yaml", ["evaluate.confidence=0.9"], {"allow_introns": True}, "cpu")
    assert (found.gate.margin, found.evaluate.confidence, found.data.allow_introns) == (0.02, 0.9, True)
    assert found.train.device == "cpu"
    assert found.train.max_epochs != 7
