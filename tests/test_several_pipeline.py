"""A model of several base models through the pipeline: trained, judged, registered, packaged, served, and undone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from several import THREE, merge_three

from metalayer import cli, yaml12
from metalayer.client import MetaLayerClient
from metalayer.data.tracks import TrackStore
from metalayer.inference import Predictor
from metalayer.release.contract import RequestError
from metalayer.release.golden import read_golden
from tests import forked
from tests.servers import free_port, wait_until_ready

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[1]
NAME = "metalayer-left-and-right-and-spliced"
SETTINGS = (
    "evaluate.n_bootstrap=200",
    "gate.min_pr_auc_splice=0.1",
    "train.device=cpu",
    "model.base_dropout=true",
)


def run(state: Path, root: Path, *options: str) -> str:
    command = [str(ROOT / "pipelines" / "run.py"), "--stack", "local", "--data-root", str(root), *options]
    found = forked.run(command, {**os.environ, "METALAYER_HOME": str(state)}, state.parent)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return found.stdout


def test_from_files_to_a_served_answer(
    simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, state = tmp_path / "root", tmp_path / "state"
    (tmp_path / "made").mkdir()
    (root / "nucleotide_scores").mkdir(parents=True)
    merged = merge_three(simulation, tmp_path / "made")
    for part, path in merged.items():  # found by what is in them
        shutil.copy(path, root / "nucleotide_scores" / f"{part}.parquet")
    shutil.copy(simulation / "genes.tsv", root)
    assert cli.main(["init", str(root), "--base", "left+middle"]) == 2
    assert "no file of " in (told := capsys.readouterr().err), told
    assert cli.main(["init", str(root), "--base", THREE]) == 0
    settings = yaml12.read_mapping(root / "run.yaml")
    assert settings["data"]["base_model"] == THREE
    assert settings["model"] == {"head": "stack"}
    out = run(state, root, *(word for setting in SETTINGS for word in ("--set", setting)))
    assert "donor AP is not worse than that of the untrained mean of the base models" in out
    assert "untrained mean of all" in out
    assert f"model   {NAME} version 1, alias champion" in out

    monkeypatch.setenv("METALAYER_HOME", str(state))
    from metalayer.registry import download, tracking, versions

    release = download.fetch(NAME, 1, tracking.default_tracking_uri(), tmp_path / "fetched")
    golden, predictor = read_golden(release.golden), Predictor.load(release.bundle)
    assert golden.rows is None
    assert set(golden.sequences[0].bases) == {"left", "right", "spliced"}

    # As MLflow loads it.
    import mlflow

    mlflow.set_tracking_uri(tracking.default_tracking_uri())
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    given = pl.read_parquet(release.golden).select("sequence", pl.selectors.contains("_score."))
    answered = loaded.predict(given.to_pandas(), params={"base": True})
    first = golden.sequences[0]
    assert np.abs(np.array(answered["donor"][0]) - golden.answers[: len(first), 0]).max() < 1e-6
    best = predictor.stack.best if predictor.stack else ""
    assert np.allclose(answered["base_donor"][0], first.bases[best][:, 0])

    # Over HTTP, and what it refuses.
    url, log = f"http://127.0.0.1:{free_port()}", tmp_path / "server.log"
    command = [sys.executable, "-m", "metalayer", "serve", "--port", url.rpartition(":")[2]]
    variables = {**os.environ, "METALAYER_SERVE_WORKERS": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT) as server,
        MetaLayerClient(url) as client,
    ):
        try:
            wait_until_ready(server, url, log)
            rows = client.score_sequence(first.sequence, first.bases)
            two = {name: first.bases[name] for name in ("left", "right")}
            without, note = client.score_sequence(first.sequence, two), client.note
            asked = json.loads((state / "query.json").read_text())
            reply = client._http.post("/v1/score_sequence", json=asked)
            model, document = client.model(), client._http.get("/openapi.json").json()
            content = document["paths"]["/v1/score_sequence"]["post"]["requestBody"]["content"]["application/json"]
            example = client._http.post("/v1/score_sequence", json=content["example"])
            with pytest.raises(RequestError, match=r"this model reads base scores around a position"):
                client.score([{"sequence": "ACGT"}])
            with pytest.raises(
                RequestError, match=r"given scores of left; this model reads donor_score.left, .*"
            ) as no:
                client.score_sequence(first.sequence, {"left": first.bases["left"]})
            with pytest.raises(RequestError, match=r"a base model without a name; this model reads donor_score.left"):
                client.score_sequence(first.sequence, first.bases["left"])
        finally:
            server.terminate()
    assert np.abs(rows["meta_donor"].to_numpy() - golden.answers[: len(first), 0]).max() < 1e-6
    assert np.array_equal(rows["base_acceptor"].to_numpy(), first.bases[best][:, 1])
    assert note.endswith("; base model spliced is missing: answered by a stack of the others")
    assert np.array_equal(without["meta_donor"].to_numpy(), predictor.predict_tracks(first.sequence, two)[:, 0])
    assert reply.status_code == example.status_code == 200, example.text
    assert len(reply.json()["rows"]) == len(asked["sequence"])
    assert reply.json()["note"].startswith("answered from left, right, spliced")
    assert model["score_fields"]["spliced"] == ["spliced_score.spliced"]
    assert "/v1/score" not in document["paths"]
    assert [detail["field"] for detail in no.value.details] == [
        "donor_score.right+acceptor_score.right+neither_score.right",
        "spliced_score.spliced",
    ]

    # All genes of the files in shards, and a model of `metalayer train` as the next version.
    run(state, root, "--pipeline", "score", "--set", "score.shards=2")
    scored = pl.read_parquet(state / "scores" / f"{THREE}.parquet")
    tracks = TrackStore(_canonical(merged["test"], tmp_path))
    gene = min(tracks.genes().values(), key=len)
    theirs = scored.filter(pl.col("gene_id").cast(pl.String) == gene.gene_id).sort("position")
    ours = predictor.predict_gene_track(tracks.read(gene.gene_id))
    ours = ours if gene.strand == "+" else ours[::-1]
    assert np.array_equal(
        theirs.select("donor", "acceptor", "neither").to_numpy(), ours[:: 1 if gene.strand == "+" else -1]
    )
    trained = tmp_path / "trained"
    train = ["train", "--scores", str(merged["train"]), "--base-model", THREE, "--set", "head=stack"]
    assert cli.main([*train, "--set", "seed=5", "--output-dir", str(trained)]) == 0
    lenient = ["--set", "gate.require_better_than_base=false", "--set", "gate.margin=0.5"]
    assert cli.main(["register", str(trained), "--scores", str(merged["test"]), "--device", "cpu", *lenient]) == 0
    assert f"model   {NAME} version 2, alias champion" in capsys.readouterr().out
    assert versions.known_version(NAME, 2).tags["base_model"] == THREE


def _canonical(path: Path, folder: Path) -> Path:
    from metalayer.data.score_files import ScoreFile

    return ScoreFile.read([path], folder / "canonical.parquet", {}).store.path
