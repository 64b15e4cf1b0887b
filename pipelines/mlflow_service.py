"""Where MLflow is, and how ZenML's experiment tracker is let in.

`$MLFLOW_TRACKING_URI` names a server, with MLflow's own variables for its credentials; without it, a
SQLite file in the state folder. ZenML demands an authentication method of any server: one without
authentication is given a token that it ignores. A real token is lent to ZenML as a secret for the time
of the run; a user name and password stay in the environment, which MLflow prefers to a token.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from metalayer.errors import ConfigError
from metalayer.files import publish_file

_SECRET = "metalayer-mlflow"  # noqa: S105  the name under which ZenML keeps it
_IGNORED_TOKEN = "none"  # noqa: S105


def prepare() -> str:
    """The tracking URI, with our experiment there; a new SQLite file appears whole or not at all.

    Raises:
        ConfigError: a URI that carries credentials, which ZenML would store.
        RegistryError: the service cannot be reached or refuses.
    """
    from metalayer.serving import registry

    uri = registry.default_tracking_uri()
    if is_server(uri) and urlsplit(uri).username:
        raise ConfigError(
            "MLFLOW_TRACKING_URI carries a user name, which would be stored with the stack; give it without, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():
        with publish_file(database) as draft:
            registry.ensure_experiment(tracking_uri=f"sqlite:///{draft}")
    else:
        registry.ensure_experiment(tracking_uri=uri)
    return uri


def is_server(uri: str) -> bool:
    """Whether this is an MLflow server, not a database or folder."""
    return uri.startswith(("http://", "https://"))


@contextlib.contextmanager
def access(uri: str) -> Iterator[dict[str, str | bool | None]]:
    """Settings of ZenML's experiment tracker that let it in, as long as this lasts."""
    from zenml.client import Client

    settings: dict[str, str | bool | None] = {"tracking_token": None, "tracking_insecure_tls": None}
    if not is_server(uri):
        yield settings
        return
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    settings["tracking_insecure_tls"] = insecure or None
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if not token:
        yield settings | {"tracking_token": _IGNORED_TOKEN}
        return
    client = Client()
    if client.list_secrets(name=_SECRET).items:
        client.delete_secret(_SECRET)
    client.create_secret(_SECRET, {"token": token})
    try:
        yield settings | {"tracking_token": f"{{{{{_SECRET}.token}}}}"}
    finally:
        client.delete_secret(_SECRET)
