"""Checkpoints of training and of a search, kept in the artifact store: they outlive the pod or process that wrote them.

`checkpoints/<key>/` of the store, where the key stands for all that shapes the result, as the cache key of the step
does. A second attempt, or the same run again, goes on from the last whole epoch or trial. A run removes them when it
needs them no more: after a search, and after the last step that a training leads to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metalayer.settings.run import RunConfig
from steps import transfer

_POLL_S = 1.0

logger = logging.getLogger(__name__)


def key(config: RunConfig, data_hash: str, code_hash: str, *, searched: bool = False) -> str:
    """SHA-256 over data, code and the settings that shape the model, or the search, in hex."""
    sections = {"data", "split", "model", "train", *(["search"] if searched else [])}
    settings = config.model_dump(mode="json", include=sections)
    return hashlib.sha256(json.dumps([settings, data_hash, code_hash], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def kept(store: Any, run_key: str, folder: Path, name: str | None = None) -> Iterator[Path]:
    """A folder for the checkpoints of a run, with the last one in it, if there is one.

    On a local store it is the store's own. Else it is `folder`, and the last checkpoint is copied to the store
    whenever there is a new one, beside the training: a copy is there whole or not at all.

    Args:
        store: ZenML's artifact store.
        run_key: as in `key`.
        folder: to make, for a remote store.
        name: of the last checkpoint, a file that is only ever replaced; None: that of a training.
    """
    from metalayer.training.checkpoint import LAST

    place = _place(store, run_key)
    if "://" not in place:
        yield Path(place)
        return
    folder.mkdir()
    last = name or LAST
    source, target = folder / last, os.path.join(place, last)  # noqa: PTH118  a URI on remote stores
    if store.exists(target):
        transfer.get(store, target, source)
    over = threading.Event()
    copier = threading.Thread(target=_copy_new, args=(source, _version(source), store, target, over), daemon=True)
    copier.start()
    try:
        yield folder
    finally:
        over.set()
        copier.join()


def drop(store: Any, run_key: str) -> None:
    """Remove the checkpoints of a run that has come to its end; a store that fails is logged, for that is no loss."""
    place = _place(store, run_key)
    try:
        if store.exists(place):
            store.rmtree(place)
    except Exception as error:  # noqa: BLE001  of whatever kind the store's client raises
        logger.warning("%s is left in the store: %s: %s", place, type(error).__name__, error)


def _copy_new(source: Path, copied: tuple[int, int] | None, store: Any, target: str, over: threading.Event) -> None:
    """Copy the file as often as it is replaced, until told that it is over; a store that fails stops no training."""
    last_time = False
    while not last_time:
        last_time = over.wait(_POLL_S)
        found = _version(source)
        if found == copied:
            continue
        try:
            transfer.put(source, store, target)
        except Exception as error:  # noqa: BLE001  of whatever kind the store's client raises
            logger.warning("the checkpoint is not in the store: %s: %s", type(error).__name__, error)
        else:
            copied = found


def _version(file: Path) -> tuple[int, int] | None:
    """Of a file that is only ever replaced; None where there is none."""
    if not file.exists():
        return None
    state = file.stat()
    return state.st_ino, state.st_mtime_ns


def _place(store: Any, run_key: str) -> str:
    return os.path.join(store.path, "checkpoints", run_key)  # noqa: PTH118  a URI on remote stores
