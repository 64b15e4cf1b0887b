"""The service over a real socket against the raw in-process path; `mlflow models serve`; latency; memory.

Server, client and in-process path share the machine: they take turns, and the best of several counts.
Bodies are encoded beforehand, answers are read and not decoded.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import torch

from benchmarks.inference import made_up
from benchmarks.measure import Result
from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.registry import download, registration
from metalayer.registry.bento import bento_environment, bentoml_home, build_bento
from metalayer.release.folder import ONNX
from metalayer.release.onnx import OnnxRows
from metalayer.schema import BASE_SCORES, ROW_SCORES
from metalayer.serving.allocator import keep_memory
from metalayer.serving.media import ARROW, JSON
from metalayer.serving.serve import serve_command
from tests.releases import make_golden
from tests.servers import free_port, wait_until_ready

LARGE, MIDDLE, SMALL, WINDOW, LENGTH = 4_096, 1_024, 32, 500, 50_000
ROUNDS, CONNECTIONS, LOADS, LOAD_S = 12, 8, 12, 1.5
GREEDY, GREEDY_ROWS, GREEDY_S = 32, 60_000, 30.0
REQUESTS = 100_000
"""Of the memory run, after a tenth as many for warming up."""


@dataclass(frozen=True)
class Call:
    """A request that is ready to be sent."""

    port: int
    path: str
    body: bytes
    form: str

    def send(self, connection: HTTPConnection) -> None:
        connection.request("POST", self.path, self.body, {"Content-Type": self.form})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{self.path}: {response.status} {answer[:500]!r}")


def run(data: Path) -> list[Result]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        os.environ["BENTOML_HOME"] = str(folder / "bentoml")
        torch.set_num_threads(1)  # as in a worker
        keep_memory()
        tag, logged = _packaged(folder)
        (one, alone), (two, pid) = (servers.enter_context(_served(tag, folder, workers)) for workers in (1, 2))
        mlflow = servers.enter_context(_served_by_mlflow(logged, folder))
        return [
            *_large(tag, one),
            *_loaded(one, two, mlflow),
            _latency(two),
            _memory(two, pid),
            *_beside(one, alone, clients=1),
            *_beside(one, alone, clients=GREEDY),
        ]


def _packaged(folder: Path) -> tuple[str, str]:
    """A Bento of the default model, and the same model as MLflow has it."""
    torch.manual_seed(0)
    model = MetaSpliceModel()
    torch.nn.init.normal_(model.head.weight, std=0.3)
    save_model(model, folder / "bundle", {"base_model": "pwm"})
    golden = make_golden(folder / "bundle", folder / "golden.parquet")
    uri = f"sqlite:///{folder}/mlflow.db"
    registered = registration.register(folder / "bundle", golden, base_model="pwm", promoted=True, tracking_uri=uri)
    local = download.fetch(registered.name, registered.version, uri, folder / "fetched")
    tag = build_bento(local.bundle, local.golden, name=registered.name, version=registered.version, facts={})
    logged = next(path.parent for path in (folder / "mlartifacts").rglob("MLmodel"))
    return tag, str(logged)


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(30)
            for one in children:  # mlflow leaves its server behind
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


@contextlib.contextmanager
def _served(tag: str, folder: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Port and process id of a server."""
    port, log = free_port(), folder / f"server-{workers}.log"
    settings = {"METALAYER_SERVE_WORKERS": str(workers), "METALAYER_SERVE_DRAIN_S": "0"}
    with _process(serve_command(tag, port=port), bento_environment() | settings, log) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        _as_urgent_as_this(process.pid)
        yield port, process.pid


def _as_urgent_as_this(pid: int) -> None:
    """Give the workers of a server the priority of this process.

    BentoML starts each in a session of its own, and Linux shares out cores by session: one that was made more urgent,
    or less, would otherwise not be so with its server, but with MLflow's.
    """
    mine = Path("/proc/self/autogroup")
    if mine.exists():
        for worker in psutil.Process(pid).children(recursive=True):
            Path(f"/proc/{worker.pid}/autogroup").write_text(mine.read_text().split()[-1])


def _columns(n: int) -> dict[str, list[float] | list[str]]:
    """Columns of a request of n rows."""
    rng = np.random.default_rng(n)
    scores = np.concatenate([rng.dirichlet([0.2, 0.2, 1.0], n), rng.random((n, 4))], axis=1).astype(np.float32)
    letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (n, WINDOW))
    values = dict(zip(ROW_SCORES, scores.T.astype(float).round(6).tolist(), strict=True))
    return {"sequence": [row.tobytes().decode() for row in letters], **values}


def _body(table: pl.DataFrame, form: str) -> bytes:
    if form == JSON:
        return b'{"rows":' + table.write_json().encode() + b"}"
    sink = pa.BufferOutputStream()
    arrow = table.to_arrow()
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _best(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of each function, all in turn: others load the machine too."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def _large(tag: str, port: int) -> list[Result]:
    """Large requests against the same work in this process."""
    release = bentoml_home() / "bentos" / tag.replace(":", "/") / "src" / "release"
    predictor = Predictor.load(release)
    graph = OnnxRows(release / ONNX, predictor.digest)
    table = pl.DataFrame(_columns(LARGE))
    row_scores = table.select(ROW_SCORES).to_numpy().astype(np.float32)
    windows = encode_windows(table["sequence"], np.full(LARGE, WINDOW // 2), WINDOW)
    sequence, scores = made_up(LENGTH)
    lists = pl.DataFrame(
        {"sequence": [sequence]} | {n: [c.tolist()] for n, c in zip(BASE_SCORES, scores.T, strict=True)}
    )
    connection = HTTPConnection("127.0.0.1", port)

    def sending(path: str, body: bytes, form: str) -> Callable[[], None]:
        call = Call(port, path, body, form)
        return lambda: call.send(connection)

    times = _best(
        {
            "raw": lambda: predictor.predict_rows(row_scores, windows, graph),
            "Arrow": sending("/v1/score", _body(table, ARROW), ARROW),
            "JSON": sending("/v1/score", _body(table, JSON), JSON),
            "torch": lambda: predictor.predict_rows(row_scores, windows),
            "dense": lambda: predictor.predict_tracks(sequence, scores),
            "score_sequence": sending("/v1/score_sequence", _body(lists, ARROW), ARROW),
        }
    )
    connection.close()
    raw, dense = LARGE / times["raw"], LENGTH / times["dense"]
    return [
        Result("in-process, ONNX Runtime", raw, "rows/s", "torch", times["torch"] / times["raw"]),
        *(
            Result(
                f"/v1/score, {form}, {LARGE:,} rows",
                LARGE / times[form],
                "rows/s",
                "in-process",
                times["raw"] / times[form],
                f"aim {aim}",
            )
            for form, aim in (("Arrow", 0.9), ("JSON", 0.65))
        ),
        Result(
            f"/v1/score_sequence, Arrow, {LENGTH:,} letters",
            LENGTH / times["score_sequence"],
            "positions/s",
            "in-process",
            times["dense"] / times["score_sequence"],
            f"aim 0.8; in-process {dense:,.0f}",
        ),
    ]


def _load(calls: list[Call], seconds: float = float("inf"), rate: float = 0.0, count: int = sys.maxsize) -> list[float]:
    """Send from `CONNECTIONS` connections; returns seconds of each answered request.

    Args:
        calls: sent in turn.
        seconds: how long.
        rate: requests a second, timed from when each was due; 0: as fast as answers come.
        count: how many at most.
    """
    taken: list[float] = []
    numbers = iter(range(count))
    lock = threading.Lock()
    started = time.perf_counter()

    def work() -> None:
        with contextlib.closing(HTTPConnection("127.0.0.1", calls[0].port)) as connection:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                now = time.perf_counter()
                due = started + number / rate if rate else now
                if max(due, now) > started + seconds:
                    return
                time.sleep(max(0.0, due - now))
                calls[number % len(calls)].send(connection)
                taken.append(time.perf_counter() - due)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:  # connections made at one moment may all be taken by one worker
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    return taken


def _loaded(one: int, two: int, mlflow: int) -> list[Result]:
    """Rows a second under full load: of one worker, of two, and of MLflow's one."""
    table = pl.DataFrame(_columns(SMALL))
    records = b'{"dataframe_records":' + table.write_json().encode() + b"}"
    large = _body(pl.DataFrame(_columns(MIDDLE)), ARROW)
    calls = {
        "one": (SMALL, Call(one, "/v1/score", _body(table, JSON), JSON)),
        "two": (SMALL, Call(two, "/v1/score", _body(table, JSON), JSON)),
        "mlflow": (SMALL, Call(mlflow, "/invocations", records, JSON)),
        "one, large": (MIDDLE, Call(one, "/v1/score", large, ARROW)),
        "two, large": (MIDDLE, Call(two, "/v1/score", large, ARROW)),
    }
    best = dict.fromkeys(calls, 0.0)
    for _ in range(LOADS):
        for name, (rows, call) in calls.items():
            started = time.perf_counter()
            answered = len(_load([call], LOAD_S))
            best[name] = max(best[name], rows * answered / (time.perf_counter() - started))
    rival, scaling = "mlflow models serve", "one worker"
    return [
        Result(
            "/v1/score, JSON, 32 rows, two workers", best["two"], "rows/s", rival, best["two"] / best["mlflow"], "aim 5"
        ),
        Result("/v1/score, JSON, 32 rows, one worker", best["one"], "rows/s", rival, best["one"] / best["mlflow"]),
        Result("two workers, JSON, 32 rows", best["two"], "rows/s", scaling, best["two"] / best["one"], "aim 1.4"),
        Result(
            f"two workers, Arrow, {MIDDLE:,} rows",
            best["two, large"],
            "rows/s",
            scaling,
            best["two, large"] / best["one, large"],
            "aim 1.4",
        ),
    ]


@contextlib.contextmanager
def _served_by_mlflow(model: str, folder: Path) -> Iterator[int]:
    """As `mlflow models serve` does it without options: one worker."""
    port, log = free_port(), folder / "mlflow.log"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        model,
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    settings = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with _process(command, dict(os.environ) | settings, log) as process:
        until = time.monotonic() + 120
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text())
            time.sleep(0.5)
        yield port


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _latency(port: int) -> Result:
    call = Call(port, "/v1/score", _body(pl.DataFrame(_columns(SMALL)), JSON), JSON)
    saturation = max(len(_load([call], LOAD_S)) for _ in range(LOADS)) / LOAD_S
    taken = min((_load([call], LOAD_S, saturation / 2) for _ in range(LOADS)), key=lambda one: np.percentile(one, 99))
    middle, high = np.percentile(taken, [50, 99]) * 1e3
    note = f"p50 {middle:.1f} ms, at {saturation / 2:,.0f} of {saturation:,.0f} requests/s, JSON, 32 rows, two workers"
    return Result("p99 at half of saturation", high, "ms", note=note)


def _memory(port: int, pid: int) -> Result:
    """Resident memory of all processes of a server over many requests of one row, and some of 64."""
    arbiter = psutil.Process(pid)
    processes = [arbiter, *arbiter.children(recursive=True)]
    calls = [
        Call(port, "/v1/score", _body(pl.DataFrame(_columns(n)), form), form) for n in (1, 64) for form in (JSON, ARROW)
    ]
    calls = [*calls[:2] * 12, *calls[2:]]
    _load(calls, count=REQUESTS // 10)
    resident: list[float] = []
    for _ in range(11):
        resident.append(sum(process.memory_info().rss for process in processes) / 1e6)
        if len(resident) < 11:
            _load(calls, count=REQUESTS // 10)
    furthest = max(resident, key=lambda size: abs(size - resident[0]))
    course = " ".join(f"{size:,.0f}" for size in resident)
    name, note = (
        f"resident memory over {REQUESTS:,} requests",
        f"aim 0.95 to 1.05; {len(processes)} processes: {course}",
    )
    return Result(name, furthest, "MB", "at first", furthest / resident[0], note)


def _beside(port: int, pid: int, clients: int) -> list[Result]:
    """One row of one client while others, by 32 connections together, send the largest bodies, gzip, to one worker."""
    large = gzip.compress(_body(pl.DataFrame(_columns(GREEDY_ROWS)), JSON), 1)
    small = Call(port, "/v1/score", _body(pl.DataFrame(_columns(1)), JSON), JSON)
    worker = psutil.Process(pid)
    until, peak, answers = time.monotonic() + GREEDY_S, 0, Counter[int]()

    def greedy(number: int) -> None:
        address = f"127.0.0.{2 + number % clients}"
        while time.monotonic() < until:
            connection = HTTPConnection("127.0.0.1", port, source_address=(address, 0))
            with contextlib.closing(connection), contextlib.suppress(OSError):  # refused before the body was read
                connection.request("POST", "/v1/score", large, {"Content-Type": JSON, "Content-Encoding": "gzip"})
                response = connection.getresponse()
                response.read()
                answers[response.status] += 1
                if response.status == 429:
                    time.sleep(0.5)

    def honest(most: float) -> list[float]:
        taken = []
        with contextlib.closing(HTTPConnection("127.0.0.1", port)) as connection:
            while time.monotonic() < most:
                started = time.perf_counter()
                small.send(connection)
                taken.append(time.perf_counter() - started)
                time.sleep(0.1)
        return taken

    quiet = honest(time.monotonic() + GREEDY_S / 6)
    until = time.monotonic() + GREEDY_S
    with ThreadPoolExecutor(GREEDY + 1) as pool:
        for number in range(GREEDY):
            pool.submit(greedy, number)
        taken = pool.submit(honest, until)
        while not taken.done():
            peak = max(peak, sum(one.memory_info().rss for one in [worker, *worker.children(recursive=True)]))
            time.sleep(0.05)
    times = taken.result()
    answered = ", ".join(f"{count} times {status}" for status, count in sorted(answers.items()))
    middle, most = np.median(times) * 1e3, max(quiet) * 1e3
    note = f"p50 {middle:.0f} ms of {len(times)}; alone at most {most:.0f} ms; the others: {answered}"
    return [
        Result(f"slowest row beside {clients} clients with {GREEDY} gzip bodies", max(times) * 1e3, "ms", note=note),
        Result(f"memory at most, one worker, {clients} clients", peak / 1e6, "MB"),
    ]
