"""The contract over a socket, against a Bento as `bentoml serve` serves it: one worker, a key, short deadlines."""

import contextlib
import gzip
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
from releases import expected, make_bundle, make_golden, score_rows

from metalayer.registry.bento import bento_environment, build_bento
from metalayer.release.folder import release_digest
from metalayer.schema import CLASSES
from metalayer.serving.serve import serve_command
from tests.damaged import ARROW, JSON, ONE, damaged_bodies, stream
from tests.servers import free_port, wait_until_ready

pytestmark = pytest.mark.integration
TESTS = Path(__file__).parent
DEADLINE_S, CONCURRENT = 4, 12


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        bundle: whose model it serves.
        worker: the process that answers.
    """

    url: str
    bundle: Path
    worker: psutil.Process

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": "Bearer k1"}, timeout=60)

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def metric(self, name: str) -> float:
        found = re.search(rf"^metalayer_{re.escape(name)} (\S+)$", self.counts(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def counts(self) -> str:
        with self.client() as client:
            response = client.get("/metrics")
        assert response.status_code == 200
        return response.text

    @contextlib.contextmanager
    def memory(self) -> Iterator[list[int]]:
        """The most bytes by which the worker grows meanwhile, as the only item."""
        before, most, over = self.worker.memory_info().rss, [0], threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                most[0] = max(most[0], self.worker.memory_info().rss - before)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield most
        finally:
            over.set()
            thread.join()

    def is_well(self) -> float:
        """It is the same process, and answers as the model does; returns the seconds that the answer took."""
        rows = score_rows(3, seed=8)
        with self.client() as client:
            asked = time.monotonic()
            response = client.post("/v1/score", json={"rows": rows})
            took = time.monotonic() - asked
        assert response.status_code == 200, response.text
        given = np.array([[row[name] for name in CLASSES] for row in response.json()["rows"]], dtype=np.float32)
        assert np.abs(given - expected(self.bundle, rows)).max() <= 1e-6
        assert self.worker.is_running()
        return took


@pytest.fixture(scope="module")
def served(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    bundle = make_bundle(home / "bundle")
    port, log = free_port(), home / "server.log"
    settings = {
        "api_keys": "k1",
        "workers": "1",
        "deadline_s": str(DEADLINE_S),
        "max_concurrent": str(CONCURRENT),
        "client_share": "1",
        "log_dir": str(home / "requests"),
        "log_queue_bytes": "1",
        "drain_s": "0",
        "fasta": str(simulation / "genome" / "simulated.fa"),
        "annotation": str(simulation / "genome" / "simulated.gff3"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home / "bentoml"))
        tag = build_bento(
            bundle, make_golden(bundle, home / "golden.parquet"), name="metalayer-pwm", version=3, facts={}
        )
        environment = bento_environment() | {
            f"METALAYER_SERVE_{name.upper()}": value for name, value in settings.items()
        }
    process = subprocess.Popen(
        serve_command(tag, port=port), env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url, log)
        children = psutil.Process(process.pid).children(recursive=True)
        yield Served(url, bundle, max(children, key=lambda child: child.memory_info().rss))
    finally:
        process.terminate()
        process.wait(60)


def test_the_service_keeps_to_its_openapi(served: Served, tmp_path: Path) -> None:
    """Every check of schemathesis, on right and on wrong requests of its making."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(TESTS / "schemathesis.toml")]
    command += ["run", f"{served.url}/openapi.json", "--header", "Authorization: Bearer k1", "--checks", "all"]
    command += ["--max-examples", "100", "--seed", "1", "--no-color"]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "11 selected / 11 total" in done.stdout
    generated = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert generated is not None, done.stdout[-5000:]
    assert int(generated[1]) == int(generated[2]) >= 500
    served.is_well()


def test_ten_thousand_damaged_bodies_are_4xx_and_the_server_goes_on(served: Served) -> None:
    served.is_well()
    bodies, lock, statuses, slowest = damaged_bodies(), threading.Lock(), Counter(), [0.0]

    def ask(count: int) -> None:
        with served.client() as client:
            for _ in range(count):
                with lock:
                    path, body, headers = next(bodies)
                started = time.monotonic()
                response = client.post(path, content=body, headers=headers)
                took = time.monotonic() - started
                with lock:
                    statuses[response.status_code] += 1
                    slowest[0] = max(slowest[0], took)
                if response.status_code != 200:
                    assert response.json()["error"]
                    assert response.json()["details"]

    with served.memory() as grown, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask, 2700) for _ in range(4)]:
            done.result()
    assert set(statuses) == {200, 413, 422}
    assert statuses[413] + statuses[422] >= 10_000
    assert slowest[0] < DEADLINE_S
    assert grown[0] < 400e6  # 210 MB were seen, the most of which is what the allocators keep
    served.is_well()


def bombs() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    blanks, zstd = b" " * 2**28, pa.Codec("zstd")
    zeros = {name: np.zeros(2_000_000) for name in score_rows(1)[0] if name != "sequence"}
    table = pa.table({**zeros, "sequence": pa.array([""]).take(pa.array(np.zeros(2_000_000, dtype=np.int8)))})
    return {
        "gzip": (JSON, gzip.compress(blanks, 1), {"content-encoding": "gzip"}),
        "zstd": (JSON, zstd.compress(blanks).to_pybytes(), {"content-encoding": "zstd"}),
        "gzip of lists": (JSON, gzip.compress(b"[" * 2**25, 1), {"content-encoding": "gzip"}),
        "lists in lists": (JSON, b"[" * 100_000, {}),
        "objects in objects": (JSON, b'{"rows":' * 100_000, {}),
        "a long number": (JSON, b'{"rows":[' + b"9" * 2**20 + b"]}", {}),
        "many rows": (JSON, b'{"rows":[' + b"{}," * 2**21 + b"{}]}", {}),
        "arrow": (ARROW, stream(table, "zstd"), {}),
        "gzip of arrow": (ARROW, gzip.compress(stream(table, "zstd")), {"content-encoding": "gzip"}),
    }


def test_bombs_are_4xx_in_bounded_time_and_memory(served: Served) -> None:
    """Of at most 7 MB each; of 256 MB, 100,000 levels or 2,000,000 rows where they are taken at their word."""
    served.is_well()
    given = bombs()
    with served.client() as client:
        for path, name in itertools.product(("/v1/score", "/v1/score_sequence"), given):
            form, body, headers = given[name]
            assert len(body) < 7e6, name
            started = time.monotonic()
            with served.memory() as grown:
                response = client.post(path, content=body, headers={"content-type": form, **headers})
            assert response.status_code in (413, 422), name
            assert time.monotonic() - started < DEADLINE_S, name
            assert grown[0] < 250e6, name
    for length in (10**18, 10**40, 64 * 2**20 + 1):
        with uploading(served, length) as raw:
            assert raw.recv(100).split()[1] in (b"400", b"413")  # 400 of what is no HTTP: beyond 64 bits
    served.is_well()


def uploading(served: Served, length: int = 1000, body: bytes = b'{"rows": [') -> socket.socket:
    """A request whose body does not come whole, unless it is given."""
    raw = served.connect()
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k1\r\nContent-Type: {JSON}\r\n"
    raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    return raw


def test_slow_uploads_are_408_and_hold_up_nobody(served: Served) -> None:
    late = served.metric('interrupted_total{reason="slow body"}')
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(uploading(served)) for _ in range(3 * CONCURRENT)]
        time.sleep(0.3)
        assert served.is_well() < 2
        for raw in slow:
            while raw.recv(4096).split()[1] != b"408":
                raw.sendall(b" ")
        assert DEADLINE_S - 1 < time.monotonic() - started < DEADLINE_S + 5
    assert served.metric('interrupted_total{reason="slow body"}') == late + 3 * CONCURRENT
    served.is_well()


def test_paths_and_methods_that_are_not_there_make_no_series(served: Served) -> None:
    """BentoML counts under whatever path is asked for; its counts are off."""
    ask = [(method, f"/{name}") for method in ("GET", "PUT") for name in ("v1/score/x", "metrics/", "schema.json")]

    def refused(first: int) -> str:
        with httpx.Client(base_url=served.url) as client:
            for number in range(first, first + 50):
                for method, path in ask:
                    assert client.request(method, f"{path}{number}").status_code == 401
        with served.client() as client:
            assert client.get("/v1/score/").status_code == 404  # and no way to where the Host header names
            assert client.get(f"/v2/{first}").status_code == 404
            assert client.request("FIND" if first else "SEARCH", "/v1/score").status_code in (400, 405)
        return re.sub(r" \S+$", "", served.counts(), flags=re.MULTILINE)

    assert refused(0) == refused(50)
    assert "bentoml" not in served.counts()
    assert httpx.get(f"{served.url}/metrics").status_code == 401


def test_aborted_uploads_leave_nothing_behind(served: Served) -> None:
    for number in range(10 * CONCURRENT):
        with uploading(served) as raw:
            if number % 2:  # a reset, not an orderly end
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(0.5)
    with served.client() as client, ThreadPoolExecutor(CONCURRENT) as pool:
        asked = [pool.submit(client.post, "/v1/score", json={"rows": score_rows(40)}) for _ in range(CONCURRENT)]
        assert [one.result().status_code for one in asked] == [200] * CONCURRENT  # all places are free
    served.is_well()


def test_answers_that_nobody_reads_are_dropped(served: Served) -> None:
    body = json.dumps({"rows": score_rows(64) * 20}).encode()
    for _ in range(CONCURRENT + 1):
        uploading(served, len(body), body).close()
    until = time.monotonic() + 60
    with served.client() as client:
        while client.post("/v1/score", json={"rows": score_rows(1)}).status_code == 429:
            assert time.monotonic() < until
            time.sleep(0.2)
    served.is_well()


def test_what_cannot_be_answered_in_time_is_refused(served: Served) -> None:
    def counted() -> float:
        return sum(served.metric(f'interrupted_total{{reason="{reason}"}}') for reason in ("busy", "deadline"))

    before = counted()
    body, started = stream([{"sequence": "ACGT" * 250_000}]), time.monotonic()

    def ask(_: int) -> httpx.Response:
        with served.client() as client:
            return client.post("/v1/score_sequence", content=body, headers={"content-type": ARROW})

    with ThreadPoolExecutor(8) as pool:  # which take turns
        answers = list(pool.map(ask, range(8)))
    assert time.monotonic() - started < DEADLINE_S + 10
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:  # most of them at once, and those that were taken on, and came out slower, when it is seen
        assert answer.status_code in (413, 429, 504), answer.text
        assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
    assert counted() == before + len(refused)
    served.is_well()


def test_a_row_has_the_same_bytes_in_any_company_form_and_coding(served: Served) -> None:
    rows = score_rows(600)  # more than are scored at a time
    with served.client() as client:

        def ask(content: bytes, form: str = JSON, **headers: str) -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            response = client.post("/v1/score", content=content, headers={"content-type": form, **named})
            assert response.status_code == 200, response.text
            return response

        plain = json.dumps({"rows": rows}).encode()
        whole = ask(plain)
        assert ask(gzip.compress(plain), content_encoding="gzip").content == whole.content
        assert ask(pa.Codec("zstd").compress(plain).to_pybytes(), content_encoding="zstd").content == whole.content
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        assert ask(json.dumps({"columns": columns}).encode()).content == whole.content
        alone = [ask(json.dumps({"rows": [rows[i]]}).encode()).json()["rows"][0] for i in (0, 31, 32, 255, 256, 599)]
        assert alone == [whole.json()["rows"][i] for i in (0, 31, 32, 255, 256, 599)]
        turned = ask(json.dumps({"rows": rows[::-1]}).encode()).json()["rows"]
        assert turned[::-1] == whole.json()["rows"]
        as_arrow = ask(plain, accept=ARROW)
        assert as_arrow.headers["content-type"] == ARROW
        for compression in (None, "zstd", "lz4"):
            assert ask(stream(rows, compression), ARROW).content == as_arrow.content
        assert ask(stream(rows), ARROW, accept=JSON).content == whole.content
        table = pa.ipc.open_stream(as_arrow.content).read_all()
        assert table.column_names == list(CLASSES)
        answers = np.stack([table[name].to_numpy() for name in CLASSES], axis=1)
        assert np.abs(answers - expected(served.bundle, rows)).max() <= 1e-6


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", "/v1/score", {"json": {"rows": score_rows(1)}}, 200),
        ("POST", "/v1/score_sequence", {"json": ONE}, 200),
        ("GET", "/v1/model", {}, 200),
        ("GET", "/docs", {}, 200),
        ("POST", "/v1/score", {"json": {"rows": score_rows(1)}, "headers": {"authorization": "Bearer k2"}}, 401),
        ("GET", "/v1/variants", {}, 404),
        ("GET", "/v1/score", {}, 405),
        ("DELETE", "/readyz", {}, 405),
        ("POST", "/v1/score", {"json": {}, "headers": {"accept": "text/html"}}, 406),
        ("POST", "/v1/score", {"json": {"rows": [None] * 65_537}}, 413),
        ("POST", "/v1/score", {"content": b"x"}, 415),
        ("POST", "/v1/score", {"json": {"rows": [{}]}}, 422),
    ],
)
def test_every_answer_names_model_and_request(
    served: Served, method: str, path: str, options: dict, status: int
) -> None:
    with served.client() as client:
        headers = {"x-request-id": "mine-7", **options.get("headers", {})}
        response = client.request(method, path, **options | {"headers": headers})
    assert response.status_code == status
    named = [response.headers[f"x-model-{name}"] for name in ("name", "version", "digest")]
    home = served.bundle.parent
    (released,) = (home / "bentoml" / "bentos").glob("*/*/src/release")
    assert named == ["metalayer-pwm", "3", release_digest(released, released / "golden.parquet")]
    assert response.headers["x-request-id"] == "mine-7"
    if status != 200:
        assert response.json().keys() == {"error", "details"}


def test_what_the_request_log_cannot_take_is_counted(served: Served) -> None:
    before = served.metric('log_rows_total{outcome="dropped"}')
    with served.client() as client:
        assert client.post("/v1/score", json={"rows": score_rows(5)}).status_code == 200
    assert served.metric('log_rows_total{outcome="dropped"}') == before + 5
