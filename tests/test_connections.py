"""Clients that mean no good, or have gone, beside honest ones: over sockets, with uvicorn as a worker runs it."""

import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from prometheus_client import REGISTRY
from releases import score_rows

from metalayer.release.engine import Engine
from metalayer.serving import bodies, connections
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from tests.servers import KEYS_OF_METRICS, free_port

ONE = json.dumps({"rows": score_rows(1)}).encode()
POST = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CONCURRENT = 2


class Running:
    """A server in a thread."""

    def __init__(self, port: int, serving: Serving) -> None:
        self.port, self.serving = port, serving

    def connect(self, data: bytes = b"") -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        raw.sendall(data)
        return raw

    def answer(self, data: bytes) -> bytes:
        """All that comes back until the server closes."""
        with self.connect(data) as raw:
            return b"".join(iter(lambda: raw.recv(65536), b""))

    def honest_is_served(self) -> None:
        with httpx.Client(timeout=30) as client:  # made before the clock runs: its certificates take a while to read
            started = time.monotonic()
            response = client.post(
                f"http://127.0.0.1:{self.port}/v1/score", content=ONE, headers={"content-type": "application/json"}
            )
            took = time.monotonic() - started
        assert response.status_code == 200, response.text
        assert took < 2


@pytest.fixture
def run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Start a server; bounds on time are a second instead of several."""
    for name in ("HEAD_S", "LINGER_S", "UNREAD_S"):
        monkeypatch.setattr(connections, name, 1.0)
    monkeypatch.setattr(bodies, "BODY_GRACE_S", 1.0)
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> Running:
            serving = Serving(
                engine, ServingSettings(**{"max_concurrent": CONCURRENT, "client_share": 1.0, **settings})
            )
            app = create_app(serving)
            monkeypatch.setattr(connections.BoundedProtocol, "direct", staticmethod(app), raising=False)
            port = free_port()
            config = uvicorn.Config(app, port=port, http=connections.BoundedProtocol, log_config=None, lifespan="off")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run)
            thread.start()
            stack.callback(thread.join, 30)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started:
                time.sleep(0.01)
            return Running(port, serving)

        yield start


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"metalayer_{name}_total", labels) or 0.0


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v1/model HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /v1/model HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 400_000, b"431"),
        (b"GET /" + b"a" * 400_000, b"431"),
        (b"GET /v1/model HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n", b"431"),
        (b"no request at all\r\n\r\n", b"400"),
    ],
)
def test_heads_are_bounded(run: Callable[..., Running], head: bytes, status: bytes) -> None:
    server, before = run(), counted("connections_closed", reason="bad head")
    with contextlib.suppress(ConnectionError):  # closed while we were sending
        answer = server.answer(head)
        assert answer.split()[1] == status
        assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() == {"error", "details"}
    assert counted("connections_closed", reason="bad head") == before + 1
    server.honest_is_served()


def test_heads_and_first_bytes_are_waited_for_for_a_while(run: Callable[..., Running]) -> None:
    server, idle = run(), counted("connections_closed", reason="idle")
    with server.connect(b"GET /v1/model HTTP/1.1\r\nHost: ") as slow, server.connect() as silent:
        server.honest_is_served()
        assert slow.recv(1000).split()[1] == b"408"
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1000) == b""
    assert counted("connections_closed", reason="idle") == idle + 1
    with server.connect(b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
        assert raw.recv(65536).split()[1] == b"200"
        raw.sendall(b"GET /v1/mo")  # the second head of a connection is bounded like the first
        assert raw.recv(1000).split()[1] == b"408"


def test_a_body_that_goes_on_after_its_answer_ends_the_connection(run: Callable[..., Running]) -> None:
    server, before = run(api_keys="k1"), counted("connections_closed", reason="body after the answer")
    with server.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n") as raw:
        assert raw.recv(65536).split()[1] == b"401"
        with pytest.raises(OSError):
            for _ in range(1000):
                raw.sendall(b"1\r\n \r\n")
                time.sleep(0.01)
    assert counted("connections_closed", reason="body after the answer") == before + 1


def test_requests_that_wait_behind_another_are_no_body_that_goes_on(run: Callable[..., Running]) -> None:
    request = POST + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    assert run().answer(request * 3 + last).count(b"HTTP/1.1 200") == 4


def test_slow_bodies_hold_up_nobody(run: Callable[..., Running]) -> None:
    server, before = run(), counted("interrupted", reason="slow body")
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(server.connect(POST + b"Content-Length: 1000\r\n\r\n{")) for _ in range(5 * CONCURRENT)
        ]
        server.honest_is_served()
        for raw in slow:
            assert raw.recv(1000).split()[1] == b"408"
    assert counted("interrupted", reason="slow body") == before + len(slow)
    assert server.serving.room.held == 0


def test_a_body_that_is_slow_but_steady_is_waited_for(run: Callable[..., Running]) -> None:
    server = run(min_body_rate=len(ONE) / 4)
    with server.connect(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(ONE)) as raw:
        for start in range(0, len(ONE), len(ONE) // 4):
            raw.sendall(ONE[start : start + len(ONE) // 4])
            time.sleep(0.5)
        assert raw.recv(65536).split()[1] == b"200"


def test_bodies_together_are_bounded(run: Callable[..., Running]) -> None:
    server = run(max_body_bytes=10_000)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(server.connect(POST + b"Content-Length: 10000\r\n\r\n" + b" " * 9999))
        while server.serving.room.held < 4 * 9999:
            time.sleep(0.01)
        assert (
            httpx.post(
                f"http://127.0.0.1:{server.port}/v1/score",
                content=b" " * 9000,
                headers={"content-type": "application/json"},
            ).status_code
            == 429
        )
    server.honest_is_served()
    assert server.serving.room.held == 0


def test_the_work_of_clients_that_have_gone_is_dropped(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, blocks, before = run(), [], counted("interrupted", reason="disconnect")
    real = Engine.score

    def slowly(self: Engine, rows: object) -> Iterator[object]:
        for block in real(self, rows):
            blocks.append(len(block))
            time.sleep(0.2)
            yield block

    monkeypatch.setattr(Engine, "score", slowly)
    body = json.dumps({"rows": score_rows(64) * 160}).encode()  # 20 blocks each
    for _ in range(CONCURRENT):
        with server.connect(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body):
            while server.serving.room.in_hand == 0:
                time.sleep(0.01)
    until_idle(server)
    assert len(blocks) < 20
    assert counted("interrupted", reason="disconnect") == before + CONCURRENT
    monkeypatch.undo()


def test_answers_that_nobody_reads_are_given_up(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    server, before = run(), counted("connections_closed", reason="unread answer")
    app = connections.BoundedProtocol.direct

    async def large(scope: dict, receive: object, send: Callable) -> None:
        if scope["path"] != "/large":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(30_000_000)})  # more than the system takes for itself

    monkeypatch.setattr(connections.BoundedProtocol, "direct", staticmethod(large))
    with server.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
        until = time.monotonic() + 60
        while counted("connections_closed", reason="unread answer") == before:
            assert time.monotonic() < until
            server.honest_is_served()
            time.sleep(0.05)
    with server.connect(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as slow:
        taken = 0
        while part := slow.recv(2**20):  # slowly, yet it takes some
            taken += len(part)
            time.sleep(0.05)
    assert taken > 30_000_000


def test_an_answer_counts_until_its_client_has_taken_it(run: Callable[..., Running]) -> None:
    server, letters = run(), 60_000
    body = json.dumps({"sequence": "ACGT" * (letters // 4)}).encode()
    head = POST.replace(b"score", b"score_sequence") + b"Content-Length: %d\r\n\r\n" % len(body)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(head + body)
        assert slow.recv(1000).split()[1] == b"200"
        assert server.serving.room.in_hand == 0
        assert server.serving.room.held > 40 * letters
        server.honest_is_served()
    until = time.monotonic() + 60
    while server.serving.room.held:
        assert time.monotonic() < until
        time.sleep(0.01)
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/v1/score_sequence",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert len(answer.json()["rows"]) == letters


def test_an_answer_that_was_ready_in_time_is_sent_whole_however_slowly_it_is_taken(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "score_sequence", lambda *_: iter([np.full((60_000, 6), 0.5, np.float32)]))
    server = run(deadline_s=4)
    body = b'{"sequence": "%s"}' % (b"ACGT" * 15_000)
    head = POST.replace(b"score", b"score_sequence") + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(head + body)
        response = http.client.HTTPResponse(slow)
        response.begin()
        parts, begun = [], time.monotonic()
        while part := response.read(2**16):
            parts.append(part)
            if time.monotonic() - begun < 5:  # beyond the deadline
                time.sleep(0.1)
    assert response.status == 200
    assert len(json.loads(b"".join(parts))["rows"]) == 60_000


def until_idle(server: Running) -> None:
    """Wait until no request is in hand."""
    until = time.monotonic() + 30
    while server.serving.room.in_hand:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_refused_requests_leave_nothing(run: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> None:
    """20,000 of them, each with a path, a method or a header of its own; most come before a key is looked at."""
    server, process = run(api_keys="k1"), psutil.Process()
    caplog.set_level(logging.WARNING, "uvicorn.access")  # pytest keeps every line

    def refused(first: int, count: int) -> None:
        for start in range(first, first + count, 500):
            parts = [
                b"%s /%s/%d HTTP/1.1\r\nHost: x\r\nX-%d: %d\r\n\r\n"
                % (*((b"GET", b"v1") if i % 2 else (b"DELETE", b"v1/score")), i, i, i)
                for i in range(start, start + 500)
            ]
            parts[-1] = parts[-1].replace(b"Host: x", b"Host: x\r\nConnection: close")
            assert server.answer(b"".join(parts)).count(b"HTTP/1.1 401") == 500

    refused(0, 4000)
    series, grown = len(list(series_of_ours())), []
    for round_ in range(3):  # what is kept of a request is kept in every round, other growth of the process is not
        size = process.memory_info().rss
        refused(4000 + 20_000 * round_, 20_000)
        grown.append(process.memory_info().rss - size)
        if grown[-1] < 8e6:
            break
    assert len(list(series_of_ours())) == series
    assert min(grown) < 8e6, grown


def series_of_ours() -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name.startswith("metalayer_"):
                yield sample.name, tuple(sorted(sample.labels.items()))


def test_a_client_that_has_gone_with_requests_behind_the_first_is_noticed(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, before = run(), counted("interrupted", reason="disconnect")
    monkeypatch.setattr(
        Engine, "score", lambda *_: (time.sleep(0.2) or np.zeros((1, 3), np.float32) for _ in range(1000))
    )
    with server.connect((POST + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE) * 5):
        while server.serving.room.in_hand == 0:
            time.sleep(0.01)
    until_idle(server)
    assert counted("interrupted", reason="disconnect") == before + 1


def test_requests_that_wait_are_bounded(run: Callable[..., Running]) -> None:
    server, before = run(), counted("connections_closed", reason="too many requests at once")
    with server.connect() as raw, pytest.raises(OSError):
        for _ in range(100):
            raw.sendall(b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n" * 1500)
    assert counted("connections_closed", reason="too many requests at once") == before + 1
    server.honest_is_served()


def test_no_answer_sends_a_client_to_the_address_that_it_names(run: Callable[..., Running]) -> None:
    server = run()
    for path in ("/v1/score/", "/v1/model/", "/docs/", "//v1/score"):
        response = httpx.request("POST", f"http://127.0.0.1:{server.port}{path}", headers={"host": "elsewhere.example"})
        assert response.status_code == 404
        assert response.json()["error"].startswith(f"no {path}")


@pytest.mark.parametrize(("settings", "key", "status"), KEYS_OF_METRICS)
def test_counts_are_behind_a_key(run: Callable[..., Running], settings: dict, key: str, status: int) -> None:
    server = run(**settings)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics", headers=headers)
    assert answer.status_code == status
    assert ("metalayer_requests_total" in answer.text) == (status == 200)
    if "metrics_key" in settings and "api_keys" in settings:
        assert httpx.get(f"http://127.0.0.1:{server.port}/v1/model", headers=headers).status_code == 401
