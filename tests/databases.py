"""Databases of MLflow and ZenML as their own migrations leave them, made once a test process and then copied.

The migrations of an empty SQLite file, and ZenML's list of all that its integrations offer, take two seconds of CPU
each, and every test that has a state of its own begins with one of either. The first such file goes through them; the
next ones get a copy of what they left.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any


def copy_migrated(folder: Path) -> None:
    """From now on, where this process has imported MLflow or ZenML; `folder` keeps databases to begin with."""
    _copy_of_mlflow(folder / "mlflow.db")
    _copy_of_zenml(folder / "zenml.db")


def _copy_of_mlflow(kept: Path) -> None:
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
            _keep(engine.url.database, kept)

    migrated.migrate = migrate  # type: ignore[attr-defined]
    utils._upgrade_db = migrated


def _copy_of_zenml(kept: Path) -> None:
    module = sys.modules.get("zenml.zen_stores.sql_zen_store")
    if module is None or hasattr(module.SqlZenStore.migrate_database, "migrate"):
        return
    migrate = module.SqlZenStore.migrate_database

    def migrated(store: Any) -> None:
        file = store.engine.url.database
        if store.engine.url.get_backend_name() != "sqlite" or _is_migrated(file):
            migrate(store)
        elif kept.exists():
            _copy(kept, file)
            _make_own(file)
        else:
            migrate(store)
            _keep(file, kept)

    migrated.migrate = migrate  # type: ignore[attr-defined]
    module.SqlZenStore.migrate_database = migrated


def _make_own(file: str) -> None:
    """As ZenML leaves a new database: it is that of this configuration, and not of a server somewhere else."""
    user = sys.modules["zenml.config.global_config"].GlobalConfiguration().user_id
    with sqlite3.connect(file) as database:
        changed = database.execute("UPDATE server_settings SET id = ?", [user.hex]).rowcount
    database.close()
    assert changed == 1


def _is_migrated(file: str) -> bool:
    with sqlite3.connect(file) as database:
        return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall())


def _keep(file: str, kept: Path) -> None:
    draft = kept.with_suffix(f".{os.getpid()}")
    _copy(file, draft)
    draft.rename(kept)


def _copy(source: Path | str, target: Path | str) -> None:
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()
