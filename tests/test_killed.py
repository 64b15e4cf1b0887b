"""SIGKILL at random moments, as process 1 of a container, and the same again in a new one."""

import random
import sys
from pathlib import Path

import httpx
import polars as pl
import pytest

from metalayer.files import sha256
from metalayer.workflows.base_run import base_run
from metalayer.workflows.score import score_rows
from tests import containers
from tests.releases import make_bundle, make_champion, make_golden
from tests.releases import score_rows as rows_to_score
from tests.servers import free_port, wait_until_ready
from tests.test_base_run import pwm_config

METALAYER = [sys.executable, "-m", "metalayer"]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    containers.needs_namespaces()


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_a_base_layer_pass(simulation: Path, tmp_path: Path) -> None:
    out, log, moments = tmp_path / "out", tmp_path / "log", random.Random(1)
    genome = simulation / "genome"
    command = [*METALAYER, "base", "run", "--model", "pwm", "--output", str(out), "--annotation-source", "simulated"]
    command += ["--fasta", str(genome / "simulated.fa"), "--annotation", str(genome / "simulated.gff3")]
    left = 0
    for _ in range(3):
        left += containers.kill_while_publishing(command, out, moments.uniform(0, 0.3), log).returncode != 0
    assert left
    assert containers.started(command, log).wait(120) == 0, log.read_text()
    assert not list(out.rglob(".*"))
    base_run(pwm_config(simulation, tmp_path / "whole", annotation_source="simulated"))
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_scoring(tmp_path: Path, kind: str) -> None:
    """No row of a run that was killed is in the scores of the next one."""
    model, rows, moments = make_bundle(tmp_path / "model"), tmp_path / "rows.parquet", random.Random(kind)
    pl.concat([pl.DataFrame(rows_to_score(1000))] * 12).write_parquet(rows)
    whole, output, log = tmp_path / f"whole.{kind}", tmp_path / "out" / f"scores.{kind}", tmp_path / "log"
    assert score_rows(rows, model, whole) == 12000
    command = [*METALAYER, "score", str(rows), "--model", str(model), "--output", str(output)]
    for _ in range(2):
        killed = containers.kill_while_publishing(command, output.parent, moments.uniform(0, 0.3), log)
        assert killed.returncode, "it had ended: give it more rows"
        assert list(output.parent.glob(".*"))
    assert containers.started(command, log).wait(120) == 0, log.read_text()
    assert list(output.parent.iterdir()) == [output]
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.integration
def test_packaging_and_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's folder outlives its containers: one that was killed while it packaged the champion starts again."""
    state, log, moments = tmp_path / "state", tmp_path / "log", random.Random(2)
    monkeypatch.setenv("METALAYER_HOME", str(state))
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    bundle = make_bundle(tmp_path / "model")
    make_champion(bundle, make_golden(bundle, tmp_path / "golden.parquet"))
    port, built = free_port(), state / "bentoml"
    command = [*METALAYER, "serve", "--port", str(port)]
    for _ in range(2):
        containers.kill_while_publishing(command, built, moments.uniform(0, 2), log)
        assert list(built.glob("tmp/.*"))
    process = containers.started(command, log)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/model").json()["version"] == "1"
        assert not list(built.glob("tmp/*"))
    finally:
        containers.end(process)
