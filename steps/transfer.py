"""Files between this machine and the artifact store, whole or not at all."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


def put(source: Path, store: Any, target: str) -> None:
    """Copy a file to the store. Where that fails, what was at `target` before is still there on a remote store.

    Args:
        source: the file.
        store: ZenML's artifact store.
        target: URI of the copy.
    """
    with source.open("rb") as reader:
        writer = store.open(target, "wb")
        try:
            shutil.copyfileobj(reader, writer, _BLOCK_BYTES)
            writer.close()
        except BaseException:
            _give_up(writer, store, target)
            raise


def get(store: Any, source: str, target: Path) -> None:
    """Copy a file of the store to `target`.

    Args:
        store: ZenML's artifact store.
        source: URI of the file.
        target: path of the copy.

    Raises:
        FileNotFoundError: there is none.
    """
    with store.open(source, "rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _BLOCK_BYTES)


def _give_up(writer: Any, store: Any, target: str) -> None:
    """Leave nothing half-written; the first error is the one that is raised."""
    try:
        if hasattr(writer, "discard"):  # of fsspec, whose `close` would make an object of what there is
            writer.closed = True
            writer.discard()
        else:
            writer.close()
            store.remove(target)
    except Exception as error:  # noqa: BLE001  of whatever kind the store's client raises
        logger.warning("what was sent of %s may be left in the store: %s: %s", target, type(error).__name__, error)
