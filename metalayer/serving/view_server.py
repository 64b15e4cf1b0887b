"""The page on this machine, of files and a model that are given: `metalayer view`, which needs no registry."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from metalayer.errors import ConfigError
from metalayer.release.at_hand import BaseAlone, ModelAtHand
from metalayer.schema import bases_of
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving

HOST = "127.0.0.1"
PORT = 3000
_PROBES = ("/livez", "/healthz", "/readyz")
"""Of BentoML, which is not here."""


def serving_of(
    settings: ServingSettings, bases: Sequence[str], model: Path | None = None, *, allow_introns: bool = False
) -> Serving:
    """Load what the page shows.

    Args:
        settings: with reference and annotation.
        bases: names of base models.
        model: a model directory of ours; None for base models alone.
        allow_introns: introns of the annotation may begin and end with anything.

    Raises:
        ConfigError: unknown or unfit base models, or others than those of the model.
        InputError: files that cannot be used.
        ModelError: damaged weights, or a damaged model directory.
    """
    settings.check_variant_files()
    engine = ModelAtHand(model, settings.device) if model else BaseAlone(bases)
    if model and sorted(bases) != sorted(bases_of(str(engine.describe()["base_model"]))):
        raise ConfigError(
            f"--base {','.join(bases)}: {model} reads {engine.describe()['base_model'].replace('+', ',')}; give these"
        )
    serving = Serving(engine, settings)
    serving.open_variants("+".join(bases), allow_introns=allow_introns)
    for path in _PROBES:
        serving.document["paths"].pop(path, None)
    return serving


def serve_page(serving: Serving, began: Callable[[str], None], port: int | None = None) -> None:
    """Answer on this machine until it is interrupted.

    Args:
        serving: of `serving_of`.
        began: called with the address once it is listened at.
        port: to listen at; None: 3000, or a free one where that is taken.

    Raises:
        ConfigError: a port that is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(listening, port)
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        listening.listen()
        began(address)
        server = uvicorn.Server(uvicorn.Config(create_app(serving), log_level="warning"))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve([listening]))


def _bind(listening: socket.socket, port: int | None) -> None:
    for one in (PORT, 0) if port is None else (port,):
        try:
            listening.bind((HOST, one))
        except OSError as error:
            if port is not None:
                raise ConfigError(f"--port {port}: {error.strerror}; give another, or none for a free one") from None
        else:
            return
