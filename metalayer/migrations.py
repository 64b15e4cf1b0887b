"""Whether a database of the state folder was changed by a later version of the program that keeps it.

ZenML and MLflow change their databases to what they need, and know none of a later version's changes: they end with
the number of a revision, and change the database no way back.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import sqlite3
from importlib import metadata
from pathlib import Path

from metalayer.errors import InputError

_CHANGES = {"ZenML": "zen_stores/migrations/versions", "MLflow": "store/db_migrations/versions"}
"""Where each keeps its changes, one a file, below its package."""
_REVISION = re.compile(r"^revision(?:\s*:\s*str)?\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


def check_version(database: Path, program: str) -> None:
    """See that the program that is installed knows the version of a SQLite database; one that is not there is fine.

    Args:
        database: SQLite file.
        program: `ZenML` or `MLflow`.

    Raises:
        InputError: a later version of the program has changed it.
    """
    if not database.is_file():
        return
    found: list[tuple[str]] = []
    with (
        contextlib.suppress(sqlite3.Error),  # no database, or one without versions: the program's own message says so
        contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    known = _revisions(program)
    if known and (later := [revision for (revision,) in found if revision not in known]):
        raise InputError(
            f"{database}: a later version of {program} has changed it (revision {', '.join(later)}); here is {program} "
            f"{metadata.version(program.lower())}. Install that version, or set METALAYER_HOME to a new folder"
        )


@functools.cache
def _revisions(program: str) -> frozenset[str]:
    """What the installed program knows; none where it is not installed with its databases."""
    package = importlib.util.find_spec(program.lower())
    folders = [Path(root) / _CHANGES[program] for root in (package and package.submodule_search_locations) or ()]
    files = [file for folder in folders for file in folder.glob("*.py")]
    return frozenset(found for file in files for found in _REVISION.findall(file.read_text(encoding="utf-8")))
