"""A version that the gate rejected, served because somebody asked for it: it answers, and says what it is."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from releases import expected, make_bundle, make_champion, make_golden, score_rows

from metalayer.client import MetaLayerClient
from metalayer.schema import CLASSES
from tests.servers import free_port, wait_until_ready

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_rejected_version_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.registry import registration

    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("METALAYER_SERVE_WORKERS", "1")
    monkeypatch.setenv("METALAYER_SERVE_REGISTRY_URI", "sqlite:///elsewhere.db")  # which is not followed
    champion, rejected = (make_bundle(tmp_path / f"m{seed}", seed) for seed in (1, 2))
    make_champion(champion, make_golden(champion, tmp_path / "1.parquet"))
    registration.register(rejected, make_golden(rejected, tmp_path / "2.parquet"), base_model="pwm", promoted=False)
    url, log = f"http://127.0.0.1:{free_port()}", tmp_path / "server.log"
    command = [sys.executable, "-m", "metalayer", "serve", "--model", "models:/metalayer-pwm/2"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, "--port", url.rpartition(":")[2]],
            cwd=tmp_path,
            env=dict(os.environ),
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            wait_until_ready(server, url, log)
            rows = score_rows(3)
            with MetaLayerClient(url) as client:
                answers, model, note = client.score(pl.DataFrame(rows)), client.model(), client.note
        finally:
            server.terminate()
    said = "metalayer-pwm version 2 is not the champion: the gate rejected it"
    assert (model["version"], model["alias"], model["standing"]) == ("2", None, said)
    assert model["registry"]["state"] == "not followed"
    assert note.endswith(f"; {said}")
    assert said in log.read_text()
    assert np.abs(answers.select(CLASSES).to_numpy() - expected(rejected, rows)).max() <= 1e-6
