"""The client against a real server of the application on a socket of this machine."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from releases import expected, score_rows

from metalayer import cli
from metalayer.client import MetaLayerClient
from metalayer.errors import ConfigError, ServiceError
from metalayer.inference import Predictor
from metalayer.integrity import unsealed, write_json
from metalayer.release.answer import BASE_COLUMNS, ROW_COLUMNS_WITH_BASE
from metalayer.release.contract import RequestError
from metalayer.schema import BASE_SCORES, CLASSES
from metalayer.workflows import score
from tests.servers import Server, free_port


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """For servers of a test's own."""
    with contextlib.closing(Server()) as server:
        yield server


@pytest.fixture(scope="module")
def url(released: Path) -> Iterator[str]:
    with contextlib.closing(Server()) as server:
        yield server.start(released)


def test_rows_and_sequences(url: str, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = score_rows(20)
    with MetaLayerClient(url) as client:
        for given in (rows, pl.DataFrame(rows), pl.DataFrame(rows).to_arrow()):
            answers = client.score(given)
            assert answers.columns == list(CLASSES)
            assert np.array_equal(answers.to_numpy(), expected(released, rows))
        both = client.score(rows, base=True)
        assert both.columns == list(ROW_COLUMNS_WITH_BASE)
        assert both.select(CLASSES).equals(answers)
        for name, base in zip(BASE_SCORES, BASE_COLUMNS, strict=True):
            assert both[base].to_list() == pl.Series([row[name] for row in rows], dtype=pl.Float32).to_list()
        assert client.digest == client.model()["digest"]
        base = np.tile(np.array([0.2, 0.1, 0.7]), (50, 1))
        table = client.score_sequence("ACGTN" * 10, base)
        meta = Predictor.load(released).predict_tracks("ACGTN" * 10, base)
        assert np.array_equal(table.select(pl.selectors.starts_with("meta_")).to_numpy(), meta)
        with pytest.raises(RequestError) as caught:
            client.score([rows[0] | {"donor_score": 4.0}])
        assert caught.value.details[0]["field"] == "donor_score"
    (tmp_path / "one.fa").write_text(">gene\nACGTACGT\nACGT\n")
    output = tmp_path / "one.parquet"
    assert cli.main(["client", "sequence", str(tmp_path / "one.fa"), "--url", url, "--output", str(output)]) == 0
    assert pl.read_parquet(output).shape == (12, 6)
    (tmp_path / "one.fa").write_text(">a\nA\n>b\nC\n")
    assert cli.main(["client", "sequence", str(tmp_path / "one.fa"), "--url", url, "--output", str(output)]) == 2
    capsys.readouterr()
    assert cli.main(["client", "model", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "3"


def test_a_server_that_takes_less_gets_parts(
    released: Path, server: Server, rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = score_rows(300)
    asked = []
    for limit in ({"max_rows": "128"}, {"max_body_bytes": "30000"}):
        url = server.start(released, **limit)
        try:
            with MetaLayerClient(url) as client:
                assert client.model()["limits"].items() >= {name: int(value) for name, value in limit.items()}.items()
                times = flaky([], client)
                for given in (rows, pl.DataFrame(rows), pl.DataFrame(rows).to_arrow()):
                    assert np.array_equal(client.score(given).to_numpy(), expected(released, rows))
                asked.append(len(times))
                with pytest.raises(RequestError) as caught:
                    client.score([*rows[:299], rows[299] | {"donor_score": 4.0}])
                assert [detail["row"] for detail in caught.value.details] == [299]
                with pytest.raises(RequestError, match="mistake"):
                    client.score(pl.DataFrame(rows[:0], schema=pl.DataFrame(rows).schema))
            output = tmp_path / f"{len(asked)}.parquet"
            assert cli.main(["score", str(rows_file), "--url", url, "--output", str(output)]) == 0
            assert len(pl.read_parquet(output)) == 900
        finally:
            server.kill()
    assert asked[0] == 1 + 3 * 3  # what it takes, and then never too much
    assert asked[1] > 3 * 3


def test_an_answer_is_of_one_model(released: Path, url: str) -> None:
    with MetaLayerClient(url) as client:
        client._limits = client.model()["limits"] | {"max_rows": 2}
        real = client._http.request

        def request(*arguments: object, **options: object) -> httpx.Response:
            response = real(*arguments, **options)
            response.headers["x-model-digest"] = str(random.random())
            return response

        client._http.request = request
        with pytest.raises(ServiceError, match="its model changed while 4 rows"):
            client.score(score_rows(4))
        assert len(client.score(score_rows(2))) == 2


def flaky(answers: list[int | httpx.Response | Exception], client: MetaLayerClient) -> list[float]:
    """Let the server of a client answer so, and then as it does."""
    real, times = client._http.request, []

    def request(*arguments: object, **options: object) -> httpx.Response:
        times.append(time.monotonic())
        if answers:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, httpx.Response):
                return answer
            headers = {"retry-after": "1"} if answer == 429 else {}
            return httpx.Response(answer, json={"error": "busy", "details": []}, headers=headers)
        return real(*arguments, **options)

    client._http.request = request
    return times


def test_busy_and_broken_servers_are_asked_again(url: str) -> None:
    with MetaLayerClient(url) as client:
        client.score(score_rows(1))
        times = flaky([429, 503, httpx.ConnectError("refused"), httpx.ReadError("gone")], client)
        assert len(client.score(score_rows(1))) == 1
    pauses = np.diff(times)
    assert len(pauses) == 4
    assert pauses[0] >= 1  # as the server asked
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    with MetaLayerClient(url) as client:
        flaky([httpx.Response(503, text="away", headers={"retry-after": tomorrow})], client)
        with pytest.raises(ServiceError, match="status 503: away; gave up"):  # rather than asked again too early
            client.model()
    with MetaLayerClient(url, patience_s=0.5) as client:
        flaky([503] * 100, client)
        with pytest.raises(ServiceError, match=r"busy; gave up after 0\.5 s"):
            client.model()
    with MetaLayerClient(url) as client:
        times = flaky([500], client)
        with pytest.raises(ServiceError, match="500: busy"):
            client.model()
        assert len(times) == 1
    with pytest.raises(ConfigError, match="needed is a URL"):
        MetaLayerClient("http://a:b:c")


def test_a_server_that_is_full_says_when_to_come_back(released: Path, server: Server) -> None:
    url = server.start(released, max_concurrent="1")
    rows = score_rows(512) * 8
    try:
        statuses = []

        def ask(_: int) -> pl.DataFrame:
            with MetaLayerClient(url) as client:
                real = client._http.request

                def request(*arguments: object, **options: object) -> httpx.Response:
                    response = real(*arguments, **options)
                    statuses.append((response.status_code, response.headers.get("retry-after")))
                    return response

                client._http.request = request
                return client.score(rows)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(4)))
    finally:
        server.kill()
    assert all(one.equals(answers[0]) for one in answers)
    assert set(statuses) == {(200, None), (429, "1")}


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    table = pl.DataFrame(score_rows(900)).with_columns(gene_id=pl.format("g{}", pl.int_range(900)))
    table.write_parquet(tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def test_a_file_by_a_server_is_the_file_by_the_model(
    url: str, released: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 128)
    by_server, by_model = tmp_path / "server.parquet", tmp_path / "model.parquet"
    assert cli.main(["score", str(rows_file), "--url", url, "--output", str(by_server)]) == 0
    assert cli.main(["score", str(rows_file), "--model", str(released), "--output", str(by_model)]) == 0
    assert pl.read_parquet(by_server).equals(pl.read_parquet(by_model))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "model.parquet", "server.parquet"]
    named = pl.read_parquet(by_server)
    pl.read_parquet(rows_file).drop("gene_id").write_parquet(rows_file)  # rows without a name
    for output, where in ((by_server, ["--url", url]), (by_model, ["--model", str(released)])):
        assert cli.main(["score", str(rows_file), *where, "--output", str(output)]) == 0
        assert pl.read_parquet(output).equals(named.drop("gene_id"))


def test_a_run_that_was_cut_off_goes_on(
    url: str, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 128)
    output = tmp_path / "out.parquet"
    with MetaLayerClient(url, patience_s=0.1) as client:
        times = flaky([], client)
        real, left = client.score, [3]

        def some(rows: pl.DataFrame) -> pl.DataFrame:
            left[0] -= 1
            if left[0] < 0:
                raise ServiceError("gone")
            return real(rows)

        monkeypatch.setattr(client, "score", some)
        with pytest.raises(ServiceError):
            score.score_rows_by_server(rows_file, client, output)
        assert not output.exists()
        left[0] = 100
        assert score.score_rows_by_server(rows_file, client, output) == 900
        assert len(times) == 8 + 2  # batches, what the server takes, and which model it is
        table = pl.read_parquet(output)
        assert table["gene_id"].to_list() == [f"g{i}" for i in range(900)]

        # Parts of another input or model are never mixed.
        output.unlink()
        left[0] = 3
        with pytest.raises(ServiceError):
            score.score_rows_by_server(rows_file, client, output)
        record = tmp_path / "out.parquet.parts" / "run.json"
        write_json(record, unsealed(record.read_text()) | {"model": "other"})
        with pytest.raises(Exception, match=r"another run: model differ .*Remove it"):
            score.score_rows_by_server(rows_file, client, output)


def test_four_batches_are_under_way_and_come_out_in_order(
    url: str, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 75)
    together, now, most = threading.Barrier(4), threading.Semaphore(4), []
    with MetaLayerClient(url) as client:
        real = client.score

        def slow(rows: pl.DataFrame) -> pl.DataFrame:
            most.append(now.acquire(blocking=False))
            together.wait(timeout=30)  # passes where four are here
            time.sleep(random.Random(len(rows) + len(most)).random() / 10)
            answers = real(rows)
            now.release()
            return answers

        monkeypatch.setattr(client, "score", slow)
        assert score.score_rows_by_server(rows_file, client, tmp_path / "out.parquet") == 900
        assert most == [True] * 12  # never a fifth
        whole = real(pl.read_parquet(rows_file).drop("gene_id"))
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table["gene_id"].to_list() == [f"g{i}" for i in range(900)]
    assert table.select(CLASSES).equals(whole)


def test_an_interrupted_run_does_not_wait_for_a_server_that_is_away(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 75)
    port, started = free_port(), time.monotonic()
    command = [sys.executable, "-m", "metalayer", "score", str(rows_file), "--url", f"http://127.0.0.1:{port}"]
    command += ["--output", str(tmp_path / "out.parquet")]
    scoring = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in scoring.stderr:
        if "trying again" in line:
            break
    scoring.send_signal(signal.SIGINT)
    assert scoring.wait(30) == 130
    assert time.monotonic() - started < 60  # patience is 120 s


def test_bad_rows_are_named_by_their_place_in_the_file(
    url: str, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 128)
    table = pl.read_parquet(rows_file)
    table.with_columns(donor_score=pl.when(pl.int_range(900) == 300).then(2.0).otherwise("donor_score")).write_parquet(
        rows_file
    )
    out = ["--output", str(tmp_path / "out.parquet")]
    assert cli.main(["score", str(rows_file), "--url", url, *out]) == 2
    assert "row 300: donor_score 2.0" in capsys.readouterr().err
    assert cli.main(["score", str(rows_file), "--url", url, "--output", str(tmp_path / "out.tsv")]) == 2
    assert cli.main(["score", str(rows_file.with_suffix(".tsv")), "--url", url, *out]) == 2
    assert "rows for a server are read from .parquet" in capsys.readouterr().err


def test_the_server_restarts_in_between(
    released: Path, server: Server, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BATCH_ROWS", 64)
    monkeypatch.setenv("METALAYER_API_KEY", "mine")
    url = server.start(released, api_keys="mine")
    program = (
        "from metalayer.cli import main; from metalayer.workflows import score; import sys; "
        "score._BATCH_ROWS = 8; sys.exit(main())"
    )
    command = [sys.executable, "-c", program]
    output = tmp_path / "out.parquet"
    scoring = subprocess.Popen([*command, "score", str(rows_file), "--url", url, "--output", str(output)])
    parts = tmp_path / "out.parquet.parts"
    until = time.monotonic() + 60
    while len(list(parts.glob("0*.parquet"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    server.kill()
    assert scoring.poll() is None
    time.sleep(1)
    server.start(released, int(url.rsplit(":", 1)[1]), api_keys="mine")
    try:
        assert scoring.wait(90) == 0
        with MetaLayerClient(url, api_key="mine") as client:
            answers = client.score(pl.read_parquet(rows_file).drop("gene_id"))
        assert pl.read_parquet(output).select(CLASSES).equals(answers)
    finally:
        server.kill()
