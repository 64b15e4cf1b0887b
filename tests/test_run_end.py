"""What a run ends with: the query of what was learned, the model's name where there are several, what stays."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from releases import make_bundle, make_golden, rewrite

from metalayer.core import ArtifactLoader
from metalayer.core.loader import TRACKS
from metalayer.data.tracks import TrackStore
from metalayer.genome import decode
from metalayer.registry import versions
from metalayer.registry.versions import ModelVersion
from metalayer.release.answer import BASE_COLUMNS
from metalayer.release.contract import parse_rows, parse_sequence
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.serving.work import encode_answer
from metalayer.settings.sections import DataConfig
from pipelines import environment, results

GENES_TESTED = 5
CHAMPION = ModelVersion("metalayer-pwm", 3, None, {})


class FakeDone:
    """A run with some of its outputs."""

    tracking_uri = "sqlite:///none"

    def __init__(self, state: Path, outputs: dict[str, Any]) -> None:
        self.state, self._outputs, self.run = state, outputs, SimpleNamespace(name="own-1")

    def output(self, step: str, name: str) -> Any:
        return self._outputs[step, name]


@pytest.fixture(scope="module")
def read(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read")
    ArtifactLoader(DataConfig(base_model="pwm", data_root=simulation)).load(folder)
    return folder


@pytest.fixture
def done(read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDone:
    monkeypatch.setattr(versions, "champions", lambda _: [CHAMPION])
    model = make_bundle(tmp_path / "trained")
    golden = make_golden(model, tmp_path / "golden.parquet")
    table = pl.read_parquet(golden)
    kinds = [CLASSES[i % len(CLASSES)] for i in range(len(table))]
    table.with_columns(pl.Series("splice_type", kinds)).write_parquet(golden)
    tested = sorted(TrackStore(read / TRACKS).genes())[:GENES_TESTED]
    (tmp_path / "answers.parquet").write_bytes(b"answers")
    outputs = {
        ("train", "model"): SimpleNamespace(path=model),
        ("evaluate", "golden"): SimpleNamespace(file=golden),
        ("evaluate", "answers"): SimpleNamespace(file=tmp_path / "answers.parquet"),
        ("load_artifacts", "tracks"): SimpleNamespace(path=read / TRACKS),
        ("split", "split_manifest"): {"test": {"genes": tested}},
    }
    (tmp_path / "state").mkdir()
    return FakeDone(tmp_path / "state", outputs)


def request_of(done: FakeDone, line: str) -> bytes:
    assert f"--data @{done.state / 'reports' / done.run.name / 'query.json'}" in line
    assert len(line) < 400
    return (done.state / "query.json").read_bytes()


def test_a_model_of_rows_is_asked_for_rows(done: FakeDone) -> None:
    _, line = results._query(done, "metalayer-pwm")
    assert "/v1/score?base=true' " in line  # quoted: ? stands for any letter in a shell
    assert len(parse_rows(request_of(done, line))) == 3


def test_a_model_of_whole_genes_is_asked_for_a_test_gene(done: FakeDone, read: Path) -> None:
    model = done.output("train", "model").path
    rewrite(model / "model.json", trained_on="genes")
    _, line = results._query(done, "metalayer-pwm")
    assert "/v1/score_sequence " in line
    given = parse_sequence(request_of(done, line))
    store = TrackStore(read / TRACKS)
    tracks = [store.read(gene_id) for gene_id in done.output("split", "split_manifest")["test"]["genes"]]
    both = [one for one in tracks if {DONOR, ACCEPTOR} <= set(one.labels.tolist())]
    shortest = min(both, key=len)
    assert given.sequence == decode(shortest.tokens)
    np.testing.assert_array_equal(given.bases[""], shortest.scores)  # float32, bit for bit
    body = Path(done.state / "answer.json")
    body.write_bytes(b"".join(part.content for part in encode_answer(shortest.scores, BASE_COLUMNS, {})))
    cut = line.partition(" | ")[2]
    shown = subprocess.run(f"cat {body} | {cut}", shell=True, capture_output=True, text=True, check=True).stdout
    sites = sorted(int(np.flatnonzero(shortest.labels == one)[0]) for one in (DONOR, ACCEPTOR))
    rows = [json.loads("{" + text.partition("}")[0] + "}") for text in shown.splitlines()]
    assert [list(row.values()) for row in rows] == shortest.scores[sites].tolist()

    done.output("split", "split_manifest")["test"]["genes"].clear()
    _, line = results._query(done, "metalayer-pwm")  # no test gene has scores
    assert "/v1/score?" in line


def test_commands_name_the_state_folder_that_they_would_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`metalayer` takes that of the folder where it is typed, `make` and run.py that of the checkout."""
    monkeypatch.chdir(tmp_path)
    here, of_checkout = tmp_path / ".metalayer", environment.ROOT / ".metalayer"
    assert results._in_state(here, Path(), "metalayer", "ui") == "metalayer ui"
    assert results._in_state(of_checkout, Path(), "metalayer", "ui") == f"METALAYER_HOME={of_checkout} metalayer ui"
    assert results._in_state(of_checkout, environment.ROOT, "make", "serve") == "make serve"
    assert results._in_state(here, environment.ROOT, "make", "serve") == f"METALAYER_HOME={here} make serve"


def test_commands_name_the_model_where_several_have_a_champion(done: FakeDone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "find_champion", lambda *_: CHAMPION)
    assert results._query(done, "metalayer-pwm")[0].endswith(" serve")
    other = ModelVersion("metalayer-other", 1, None, {})
    monkeypatch.setattr(versions, "champions", lambda _: [other, CHAMPION])
    assert results._query(done, "metalayer-pwm")[0].endswith(" serve MODEL=pwm")
    assert " serve MODEL=pwm answers with the champion, version 3" in results._no_query(done, "metalayer-pwm")[0]
    monkeypatch.setattr(versions, "find_champion", lambda *_: None)
    assert results._no_query(done, "metalayer-pwm") == ["no model is promoted yet, so there is none to query"]


def test_what_is_left_of_a_rejected_model(done: FakeDone, tmp_path: Path) -> None:
    model, answers = results._keep(done, tmp_path / "reports")
    assert json.loads((model / "model.json").read_text())["base_model"] == "pwm"
    assert answers.read_bytes() == b"answers"
    assert results._keep(done, tmp_path / "reports") == [model, answers]  # again
