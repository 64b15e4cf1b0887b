import subprocess
import sys
from pathlib import Path

import pytest

import metalayer
from metalayer import cli, doctor


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
    assert "genes: 12" in capsys.readouterr().out
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


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "metalayer.doctor", None)  # as if it could not be imported
    assert cli.main(["doctor"]) == 1
    assert "metalayer doctor" in capsys.readouterr().err


def test_doctor_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "metalayer is ready" in capsys.readouterr().out
    there = doctor.metadata.version

    def version(name: str) -> str:
        if name == "polars":
            raise doctor.metadata.PackageNotFoundError
        return "0.1" if name == "mlflow" else there(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "polars is not installed" in out
    assert "mlflow is 0.1, needs >=3.17" in out
    assert "pip install -c constraints.txt -e '.[pipeline]'" in out


def test_doctor_sees_a_state_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    finding = doctor.examine()[-1]
    assert not finding.ok
    assert "METALAYER_HOME" in finding.text
