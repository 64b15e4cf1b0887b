"""Bodies of every form and coding, over the application: the same answers, bounds, and 4xx for all that is damaged."""

import asyncio
import gzip
import json
import random
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pytest
from releases import score_rows

from metalayer.base.pwm import PwmModel
from metalayer.errors import ConfigError
from metalayer.inference import Predictor
from metalayer.release.answer import ROW_COLUMNS_WITH_BASE, SEQUENCE_COLUMNS
from metalayer.release.contract import Limits, RequestError
from metalayer.release.engine import Engine
from metalayer.schema import BASE_SCORES, CLASSES
from metalayer.serving import arrow
from metalayer.serving.app import create_app
from metalayer.serving.media import decode
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from tests.damaged import ARROW, END, JSON, ONE, REFUSED, flipped, stream, typed_streams

SEQUENCE = "".join(random.Random(3).choices("ACGT", k=9000))  # more than one block


def send(serving: Serving, path: str, content: object, **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(serving), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.post(path, content=content, headers=named)

    return asyncio.run(run())


@pytest.fixture
def post(engine: Engine) -> Callable[..., httpx.Response]:
    def call(content: object, path: str = "/v1/score", settings: ServingSettings | None = None, **headers: str):
        return send(Serving(engine, settings), path, content, **{"content_type": JSON, **headers})

    return call


def values(response: httpx.Response, names: tuple[str, ...] = CLASSES) -> np.ndarray:
    assert response.status_code == 200, response.text
    if response.headers["content-type"] == ARROW:
        table = pa.ipc.open_stream(response.content).read_all()
        assert table.column_names == list(names)
        return np.stack([table[name].to_numpy() for name in names], axis=1)
    return np.array([[row[name] for name in names] for row in response.json()["rows"]], dtype=np.float32)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("kind", [pa.Table.from_pylist, pl.DataFrame])
def test_arrow_and_json_are_answered_alike(post, kind: Callable, compression: str | None) -> None:
    rows = score_rows(300)
    table = kind(rows)
    plain = values(post(json.dumps({"rows": rows})))
    response = post(stream(table, compression), content_type=ARROW)
    assert response.headers["content-type"] == ARROW
    assert np.array_equal(values(response), plain)
    assert np.array_equal(values(post(stream(table), content_type=ARROW, accept=JSON)), plain)
    asked = post(json.dumps({"rows": rows}), accept=f"{JSON};q=0.5, {ARROW}")
    assert asked.headers["content-type"] == ARROW
    assert np.array_equal(values(asked), plain)


def test_base_scores_beside_meta_scores_where_they_are_asked_for(post) -> None:
    rows = score_rows(40)
    body, path = json.dumps({"rows": rows}), "/v1/score?base=true"
    given = np.array([[row[name] for name in BASE_SCORES] for row in rows], dtype=np.float32)
    meta = values(post(body))
    for answer in (post(body, path), post(body, path, accept=ARROW)):
        assert np.array_equal(values(answer, ROW_COLUMNS_WITH_BASE), np.concatenate([meta, given], axis=1))
    for plain in ("/v1/score", "/v1/score?base=false", "/v1/score?other=true"):
        assert post(body, plain).content == post(body).content
    for wrong in ("yes", "", "True"):
        assert post(json.dumps(ONE), f"/v1/score_sequence?base={wrong}").status_code == 422
        refused = post(body, f"/v1/score?base={wrong}")
        assert refused.status_code == 422
        (detail,) = refused.json()["details"]
        assert detail == {"row": None, "field": "base", "given": wrong, "allowed": "true or false"}


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_coded_bodies(post, coding: str) -> None:
    rows = score_rows(3)
    body = json.dumps({"rows": rows}).encode()
    coded = gzip.compress(body) if coding == "gzip" else pa.Codec("zstd").compress(body).to_pybytes()
    assert post(coded, content_encoding=coding).content == post(body).content
    for damaged in (coded[:-5], coded[: len(coded) // 2], b"no" + coded, coded + b"junk"):
        response = post(damaged, content_encoding=coding)
        assert response.status_code == 422
        assert f"not {coding}" in response.json()["error"]
    bomb = b" " * 200_000_000
    coded = gzip.compress(bomb, 1) if coding == "gzip" else pa.Codec("zstd").compress(bomb).to_pybytes()
    del bomb
    response = post(coded, settings=ServingSettings(max_body_bytes=2_000_000), content_encoding=coding)
    assert response.status_code == 413
    assert "decoded body is larger than 2000000" in response.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_damaged_coded_bodies_leave_no_memory_behind(coding: str) -> None:
    body = b"x" * 3_000_000
    coded = gzip.compress(body) if coding == "gzip" else pa.Codec("zstd").compress(body).to_pybytes()

    def refused(times: int) -> int:
        for _ in range(times):
            with pytest.raises(RequestError, match=f"not {coding}"):
                decode(coded[:-6], coding, 10_000_000)
        return psutil.Process().memory_info().rss

    before = refused(100)
    assert refused(300) - before < 50_000_000


def test_every_position_of_a_sequence(post, released: Path) -> None:
    base = PwmModel().score(SEQUENCE)
    expected = np.concatenate([base, Predictor.load(released).predict_tracks(SEQUENCE, base)], axis=1)
    given = {name: base[:, i].tolist() for i, name in enumerate(BASE_SCORES)}
    for request in ({"sequence": SEQUENCE}, {"sequence": SEQUENCE, **given}):
        answers = [
            post(json.dumps(request), "/v1/score_sequence"),
            post(stream([request], "zstd"), "/v1/score_sequence", content_type=ARROW),
        ]
        for answer in answers:
            assert np.array_equal(values(answer, SEQUENCE_COLUMNS), expected)


def test_a_sequence_without_scores_where_no_base_model_is(post, engine: Engine, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_base", None)
    monkeypatch.setitem(engine._predictor.info, "base_model", "openspliceai")
    response = post(json.dumps({"sequence": "ACGT"}), "/v1/score_sequence")
    assert response.status_code == 422
    assert "no base model 'openspliceai': give its donor_score, acceptor_score" in response.json()["error"]


@pytest.mark.parametrize(
    ("changes", "row", "field", "given"),
    [
        ({"sequence": "ACRT"}, 2, "sequence", "R"),
        ({"sequence": ""}, None, "sequence", ""),
        ({"sequence": 5}, None, "sequence", 5),
        ({"donor_score": [0.1] * 3}, None, "donor_score", "3 values"),
        ({"donor_score": [0.1, 0.1, 1.5, 0.1]}, 2, "donor_score", 1.5),
        ({"donor_score": [0.1, 0.1, None, 0.1]}, 2, "donor_score", None),
        ({"donor_score": [0.1, 0.1, 0.1, float("nan")]}, 3, "donor_score", "NaN"),
        ({"donor_score": [0.1, 0.3, 0.1, 0.1]}, 1, "donor_score+acceptor_score+neither_score", pytest.approx(1.2)),
        ({"other": 1}, None, "other", "an unknown field"),
    ],
)
def test_bad_sequences(post, changes: dict, row: int | None, field: str, given: object) -> None:
    request = ONE | changes
    response = post(json.dumps(request), "/v1/score_sequence")
    assert response.status_code == 422
    found = response.json()["details"]
    assert [(detail["row"], detail["field"], detail["given"]) for detail in found] == [(row, field, given)]
    arrow = post(stream([request]), "/v1/score_sequence", content_type=ARROW)
    if not isinstance(request["sequence"], int):
        assert arrow.json()["details"] == found
    assert arrow.status_code == 422


def test_sequences_in_wrong_numbers(post) -> None:
    for body in (json.dumps([ONE]), "null", json.dumps({name: ONE[name] for name in ("sequence", "donor_score")})):
        assert post(body, "/v1/score_sequence").status_code == 422
    for rows in ([ONE, ONE], []):
        table = pa.Table.from_pylist(rows, schema=pa.Table.from_pylist([ONE]).schema)
        response = post(stream(table), "/v1/score_sequence", content_type=ARROW)
        assert response.status_code == 422
        assert response.json()["details"][0]["allowed"] == "one row: a request holds one sequence"
    small = ServingSettings(max_sequence_bp=3)
    response = post(json.dumps(ONE), "/v1/score_sequence", settings=small)
    assert response.status_code == 413
    assert "at most 3" in response.json()["error"]


@pytest.mark.parametrize(
    "changes", [{"donor_score": 2.0}, {"sequence": "AXG"}, {"index": 99999}, {"context_score_m1": None}]
)
def test_arrow_gives_the_messages_of_json(post, changes: dict) -> None:
    rows = score_rows(3)
    rows[1] |= changes
    plain, arrow = post(json.dumps({"rows": rows})), post(stream(rows), content_type=ARROW)
    assert plain.status_code == arrow.status_code == 422
    assert plain.json() == arrow.json()


def as_column(kind: pa.DataType, values_: list) -> pa.Table:
    table = pa.Table.from_pylist(score_rows(len(values_)))
    return table.set_column(table.schema.get_field_index("donor_score"), "donor_score", pa.array(values_, kind))


def of_kind(kind: int) -> bytes:
    """A stream whose first message says that it is of another kind: pyarrow's `read_schema` crashes on it."""
    body = bytearray(stream(score_rows(1)))
    assert body.count(b"\x01\x04\x00") >= 1
    body[body.index(b"\x01\x04\x00")] = kind
    return bytes(body)


BAD_ARROW = {
    "kind unknown": of_kind(0xD7),
    "kind batch": of_kind(3),
    "kind none": of_kind(0),
    "list": stream(as_column(pa.list_(pa.null()), [[None] * 1000])),
    "struct": stream(as_column(pa.struct([("x", pa.int8())]), [{"x": 1}])),
    "time": stream(as_column(pa.timestamp("ns"), [1])),
    "text": stream(as_column(pa.string(), ["0.1"])),
    "dictionary": stream(as_column(pa.dictionary(pa.int8(), pa.string()), ["a"])),
    "column less": stream(pa.Table.from_pylist(score_rows(2)).drop_columns(["sequence"])),
    "column more": stream(pa.Table.from_pylist(score_rows(2)).append_column("x", pa.array([1, 2]))),
    "no rows": stream(pa.Table.from_pylist(score_rows(2)).slice(0, 0)),
    "file": b"ARROW1\0\0" + stream(score_rows(2)),
    "no schema": stream(score_rows(2))[-8:],
    "behind the end": stream(score_rows(2)) + b"x" + END,
    "json": b"{}",
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD_ARROW)
def test_bad_arrow(post, name: str) -> None:
    response = post(BAD_ARROW[name], content_type=ARROW)
    assert response.status_code == 422
    assert response.json()["details"]


def test_an_arrow_bomb_is_refused_before_it_is_decoded(post) -> None:
    rows = 4_000_000
    table = pa.table({name: pa.array(np.zeros(rows)) for name in score_rows(1)[0] if name != "sequence"})
    body = stream(table.append_column("sequence", pa.array([""]).take(pa.array(np.zeros(rows, dtype=np.int8)))), "zstd")
    assert len(body) < 1_000_000
    for settings, text in (
        (ServingSettings(), "4000000 rows"),
        (ServingSettings(max_rows=rows), "Arrow stream is larger"),
    ):
        pa.default_memory_pool().release_unused()
        before = pa.total_allocated_bytes()
        response = post(body, settings=settings, content_type=ARROW)
        assert response.status_code == 413
        assert text in response.json()["error"]
        assert pa.total_allocated_bytes() - before < 10_000_000


def test_views_of_one_text_are_counted_as_often_as_they_are_seen(post) -> None:
    rows = pl.DataFrame(score_rows(1) * 1000).with_columns(sequence=pl.lit("ACGT" * 5000), index=0)
    body = stream(rows)
    assert len(body) < 1_000_000
    response = post(body, content_type=ARROW, settings=ServingSettings(max_body_bytes=1_000_000))
    assert response.status_code == 413
    assert "the text of the Arrow stream" in response.json()["error"]


@pytest.mark.parametrize("body", [b"[]," * 20_000_000, b"[" * 60_000_000, b'{"rows":[' + b"{}," * 20_000_000], ids=repr)
def test_a_json_bomb_is_refused_before_it_is_read(post, body: bytes) -> None:
    tracemalloc.start()
    started = time.monotonic()
    response = post(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert response.status_code == 413
    assert peak < 3 * len(body)
    assert time.monotonic() - started < 20


def test_more_requests_than_are_held_are_429(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    serving, go_on, score = Serving(engine, ServingSettings(max_concurrent=1)), threading.Event(), Engine.score

    def held(self: Engine, rows: object) -> Iterator[np.ndarray]:
        go_on.wait(60)
        yield from score(self, rows)

    monkeypatch.setattr(Engine, "score", held)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            # Not so small that it is answered on the loop, which then would see no second one.
            first = asyncio.create_task(client.post("/v1/score", json={"rows": score_rows(200)}))
            while not serving.room.in_hand:
                await asyncio.sleep(0.01)
            second = await client.post("/v1/score", json={"rows": score_rows(1)})
            go_on.set()
            third = await first
            return [second, third, await client.post("/v1/score", json={"rows": score_rows(1)})]

    second, third, fourth = asyncio.run(run())
    assert second.status_code == 429
    assert second.headers["retry-after"] == "1"
    assert third.status_code == fourth.status_code == 200


def test_late_answers_are_504_and_late_bodies_408(post, engine: Engine, monkeypatch) -> None:
    done = 0

    def slow(self: Engine, rows: object):
        nonlocal done
        for _ in range(100):
            time.sleep(0.05)
            done += 1
            yield np.zeros((1, 3), dtype=np.float32)

    monkeypatch.setattr(Engine, "score", slow)
    response = post(json.dumps({"rows": score_rows(1)}), settings=ServingSettings(deadline_s=0.3))
    assert response.status_code == 504
    assert "0.3 s" in response.json()["error"]
    assert done < 20

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    response = post(never(), settings=ServingSettings(deadline_s=0.3))
    assert response.status_code == 408


def test_a_short_request_does_not_wait_for_all_of_a_long_one(engine: Engine) -> None:
    async def run() -> list[str]:
        ended: list[str] = []
        transport = httpx.ASGITransport(create_app(Serving(engine)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def ask(name: str, count: int) -> None:
                response = await client.post("/v1/score", json={"rows": score_rows(8) * count})
                assert response.status_code == 200
                ended.append(name)

            long = asyncio.create_task(ask("long", 300))
            await asyncio.sleep(0.05)
            await asyncio.gather(ask("short", 1), long)
        return ended

    assert asyncio.run(run()) == ["short", "long"]


def test_keys(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\nthird\n")
    settings = ServingSettings(api_keys="first, second", api_keys_file=tmp_path / "keys")
    serving, body = Serving(engine, settings), json.dumps({"rows": score_rows(1)})
    for key in ("first", "second", "third"):
        assert send(serving, "/v1/score", body, content_type=JSON, authorization=f"Bearer {key}").status_code == 200
    for header in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer firs"}, {"authorization": "first"}):
        response = send(serving, "/v1/score", body, content_type=JSON, **header)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-model-digest"] == engine.digest
        assert "API key" in response.json()["error"]


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    settings = ServingSettings.from_environment({"METALAYER_SERVE_MAX_ROWS": "7", "METALAYER_HOME": "x", "PATH": ""})
    assert settings.limits.max_rows == 7
    with pytest.raises(ConfigError, match="did you mean 'max_rows'"):
        ServingSettings.from_environment({"METALAYER_SERVE_MAX_ROW": "7"})
    with pytest.raises(ConfigError, match="api_keys_file"):
        ServingSettings(api_keys_file=tmp_path / "none").all_keys()
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no key"):
        ServingSettings(api_keys_file=tmp_path / "empty").all_keys()


def test_openapi_says_what_is_there(engine: Engine, post) -> None:
    app = create_app(Serving(engine))

    async def get(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(path)

    described = asyncio.run(get("/openapi.json")).json()
    page = asyncio.run(get("/docs"))
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/v1/score", "/v1/score_sequence", "/v1/model", "/metrics", "/readyz"):
        assert path in described["paths"]
    assert "/v1/score_variants" not in described["paths"]
    unknown = asyncio.run(get("/v1/absent"))
    assert unknown.status_code == 404
    assert "POST /v1/score_sequence" in unknown.json()["error"]

    def check(value: object, schema: dict) -> None:
        jsonschema.Draft202012Validator({**schema, "components": described["components"]}).validate(value)

    def answer(path: str, status: str) -> dict:
        return described["paths"][path]["post"]["responses"][status]["content"][JSON]["schema"]

    for path, request in (("/v1/score", {"rows": score_rows(2)}), ("/v1/score_sequence", ONE)):
        check(request, described["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"])
        check(post(json.dumps(request), path).json(), answer(path, "200"))
        bad = post(json.dumps({"x": 1}), path)
        check(bad.json(), answer(path, "422"))
        with pytest.raises(jsonschema.ValidationError):
            check({"x": 1}, described["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"])


def test_one_bit_of_an_arrow_body_gives_an_answer_or_a_refusal() -> None:
    """Of every type that a column may have, compressed or not, in one batch or in several."""
    random_, whole = random.Random(1), list(typed_streams())
    refused = answered = 0
    for one, body in whole:
        read = arrow.read_sequence if one else arrow.read_rows
        read(body, Limits())  # as it is, it is good
        for _ in range(40):
            try:
                read(flipped(body, random_), Limits(max_body_bytes=1_000_000))
                answered += 1
            except RequestError as error:
                assert error.status in (413, 422)
                refused += 1
    assert refused > 1000
    assert answered > 100  # a letter or number that became another


@pytest.mark.parametrize("extra", [1, 8, 15])
def test_text_views_in_a_buffer_of_any_length(post, extra: int) -> None:
    """A buffer of views may be longer than the views; its length need be no multiple of theirs."""
    rows = score_rows(2)
    plain = values(post(json.dumps({"rows": rows})))
    column = pa.array([row["sequence"] for row in rows], pa.string_view())
    validity, views, *letters = column.buffers()
    longer = pa.py_buffer(views.to_pybytes()[:32] + bytes(extra))
    column = pa.Array.from_buffers(pa.string_view(), 2, [validity, longer, *letters])
    batch = pa.record_batch(
        {"sequence": column, **{name: [r[name] for r in rows] for name in rows[0] if name != "sequence"}}
    )
    assert arrow._letters(column) == sum(len(row["sequence"]) for row in rows)
    assert np.array_equal(values(post(stream(pa.Table.from_batches([batch])), content_type=ARROW)), plain)


@pytest.mark.parametrize("kind", REFUSED, ids=str)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/score_sequence"])
@pytest.mark.parametrize("name", ["sequence", "donor_score"])
def test_nested_and_other_types_are_refused_by_name(post, kind: pa.DataType, path: str, name: str) -> None:
    table = pa.Table.from_pylist(score_rows(1) if path == "/v1/score" else [ONE])
    table = table.set_column(table.column_names.index(name), name, pa.nulls(1, kind))
    response = post(stream(table), path, content_type=ARROW)
    assert response.status_code == 422
    assert str(kind).split("<")[0] in response.text
