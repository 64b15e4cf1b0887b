"""How far a pass over genes is, in the log."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0


class Progress:
    """Says every few seconds how far the pass is."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.genes = total, 0, 0
        self.began = self.logged = time.monotonic()

    def add(self, positions: int) -> None:
        """One more gene."""
        self.done += positions
        self.genes += 1
        now = time.monotonic()
        if now - self.logged >= _LOG_EVERY_S or self.done == self.total:
            self.logged = now
            rate = self.done / max(now - self.began, 1e-9)
            logger.info(
                "%d genes, %s of %s nt, %s nt/s", self.genes, f"{self.done:,}", f"{self.total:,}", f"{rate:,.0f}"
            )


class Reading:
    """Says every few seconds how far the reading of a file is, and how long it will take."""

    def __init__(self, what: str) -> None:
        self.what, self.done = what, 0
        self.began = self.logged = time.monotonic()
        self._from: float | None = None

    def add(self, positions: int, share: float) -> None:
        """So many more scores, and what share of the file is read."""
        self.done += positions
        now = time.monotonic()
        if self._from is None:  # what an earlier run has read took no time
            self._from = share
        if now - self.logged >= _LOG_EVERY_S:
            self.logged = now
            left = (now - self.began) * (1 - share) / max(share - self._from, 1e-9)
            rate = self.done / max(now - self.began, 1e-9)
            logger.info(
                "%s: %.0f %% read, %s scores, %s/s, about %s left",
                *(self.what, 100 * share, f"{self.done:,}", f"{rate:,.0f}", _duration(left)),
            )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Records:
    """Says every few seconds how far a list of variants is, and how long the rest will take."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.scored = total, 0, 0
        self.began = self.logged = time.monotonic()

    def add(self, records: int, scored: int) -> None:
        """So many more records, and how many of them took a forward pass."""
        self.done += records
        self.scored += scored
        now = time.monotonic()
        if now - self.logged >= _LOG_EVERY_S:
            self.logged = now
            rate = self.done / max(now - self.began, 1e-9)
            logger.info(
                "%s of %s records, %s/s, %s scored, about %s left",
                *(f"{self.done:,}", f"{self.total:,}", f"{rate:,.1f}", f"{self.scored:,}"),
                _duration((self.total - self.done) / rate),
            )
