"""What the service counts, and /metrics, which shows it of all workers.

BentoML's own counts are off: it makes a series of each path that somebody asks for, before a key is looked at, and
labels them with the version of the package whatever answers. Here a request counts under its route, and all that have
none under `other`; probes, which BentoML answers, are not counted. The only file that imports prometheus_client, which
gathers the counts of all workers.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
)
from prometheus_client import REGISTRY as DEFAULT
from prometheus_client.registry import Collector

from metalayer.files import alive

REQUESTS = Counter("metalayer_requests", "Requests, by route and status.", ["path", "status"])
SECONDS = Histogram(
    "metalayer_request_seconds",
    "Seconds from the head of a request to the last byte of its answer, by route.",
    ["path"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
IN_HAND = Gauge("metalayer_requests_in_hand", "Requests that are not answered yet.", multiprocess_mode="livesum")
SCORED_ROWS = Counter("metalayer_rows", "Rows scored by /v1/score.")
LETTERS = Counter("metalayer_letters", "Letters scored by /v1/score_sequence.")
SCORED_VARIANTS = Counter("metalayer_variants", "Variants scored by /v1/score_variants.")
INTERRUPTED = Counter("metalayer_interrupted", "Requests that were not finished, by reason.", ["reason"])
CLOSED = Counter("metalayer_connections_closed", "Connections that the server closed early, by reason.", ["reason"])
SWAPS = Counter("metalayer_swaps", "Moves of the alias champion, by what came of them.", ["outcome"])
FOLLOWED = Gauge(
    "metalayer_registry",
    "Workers by what their last look at the registry found.",
    ["state"],
    multiprocess_mode="livesum",
)
LOGGED = Counter("metalayer_log_rows", "Rows for the request log: written, dropped (queue full), failed.", ["outcome"])

MEDIA_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
_LIVE = re.compile(r"^gauge_live\w+_(\d+)\.db$")


def counts_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where workers with this environment write their counts; None where a process keeps its own."""
    folder = environment.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)


def exposition(folder: Path | None) -> bytes:
    """The counts of all workers that write to a folder, or of this process, as Prometheus reads them."""
    if folder is None:
        return bytes(generate_latest(DEFAULT))
    for one in folder.iterdir():
        if (live := _LIVE.match(one.name)) and not alive(int(live[1])):  # what a killed worker had in hand is no longer
            one.unlink(missing_ok=True)  # another worker may do the same
    gathered = CollectorRegistry()
    gathered.register(_Written(folder))
    return bytes(generate_latest(gathered))


class _Written(Collector):
    """The counts in a folder, but for those of a worker that has just made its file and written nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """All counts, summed over workers."""
        files = []
        for one in self._folder.glob("*.db"):
            with contextlib.suppress(FileNotFoundError):  # another process has removed that of a killed worker
                if one.stat().st_size:
                    files.append(str(one))
        found: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return found
