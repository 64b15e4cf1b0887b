"""The request log of a server: what was asked and answered, as Parquet parts, without the sequences.

Requests are put into a queue of bounded size, which a thread empties; a request that finds it full is
dropped and counted, and none ever waits. A part is written beside its name and renamed, when it has
`PART_ROWS` rows or its first row is `every_s` old, and when the log is closed; then the oldest parts go,
where all of them are more than `max_bytes`. Sequences are logged as their keyed hash, length, GC and N share:
without the key nobody can tell whether a sequence that they know was asked for. The 50 features of a row
follow from its seven scores (`features.py`), so these are logged. A request to `/v1/score_sequence` is one
row, without scores.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.errors import ConfigError
from metalayer.files import publish_file, sweep, taking_turns
from metalayer.schema import CLASSES, ROW_SCORES

PART_ROWS = 100_000
WRITTEN, DROPPED, FAILED = "written", "dropped", "failed"
"""What becomes of a row: in a part; not taken, the queue was full; lost, the part could not be written."""
KEY_FILE = "sequence-hash.key"
_PART = "requests-"
_KEY_BYTES = 32
_HASH_BYTES = 16
_CLOSING_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """A request that was answered.

    Attributes:
        request_id: of the client, or given by the server.
        model: registered name.
        version: of it.
        digest: of it.
        sequences: text (n,).
        index: int64 (n,), labelled base of each sequence; None of a request for every position of one.
        row_scores: float32 (n, 7), columns `ROW_SCORES`; None likewise.
        answers: float32 (n, 3), columns `CLASSES`; None likewise.
        time: of the answer.
    """

    request_id: str
    model: str
    version: str
    digest: str
    sequences: pl.Series
    index: NDArray[np.int64] | None = None
    row_scores: NDArray[np.float32] | None = None
    answers: NDArray[np.float32] | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds in memory."""
        arrays = (self.index, self.row_scores, self.answers)
        return int(self.sequences.estimated_size()) + sum(array.nbytes for array in arrays if array is not None)


class RequestLog:
    """Writes what it is given to a folder, in a thread that the first request starts."""

    def __init__(
        self,
        folder: Path,
        count: Callable[[str, int], None],
        *,
        key: str = "",
        queue_bytes: int = 2**26,
        every_s: float = 60.0,
        max_bytes: int = 2**30,
    ) -> None:
        """Make the folder.

        Args:
            folder: of the parts.
            count: told what became of how many rows: `WRITTEN`, `DROPPED` or `FAILED`.
            key: of the sequence hashes; empty takes that of the folder, made at random for the first log in it and
                kept in `KEY_FILE`, for its owner alone to read.
            queue_bytes: of requests that wait to be written; what comes beyond is dropped.
            every_s: seconds that a row waits for its part at most.
            max_bytes: of all parts in the folder, of whichever process; the newest one stays in any case.

        Raises:
            ConfigError: a folder that cannot be written to.
        """
        self._folder, self._count, self._queue_bytes, self._every_s = folder, count, queue_bytes, every_s
        self._max_bytes = max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigError(f"request log {folder}: not a folder that this process may write to")
            sweep(folder, f"{_PART}*")  # each part has a name of its own: no later one would do it
            self._key = key.encode() or _key_of(folder)
        except OSError as error:
            raise ConfigError(f"request log {folder}: {error.strerror or error}") from None
        self._changed = threading.Condition()
        self._queue: deque[Answered] = deque()
        self._held = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, answered: Answered) -> None:
        """Take a request, or drop it where the queue is full or closed; returns at once."""
        size = answered.nbytes
        with self._changed:
            taken = not self._closed and self._held + size <= self._queue_bytes
            if taken:
                self._queue.append(answered)
                self._held += size
                self._changed.notify()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
                    self._thread.start()
        if not taken:
            self._count(DROPPED, len(answered.sequences))

    def close(self) -> None:
        """Write what is there, within a bound, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)

    def _run(self) -> None:
        part: list[pl.DataFrame] = []
        rows, due = 0, 0.0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._queue or self._closed, max(0.0, due - time.monotonic()) if part else None
                )
                answered = self._queue.popleft() if self._queue else None
                last = self._closed and answered is None
            if answered is not None:
                due = due if part else time.monotonic() + self._every_s
                part.append(_table(answered, self._key))
                rows += len(part[-1])
                with self._changed:
                    self._held -= answered.nbytes
            if part and (last or rows >= PART_ROWS or time.monotonic() >= due):
                self._write(pl.concat(part))
                part, rows = [], 0
            if last:
                return

    def _write(self, table: pl.DataFrame) -> None:
        path = self._folder / f"{_PART}{table['time'][0]:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}.parquet"
        try:
            with publish_file(path) as draft:
                table.write_parquet(draft)
        except (OSError, pl.exceptions.PolarsError) as error:
            logger.error("request log: %d rows are lost: %s", len(table), error)
            self._count(FAILED, len(table))
            return
        self._count(WRITTEN, len(table))
        try:
            self._remove_oldest()
        except OSError as error:
            logger.error("request log: old parts stay: %s", error)

    def _remove_oldest(self) -> None:
        """Keep the newest parts that `max_bytes` have room for."""
        found = []
        for path in self._folder.glob(f"{_PART}*"):
            with contextlib.suppress(FileNotFoundError):  # another worker was first
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
        total = 0
        for place, (_, size, path) in enumerate(sorted(found, reverse=True)):
            total += size
            if place and total > self._max_bytes:
                path.unlink(missing_ok=True)


def _key_of(folder: Path) -> bytes:
    """The key of a folder, made where it has none; workers that start at one moment take turns."""
    path = folder / KEY_FILE
    with taking_turns(path):
        if path.exists():
            key = path.read_bytes()
            if len(key) >= _KEY_BYTES:  # else cut off
                return key
        with publish_file(path) as draft:
            draft.touch(0o600)
            draft.write_bytes(secrets.token_bytes(_KEY_BYTES))
        return path.read_bytes()


def _table(answered: Answered, key: bytes) -> pl.DataFrame:
    """One row a row, in one form whatever the request was."""
    letters = answered.sequences.str.to_uppercase()
    count, length = len(letters), letters.str.len_bytes()
    hashes = [hmac.digest(key, text.encode(), "sha256")[:_HASH_BYTES].hex() for text in letters]

    def columns(names: tuple[str, ...], values: NDArray[np.float32] | None) -> list[pl.Series]:
        given = [None] * len(names) if values is None else list(values.T)
        return [
            pl.Series(name, [None] * count if one is None else one, pl.Float32)
            for name, one in zip(names, given, strict=True)
        ]

    return pl.DataFrame(
        [
            pl.Series("time", [answered.time] * count, pl.Datetime("ms", "UTC")),
            *(
                pl.Series(name, [getattr(answered, name)] * count)
                for name in ("request_id", "model", "version", "digest")
            ),
            pl.Series("sequence_hash", hashes),
            length.alias("sequence_length"),
            (letters.str.count_matches("[GC]") / length).alias("gc_share"),
            (letters.str.count_matches("N") / length).alias("n_share"),
            pl.Series("index", [None] * count if answered.index is None else answered.index, pl.Int64),
            *columns(ROW_SCORES, answered.row_scores),
            *columns(CLASSES, answered.answers),
        ]
    )
