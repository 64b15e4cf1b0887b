"""The BentoML service `metalayer`: our ASGI application, BentoML's probes and metrics.

Inside a Bento this file lies at `src/metalayer/serving/service.py` and the release at `src/release`.
"""

from __future__ import annotations

from pathlib import Path

import bentoml
import torch

from metalayer.serving.allocator import keep_memory
from metalayer.serving.app import Serving, create_app
from metalayer.serving.drain import drain_on_sigterm
from metalayer.serving.engine import Engine
from metalayer.serving.follow import Follower
from metalayer.serving.settings import ServingSettings

RELEASE = Path(__file__).resolve().parents[2] / "release"

keep_memory()
_settings = ServingSettings.from_environment()
_serving = Serving(settings=_settings)
# Without keys anyone who reaches the port is answered: this machine only, unless `--host` or BENTOML_HOST says other.
_host = "0.0.0.0" if _settings.all_keys() else "127.0.0.1"  # noqa: S104


@bentoml.asgi_app(create_app(_serving))
@bentoml.service(
    name="metalayer",
    workers=_settings.workers or "cpu_count",
    http={"host": _host},
    traffic={"timeout": _settings.deadline_s + 60},  # ours comes first, and answers in JSON
    # BentoML's log line and trace of each request, which nobody samples by default, take a third of a short one.
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ["/v1/"]},
)
class MetaLayerService:
    """Scores with the release of its Bento; each worker loads it once."""

    def __init__(self) -> None:
        # Requests are scored in threads; OpenMP teams of several threads there get in each other's way,
        # which halves the throughput of two cores.
        torch.set_num_threads(1)
        _serving.engine = Engine(RELEASE, _settings.device)
        if _settings.registry_uri:
            Follower(_serving, _settings.registry_uri).start()
        drain_on_sigterm(_serving)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """After the last answer: write what the request log still holds."""
        _serving.close()

    def __is_ready__(self) -> bool:
        return _serving.engine is not None and not _serving.draining
