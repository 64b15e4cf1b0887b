"""The BentoML service `metalayer`: our ASGI application, BentoML's probes and metrics.

Inside a Bento this file lies at `src/metalayer/serving/service.py` and the release at `src/release`.
"""

from __future__ import annotations

from pathlib import Path

import bentoml
import torch

from metalayer.serving.app import Serving, create_app
from metalayer.serving.engine import Engine
from metalayer.serving.settings import ServingSettings

RELEASE = Path(__file__).resolve().parents[2] / "release"

_serving = Serving(settings=ServingSettings.from_environment())


@bentoml.asgi_app(create_app(_serving))
@bentoml.service(name="metalayer", workers=1, traffic={"timeout": 300})
class MetaLayerService:
    """Scores rows with the release of its Bento; each worker loads it once."""

    def __init__(self) -> None:
        # Requests are scored in threads; OpenMP teams of several threads there get in each other's way,
        # which halves the throughput of two cores.
        torch.set_num_threads(1)
        _serving.engine = Engine(RELEASE)

    def __is_ready__(self) -> bool:
        return _serving.engine is not None
