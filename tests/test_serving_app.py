import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from releases import expected, make_bundle, reseal, score_rows

from metalayer.errors import ModelError
from metalayer.integrity import sealed
from metalayer.models.description import digest
from metalayer.release.contract import Rows
from metalayer.release.engine import Engine
from metalayer.release.folder import MADE_WITH, made_with, release_digest
from metalayer.schema import CLASSES
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving

HEADERS = ("x-model-name", "x-model-version", "x-model-digest", "x-request-id")


@pytest.fixture
def call(engine: Engine) -> Callable[..., httpx.Response]:
    """Send one request to the application."""

    def send(method: str, path: str, *, settings: ServingSettings | None = None, **options: object) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(Serving(engine, settings)), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    return send


def probabilities(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([[row[name] for name in CLASSES] for row in response.json()["rows"]])


def test_scores_are_the_models_own(call, released: Path) -> None:
    rows = score_rows(70)
    answers = probabilities(call("POST", "/v1/score", json={"rows": rows}))
    assert np.array_equal(answers.astype(np.float32), expected(released, rows))
    assert np.abs(answers - np.array([[r[f"{c}_score"] for c in CLASSES] for r in rows])).max() > 0.01


def test_a_row_gives_the_same_bytes_alone_and_in_company(call) -> None:
    rows = score_rows(45)
    together = call("POST", "/v1/score", json={"rows": rows}).json()["rows"]
    backwards = call("POST", "/v1/score", json={"rows": rows[::-1]}).json()["rows"]
    assert backwards[::-1] == together
    assert [call("POST", "/v1/score", json={"rows": [row]}).json()["rows"][0] for row in rows[:5]] == together[:5]


def test_columns_are_scored_like_rows(call) -> None:
    rows = score_rows(3)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert (
        call("POST", "/v1/score", json={"columns": columns}).content
        == call("POST", "/v1/score", json={"rows": rows}).content
    )


def test_model_facts(call, engine: Engine) -> None:
    facts = call("GET", "/v1/model").json()
    assert facts["name"] == "metalayer-pwm"
    assert facts["version"] == "3"
    assert facts["alias"] == "champion"
    assert facts["digest"] == engine.digest
    assert facts["base_model"] == "pwm"
    assert facts["metrics"] == {"pr_auc_splice": 0.9}
    assert facts["data_hash"] == "d4t4"
    assert facts["git_commit"] == "c0ffee"
    assert len(facts["feature_schema"]["features"]) == 50
    assert facts["feature_schema"]["hash"]


def test_a_bad_row_is_422_with_details(call) -> None:
    rows = score_rows(3)
    rows[1]["donor_score"] = -1
    response = call("POST", "/v1/score", json={"rows": rows})
    assert response.status_code == 422
    assert response.json().keys() == {"error", "details"}
    assert response.json()["details"][0] == {
        "row": 1,
        "field": "donor_score",
        "given": -1,
        "allowed": "a number in [0, 1]",
    }


JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "text"),
    [
        ("GET", "/nothing", {}, 404, "no /nothing"),
        ("GET", "/v1", {}, 404, "POST /v1/score"),
        ("GET", "/v1/score", {}, 405, "allowed: POST"),
        ("POST", "/v1/model", {}, 405, "GET"),
        ("POST", "/v1/score", {"content": b"{", "headers": JSON_TYPE}, 422, "not JSON"),
        ("POST", "/v1/score", {"content": b"a=1"}, 415, "application/json"),
        ("POST", "/v1/score", {"content": b"", "headers": {"content-type": "text/csv"}}, 415, "text/csv"),
        (
            "POST",
            "/v1/score",
            {"content": b"", "headers": {"content-type": "application/vnd.apache.arrow.stream"}},
            422,
            "it was cut off",
        ),
        ("POST", "/v1/score", {"json": {}, "headers": JSON_TYPE | {"content-encoding": "br"}}, 415, "gzip, zstd"),
        ("POST", "/v1/score", {"json": {}, "headers": {"accept": "text/html"}}, 406, "application/json"),
        ("POST", "/v1/score", {"json": {}, "headers": {"accept": "application/json;q=0"}}, 406, "application/json"),
        (
            "POST",
            "/v1/score",
            {"content": b"{}", "headers": {"content-type": "application/json; charset=latin-1"}},
            415,
            "UTF-8",
        ),
    ],
)
def test_errors_are_json_and_identified(call, method: str, path: str, options: dict, status: int, text: str) -> None:
    response = call(method, path, **options)
    assert response.status_code == status
    assert text in response.json()["error"]
    assert all(response.headers[name] for name in HEADERS)


def test_every_answer_names_model_and_request(call, engine: Engine) -> None:
    response = call("POST", "/v1/score", json={"rows": score_rows(1)}, headers={"x-request-id": "mine-1"})
    assert [response.headers[name] for name in HEADERS] == ["metalayer-pwm", "3", engine.digest, "mine-1"]
    assert call("GET", "/v1/model", headers={"x-request-id": "a b\x7f"}).headers["x-request-id"] != "a b\x7f"
    assert call("GET", "/v1/model").headers["x-request-id"] != call("GET", "/v1/model").headers["x-request-id"]


def test_a_large_body_is_refused_while_it_streams(call) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < 10_000:
            taken += 1
            yield b" " * 1000

    response = call(
        "POST", "/v1/score", settings=ServingSettings(max_body_bytes=50_000), content=endless(), headers=JSON_TYPE
    )
    assert response.status_code == 413
    assert "50000 bytes" in response.json()["error"]
    assert taken < 100


def test_a_declared_large_body_is_refused(call) -> None:
    response = call("POST", "/v1/score", settings=ServingSettings(max_body_bytes=100), json={"rows": score_rows(1)})
    assert response.status_code == 413


def test_too_many_rows_is_413(call) -> None:
    response = call("POST", "/v1/score", settings=ServingSettings(max_rows=2), json={"rows": score_rows(3)})
    assert response.status_code == 413
    assert "at most 2" in response.json()["error"]


def test_no_model_yet_is_503() -> None:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(Serving())), base_url="http://test"
        ) as client:
            return await client.post("/v1/score", json={"rows": score_rows(1)})

    response = asyncio.run(run())
    assert response.status_code == 503
    assert response.headers["x-request-id"]


def test_a_fault_of_ours_is_500_without_its_text(call, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Engine, rows: Rows) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(Engine, "score", fail)
    response = call("POST", "/v1/score", json={"rows": score_rows(1)})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-model-digest"] == engine.digest


def test_a_model_that_misses_its_golden_rows_is_not_served(released: Path, tmp_path: Path) -> None:
    directory = tmp_path / "release"
    shutil.copytree(released, directory)
    table = pl.read_parquet(directory / "golden.parquet")
    table.with_columns(pl.col("donor") + 2e-6).write_parquet(directory / "golden.parquet")
    reseal(directory)
    with pytest.raises(ModelError, match="golden rows differ by 2e-06"):
        Engine(directory)
    table.with_columns(pl.lit(float("nan")).alias("donor")).write_parquet(directory / "golden.parquet")
    reseal(directory)
    with pytest.raises(ModelError, match="golden rows differ"):
        Engine(directory)


def test_other_golden_rows_are_another_digest(engine: Engine, released: Path, tmp_path: Path) -> None:
    """That of the registry's tag, of the Bento and of each answer."""
    directory = tmp_path / "release"
    shutil.copytree(released, directory)
    golden = directory / "golden.parquet"
    assert engine.digest == release_digest(directory, golden) != digest(directory)
    pl.read_parquet(golden).head(20).write_parquet(golden)
    with pytest.raises(ModelError, match=r"golden\.parquet is damaged or was changed.*package the model again"):
        Engine(directory)
    reseal(directory)
    fewer = Engine(directory)
    assert fewer.digest == fewer.describe()["digest"] == release_digest(directory, golden) != engine.digest


def test_other_facts_and_another_graph_are_another_digest(released: Path, tmp_path: Path) -> None:
    digests = {release_digest(released, released / "golden.parquet")}
    for name in ("facts.json", "model.onnx", "model.json"):
        directory = tmp_path / name
        shutil.copytree(released, directory)
        with (directory / name).open("a") as handle:
            handle.write("\n")
        digests.add(release_digest(directory, directory / "golden.parquet"))
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("release.json", None, "release.json"),
        ("release.json", "{", "damaged"),
        ("release.json", json.dumps(sealed({"name": "x"})), "does not name"),
        ("release.json", json.dumps({"name": "x", "version": "1", "files": {}}), "no key 'content_sha256'"),
        ("facts.json", None, "facts.json"),
        ("golden.parquet", None, "golden.parquet"),
        ("golden.parquet", "PAR1", "golden.parquet is damaged"),
        ("model.safetensors", None, "model.safetensors"),
        ("model.json", "{", "damaged"),
    ],
)
def test_a_damaged_release_is_not_served(
    released: Path, tmp_path: Path, name: str, content: str | None, match: str
) -> None:
    directory = tmp_path / "release"
    shutil.copytree(released, directory)
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises(ModelError, match=match):
        Engine(directory)


def test_other_weights_under_the_same_golden_rows_are_not_served(released: Path, tmp_path: Path) -> None:
    directory = tmp_path / "release"
    shutil.copytree(released, directory)
    other = make_bundle(tmp_path / "other", seed=1)
    shutil.copyfile(other / "model.safetensors", directory / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        Engine(directory)
    shutil.copyfile(other / "model.json", directory / "model.json")
    reseal(directory)
    with pytest.raises(ModelError, match="golden rows differ"):
        Engine(directory)


@pytest.mark.parametrize(
    ("made", "registered", "helps"),
    [
        ({}, False, "The package is damaged: remove it and make it again of the registered version"),
        ({}, True, "The registry's copy is damaged, .* promote another version .* or train again"),
        (
            {"torch": "1.0.0"},
            True,
            r"They were made with torch 1\.0\.0 \(here .*\): serve it with those, or train here",
        ),
    ],
)
def test_golden_rows_that_differ_say_what_helps_where(
    released: Path, tmp_path: Path, made: dict[str, str], registered: bool, helps: str
) -> None:
    directory = Path(shutil.copytree(released, tmp_path / "release"))
    table = pq.read_table(directory / "golden.parquet")
    wrong = pl.DataFrame(pl.from_arrow(table)).with_columns(pl.col("donor") + 0.01).to_arrow()
    facts = {MADE_WITH: json.dumps(made_with() | made)}
    pq.write_table(wrong.replace_schema_metadata(facts), directory / "golden.parquet")
    reseal(directory)
    with pytest.raises(ModelError, match=f"golden rows differ by 0.01 .*{helps}"):
        Engine(directory, registered=registered)
    (directory / "golden.parquet").write_bytes(b"PAR1")
    if not made:
        with pytest.raises(ModelError, match=f"golden.parquet is damaged or was changed: .*{helps}"):
            Engine(directory, registered=registered)
        reseal(directory)
        with pytest.raises(ModelError, match=f"golden.parquet cannot be read: .*{helps}"):
            Engine(directory, registered=registered)


def test_golden_rows_that_come_out_do_not_care_what_made_them(released: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(released, tmp_path / "release"))
    table = pq.read_table(directory / "golden.parquet")
    facts = {MADE_WITH: json.dumps({"torch": "1.0.0"})}
    pq.write_table(table.replace_schema_metadata(facts), directory / "golden.parquet")
    reseal(directory)
    assert Engine(directory).name == "metalayer-pwm"
