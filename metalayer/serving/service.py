"""The BentoML service `metalayer`: our ASGI application, BentoML's probes and metrics.

Inside a Bento this file lies at `src/metalayer/serving/service.py` and the release at `src/release`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import bentoml
import torch

from metalayer import environment
from metalayer.models.description import read_description
from metalayer.release.engine import Engine
from metalayer.release.folder import read_facts
from metalayer.serving import supervisor
from metalayer.serving.allocator import keep_memory
from metalayer.serving.app import create_app
from metalayer.serving.connections import bound_connections
from metalayer.serving.drain import drain_on_sigterm
from metalayer.serving.follow import Follower
from metalayer.serving.kept import FOLDER, Kept
from metalayer.serving.settings import CIPHERS, ServingSettings
from metalayer.serving.state import Serving

RELEASE = Path(__file__).resolve().parents[2] / "release"

logging.getLogger("metalayer").setLevel(logging.INFO)  # BentoML shows warnings only
keep_memory()
_settings = ServingSettings.from_environment()
supervisor.set_up(_settings)
_serving = Serving(settings=_settings)
_app = create_app(_serving)
bound_connections(_app)
_certificate = _settings.certificate()
_tls = (
    {
        "enabled": True,
        "certfile": str(_certificate[0]),
        "keyfile": str(_certificate[1]),
        "ciphers": CIPHERS,
    }
    if _certificate
    else {"enabled": False}
)


def _place() -> Path:
    """Where what is followed is kept: beside the Bentos, whichever server of this machine it is."""
    return (environment.path("BENTOML_HOME") or Path.home() / "bentoml") / FOLDER


@bentoml.asgi_app(_app)
@bentoml.service(
    name="metalayer",
    workers=_settings.workers or "cpu_count",
    http={"host": _settings.default_host},  # unless `--host` or BENTOML_HOST says other
    traffic={"timeout": 5},  # of probes
    # BentoML's log line and trace of each request, which nobody samples by default, take a third of a short one.
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ["."]},
    metrics={"enabled": False},  # `metrics.py` has ours
    ssl=_tls,
)
class MetaLayerService:
    """Scores with the release of its Bento; each worker loads it once."""

    def __init__(self) -> None:
        # Requests are scored in threads; OpenMP teams of several threads there get in each other's way,
        # which halves the throughput of two cores.
        torch.set_num_threads(1)
        _serving.open_variants(str(read_description(RELEASE)["base_model"]))
        if _settings.registry_uri:
            name = str(read_facts(RELEASE)["name"])
            Follower(_serving, _settings.registry_uri, RELEASE, Kept(_place(), _settings.registry_uri, name)).start()
        else:
            _serving.engine = Engine(RELEASE, _settings.device)
        drain_on_sigterm(_serving)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """After the last answer: write what the request log still holds."""
        _serving.close()

    def __is_ready__(self) -> bool:
        return _serving.engine is not None and not _serving.draining
