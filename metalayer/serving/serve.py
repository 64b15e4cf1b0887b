"""Becoming the server of a Bento: its settings, where it listens, and that it can start."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from metalayer import environment, network
from metalayer.errors import ConfigError, InputError
from metalayer.extras import require
from metalayer.registry.bento import (
    bento_directory,
    bento_environment,
    writable_home,
)
from metalayer.release.folder import (
    not_installed,
)
from metalayer.serving.settings import PREFIX, ServingSettings

logger = logging.getLogger(__name__)


def serve(
    model: str | None = None,
    *,
    bento: str | None = None,
    host: str | None = None,
    port: str | int | None = None,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
) -> NoReturn:
    """Become the server of a Bento; does not return.

    Args:
        model: a model's name (`registry.names`): of a champion, which is then followed; of another version or a folder,
            which stays, and every answer says that it is not the champion. None where only one model has a champion.
        bento: tag of a Bento, or its folder, instead of a model.
        host: address to bind to; None is `$BENTOML_HOST`, else all addresses with API keys, and this machine
            only without.
        port: to bind to; None is `$BENTOML_PORT`, else 3000.
        ssl_certfile: certificate in PEM, for HTTPS; None is `METALAYER_SERVE_SSL_CERTFILE`.
        ssl_keyfile: its private key; None is `METALAYER_SERVE_SSL_KEYFILE`, or the file of the certificate.

    Raises:
        ConfigError: settings that cannot be, files of a certificate that cannot be used, or an address that this
            machine cannot listen on.
        InputError: no such Bento, or one whose model needs a package that is not here; no champion, several and none
            named, or one named that has none; a state folder that cannot be written.
        RegistryError: the registry cannot be reached, or the champion cannot be packaged; and nothing was followed
            before.
        ModelError: the champion is not on this machine, and its registered files are damaged.
    """
    require("bentoml")
    given = {"SSL_CERTFILE": ssl_certfile, "SSL_KEYFILE": ssl_keyfile}
    chosen = {f"{PREFIX}{name}": str(path.resolve()) for name, path in given.items() if path is not None}
    settings = ServingSettings.from_environment(os.environ | chosen)
    if settings.certificate() is None and settings.all_keys():
        logger.warning("API keys go over plain HTTP: give --ssl-certfile, or let a proxy before the server speak HTTPS")
    settings.check_variant_files()
    number = _listening(settings, host, port)
    if bento is None:
        bento, found = _bento_of(model)
        chosen |= {f"{PREFIX}{name}": value for name, value in found.items()}
    home = writable_home()
    folder = bento_directory(home, bento) if ":" in bento else Path(bento).resolve()
    if not os.access(folder / "bento.yaml", os.R_OK):
        raise InputError(f"Bento {bento}: no bento.yaml in {folder}, or not readable")
    if lacking := not_installed(folder / "src" / "release"):
        raise InputError(
            f"Bento {bento}: its model needs {', '.join(lacking)}, which is not installed here; serve it from the "
            "image metalayer-serving-language, or install metalayer[language]"
        )
    logger.info("serving %s", bento)
    command = serve_command(str(folder), host, number)
    os.execve(command[0], command, bento_environment() | settings.environment() | chosen)  # noqa: S606


def _bento_of(model: str | None) -> tuple[str, dict[str, str]]:
    """The Bento of a model's name, and settings of its server."""
    from metalayer.registry import names
    from metalayer.registry.tracking import default_tracking_uri
    from metalayer.serving.champion import folder_bento, followed_bento, version_bento

    wanted = None if model is None else names.parse(model)
    if wanted is None or (isinstance(wanted, names.Registered) and wanted.is_champion):
        return followed_bento(wanted.name if wanted else None), {"REGISTRY_URI": default_tracking_uri(), "STANDING": ""}
    if isinstance(wanted, names.Registered):
        version = names.find(wanted)
        who, why = f"{version.name} version {version.version}", names.standing(version)
        said = f"{who} is not the champion: {why}" if why else f"{who} was the champion when this server started"
        bento = version_bento(version)
    else:
        bento, said = folder_bento(wanted), f"{wanted} is a model directory that is not registered, and no champion"
    logger.warning("%s; this server was asked for it, stays with it, and says so in every answer", said)
    return bento, {"REGISTRY_URI": "", "STANDING": said}


def serve_command(tag: str, host: str | None = "127.0.0.1", port: int = 3000) -> list[str]:
    """The command that serves a Bento, a tag or a folder; it needs `bento_environment`."""
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port)]
    return command if host is None else [*command, "--host", host]


def _listening(settings: ServingSettings, host: str | None, port: str | int | None) -> int:
    """The port, after a look at whether this machine can listen there; errors as in `serve`."""
    host_name, port_name = ("--host" if host else "BENTOML_HOST"), ("--port" if port is not None else "BENTOML_PORT")
    given = port if port is not None else environment.get("BENTOML_PORT")
    number = network.port(3000 if given is None else given, port_name)
    address = host or environment.get("BENTOML_HOST") or settings.default_host
    network.check_listening(address, number, (host_name, "--port"))
    if settings.metrics_port is not None:
        if settings.metrics_port == number:
            raise ConfigError(
                f"{PREFIX}METRICS_PORT {number}: is the port of requests too; give another, or leave it empty, and "
                "/metrics is served at the port of requests"
            )
        network.check_listening(
            settings.metrics_host, settings.metrics_port, (f"{PREFIX}METRICS_HOST", f"{PREFIX}METRICS_PORT")
        )
    return number
