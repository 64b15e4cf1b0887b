"""Databases of MLflow as its own migrations leave them, made once a test process and then copied.

The migrations of an empty SQLite file take two seconds of CPU, and every test that has a state of its own begins with
one. The first such file goes through them; the next ones get a copy of what they left.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any


def copy_migrated(kept: Path) -> None:
    """From now on, where this process has imported MLflow; `kept` is, or will be, a database to begin with."""
    utils = sys.modules.get("mlflow.store.db.utils")
    if utils is None or hasattr(utils._upgrade_db, "migrate"):
        return
    migrate = utils._upgrade_db

    def migrated(engine: Any) -> None:
        if engine.url.get_backend_name() != "sqlite" or _is_migrated(engine.url.database):
            migrate(engine)
        elif kept.exists():
            _copy(kept, engine.url.database)
        else:
            migrate(engine)
            draft = kept.with_suffix(f".{os.getpid()}")
            _copy(engine.url.database, draft)
            draft.rename(kept)

    migrated.migrate = migrate  # type: ignore[attr-defined]
    utils._upgrade_db = migrated


def _is_migrated(file: str) -> bool:
    with sqlite3.connect(file) as database:
        return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall())


def _copy(source: Path | str, target: Path | str) -> None:
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()
