import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import metalayer
from metalayer import cli, doctor, extras
from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.release.contract import validate_columns
from metalayer.schema import ROW_SCORES
from metalayer.training.checkpoint import load_checkpoint
from tests.conftest import artifact_files
from tests.releases import make_bundle


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"metalayer {metalayer.__version__}\n"


def test_importing_metalayer_imports_nothing_heavy() -> None:
    code = "import metalayer, metalayer.cli, metalayer.evaluation.gate, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--output", str(tmp_path / "out"), "--genes", "12"]) == 0
    out = capsys.readouterr().out
    assert "genes: 12" in out
    assert max(map(len, out.splitlines())) < 500  # not the hashes of all files
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    assert cli.main(["simulate", "--output", str(tmp_path / "other")]) == 2
    assert "stays as it is" in capsys.readouterr().err


def test_serve_without_a_promoted_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(["serve"]) == 2
    assert "run the pipeline first" in capsys.readouterr().err
    for bento in (str(tmp_path), "metalayer-pwm:7-abc"):
        assert cli.main(["serve", "--bento", bento]) == 2
        assert f"Bento {bento}: no bento.yaml in {tmp_path}" in capsys.readouterr().err
    monkeypatch.setenv("BENTOML_HOME", "/proc/bentos")
    assert cli.main(["serve", "--bento", "metalayer-pwm:7-abc"]) == 2
    assert "/proc/bentos: No such file or directory; mount a volume there" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "metalayer.doctor", None)  # as if it could not be imported
    assert cli.main(["doctor"]) == 1
    assert "metalayer doctor" in capsys.readouterr().err


def test_doctor_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "metalayer is ready" in capsys.readouterr().out
    there = extras.metadata.version

    def version(name: str) -> str:
        if name == "polars":
            raise extras.metadata.PackageNotFoundError
        return "0.1" if name == "mlflow" else there(name)

    monkeypatch.setattr(extras.metadata, "version", version)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "MISSING packages for metalayer score" in out
    assert "polars is not installed" in out
    assert "absent  packages for python pipelines/run.py, metalayer register, ui: " in out
    assert "mlflow is 0.1, needs >=3.17" in out
    assert (
        "pip install 'metalayer[pipeline]' (in the repository: pip install -c constraints.txt -e '.[pipeline]')" in out
    )


def test_doctor_sees_a_state_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    finding = doctor.examine()[-1]
    assert not finding.ok
    assert "METALAYER_HOME" in finding.text


def test_train_and_score(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    settings = ["max_epochs=1", "hidden_dim=16", "max_samples=1200", "device=cpu"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    where = ["--data-root", str(simulation), "--base-model", "pwm", "--output-dir", str(out)]
    assert cli.main(["train", *where, "--encoder", "cnn", *overrides]) == 0
    printed = capsys.readouterr().out
    (line,) = re.findall(r"^donor AP +(\S+)  (\S+)$", printed, re.MULTILINE)
    metrics = json.loads((out / "metrics.json").read_text())
    assert [float(number) for number in line] == pytest.approx(
        [metrics["base"]["ap_donor"], metrics["ap_donor"]], abs=1e-4
    )
    assert f"{out}/model" in printed
    rows = next(iter(artifact_files(simulation)))
    for name in ("scored.tsv", "scored.parquet"):
        assert cli.main(["score", str(rows), "--model", str(out), "--output", str(tmp_path / name)]) == 0
    text = pl.read_csv(tmp_path / "scored.tsv", separator="\t", schema_overrides={"chrom": pl.String})
    table = pl.read_parquet(tmp_path / "scored.parquet")
    assert text.columns == table.columns
    assert len(table) == rows.read_bytes().count(b"\n") - 1
    assert np.allclose(table.select("donor", "acceptor", "neither").sum_horizontal(), 1.0, atol=1e-6)

    # The same rows through the server's own contract.
    request = pl.read_csv(rows, separator="\t", n_rows=5)
    index = request["position"] - request["window_start"]
    asked = validate_columns(
        {"sequence": request["sequence"].to_list(), "index": index.to_list()}
        | {name: request[name].to_list() for name in ROW_SCORES}
    )
    predictor = Predictor.load(out)
    windows = encode_windows(asked.sequences, asked.index, 500)
    expected = predictor.predict_rows(asked.row_scores, windows)
    assert np.array_equal(table.select("donor", "acceptor", "neither").head(5).to_numpy(), expected)

    # A run that was cut off goes on; the training set is kept.
    capsys.readouterr()
    assert cli.main(["train", *where, *overrides, "--set", "max_epochs=2", "--resume"]) == 0
    assert [epoch["epoch"] for epoch in load_checkpoint(out / "last_model.pt")["history"]] == [0, 1, 2]


def test_score_refuses(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    rows = next(iter(artifact_files(simulation)))
    frame = pl.read_csv(rows, separator="\t", infer_schema=False)
    frame.with_columns(pl.lit("1.5").alias("donor_score")).write_csv(tmp_path / "bad.tsv", separator="\t")
    frame.drop("sequence").write_csv(tmp_path / "none.tsv", separator="\t")
    for given, output, message in (
        (tmp_path / "bad.tsv", "x.tsv", "row 0: donor_score 1.5"),
        (tmp_path / "none.tsv", "x.tsv", "no column sequence"),
        (tmp_path / "absent.tsv", "x.tsv", "no such file"),
        (rows, "x.csv", "must end in .parquet or .tsv"),
    ):
        assert cli.main(["score", str(given), "--model", str(bundle), "--output", str(tmp_path / output)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / output).exists()


def test_resume_with_other_settings_is_refused(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another seed splits other genes: some would be tested on that were trained on."""
    out = ["--output-dir", str(tmp_path / "m"), "--data-root", str(simulation), "--base-model", "pwm"]
    small = ["--set", "hidden_dim=16", "--set", "max_epochs=1", "--set", "device=cpu"]
    assert cli.main(["train", *out, *small, "--seed", "1"]) == 0
    assert cli.main(["train", *out, *small, "--seed", "2", "--resume"]) == 2
    assert "--resume: seed differ from the run" in capsys.readouterr().err


def test_mistakes_are_told_before_data_are_prepared(simulation: Path, tmp_path: Path) -> None:
    where = ["--data-root", str(simulation), "--base-model", "pwm", "--output-dir", str(tmp_path / "x")]
    for wrong in (["--encoder", "hyenadna"], ["--set", "train_split=0.9"], ["--set", "max_epochs=[1"]):
        assert cli.main(["train", *where, "--set", "device=cpu", *wrong]) == 2
    assert not (tmp_path / "x").exists()


def test_train_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--set", "max_epoch=1", "--set", "dropout=7", "--output-dir", str(tmp_path / "x")]) == 2
    printed = capsys.readouterr().err
    assert "did you mean 'max_epochs'?" in printed
    assert "dropout: given 7" in printed
    assert cli.main(["train", "--config", "none.yaml"]) == 2
    assert "presets are genes, hyenadna, lightweight" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_evaluate(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    files = sorted(map(str, simulation.glob("nucleotide_scores/*.parquet")))
    arguments = ["evaluate", "--model", str(bundle), "--scores", *files, "--output", str(tmp_path / "report.json")]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    assert "44 held-out genes in 42 clusters, all positions" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["genes"] == 44
    assert report["positions"] == sum(len(pl.read_parquet(path)) for path in files)
    for system in ("base", "meta"):
        for metric in ("ap_donor", "ap_acceptor", "pr_auc_splice", "topk_donor", "topk_acceptor", "ece"):
            assert 0.0 <= report[system][metric] <= 1.0
            assert set(report["difference"][metric]) == {"value", "low", "high"}
    pl.read_parquet(files[0]).drop("label").write_parquet(tmp_path / "bare.parquet")
    bare = ["evaluate", "--model", str(bundle), "--output", str(tmp_path / "x.json"), "--scores"]
    assert cli.main([*bare, str(tmp_path / "bare.parquet")]) == 2
    assert "no column label" in capsys.readouterr().err
    assert cli.main([*bare, files[0], files[0]]) == 2
    assert "is in two files" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
