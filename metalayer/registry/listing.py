"""Which versions a registry holds, read past MLflow, whose import alone takes longer than all the rest of a command.

A SQLite file is read with its own tables, a server by MLflow's REST calls. Nothing is decided here: whatever is not as
expected (another layout, a way to log in that is MLflow's own, a server that does not answer) is left to MLflow, which
does it or says what is wrong.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalayer import network

_KNOWN_LOGINS = ("URI", "TOKEN", "USERNAME", "PASSWORD")
_LOGIN = "MLFLOW_TRACKING_"
_CREDENTIALS_FILE = Path(".mlflow/credentials")
_TIMEOUT_S = (5, 30)
_DELETED = "Deleted_Internal"
_API = "/api/2.0/mlflow"


@dataclass
class Listed:
    """A version as MLflow keeps it; the names are those of MLflow's own type."""

    name: str
    version: str
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def read(uri: str, prefix: str) -> list[Listed] | None:
    """All versions of registered names that begin with `prefix`; None where MLflow is to be asked.

    Args:
        uri: of the registry, a SQLite file that exists or a server.
        prefix: of the names.
    """
    if uri.startswith("sqlite:///"):
        with contextlib.suppress(sqlite3.Error):
            return _of_file(Path(uri.removeprefix("sqlite:///").partition("?")[0]), prefix)
    elif uri.startswith("http") and not _logs_in_otherwise():
        with contextlib.suppress(ImportError, OSError, LookupError, TypeError, ValueError):
            return _of_server(uri.rstrip("/"), prefix)
    return None


def _of_file(database: Path, prefix: str) -> list[Listed]:
    ours = "FROM {} WHERE workspace = 'default' AND substr(name, 1, ?) = ?"
    given = (len(prefix), prefix)
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")  # all of one moment
        rows = connection.execute(
            f"SELECT name, version, run_id {ours.format('model_versions')} AND current_stage IS NOT ?",
            (*given, _DELETED),
        )
        found = {(name, version): Listed(name, str(version), run_id) for name, version, run_id in rows}
        for table, part in (("model_version_tags", "key, value"), ("registered_model_aliases", "alias, NULL")):
            query = f"SELECT name, version, {part} {ours.format(table)}"
            for name, version, key, value in connection.execute(query, given):
                if one := found.get((name, version)):
                    if table == "model_version_tags":
                        one.tags[key] = value
                    else:
                        one.aliases.append(key)
    return list(found.values())


def _logs_in_otherwise() -> bool:
    """Whether MLflow would do more than send a token, or a name and a password."""
    named = [name.removeprefix(_LOGIN) for name in os.environ if name.startswith(_LOGIN)]
    return any(name not in _KNOWN_LOGINS for name in named) or (Path.home() / _CREDENTIALS_FILE).exists()


def _of_server(address: str, prefix: str) -> list[Listed]:
    """As `read`.

    Raises:
        ImportError: requests is not installed.
        OSError: the server does not answer, or refuses.
        LookupError, TypeError, ValueError: it answers something else.
    """
    import requests

    with requests.Session() as session:
        token, name = os.environ.get(f"{_LOGIN}TOKEN"), os.environ.get(f"{_LOGIN}USERNAME")
        if name:
            session.auth = (name, os.environ.get(f"{_LOGIN}PASSWORD", ""))
        elif token:
            session.headers["Authorization"] = f"Bearer {token}"
        network.check_way(address, network.REQUESTS)
        where = {"filter": f"name LIKE '{prefix}%'"}
        aliases: dict[tuple[str, str], list[str]] = {}
        for model in _pages(session, f"{address}{_API}/registered-models/search", "registered_models", where):
            for one in model.get("aliases", ()):
                aliases.setdefault((model["name"], str(one["version"])), []).append(one["alias"])
        in_order = {**where, "order_by": ["name ASC", "version_number ASC"]}
        return [
            Listed(
                one["name"],
                str(int(one["version"])),
                one.get("run_id") or None,
                {tag["key"]: tag["value"] for tag in one.get("tags", ())},
                aliases.get((one["name"], str(one["version"])), []),
            )
            for one in _pages(session, f"{address}{_API}/model-versions/search", "model_versions", in_order)
        ]


def _pages(session: Any, url: str, part: str, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    token = None
    while True:
        answer = session.get(url, params={**given, **({"page_token": token} if token else {})}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        page = answer.json()
        yield from page.get(part, ())
        token = page.get("next_page_token")
        if not token:
            return
