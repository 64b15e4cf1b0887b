"""Where MLflow is, and how ZenML's experiment tracker is let in.

`$MLFLOW_TRACKING_URI` names a server, with MLflow's own variables for its credentials; without it, a
SQLite file in the state folder. ZenML demands an authentication method of any server: one without
authentication is given a token that it ignores. On this machine a real token is lent to ZenML as a secret
for the time of the run; a user name and password stay in the environment, which MLflow prefers to a token.
On another stack the credentials stay with ZenML's server, which sets them in the environment of each step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from metalayer import environment
from metalayer.errors import ConfigError
from metalayer.files import publish_file
from pipelines import stacks

SECRET = "metalayer-mlflow"  # noqa: S105  the name under which ZenML keeps the credentials
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105
_SETTINGS = {
    "MLFLOW_TRACKING_USERNAME": "tracking_username",
    "MLFLOW_TRACKING_PASSWORD": "tracking_password",
    _TOKEN: "tracking_token",
}
"""Settings of ZenML's experiment tracker, by the variable that each stands for."""
_IGNORED_TOKEN = "none"  # noqa: S105


def prepare() -> str:
    """The tracking URI, with our experiment there; a new SQLite file appears whole or not at all.

    Raises:
        ConfigError: a URI that carries credentials, which ZenML would store.
        RegistryError: the service cannot be reached or refuses.
    """
    from metalayer.registry import tracking

    uri = tracking.default_tracking_uri()
    if is_server(uri) and "@" in urlsplit(uri).netloc:
        raise ConfigError(
            "MLFLOW_TRACKING_URI carries a user or password, which would be stored with the stack; give it without "
            "and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():
        with publish_file(database) as draft:
            tracking.ensure_experiment(tracking_uri=f"sqlite:///{draft}")
    else:
        tracking.ensure_experiment(tracking_uri=uri)
    return uri


def is_server(uri: str) -> bool:
    """Whether this is an MLflow server, not a database or folder."""
    return uri.startswith(("http://", "https://"))


def credentials() -> dict[str, str]:
    """MLflow's own variables for credentials, as they are set."""
    return {name: value for name in _SETTINGS if (value := environment.get(name))}


@contextlib.contextmanager
def access(uri: str, *, local: bool) -> Iterator[dict[str, str | bool | None]]:
    """Settings of ZenML's experiment tracker that let it in, as long as this lasts.

    Args:
        uri: of MLflow.
        local: the steps run here, in a state folder that no other run uses; else runs at the same time share `SECRET`.
    """
    from zenml.client import Client

    settings: dict[str, str | bool | None] = dict.fromkeys((*_SETTINGS.values(), "tracking_insecure_tls"))
    if not is_server(uri):
        yield settings
        return
    insecure = (environment.get("MLFLOW_TRACKING_INSECURE_TLS") or "").lower() == "true"
    settings["tracking_insecure_tls"] = insecure or None
    given = credentials()
    if local:
        given = {name: value for name, value in given.items() if name == _TOKEN}
    if given:
        stacks.keep_secret(SECRET, given)
        settings |= {_SETTINGS[name]: f"{{{{{SECRET}.{name}}}}}" for name in given}
    else:
        settings["tracking_token"] = _IGNORED_TOKEN
    try:
        yield settings
    finally:
        if given and local:
            Client().delete_secret(SECRET)
