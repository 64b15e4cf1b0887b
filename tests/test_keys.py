"""Every door a key comes in by: stripped of line ends, refused where no header can carry it, and in no log."""

import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalayer import environment
from metalayer.client import MetaLayerClient
from metalayer.errors import ConfigError
from metalayer.release.contract import RequestError
from metalayer.serving.settings import PREFIX, ServingSettings

KEY = "kunstvoll"
UNSENDABLE = (f"{KEY} x", f"{KEY}\nx", f"{KEY}\u00e9", f"{KEY}\x7f", f"{KEY}\x00")


@pytest.mark.parametrize("name", ["api_keys", "metrics_key"])
def test_settings_of_a_server(name: str) -> None:
    variable = f"{PREFIX}{name.upper()}"
    for end in ("\n", "\r\n", " "):
        for settings in (ServingSettings.from_environment({variable: KEY + end}), ServingSettings(**{name: KEY + end})):
            assert (*settings.all_keys(), *([settings.metrics_key] if settings.metrics_key else [])) == (KEY,)
            assert KEY not in f"{settings!r} {settings} {settings.model_dump()}"
    for odd in UNSENDABLE:
        with pytest.raises(ConfigError, match=rf"serve\.{name}: character \d+ of \d+ cannot be sent") as caught:
            ServingSettings.from_environment({variable: odd})
        assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"serve\.{name}: holds no key"):
        ServingSettings.from_environment({variable: " \n"})
    with pytest.raises(ConfigError, match=rf"serve\.{name}: given what is not shown") as caught:
        ServingSettings(**{name: [KEY]})
    assert KEY not in str(caught.value)


def test_file_of_keys(tmp_path: Path) -> None:
    """As an editor on Windows or a Secret of Kubernetes leaves it; no other letter ends a line."""
    file = tmp_path / "keys"
    for text in (f"{KEY}\n", f"\ufeff# of Ada\r\n{KEY}\r\n\r\n", f"  {KEY}  "):
        file.write_bytes(text.encode())
        assert ServingSettings(api_keys_file=file).all_keys() == (KEY,)
    for odd in ("\x0b", "\x1c", "\u2028", " ", "\x00"):
        file.write_bytes(f"other\n{KEY}{odd}x\n".encode())
        with pytest.raises(ConfigError, match=r"api_keys_file .*: character 10 of 11 cannot be sent") as caught:
            ServingSettings(api_keys_file=file).all_keys()
        assert KEY not in str(caught.value)


def test_token_for_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the library that sends it shows it in its message."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"{KEY}\n")
    environment.clean()
    assert environment.get("MLFLOW_TRACKING_TOKEN") == KEY
    for odd in (f"{KEY}\nx", f"{KEY} x"):
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", odd)
        with pytest.raises(ConfigError, match="MLFLOW_TRACKING_TOKEN: character") as caught:
            environment.clean()
        assert KEY not in str(caught.value)


class _Refusing(http.server.BaseHTTPRequestHandler):
    keys: list[str | None]

    def do_GET(self) -> None:
        self.keys.append(self.headers["Authorization"])
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[http.server.ThreadingHTTPServer]:
    _Refusing.keys = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_no_log_of_the_client_has_it(
    refusing: http.server.ThreadingHTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level, of any library."""
    url = f"http://127.0.0.1:{refusing.server_port}"
    with (
        caplog.at_level(logging.NOTSET),
        MetaLayerClient(url, api_key=f"{KEY}\r\n") as client,
        pytest.raises(RequestError) as caught,
    ):
        client.model()
    assert _Refusing.keys == [f"Bearer {KEY}"]
    assert caplog.records
    assert KEY not in f"{caught.value!r} {caplog.text}"
    assert not [record for record in caplog.records if KEY in f"{record.args} {record.msg} {record.exc_info}"]
