"""What a worker of the server has: the engine that answers now, settings, keys, and room for requests."""

from __future__ import annotations

from metalayer.release.engine import Engine
from metalayer.serving import pages
from metalayer.serving.admission import Room, client_name
from metalayer.serving.keys import Keys
from metalayer.serving.metrics import LOGGED
from metalayer.serving.openapi import METRICS_PATH, document
from metalayer.serving.request_log import RequestLog
from metalayer.serving.settings import ServingSettings
from metalayer.serving.variants import VariantSources


class Serving:
    """What answers now: the engine, which each request keeps from its start to its end, and the settings."""

    def __init__(self, engine: Engine | None = None, settings: ServingSettings | None = None) -> None:
        self.engine = engine
        self.previous: Engine | None = None
        self.settings = settings or ServingSettings()
        self.registry: dict[str, str | None] = {
            "state": "not followed",
            "since": None,
            "last_answer": None,
            "says": "this server stays with the version it was packaged with",
        }
        self.draining = False
        self.room = Room(self.settings)
        self.log = _request_log(self.settings)
        self.keys, self.metrics_keys = Keys(self.settings.all_keys()), Keys(self.settings.metrics_keys())
        self.document = document(self.settings)
        self.variants: VariantSources | None = None

    def open_variants(self, base_model: str, *, allow_introns: bool = False) -> None:
        """Load what variants are scored on, where the settings name it; arguments and errors as of `VariantSources`."""
        if self.settings.scores_variants:
            self.variants = VariantSources(self.settings, base_model, allow_introns=allow_introns)
            self.document = document(self.settings, self.variants.examples)

    def swap(self, engine: Engine) -> None:
        """Answer with another engine from the next request on; the one before stays loaded."""
        self.previous, self.engine = self.engine, engine

    def close(self) -> None:
        """Write what the request log still holds; nothing is answered after this."""
        if self.log is not None:
            self.log.close()

    def admit(self, authorization: str, path: str) -> bool:
        """Whether a request with this header may enter."""
        if path in pages.OPEN:
            return True
        keys = self.metrics_keys if path == METRICS_PATH in self.document["paths"] else self.keys
        return keys.admit(authorization)

    def client(self, address: str | None, authorization: str) -> str:
        """Who sent a request that is admitted: the owner of its key, where there are several, else its address."""
        return authorization.partition(" ")[2].strip() if len(self.keys) > 1 else client_name(address)


def _request_log(settings: ServingSettings) -> RequestLog | None:
    if settings.log_dir is None:
        return None

    def count(outcome: str, rows: int) -> None:
        LOGGED.labels(outcome).inc(rows)

    return RequestLog(
        settings.log_dir,
        count,
        key=settings.log_key,
        queue_bytes=settings.log_queue_bytes,
        every_s=settings.log_every_s,
        max_bytes=settings.log_max_bytes,
    )
