"""Databases that follow their folder when it is moved or copied.

MLflow and ZenML keep in a SQLite file, as absolute paths, where each artifact lies. A folder that was moved would be
read and written at its old place, and a copy would write into the original. The old place is read from the database
itself, so that nothing beside it has to be kept, and what a kill left undone is done at the next start: each database
is rewritten in one transaction, with a backup beside it, while no run uses the folder.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from metalayer.errors import RegistryError
from metalayer.files import only_one, publish_file

MLFLOW_ARTIFACTS = "mlartifacts"
"""The folder of MLflow's files, beside its database."""
RUN_LOCK = "run.lock"
"""Held by the run that uses a state folder, in that folder."""
_BUSY_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Locations:
    """Where a database of another package says where files lie.

    Attributes:
        owner: the package.
        schema: the version of its tables that is known here, as in `alembic_version`.
        columns: table and column of each location.
        found: reads the folders that hold all its files, in the form in which locations begin.
        marked: writes the new folder where `found` reads it, if that is no column of `columns`.
    """

    owner: str
    schema: str
    columns: tuple[tuple[str, str], ...]
    found: Callable[[sqlite3.Connection], list[str]]
    marked: Callable[[sqlite3.Connection, str], None] | None = None


def _mlflow_folders(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    return [
        place for (place,) in rows if place and place.startswith("file:///") and _path(place).name == MLFLOW_ARTIFACTS
    ]


def _mlflow_folders_that_are_gone(connection: sqlite3.Connection) -> list[str]:
    return [place for place in _mlflow_folders(connection) if not _path(place).is_dir()]


_MLFLOW = Locations(
    owner="MLflow",
    schema="dc11669786a5",
    columns=(
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
    ),
    found=_mlflow_folders,
)


def follow_mlflow(database: Path, *, own: bool = True, held: bool = False) -> None:
    """Have an MLflow database name the folder `mlartifacts` beside it, wherever it was when it was made.

    Args:
        database: its SQLite file; nothing happens where there is none.
        own: whether it is a state folder's; the files of another may lie elsewhere, which then is left so.
        held: whether this process holds the state folder (`RUN_LOCK`).

    Raises:
        MetalayerError: as in `follow`.
    """
    folder, locations = database.resolve().parent / MLFLOW_ARTIFACTS, _MLFLOW
    if not own and not folder.is_dir():
        locations = replace(_MLFLOW, found=_mlflow_folders_that_are_gone)
    follow(database, locations, folder, folder.as_uri(), held=held)


def follow(database: Path, locations: Locations, folder: Path, here: str, *, held: bool) -> None:
    """Have a database name the folder beside it.

    Args:
        database: a SQLite file; nothing happens where there is none, or it has no tables yet.
        locations: what it holds.
        folder: where its files lie now; the state folder is its parent.
        here: the same in the form in which its locations begin.
        held: whether this process holds the state folder.

    Raises:
        MetalayerError: a run uses the folder, the files were left behind, or the tables are of a version that is not
            known here; nothing was changed.
    """
    if not database.is_file():
        return
    with _opened(f"{database.as_uri()}?mode=ro") as connection:
        elsewhere = _elsewhere(connection, locations, here)
    if not elsewhere:
        return
    lock = contextlib.nullcontext() if held else only_one(folder.parent / RUN_LOCK, "go on where it was started")
    with lock, _opened(f"{database.as_uri()}?mode=rw") as connection:
        for old in elsewhere:
            _check(connection, database, locations, folder, old)
        try:
            _back_up(connection, database)
            connection.execute("BEGIN IMMEDIATE")
            elsewhere = _elsewhere(connection, locations, here)  # none, where another process was first
            for old in elsewhere:
                _rewrite(connection, locations, old, here)
            connection.execute("COMMIT")
        except (OSError, sqlite3.OperationalError) as error:
            raise RegistryError(
                f"{database}: its folder was moved or copied from {_path(elsewhere[0]).parent}, and the locations in "
                f"it cannot be brought up to date: {error}. Make the folder writable, or use it where it was"
            ) from None
    for old in elsewhere:
        logger.info(
            "the state folder was moved or copied from %s: %s's records now name %s",
            *(_path(old).parent, locations.owner, folder.parent),
        )


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _elsewhere(connection: sqlite3.Connection, locations: Locations, here: str) -> list[str]:
    """Folders that the database names and that are not this one; none where it is no database, which its owner says."""
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"alembic_version", *(table for table, _ in locations.columns)} <= tables:
            return []
        return [place for place in locations.found(connection) if place != here]
    except sqlite3.DatabaseError:
        return []


def _check(connection: sqlite3.Connection, database: Path, locations: Locations, folder: Path, old: str) -> None:
    """See that the locations can be rewritten.

    Raises:
        MetalayerError: they cannot.
    """
    came_from = _path(old)
    if came_from.is_dir() and not folder.is_dir():
        raise RegistryError(
            f"{database} was moved or copied without the files that it names, in {came_from}: move or copy the whole "
            f"state folder {came_from.parent}"
        )
    (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
    if schema != locations.schema:
        raise RegistryError(
            f"{database}: its folder was moved or copied from {came_from.parent}, and its tables are of another "
            f"version of {locations.owner} than this installation knows ({schema}, known is {locations.schema}), so "
            "that the locations in it cannot be brought up to date. Put the folder back where it was, run once there "
            "with this installation, and then move or copy it"
        )


def _back_up(connection: sqlite3.Connection, database: Path) -> None:
    kept = database.with_name(f"{database.name}.before-move")
    with publish_file(kept) as draft, contextlib.closing(sqlite3.connect(draft)) as copy:
        connection.backup(copy)


def _rewrite(connection: sqlite3.Connection, locations: Locations, old: str, here: str) -> None:
    for table, column in locations.columns:
        connection.execute(
            f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '  # noqa: S608  names of this file
            f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?',
            (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
        )
    if locations.marked:
        locations.marked(connection, here)
