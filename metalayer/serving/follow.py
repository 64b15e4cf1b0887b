"""Following the registry: when the alias `champion` moves, the server answers with that version.

A thread looks at the alias. A new version is loaded beside the one that answers, checked on its golden
rows, and takes over in one step; requests in hand end with the version they began with. The one before
stays loaded, so that going back costs nothing. A version that fails its check, or cannot be loaded, is
counted in `metalayer_swaps_total` by outcome, and tried again after pauses that double, up to
`LONGEST_PAUSE_S`, or at once where the alias has moved on and come back.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from metalayer.errors import MetalayerError, RegistryError
from metalayer.serving.app import Serving
from metalayer.serving.engine import Engine
from metalayer.serving.metrics import SWAPS

if TYPE_CHECKING:
    from metalayer.serving.registry import ModelVersion

LONGEST_PAUSE_S = 900.0

logger = logging.getLogger(__name__)


class Follower:
    """Keeps a server on the champion of the model that it serves."""

    def __init__(self, serving: Serving, registry_uri: str) -> None:
        """Nothing is asked before `look`.

        Args:
            serving: its engine is set.
            registry_uri: of the MLflow service.
        """
        self._serving, self._uri = serving, registry_uri
        self._tried: tuple[str, str] | None = None
        self._pause_s = self._again_at = 0.0

    def start(self) -> threading.Thread:
        """Look now and then, in a thread, until the server drains."""
        thread = threading.Thread(target=self._run, name="follow-champion", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while not self._serving.draining:
            time.sleep(self._serving.settings.follow_every_s)
            try:
                self.look()
            except Exception:  # the thread goes on, whatever a registry or a model comes up with
                SWAPS.labels("failed").inc()
                logger.exception("following %s failed; the model that answers goes on", self._uri)

    def look(self) -> None:
        """Look once, and swap if the alias has moved."""
        from metalayer.serving import registry

        now, before = self._serving.engine, self._serving.previous
        if now is None:
            return
        try:
            champion = registry.find_champion(now.name, self._uri)
            if champion is None:
                return
            wanted = (str(champion.version), champion.digest)
            if wanted == (now.version, now.digest):
                return
            if before is not None and wanted == (before.version, before.digest):
                engine = before
            elif wanted == self._tried and time.monotonic() < self._again_at:
                return
            else:
                engine = self._load(champion, wanted)
        except RegistryError as error:
            SWAPS.labels("unreachable").inc()
            logger.warning("%s; version %s goes on", error, now.version)
            return
        except MetalayerError as error:  # of the model, or a package that it needs and that is not here
            SWAPS.labels("refused").inc()
            logger.error("version %s is refused, %s goes on: %s", wanted[0], now.version, error)
            return
        self._serving.swap(engine)
        SWAPS.labels("done").inc()
        logger.info("version %s answers from now on, after %s", engine.version, now.version)

    def _load(self, champion: ModelVersion, wanted: tuple[str, str]) -> Engine:
        """The engine of a version; should it fail, the pause after each attempt is twice the one before."""
        from metalayer.serving import registry

        self._pause_s = 2 * self._pause_s if wanted == self._tried else self._serving.settings.follow_every_s
        self._tried = wanted
        try:
            with tempfile.TemporaryDirectory() as scratch:
                directory = registry.fetch_release(champion, self._uri, Path(scratch))
                return Engine(directory, self._serving.settings.device, registered=True)
        finally:
            self._pause_s = min(self._pause_s, LONGEST_PAUSE_S)
            self._again_at = time.monotonic() + self._pause_s
