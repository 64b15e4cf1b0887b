import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import psutil
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from releases import expected, make_bundle, make_champion, make_golden, score_rows

from metalayer.errors import RegistryError
from metalayer.models.description import digest
from metalayer.registry.bento import bento_environment, build_bento, find_bento
from metalayer.release.folder import RUNTIME, release_digest
from metalayer.schema import CLASSES
from metalayer.serving.serve import serve_command
from tests.servers import free_port, wait_until_ready

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def bento(home: Path) -> Iterator[str]:
    """A built Bento in a store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home / "bentoml"))
        bundle = make_bundle(home / "bundle")
        golden = make_golden(bundle, home / "golden.parquet")
        facts = {"alias": "champion", "metrics": {"pr_auc_splice": 0.9, "topk_donor": float("nan")}}
        yield build_bento(bundle, golden, name=NAME, version=3, facts=facts)


def packaged_digest(home: Path, bento: str) -> str:
    """Of all that a Bento's release holds."""
    released = home / "bentoml" / "bentos" / bento.replace(":", "/") / "src" / "release"
    return release_digest(released, released / "golden.parquet")


def running(bento: str, log: Path, **settings: str) -> subprocess.Popen:
    """A server of a Bento, started in the checkout; the host is the Bento's own choice."""
    environment = bento_environment() | {f"METALAYER_SERVE_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "bentoml", "serve", bento, "--port", str(free_port())]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[1], env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT
    )


def listens_at(process: subprocess.Popen) -> set[str]:
    port = int(process.args[-1])
    sockets = psutil.Process(process.pid).net_connections()
    return {one.laddr.ip for one in sockets if one.status == "LISTEN" and one.laddr.port == port}


@pytest.fixture(scope="module")
def server(home: Path, bento: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The Bento served from its store alone: what it was built from is gone.

    Started in the checkout, as `make serve` does, whose `metalayer` must not be taken for the Bento's.
    """
    port = free_port()
    for source in (home / "bundle", home / "golden.parquet"):
        source.rename(source.with_name("moved-" + source.name))
    log = (home / "server.log").open("w")
    process = subprocess.Popen(
        serve_command(bento, port=port),
        cwd=Path(__file__).parents[1],
        env=bento_environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url, home / "server.log")
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_a_bento_holds_the_release_the_source_and_pinned_packages(home: Path, bento: str) -> None:
    name, version = bento.split(":")
    root = home / "bentoml" / "bentos" / name / version
    assert version.startswith("3-")
    model = packaged_digest(home, bento)
    assert find_bento(NAME, 3, model) == bento == f"{NAME}:3-{model[:12]}"
    assert find_bento(NAME, 33, model) is None
    assert find_bento(NAME, 3, model[:12]) is None
    assert find_bento(NAME, 3, digest(root / "src" / "release")) is None
    files = {str(path.relative_to(root / "src")) for path in (root / "src").rglob("*") if path.is_file()}
    assert {f for f in files if not f.startswith("metalayer/")} == {
        "bentofile.yaml",
        "release/facts.json",
        "release/golden.parquet",
        "release/model.json",
        "release/model.onnx",
        "release/model.safetensors",
        "release/release.json",
    }
    page = {f for f in files if f.startswith("metalayer/") and Path(f).suffix != ".py"}
    assert {str(Path(f).parent) for f in page} == {"metalayer/serving/docs_page", "metalayer/serving/view_page"}
    assert {Path(f).name for f in page} >= {"index.html", "page.js", "swagger-ui-bundle.js", "igv.esm.min.js"}
    assert {Path(f).name for f in page} >= {"LICENSE.igv", "LICENSE.swagger-ui"}
    packages = yaml.safe_load((root / "bento.yaml").read_text())["image"]["python_requirements"].split("\n")
    assert any(line.startswith("torch==") and "+" not in line for line in packages)
    # mlflow-skinny follows the champion
    needed = {
        *RUNTIME,
        "bentoml",
        "h5py",
        "httptools",
        "mlflow-skinny",
        "onnxruntime",
        "prometheus_client",
        "pyBigWig",
        "pysam",
        "starlette",
        "uvicorn",
    }
    assert {line.split("==")[0] for line in packages if line} == needed  # no zenml, no index, no address
    assert not any("../" in line for line in (root / "src" / "bentofile.yaml").read_text().splitlines())


def test_building_again_keeps_what_is_there(home: Path, bento: str) -> None:
    bundle = next(path for path in (home / "bundle", home / "moved-bundle") if path.exists())
    golden = bundle.with_name(bundle.name.replace("bundle", "golden.parquet"))
    name, version = bento.split(":")
    built = home / "bentoml" / "bentos" / name / version / "bento.yaml"
    before = built.stat()
    digest = packaged_digest(home, bento)
    assert build_bento(bundle, golden, name=NAME, version=3, facts={}, registered=digest) == bento
    assert (built.stat().st_ino, built.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_failed_build_publishes_nothing(home: Path, bento: str) -> None:
    bundle = make_bundle(home / "incomplete", seed=5)
    with pytest.raises(RegistryError, match=r"nowhere\.parquet is missing"):
        build_bento(bundle, home / "nowhere.parquet", name=NAME, version=4, facts={})
    shutil.copyfile(bundle / "model.json", home / "golden-copy")
    os.environ["PYTHONHOME"] = str(home / "nowhere")
    try:
        with pytest.raises(RegistryError, match="bentoml build of metalayer-pwm:4-"):
            build_bento(bundle, home / "golden-copy", name=NAME, version=4, facts={}, registered="d" * 64)
    finally:
        del os.environ["PYTHONHOME"]
    assert find_bento(NAME, 4, "d" * 64) is None
    assert list((home / "bentoml" / "tmp").iterdir()) == []


def test_the_served_probabilities_are_the_evaluations_own(home: Path, server: tuple[subprocess.Popen, str]) -> None:
    table = pl.read_parquet(home / "moved-golden.parquet")
    rows = table.drop(CLASSES).to_dicts()
    response = httpx.post(f"{server[1]}/v1/score", json={"rows": rows})
    assert response.status_code == 200, response.text
    answers = np.array([[row[name] for name in CLASSES] for row in response.json()["rows"]])
    assert np.abs(answers - table.select(CLASSES).to_numpy()).max() <= 1e-6
    others = score_rows(40, seed=4)
    answers = np.array(
        [list(row.values()) for row in httpx.post(f"{server[1]}/v1/score", json={"rows": others}).json()["rows"]]
    )
    assert np.abs(answers - expected(home / "moved-bundle", others)).max() <= 1e-6
    assert response.headers["x-model-version"] == "3"


def test_the_served_model_says_what_it_is(home: Path, bento: str, server: tuple[subprocess.Popen, str]) -> None:
    facts = httpx.get(f"{server[1]}/v1/model").json()
    assert facts["digest"] == packaged_digest(home, bento)
    assert facts["metrics"] == {"pr_auc_splice": 0.9, "topk_donor": None}
    assert facts["alias"] == "champion"


def test_bad_input_over_the_socket(server: tuple[subprocess.Popen, str]) -> None:
    url = f"{server[1]}/v1/score"
    rows = score_rows(2)
    rows[1]["sequence"] = "ACGU"
    response = httpx.post(url, json={"rows": rows})
    assert response.status_code == 422
    assert response.json()["details"][0] | {"allowed": ""} == {
        "row": 1,
        "field": "sequence",
        "given": "'U' at 3",
        "allowed": "",
    }
    literal = json.dumps({"rows": [score_rows(1)[0] | {"donor_score": float("nan")}]}).encode()
    response = httpx.post(url, content=literal, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["details"][0]["given"] == "NaN"
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"{server[1]}/other").json()["error"].startswith("no /other")


def test_a_body_over_the_limit_is_refused_and_the_server_lives(server: tuple[subprocess.Popen, str]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 2**20

    try:
        response = httpx.post(
            f"{server[1]}/v1/score", content=endless(), headers={"content-type": "application/json"}, timeout=30
        )
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # the server answered and closed while we were sending
    assert httpx.get(f"{server[1]}/readyz").status_code == 200


def test_metrics_count_the_rows_of_all_workers(
    server: tuple[subprocess.Popen, str],
) -> None:
    def counted() -> float:
        text = httpx.get(f"{server[1]}/metrics").text
        return float(re.search(r"^metalayer_rows_total (\S+)$", text, re.MULTILINE)[1])

    before = counted()
    for _ in range(8):
        assert httpx.post(f"{server[1]}/v1/score", json={"rows": score_rows(5)}).status_code == 200
    assert counted() == before + 40
    assert httpx.get(f"{server[1]}/openapi.json").json()["openapi"] == "3.1.0"
    assert httpx.get(f"{server[1]}/docs").status_code == 200


@pytest.mark.parametrize("probe", ["livez", "readyz", "healthz"])
def test_probes_are_bentomls(server: tuple[subprocess.Popen, str], probe: str) -> None:
    response = httpx.get(f"{server[1]}/{probe}")
    assert response.status_code == 200
    assert "x-model-name" not in response.headers


def test_a_server_with_keys_drains(home: Path, bento: str) -> None:
    """Long requests in flight are answered and logged, /readyz says 503 meanwhile, and what still comes is served."""
    log = home / "drain.log"
    process = running(bento, log, api_keys="k1,k2", drain_s="3", workers="1", log_dir=str(home / "requests"))
    url = f"http://127.0.0.1:{process.args[-1]}"
    try:
        wait_until_ready(process, url, log)
        assert listens_at(process) == {"0.0.0.0"}  # with keys it may be reached from elsewhere
        assert httpx.post(f"{url}/v1/score", json={"rows": score_rows(1)}).status_code == 401
        assert httpx.get(f"{url}/v1/model", headers={"authorization": "Bearer k3"}).status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 401
        client = httpx.Client(base_url=url, headers={"authorization": "Bearer k2"}, timeout=60)
        long = {"rows": score_rows(64) * 150}
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(client.post, "/v1/score", json=long) for _ in range(2)]
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.7)
            assert httpx.get(f"{url}/readyz").status_code == 503
            assert httpx.get(f"{url}/livez").status_code == 200
            late = client.post("/v1/score", json={"rows": score_rows(1)})
            assert (late.status_code, late.headers["connection"]) == (200, "close")
            for answer in answers:
                assert answer.result().status_code == 200
                assert len(answer.result().json()["rows"]) == 64 * 150
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    (part,) = (home / "requests").glob("requests-*")  # all that was answered is in the request log
    assert sorted(pl.read_parquet(part).group_by("request_id").len()["len"]) == [1, 64 * 150, 64 * 150]


def test_a_served_bento_follows_the_champion(home: Path, bento: str) -> None:
    from metalayer.registry import tracking, versions

    log, uri = home / "follow.log", f"sqlite:///{home}/registry/mlflow.db"
    tracking.ensure_experiment(tracking_uri=uri)  # else server and test may both make the database
    process = running(bento, log, registry_uri=uri, follow_every_s="0.3", workers="1")
    url = f"http://127.0.0.1:{process.args[-1]}"
    try:
        wait_until_ready(process, url, log)
        assert httpx.get(f"{url}/v1/model").headers["x-model-version"] == "3"
        bundle = make_bundle(home / "followed", seed=4)
        make_champion(bundle, make_golden(bundle, home / "followed.parquet"), uri, metrics={"ece": 0.5})
        until = time.monotonic() + 60
        while (response := httpx.get(f"{url}/v1/model")).headers["x-model-version"] == "3":
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        assert response.headers["x-model-digest"] == versions.find_champion(NAME, uri).digest
        assert response.json()["metrics"] == {"ece": 0.5}
        assert 'metalayer_swaps_total{outcome="done"} 1.0' in httpx.get(f"{url}/metrics").text
    finally:
        process.terminate()
        process.wait(30)


def test_a_server_without_keys_listens_to_this_machine_only(home: Path, bento: str) -> None:
    log = home / "bare.log"
    process = running(bento, log, workers="1")
    try:
        wait_until_ready(process, f"http://127.0.0.1:{process.args[-1]}", log)
        assert listens_at(process) == {"127.0.0.1"}
    finally:
        process.terminate()
        process.wait(30)


def certificate(folder: Path) -> Path:
    """A self-made certificate of 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.Encoding.PEM
    secret = key.private_bytes(kind, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.pem").write_bytes(made.public_bytes(kind) + secret)
    return folder / "tls.pem"


def rows_counted(client: httpx.Client) -> float:
    found = re.search(r"^metalayer_rows_total (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_two_servers_of_one_store_one_with_tls_one_of_a_terminal(home: Path, bento: str) -> None:
    """Each has its own counts; the end of the terminal ends the one, and under nohup not the other."""
    tls, log = certificate(home), home / "two.log"
    outside, inside = pty.openpty()
    command = [sys.executable, "-m", "bentoml", "serve", bento, "--port", str(free_port())]
    settings = bento_environment() | {"METALAYER_SERVE_WORKERS": "1", "METALAYER_SERVE_DRAIN_S": "0"}
    of_terminal = subprocess.Popen(
        command,
        env=settings,
        stdin=inside,
        stdout=(home / "terminal.log").open("w"),
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: (  # noqa: PLW1509
            os.setsid(),
            fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where the tests run under nohup
        ),
    )
    os.close(inside)
    command = [*command[:-1], str(free_port())]
    with_tls = subprocess.Popen(
        command,
        env=settings | {"METALAYER_SERVE_SSL_CERTFILE": str(tls)},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    )
    plain, secret = f"http://127.0.0.1:{of_terminal.args[-1]}", f"https://127.0.0.1:{with_tls.args[-1]}"
    trusted = ssl.create_default_context(cafile=tls)
    try:
        wait_until_ready(of_terminal, plain, home / "terminal.log")
        with httpx.Client(base_url=plain) as one, httpx.Client(base_url=secret, verify=trusted) as other:
            assert one.post("/v1/score", json={"rows": score_rows(2)}).status_code == 200
            until = time.monotonic() + 120
            while True:
                assert with_tls.poll() is None, log.read_text()
                assert time.monotonic() < until
                with contextlib.suppress(httpx.TransportError):
                    if other.get("/readyz").status_code == 200:
                        break
                time.sleep(0.2)
            assert one.post("/v1/score", json={"rows": score_rows(1)}).status_code == 200
            assert other.post("/v1/score", json={"rows": score_rows(5)}).status_code == 200
            assert (rows_counted(one), rows_counted(other)) == (3, 5)
            with pytest.raises(httpx.TransportError):
                httpx.get(secret.replace("https", "http") + "/v1/model")
            with pytest.raises(httpx.ConnectError, match="verify"):
                httpx.get(f"{secret}/v1/model")

            workers = psutil.Process(of_terminal.pid).children(recursive=True)
            os.close(outside)
            assert of_terminal.wait(60) == 0
            assert psutil.wait_procs(workers, 30)[1] == []
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{plain}/livez")
            with_tls.send_signal(signal.SIGHUP)
            time.sleep(1)
            assert other.get("/v1/model").status_code == 200
    finally:
        for process in (of_terminal, with_tls):
            process.terminate()
            process.wait(60)


def test_nobody_but_the_port_of_requests_is_listened_to(server: tuple[subprocess.Popen, str]) -> None:
    """BentoML's supervisor would take commands of any user of the machine, on ports of the loopback address."""
    process, url = server
    supervisor = psutil.Process(process.pid)
    processes = [supervisor, *supervisor.children(recursive=True)]
    listening = {one.laddr.port for each in processes for one in each.net_connections("inet") if one.status == "LISTEN"}
    assert listening == {int(url.rpartition(":")[2])}
    named = {one.laddr for each in processes for one in each.net_connections("unix") if one.laddr}
    assert named == set()  # a socket file, or an abstract name, which has no mode at all


def test_sigterm_ends_the_server(server: tuple[subprocess.Popen, str]) -> None:
    process, url = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/livez")
