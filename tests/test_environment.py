"""What shells leave behind: read through one door, stripped, made absolute, checked, or dropped and named."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from metalayer import cli, doctor, environment, network
from metalayer.client import MetaLayerClient
from metalayer.environment import state_dir
from metalayer.errors import ConfigError, InputError
from metalayer.migrations import check_version
from metalayer.registry import bento, tracking
from metalayer.serving.settings import ServingSettings
from metalayer.settings.sections import DataConfig

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "pipelines" / "run.py"
URL = "http://127.0.0.1:3000"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy and no certificates of whoever runs the tests; what a test changes is put back."""
    before = dict(os.environ)
    for name in (*PROXIES, *(name.upper() for name in PROXIES), *TRUST, "MLFLOW_TRACKING_URI", "BENTOML_HOST"):
        monkeypatch.delenv(name, raising=False)
    yield
    monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


def test_values_are_stripped_and_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("", " ", "\n"):
        monkeypatch.setenv("METALAYER_HOME", given)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert state_dir() == tmp_path / ".metalayer"
        assert tracking.default_tracking_uri() == f"sqlite:///{tmp_path}/.metalayer/mlflow.db"
    monkeypatch.setenv("METALAYER_HOME", "~/state \r\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_dir() == tmp_path / "home" / "state"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000\n")
    assert tracking.default_tracking_uri() == "http://mlflow:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", " with blanks \n")
    environment.clean()
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == " with blanks "
    monkeypatch.setenv("METALAYER_HOME", "~nobody-of-this-name/state")
    with pytest.raises(ConfigError, match="METALAYER_HOME"):
        state_dir()


def test_the_home_folder_in_paths_of_configurations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataConfig(data_root="~/data").data_root == tmp_path / "data"
    data = DataConfig()
    data.gene_table = Path("~/genes.tsv")
    assert data.gene_table == tmp_path / "genes.tsv"
    assert DataConfig(annotation_source="~x").annotation_source == "~x"
    with pytest.raises(ConfigError, match="data_root: given '~nobody-of-this-name/x'"):
        DataConfig(data_root="~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("sqlite:///rel.db", "sqlite:///{here}/rel.db"),
        ("sqlite:///./a/../rel.db", "sqlite:///{here}/rel.db"),
        ("sqlite:///rel.db?timeout=5", "sqlite:///{here}/rel.db?timeout=5"),
        ("sqlite:////somewhere/rel.db", "sqlite:////somewhere/rel.db"),
        ("HTTPS://mlflow.example/base", "https://mlflow.example/base"),
        ("postgresql+psycopg2://u@h/db", "postgresql+psycopg2://u@h/db"),
    ],
)
def test_the_registry_means_the_same_in_every_process(
    given: str, read: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    expected = read.format(here=tmp_path)
    assert tracking.default_tracking_uri() == environment.child()["MLFLOW_TRACKING_URI"] == expected
    assert bento.bento_environment()["MLFLOW_TRACKING_URI"] == expected
    environment.clean()
    assert os.environ["MLFLOW_TRACKING_URI"] == expected


@pytest.mark.parametrize(
    "given",
    [
        "127.0.0.1:5000",
        "mlruns",
        "sqlite://",
        "sqlite:rel.db",
        "sqlite:///:memory:",
        "http://",
        "http://h:99999",
        "ftp://h",
    ],
)
def test_an_address_that_mlflow_would_take_for_something_else(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert cli.main(["registry", "list"]) == 2
    assert f"MLFLOW_TRACKING_URI: given '{given}'; needed is http" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", ["127.0.0.1:3000", "localhost:3000", "htp://127.0.0.1:3000", "http://", "http://a b", "http://h:0", "x"]
)
def test_addresses_of_servers_are_refused_at_once(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["client", "model", "--url", given]) == 2
    said = capsys.readouterr().err
    assert f"--url: given '{given}'; needed is a URL as in http://127.0.0.1:3000" in said
    with pytest.raises(ConfigError, match="needed is a URL"):
        MetaLayerClient(given)


def test_no_message_shows_a_password() -> None:
    with pytest.raises(ConfigError) as caught:
        environment.url("htp://me:secret@host", "--url")
    assert "secret" not in str(caught.value)
    for text in ("http://me:secret@host/x", "me:secret@host", "at http://me:sec/ret@host now"):
        assert "ret" not in environment.without_password(text)
        assert "***@host" in environment.without_password(text)
    text = "postgresql://host/db?user=me&password=secret&sslmode=require"
    assert environment.without_password(text) == "postgresql://host/db?user=me&password=***&sslmode=require"
    assert environment.without_password("models:/a@champion is not there") == "models:/a@champion is not there"


def test_keys_are_stripped_and_those_that_cannot_be_sent_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METALAYER_API_KEY", "the-key\r\n")
    assert environment.key("METALAYER_API_KEY") == "the-key"
    with MetaLayerClient(URL, api_key="the-key\n") as client:
        assert client._http.headers["authorization"] == "Bearer the-key"
    for odd in ("the-\nkey", "the key", "the-k\u00e9y", "the-\x7fkey"):
        monkeypatch.setenv("METALAYER_API_KEY", odd)
        assert cli.main(["client", "model", "--url", URL]) == 2
        said = capsys.readouterr().err
        assert "METALAYER_API_KEY: character" in said and "the-" not in said and "the key" not in said
        with pytest.raises(ConfigError, match="API key"):
            MetaLayerClient(URL, api_key=odd)


def test_a_proxy_that_is_not_for_an_address_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.0/8,::1/128,.cluster.local,one.example:8080")
    monkeypatch.setenv("http_proxy", "127.0.0.1:3128")
    for url in (URL, "http://[::1]:3000", "http://localhost:1", "http://a.cluster.local", "http://one.example:8080"):
        assert network.proxy_of(url, network.HTTPX) is None
        MetaLayerClient(url).close()
    for url in ("http://10.0.0.1", "http://one.example", "http://notcluster.local", "http://[::2]"):
        found = network.proxy_of(url, network.HTTPX)
        assert found == network.Proxy("http_proxy", "http://127.0.0.1:3128")
        MetaLayerClient(url).close()
    monkeypatch.setenv("http_proxy", "")  # as curl and urllib have it: not set, whatever HTTP_PROXY says
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert network.proxy_of("http://10.0.0.1", network.HTTPX) is None
    monkeypatch.setenv("no_proxy", "*")
    assert network.proxy_of("https://10.0.0.1", network.HTTPX) is None


@pytest.mark.parametrize("given", ["socks5://127.0.0.1:1080", "http://:3128", "ftp://me:secret@h:1", "http://h:http"])
def test_a_proxy_that_cannot_be_used_is_named(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if given.startswith("socks") and find_spec(network.HTTPX):
        pytest.skip("httpx has its SOCKS extra here")
    monkeypatch.setenv("ALL_PROXY", given)
    assert cli.main(["client", "model", "--url", URL]) == 2
    said = capsys.readouterr().err
    assert said.startswith("metalayer client: ALL_PROXY: given") and said.count("\n") == 1
    assert "NO_PROXY" in said and "secret" not in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://10.0.0.1:5000")
    assert cli.main(["registry", "list"]) == 2
    assert "ALL_PROXY: given" in capsys.readouterr().err


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    with (
        MetaLayerClient("http://192.0.2.1:3000", patience_s=0) as client,
        pytest.raises(Exception, match=r"by proxy http://\*\*\*@127.0.0.1:9 of HTTP_PROXY"),
    ):
        client.model()


def test_certificates_matter_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://127.0.0.1:9")
    for variable, arguments in (
        ("SSL_CERT_FILE", ["client", "model", "--url", "https://127.0.0.1:9"]),
        ("REQUESTS_CA_BUNDLE", ["registry", "list"]),
        ("CURL_CA_BUNDLE", ["registry", "list"]),
    ):
        for path in ("/nonexistent", str(empty)):
            with monkeypatch.context() as patch:
                patch.setenv(variable, path)
                MetaLayerClient(URL).close()
                assert cli.main(arguments) == 2
                said = capsys.readouterr().err
                assert f"{variable}: given {path}" in said and said.count("\n") == 1


def test_empty_settings_of_the_server_are_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name.upper() for name in ServingSettings.model_fields]
    empty = ServingSettings.from_environment({f"METALAYER_SERVE_{name}": "" for name in names})
    assert empty == ServingSettings()
    given = {"REGISTRY_URI": "sqlite:///rel.db", "LOG_DIR": "logs", "API_KEYS_FILE": "keys", "DEADLINE_S": " 3 \n"}
    settings = ServingSettings.from_environment({f"METALAYER_SERVE_{name}": value for name, value in given.items()})
    assert settings.deadline_s == 3
    assert settings.environment() == {  # the worker runs in the folder of the Bento
        "METALAYER_SERVE_REGISTRY_URI": f"sqlite:///{tmp_path}/rel.db",
        "METALAYER_SERVE_LOG_DIR": f"{tmp_path}/logs",
        "METALAYER_SERVE_API_KEYS_FILE": f"{tmp_path}/keys",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEYS", ","),
        ("API_KEYS", " "),
        ("API_KEYS", "one,t wo"),
        ("DEVICE", "gpu"),
        ("REGISTRY_URI", "mlflow:5000"),
        ("WORKERS", "0"),
        ("DEADLINE_S", "inf"),
        ("MAX_ROWS", "1e3"),
    ],
)
def test_settings_of_the_server_are_refused_before_it_starts(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(f"METALAYER_SERVE_{name}", value)
    assert cli.main(["serve"]) == 2
    said = capsys.readouterr().err
    assert f"serve.{name.lower()}: " in said and "t wo" not in said
    assert not (tmp_path / "state").exists()


def test_ports_are_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for given, message in (
            (["--port=80000"], "--port: given '80000'; a port is a number from 1 to 65535"),
            (["--port=0"], "--port: given '0'"),
            (["--port=-1"], "--port: given '-1'"),
            (["--port=http"], "--port: given 'http'"),
            ([f"--port={port}"], f"--port {port} of 127.0.0.1: something listens on it already"),
            (["--port=23000", "--host=localhost"], "--host: given 'localhost'; needed is an address"),
            (["--port=23000", "--host=192.0.2.1"], "give --host an address of this machine"),
        ):
            assert cli.main(["serve", *given]) == 2
            assert message in capsys.readouterr().err
    monkeypatch.setenv("BENTOML_PORT", "99999")
    monkeypatch.setenv("BENTOML_HOST", "nowhere")
    assert cli.main(["serve"]) == 2
    assert "BENTOML_PORT: given '99999'" in capsys.readouterr().err
    assert cli.main(["serve", "--port=23000"]) == 2
    assert "BENTOML_HOST: given 'nowhere'" in capsys.readouterr().err
    monkeypatch.setenv("BENTOML_PORT", "tcp://10.0.0.1:3000")  # what Kubernetes says of a Service named bentoml
    monkeypatch.setenv("BENTOML_HOST", "127.0.0.1")
    assert cli.main(["serve", "--bento", str(tmp_path)]) == 2
    assert "no bento.yaml" in capsys.readouterr().err
    assert not list(tmp_path.glob("state/*.db"))


def test_what_another_project_left_is_dropped_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others = {
        "MLFLOW_RUN_ID": "abc",
        "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9",
        "BENTOML_CONFIG": "/nonexistent",
        "ZENML_ACTIVE_STACK_ID": "11111111-2222-3333-4444-555555555555",
        "ZENML_STORE_URL": "http://127.0.0.1:9",
        "GIT_DIR": "/nonexistent",
    }
    kept = {"BENTOML_HOME": "/b", "MLFLOW_TRACKING_TOKEN": "t", "GIT_SSL_CAINFO": "/c", "PYTHONPATH": "/p"}
    for name, value in (others | kept).items():
        monkeypatch.setenv(name, value)
    started = environment.child(EXTRA="1")
    assert not {"MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI", "BENTOML_CONFIG"} & started.keys()
    assert started.items() >= (kept | {"EXTRA": "1", "PYTHONSAFEPATH": "1"}).items()
    assert "GIT_DIR" not in environment.git()
    environment.drop_foreign(zenml=True, zenml_server=True, ours={"ZENML_REPOSITORY_PATH": "/r"})
    assert os.environ["ZENML_STORE_URL"] == others["ZENML_STORE_URL"]
    assert os.environ["ZENML_REPOSITORY_PATH"] == "/r"
    environment.drop_foreign(zenml=True, ours={"ZENML_REPOSITORY_PATH": "/r"})
    assert not others.keys() & os.environ.keys()
    assert kept.items() <= os.environ.items()
    assert all(name in caplog.text for name in others)
    assert "ZENML_REPOSITORY_PATH" not in caplog.text


def test_no_program_of_ours_runs_modules_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("queue", "argparse", "json", "pydantic", "polars", "yaml", "mlflow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
    beside = Path(sys.executable).with_name("metalayer")
    environment = {**os.environ, "METALAYER_HOME": str(tmp_path / "state")}
    for program in ([sys.executable, "-m", "metalayer"], [str(beside)]):
        done = subprocess.run(
            [*program, "registry", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for safe in ("", "1"):
        done = subprocess.run(
            [sys.executable, str(RUN), "--set", "train.max_epochs=0"],
            cwd=tmp_path,
            env=environment | {"PYTHONSAFEPATH": safe},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 and "train.max_epochs" in done.stderr, done.stderr


def test_a_state_folder_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "state"):
        done = subprocess.run(
            [sys.executable, str(RUN)],
            env={**os.environ, "METALAYER_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"state folder {home}: " in done.stderr and "set METALAYER_HOME to a folder" in done.stderr
        assert "Traceback" not in done.stderr
        monkeypatch.setenv("METALAYER_HOME", str(home))
        assert cli.main(["registry", "list"]) == 2
        said = capsys.readouterr().err
        assert f"state folder {home}: {tmp_path / 'file'} is a file; set METALAYER_HOME to a folder" in said
        assert any(not found.ok and "is a file" in found.text for found in doctor.examine())
    with pytest.raises(ConfigError, match=r"file: .*; set METALAYER_HOME .* or MLFLOW_TRACKING_URI"):
        tracking.ensure_experiment(tracking_uri=f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("program", "folder"),
    [("ZenML", "zen_stores/migrations/versions"), ("MLflow", "store/db_migrations/versions")],
)
def test_a_database_of_a_later_version(
    program: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = find_spec(program.lower())
    assert spec and spec.submodule_search_locations
    known = sorted((Path(spec.submodule_search_locations[0]) / folder).glob("*.py"))
    assert len(known) > 10
    database = tmp_path / ("zenml/stores/default_zen_store/zenml.db" if program == "ZenML" else "mlflow.db")
    check_version(database, program)
    database.parent.mkdir(parents=True, exist_ok=True)
    database.touch()
    check_version(database, program)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('9.99.0')")
    with pytest.raises(InputError, match=rf"a later version of {program} .*9\.99\.0.*set METALAYER_HOME"):
        check_version(database, program)
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path))
    if program == "MLflow":
        assert cli.main(["registry", "list"]) == 2
        assert "a later version of MLflow" in capsys.readouterr().err
    else:
        (tmp_path / "zenml" / "ready").touch()
        done = subprocess.run([sys.executable, str(RUN)], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "a later version of ZenML" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "ours"), [("OMP_WAIT_POLICY", "passive"), ("OPENBLAS_THREAD_TIMEOUT", "4")])
def test_waiting_threads_of_our_programs_sleep_unless_the_user_says_other(
    monkeypatch: pytest.MonkeyPatch, name: str, ours: str
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    for given, found in ((None, ours), ("8", "8")):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
        if given:
            monkeypatch.setenv(name, given)
        environment.enter()
        assert os.environ[name] == environment.child()[name] == found


def test_no_program_imports_torch_before_it_says_how_threads_wait() -> None:
    """OpenMP reads the variable once, where it is loaded."""
    root = Path(__file__).resolve().parents[1]
    program = (
        "import sys; from metalayer import cli, environment; from pipelines import run; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
