"""A state folder that was moved or copied: ZenML's records follow it, as MLflow's do (`metalayer/moved.py`).

ZenML keeps the place of its own database in a file beside it, and in the database the place of each artifact. Settings
of finished runs stay as they were: they say what was run.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path

from metalayer import moved, yaml12
from metalayer.files import publish_file

_STORE = "local"
"""The artifact store of `stacks/local.yaml`."""


def follow(state: Path, *, held: bool) -> None:
    """Have all that the state folder holds name this folder.

    Args:
        state: the folder.
        held: whether this process holds it (`run.lock`).

    Raises:
        MetalayerError: it cannot be done, and what to do instead.
    """
    moved.follow_mlflow(state / "mlflow.db", held=held)
    database = state / "zenml" / "stores" / "default_zen_store" / "zenml.db"
    settings = state / "zenml" / "config.yaml"
    artifacts = state / "artifacts"
    moved.follow(database, _ZENML, artifacts, str(artifacts), held=held)
    if settings.is_file():
        _follow_settings(settings, f"sqlite:///{database}")


def _follow_settings(settings: Path, url: str) -> None:
    """Leave no other database in ZenML's settings; it makes them again from its defaults.

    The user's id stays: the database carries it too, and is taken for a remote server's where they differ.
    """
    try:
        found = yaml12.read(settings)
        if found["store"]["url"] == url:
            return
        del found["store"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # ZenML says what is wrong with it
    with publish_file(settings) as draft:
        draft.write_text(yaml12.dump(found), encoding="utf-8")


def _folders(connection: sqlite3.Connection) -> list[str]:
    path = _configuration(connection).get("path")
    return [path] if isinstance(path, str) else []


def _mark(connection: sqlite3.Connection, here: str) -> None:
    changed = json.dumps({**_configuration(connection), "path": here})
    connection.execute(
        "UPDATE stack_component SET configuration = ? WHERE type = 'artifact_store' AND name = ?",
        (base64.b64encode(changed.encode()), _STORE),
    )


def _configuration(connection: sqlite3.Connection) -> dict[str, object]:
    found = connection.execute(
        "SELECT configuration FROM stack_component WHERE type = 'artifact_store' AND name = ?", (_STORE,)
    ).fetchone()
    given: dict[str, object] = json.loads(base64.b64decode(found[0])) if found else {}
    return given


_ZENML = moved.Locations(
    owner="ZenML",
    schema="0.98.0",
    columns=(("artifact_version", "uri"), ("artifact_visualization", "uri"), ("logs", "uri")),
    found=_folders,
    marked=_mark,
)
