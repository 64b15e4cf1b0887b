"""Memory of a served Bento stays flat; `make bench-serving` looks at 100,000 requests, this at some thousands."""

import contextlib
import http.client
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from releases import make_bundle, make_golden, score_rows

from metalayer.registry.bento import bento_environment, build_bento
from metalayer.serving.serve import serve_command
from tests.servers import free_port, wait_until_ready

pytestmark = pytest.mark.integration
WARM_UP, REQUESTS, CONNECTIONS = 1_500, 6_000, 4
JSON = "application/json"


def test_memory_is_flat_over_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    bundle = make_bundle(tmp_path / "bundle")
    golden = make_golden(bundle, tmp_path / "golden.parquet")
    tag, port, log = build_bento(bundle, golden, name="m", version=1, facts={}), free_port(), tmp_path / "log"
    environment = bento_environment() | {"METALAYER_SERVE_WORKERS": "1", "METALAYER_SERVE_DRAIN_S": "0"}
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        serve_command(tag, port=port), env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT
    )
    try:
        wait_until_ready(process, url, log)
        assert httpx.get(f"{url}/v1/model").json()["rows_run_in"] == "ONNX Runtime"
        bodies = [json.dumps({"rows": score_rows(n, seed=n)}).encode() for n in (1, 2, 1, 100, 1, 3)]

        def send(count: int) -> None:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
                for number in range(count):
                    client.request("POST", "/v1/score", bodies[number % len(bodies)], {"Content-Type": JSON})
                    answer = client.getresponse()
                    answer.read()
                    assert answer.status == 200

        def resident_after(count: int) -> int:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(send, [count // CONNECTIONS] * CONNECTIONS))
            return psutil.Process(process.pid).memory_info().rss

        before = resident_after(WARM_UP)
        assert resident_after(REQUESTS) == pytest.approx(before, rel=0.05)
    finally:
        process.terminate()
        process.wait(30)
