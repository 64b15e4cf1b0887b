"""A real MLflow server by URI: without authentication, with a token, with a user name and password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalayer.errors import ConfigError, RegistryError
from metalayer.registry import line, listing, registration, versions
from metalayer.serving.champion import followed_bento
from tests import forked
from tests.door import basic, bearer, guarded_door
from tests.releases import make_champion, make_golden
from tests.servers import mlflow_server
from tests.test_pipeline import FAILING, QUICK, RUN, command

TOKEN, USER, PASSWORD = "t0ken-of-the-test", "ada", "l0velace-the-countess"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that asks nobody who they are."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield int(uri.rpartition(":")[2])


@pytest.fixture(scope="module")
def guarded(server: int) -> Iterator[int]:
    """Port of a door to the same server that opens for those with a credential."""
    with guarded_door("127.0.0.1", server, {bearer(TOKEN), basic(USER, PASSWORD)}) as port:
        yield port


@pytest.mark.integration
def test_runs_with_a_server(server: int, guarded: int, simulation: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    credentials = [
        (server, {}),
        (guarded, {"MLFLOW_TRACKING_TOKEN": TOKEN}),
        (guarded, {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}),
    ]
    for number, (port, given) in enumerate(credentials, start=1):
        uri = f"http://127.0.0.1:{port}"
        environment = {**plain, "METALAYER_HOME": str(state), "MLFLOW_TRACKING_URI": uri, **given}
        arguments = command((*QUICK, *FAILING), ("--data-root", str(simulation)))
        done = forked.run([str(RUN), *arguments], environment, tmp_path)
        assert done.returncode == 3, done.stderr
        assert f"metalayer-pwm version {number}, alias challenger" in done.stdout
        assert not (state / "mlflow.db").exists()
    for path in state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            assert PASSWORD.encode() not in content, path
    refused = {**plain, "METALAYER_HOME": str(state), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{guarded}"}
    done = forked.run([str(RUN), *arguments], refused, tmp_path)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_what_is_listed_past_mlflow_is_what_mlflow_lists(
    server: int, guarded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    for name in os.environ:
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    uri, door = (f"http://127.0.0.1:{port}" for port in (server, guarded))
    client = mlflow.MlflowClient(uri, uri)
    for name in ("metalayer-listed", "metalayer-it's", "other"):
        client.create_registered_model(name)
        for number in range(3):
            client.create_model_version(name, "s3://nowhere/m", tags={"digest": f"d{number}", "text": 'a"b'})
    client.set_registered_model_alias("metalayer-listed", "champion", 2)
    client.set_registered_model_alias("metalayer-listed", "best", 2)
    found = versions.all_versions(uri)
    assert len([one for one in found if one.name == "metalayer-listed"]) == 3
    with monkeypatch.context() as without:
        without.setattr(listing, "read", lambda *_: None)
        assert versions.all_versions(uri) == found

    def listed(address: str) -> set[tuple[str, int]] | None:
        read = listing.read(address, versions.NAME_PREFIX)
        return None if read is None else {(one.name, int(one.version)) for one in read}

    whole = listed(uri)
    assert whole is not None
    assert {name for name, _ in whole} >= {"metalayer-listed", "metalayer-it's"}
    pages = listing._pages
    monkeypatch.setattr(listing, "_pages", lambda *a: pages(*a[:3], {**a[3], "max_results": 2}))
    assert listed(uri) == whole
    assert listed(door) is None  # refused: MLflow says so
    log_in(monkeypatch, USER, PASSWORD)
    assert listed(door) == whole
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    assert listed(f"{door}/") == whole
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "a-plugin")
    assert listed(door) is None


@pytest.mark.integration
def test_a_server_of_the_model_may_only_read(tmp_path: Path, released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow asks who they are, as in `k8s/base/mlflow.yaml` and docs/kubernetes.md: runs write, serving reads."""
    from mlflow.server import get_app_client

    config = tmp_path / "basic_auth.ini"
    users = f"default_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\nauth_cache_ttl_seconds = 60\n"
    config.write_text(f"[mlflow]\n{users}")
    asks = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-test",
    }
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    with mlflow_server(tmp_path / "mlflow", "--app-name", "basic-auth", **asks) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(RegistryError, match="401"):
            versions.champions()
        log_in(monkeypatch, USER, PASSWORD)
        get_app_client("basic-auth", uri).create_user("serving", "reads-only-here")
        bundle = released.parent / "bundle"
        champion = make_champion(bundle, make_golden(bundle, tmp_path / "golden.parquet"), uri)
        log_in(monkeypatch, "serving", "reads-only-here")
        (found,) = versions.champions()
        assert (found.name, found.version) == (champion.name, champion.version)
        assert followed_bento() == f"{found.name}:1-{found.digest[:12]}"
        for write in (
            lambda: versions.set_bento_tag(found.name, found.version, "t", uri),
            lambda: registration.register(bundle, tmp_path / "golden.parquet", base_model="pwm", promoted=True),
            lambda: line.move(line.read(found.name, uri), [], uri),
        ):
            with pytest.raises(RegistryError, match=r"403|[Pp]ermission"):
                write()
        (still,) = versions.champions()
        assert still == found


def log_in(monkeypatch: pytest.MonkeyPatch, user: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_credentials_in_the_uri_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import mlflow_service

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        mlflow_service.prepare()
    assert PASSWORD not in str(caught.value)
