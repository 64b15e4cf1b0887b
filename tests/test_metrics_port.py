"""/metrics on a port of its own, of a Bento with two workers."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.mmap_dict import MmapedDict
from releases import make_bundle, make_golden, score_rows

from metalayer.cli import main
from metalayer.registry.bento import bento_environment, build_bento
from metalayer.serving import connections, metrics_port
from metalayer.serving.serve import serve_command
from metalayer.serving.settings import ServingSettings
from tests.servers import KEYS_OF_METRICS, free_port, wait_until_ready
from tests.test_bento import certificate

KEY = {"authorization": "Bearer m"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics_port")


@pytest.fixture(scope="module")
def bento(home: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home / "bentoml"))
        bundle = make_bundle(home / "bundle")
        golden = make_golden(bundle, home / "golden.parquet")
        yield build_bento(bundle, golden, name="metalayer-pwm", version=3, facts={})


@contextlib.contextmanager
def running(bento: str, log: Path, **settings: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server of a Bento, and its address."""
    port = free_port()
    variables = {f"METALAYER_SERVE_{name.upper()}": value for name, value in settings.items()}
    with log.open("w") as output:
        process = subprocess.Popen(
            serve_command(bento, port=port), env=bento_environment() | variables, stdout=output, stderr=output
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def rows_of(worker: psutil.Process) -> float:
    """Rows that one worker has counted."""
    file = Path(worker.environ()["PROMETHEUS_MULTIPROC_DIR"], f"counter_{worker.pid}.db")
    found = {json.loads(key)[1]: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))}
    return found["metalayer_rows_total"]


def workers(process: psutil.Process) -> list[psutil.Process]:
    """Those that live."""
    return [one for one in process.children() if one.status() != psutil.STATUS_ZOMBIE and is_worker(one)]


def is_worker(process: psutil.Process) -> bool:
    return "_bentoml_impl.worker.service" in " ".join(process.cmdline())


@pytest.mark.integration
def test_two_workers_are_counted_on_one_port_whatever_becomes_of_them(bento: str, home: Path) -> None:
    port, log = free_port(), home / "two.log"
    given = {"workers": "2", "metrics_port": str(port), "metrics_key": "m", "drain_s": "0"}
    with running(bento, log, **given) as (process, url), httpx.Client(base_url=f"http://127.0.0.1:{port}") as metrics:
        wait_until_ready(process, url, log)
        supervisor = psutil.Process(process.pid)
        listening = [
            (one.laddr.ip, one.laddr.port) for one in supervisor.net_connections("inet") if one.status == "LISTEN"
        ]
        assert sorted(listening) == sorted([("127.0.0.1", port), ("127.0.0.1", int(url.rpartition(":")[2]))])

        def counts() -> str:
            answer = metrics.get("/metrics", headers=KEY)
            assert answer.status_code == 200
            return answer.text

        def ask(rows: int) -> None:
            with httpx.Client(base_url=url) as client:  # a connection of its own, which either worker may take
                assert client.post("/v1/score", json={"rows": score_rows(rows)}).status_code == 200

        def wait_for(reached: Callable[[], object]) -> None:
            until = time.monotonic() + 60
            while not reached():
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)

        wait_for(lambda: len(workers(supervisor)) == 2)
        pair, asked = workers(supervisor), 0
        while not all(rows_of(one) for one in pair):
            assert asked < 3000, "one worker answers everything"
            ask(3)
            asked += 3
        assert sum(rows_of(one) for one in pair) == value(counts(), "metalayer_rows_total") == asked

        assert httpx.get(f"{url}/metrics").status_code == 404
        assert "/metrics" not in httpx.get(f"{url}/openapi.json").json()["paths"]
        assert metrics.get("/metrics").status_code == metrics.get("/v1/model").status_code == 401
        answer = metrics.get("/v1/model", headers=KEY)
        assert (answer.status_code, answer.json()["error"]) == (404, "no /v1/model; there is GET /metrics")
        answer = metrics.post("/metrics", headers=KEY)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")

        pair[0].kill()
        wait_for(lambda: {one.pid for one in workers(supervisor)} - {one.pid for one in pair})
        assert value(counts(), "metalayer_rows_total") == asked
        for one in workers(supervisor):
            one.kill()
        assert value(counts(), "metalayer_rows_total") == asked  # while none answers
        wait_until_ready(process, url, log)
        ask(4)
        assert value(counts(), "metalayer_rows_total") == asked + 4

        process.terminate()
        assert process.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/metrics", headers=KEY)


@pytest.mark.integration
def test_a_port_that_is_taken_ends_the_server_with_its_name(bento: str, home: Path) -> None:
    """Also where BentoML is started without `metalayer serve`, which looks first."""
    log = home / "taken.log"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with running(bento, log, workers="1", metrics_port=str(port)) as (process, _):
            assert process.wait(60) not in (0, None)
    message = f"METALAYER_SERVE_METRICS_PORT {port} of 127.0.0.1: something listens on it already; end it, or give"
    assert message in log.read_text()
    assert "Traceback" not in log.read_text()


def test_serve_looks_at_both_ports_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    monkeypatch.setenv("METALAYER_SERVE_METRICS_PORT", str(port))
    assert main(["serve", "--bento", "none", "--port", str(port)]) == 2
    assert f"METALAYER_SERVE_METRICS_PORT {port}: is the port of requests too" in capsys.readouterr().err
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert main(["serve", "--bento", "none", "--port", str(free_port())]) == 2
    taken = f"METALAYER_SERVE_METRICS_PORT {port} of 127.0.0.1: something listens on it already"
    assert taken in capsys.readouterr().err
    monkeypatch.setenv("METALAYER_SERVE_METRICS_HOST", "elsewhere")
    assert main(["serve", "--bento", "none", "--port", str(free_port())]) == 2
    assert "METALAYER_SERVE_METRICS_HOST: given 'elsewhere'; needed is an address" in capsys.readouterr().err
    for odd in ("0", "65536", "http"):
        monkeypatch.setenv("METALAYER_SERVE_METRICS_PORT", odd)
        assert main(["serve", "--bento", "none", "--port", str(free_port())]) == 2
        assert "serve.metrics_port" in capsys.readouterr().err


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Start the listener of this process; bounds on time are a second."""
    monkeypatch.setattr(connections, "HEAD_S", 1.0)

    def start(**settings: object) -> int:
        port = free_port()
        metrics_port.serve_metrics(ServingSettings(**settings), port, tmp_path)
        return port

    return start


@pytest.mark.parametrize(("settings", "key", "status"), KEYS_OF_METRICS)
def test_keys_are_those_of_metrics(alone: Callable[..., int], settings: dict, key: str, status: int) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    assert httpx.get(f"http://127.0.0.1:{alone(**settings)}/metrics", headers=headers).status_code == status


def test_a_worker_that_has_just_made_its_file_is_counted_later(alone: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    other = MmapedDict(str(tmp_path / "counter_2.db"))
    other.write_value(json.dumps(["metalayer_rows", "metalayer_rows_total", {}, "Rows."]), 7.0, 0.0)
    answer = httpx.get(f"http://127.0.0.1:{alone()}/metrics")
    assert (answer.status_code, value(answer.text, "metalayer_rows_total")) == (200, 7)


def test_connections_are_bounded_in_head_time_and_number(
    alone: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = alone()
    address = ("127.0.0.1", port)
    with socket.create_connection(address, timeout=10) as slow, socket.create_connection(address, timeout=10) as large:
        slow.sendall(b"GET /metrics HT")
        large.sendall(b"GET /metrics HTTP/1.1\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n")
        assert large.recv(65536).startswith(b"HTTP/1.1 431")
        assert slow.recv(65536).startswith(b"HTTP/1.1 408")
    monkeypatch.setattr(connections, "HEAD_S", 10.0)
    monkeypatch.setattr(metrics_port, "CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(3)]
        with socket.create_connection(address, timeout=10) as further, contextlib.suppress(ConnectionResetError):
            assert further.recv(1) == b""
        held[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held[0].recv(65536).startswith(b"HTTP/1.1 200")


def test_a_certificate_is_that_of_the_server(alone: Callable[..., int], tmp_path: Path) -> None:
    file = certificate(tmp_path)
    port = alone(ssl_certfile=str(file))
    trusted = ssl.create_default_context(cafile=file)
    assert httpx.get(f"https://127.0.0.1:{port}/metrics", verify=trusted).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")
