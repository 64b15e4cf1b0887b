"""Following the registry: when the alias `champion` moves, the server answers with that version.

Nothing is answered before the first look, so that a worker that was restarted does not go back to the version it was
packaged with; where the registry is away, it begins with what was followed last (`kept.py`). Then a thread looks at
the alias. A new version is loaded beside the one that answers, checked on its golden rows, and takes over in
one step; requests in hand end with the version they began with. The one before stays loaded, so that going back
costs nothing. A version that fails its check, or cannot be loaded, is counted in `metalayer_swaps_total` by
outcome, and tried again after pauses that double, up to `LONGEST_PAUSE_S`, or at once where the alias has moved on
and come back. What the last look found is in the log when it changes, in `metalayer_registry` and in `GET /v1/model`.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from metalayer.environment import without_password
from metalayer.errors import MetalayerError, ModelError, RegistryError
from metalayer.release.engine import Engine
from metalayer.release.folder import read_facts
from metalayer.serving.kept import Followed, Kept
from metalayer.serving.metrics import FOLLOWED, SWAPS
from metalayer.serving.state import Serving

if TYPE_CHECKING:
    from metalayer.registry.versions import ModelVersion

FIRST_LOOK_S, FIRST_LOAD_S = 15.0, 120.0
"""How long a worker that starts waits for the registry to name the champion; and then for that to be loaded."""
LONGEST_PAUSE_S = 900.0
FOLLOWING, UNREACHABLE, NO_CHAMPION, GONE, REFUSED = "following", "unreachable", "no champion", "gone", "refused"
STATES = (FOLLOWING, UNREACHABLE, NO_CHAMPION, GONE, REFUSED)

logger = logging.getLogger(__name__)


class Follower:
    """Keeps a server on the champion of the model that it serves."""

    def __init__(self, serving: Serving, registry_uri: str, packaged: Path, kept: Kept) -> None:
        """Nothing is asked before `look`.

        Args:
            serving: what answers; its engine may not be there yet.
            registry_uri: of the MLflow service.
            packaged: the release that came with the server, whose name is followed.
            kept: where what was followed is kept.

        Raises:
            ModelError: a damaged release.
        """
        self._serving, self._uri, self._packaged, self._kept = serving, registry_uri, packaged, kept
        self._name = str(read_facts(packaged)["name"])
        self._tried: tuple[str, str] | None = None
        self._pause_s = self._again_at = 0.0
        self._asked, self._looked = threading.Event(), threading.Event()
        self._beginning = threading.Lock()
        self._keeps, self._said_so = True, False

    def start(self) -> threading.Thread:
        """Look, and then now and then in a thread until the server drains; returns after the first look.

        Where the registry does not even say which version is champion, the server begins with what is kept; where
        that is known and the version is long in coming, it answers nothing until it is there.
        """
        thread = threading.Thread(target=self._run, name="follow-champion", daemon=True)
        thread.start()
        if self._asked.wait(FIRST_LOOK_S):
            self._looked.wait(FIRST_LOAD_S)
        elif self._kept.current() is not None:
            self._begin()
            self._say(UNREACHABLE, "the registry does not answer; what was followed last goes on")
        return thread

    def _run(self) -> None:
        while not self._serving.draining:
            try:
                self.look()
            except Exception:  # noqa: BLE001  the thread goes on, whatever a registry or a model comes up with
                SWAPS.labels("failed").inc()
                text = f"following {self._uri} failed; the model that answers goes on\n{traceback.format_exc()}"
                logger.error("%s", without_password(text))
            self._looked.set()
            time.sleep(self._serving.settings.follow_every_s)

    def look(self) -> None:
        """Look once, and swap if the alias has moved."""
        from metalayer.registry import versions

        seen_at, now = time.time(), self._serving.engine
        wanted = ("", "")
        try:
            try:
                champion = versions.find_champion(self._name, self._uri)
            except MetalayerError as error:  # also of the way there, like a proxy
                raise RegistryError(str(error)) from None
            finally:
                self._asked.set()
            if champion is None:
                self._without_champion()
                return
            wanted = (str(champion.version), champion.digest)
            if now is None or wanted != (now.version, now.digest):
                engine = self._engine(champion, wanted)
                if engine is None:
                    return
                self._note(champion, wanted, seen_at)
                with self._beginning:
                    self._serving.swap(engine)
                if now is not None:
                    SWAPS.labels("done").inc()
                    logger.info("version %s answers from now on, after %s", engine.version, now.version)
            else:
                self._note(champion, wanted, seen_at)
        except RegistryError as error:
            SWAPS.labels("unreachable").inc()
            self._begin()
            self._say(UNREACHABLE, "the registry does not answer; what was followed last goes on", str(error))
            return
        except MetalayerError as error:  # of the model, or a package that it needs and that is not here
            SWAPS.labels("refused").inc()
            self._begin(packaged=True)
            self._say(REFUSED, f"version {wanted[0]} is the champion and is refused; the log has the cause", str(error))
            return
        self._say(FOLLOWING, f"version {wanted[0]} is the champion")

    def _engine(self, champion: ModelVersion, wanted: tuple[str, str]) -> Engine | None:
        """The engine of a version, None while the pause after a failure lasts.

        Should it fail, the pause after each attempt is twice the one before.
        """
        before = self._serving.previous
        if before is not None and wanted == (before.version, before.digest):
            return before
        if wanted == self._tried and time.monotonic() < self._again_at:
            return None
        self._pause_s = 2 * self._pause_s if wanted == self._tried else self._serving.settings.follow_every_s
        self._tried = wanted
        try:
            return self._loaded(champion, wanted)
        finally:
            self._pause_s = min(self._pause_s, LONGEST_PAUSE_S)
            self._again_at = time.monotonic() + self._pause_s

    def _loaded(self, champion: ModelVersion, wanted: tuple[str, str]) -> Engine:
        self._keeps = True
        try:
            with contextlib.ExitStack() as stack:
                return Engine(self._taken_in(champion, wanted, stack), self._serving.settings.device, registered=True)
        except ModelError:
            self._kept.discard(*wanted)
            raise

    def _taken_in(self, champion: ModelVersion, wanted: tuple[str, str], stack: contextlib.ExitStack) -> Path:
        """Where a version is kept, from now on if not before; in a scratch folder where nothing can be kept."""
        from metalayer.registry import download

        fetched: list[Path] = []

        def fetch() -> Path:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            came_with_it = is_release_of(self._packaged, *wanted)
            fetched.append(self._packaged if came_with_it else download.fetch_release(champion, self._uri, scratch))
            return fetched[0]

        try:
            return stack.enter_context(self._kept.taken_in(*wanted, fetch=fetch))
        except OSError as error:
            self._cannot_keep(error)
            return fetched[0] if fetched else fetch()

    def _note(self, champion: ModelVersion, wanted: tuple[str, str], seen_at: float) -> None:
        """Keep the champion, and that it was this one when somebody last looked."""
        if not self._keeps:
            return
        if self._kept.release(*wanted) is None:
            with contextlib.ExitStack() as stack:
                self._taken_in(champion, wanted, stack)
        if self._keeps:
            try:
                self._kept.set_current(*wanted, seen_at)
            except OSError as error:
                self._cannot_keep(error)

    def _cannot_keep(self, error: OSError) -> None:
        self._keeps = False
        if not self._said_so:
            self._said_so = True
            logger.warning(
                "%s cannot be written (%s): what is followed is not kept, and a worker that is restarted while the "
                "registry is away answers nothing until it is back",
                *(self._kept.folder, error.strerror or error),
            )

    def _without_champion(self) -> None:
        """No champion: what answers goes on; a server that has just started begins with what was followed last."""
        from metalayer.registry import versions

        self._begin(packaged=True)
        now = self._serving.engine
        if now is None:
            return
        if versions.find_version(now.name, now.version, self._uri) is None:
            state, why = GONE, f"version {now.version} is no longer in the registry, which names no champion"
        else:
            state, why = NO_CHAMPION, f"the registry names no champion; version {now.version} is still in it"
        if self._serving.registry["state"] != state:
            SWAPS.labels(state).inc()
        self._say(state, f"{why}. Version {now.version} goes on")

    def _begin(self, *, packaged: bool = False) -> None:
        """Where nothing answers yet: begin with what was followed last.

        Args:
            packaged: with what came with the server, where nothing was followed yet.
        """
        if self._serving.engine is not None:
            return
        current = self._kept.current()
        if current is None and not packaged:
            return
        try:
            with self._kept.loading():
                if current is None:
                    engine = Engine(self._packaged, self._serving.settings.device)
                else:
                    engine = Engine(self._kept_release(current), self._serving.settings.device)
        except MetalayerError as error:
            logger.error("%s; nothing is answered before the registry names a champion that can be served", error)
            return
        with self._beginning:
            if self._serving.engine is None:
                self._serving.engine = engine
        if current is not None:
            when = datetime.fromtimestamp(current.seen_at, UTC).isoformat(timespec="seconds")
            logger.warning("beginning with version %s, which was champion at %s", current.version, when)

    def _kept_release(self, current: Followed) -> Path:
        found = self._kept.release(current.version, current.digest)
        if found is None and is_release_of(self._packaged, current.version, current.digest):
            return self._packaged
        if found is None:
            raise ModelError(
                f"version {current.version} was followed last, and {self._kept.folder} no longer holds it; remove that "
                "folder to begin with the version that the server was packaged with"
            )
        return found

    def _say(self, state: str, why: str, detail: str = "") -> None:
        """Let the log (when it changes), the metric and `GET /v1/model` have what a look found.

        Args:
            state: of `STATES`.
            why: in words.
            detail: for the log only.
        """
        before = self._serving.registry
        changed = state != before["state"] or (why != before["says"] and state != UNREACHABLE)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._serving.registry = {
            "state": state,
            "since": at if state != before["state"] else before["since"],
            "last_answer": before["last_answer"] if state == UNREACHABLE else at,
            "says": why,
        }
        for one in STATES:
            FOLLOWED.labels(one).set(one == state)
        if changed:
            level = logging.INFO if state == FOLLOWING else logging.WARNING
            logger.log(level, "registry %s: %s%s", state, why, f": {detail}" if detail else "")


def is_release_of(directory: Path, version: str, digest: str) -> bool:
    """Whether a release is of this version and digest."""
    facts = read_facts(directory)
    return (str(facts["version"]), facts["digest"]) == (version, digest)
