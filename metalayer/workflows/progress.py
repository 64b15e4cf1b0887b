"""How far a pass over genes is, in the log."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 10.0


class Progress:
    """Says every few seconds how far the pass is."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.genes = total, 0, 0
        self.began = self.told = time.monotonic()

    def add(self, positions: int) -> None:
        """One more gene."""
        self.done += positions
        self.genes += 1
        now = time.monotonic()
        if now - self.told >= _TELL_EVERY_S or self.done == self.total:
            self.told = now
            rate = self.done / max(now - self.began, 1e-9)
            logger.info(
                "%d genes, %s of %s nt, %s nt/s", self.genes, f"{self.done:,}", f"{self.total:,}", f"{rate:,.0f}"
            )
