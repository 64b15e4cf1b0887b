"""Packaging a promoted version as a Bento, and finding and starting what was packaged.

A Bento holds the release, the source of this package and pinned requirements: it runs with nothing
beside it. BentoML builds in a process of its own, in a private store, from a directory that holds
just these files; the finished Bento is then moved into the store in one step.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from metalayer import environment, network, storage, yaml12
from metalayer.environment import state_dir
from metalayer.errors import ConfigError, InputError, MetalayerError, RegistryError
from metalayer.files import flush, scratch_directory
from metalayer.serving import onnx_rows, release
from metalayer.serving.engine import Engine
from metalayer.serving.kept import FOLDER, Followed, Kept, kept_models
from metalayer.serving.settings import PREFIX, ServingSettings

if TYPE_CHECKING:
    from metalayer.serving.registry import ModelVersion

SERVICE = "metalayer.serving.service:MetaLayerService"
DIGEST_LABEL = "model_digest"
_BUILD_TIMEOUT_S = 300
_DIGEST_DIGITS = 12
_SERVER_PACKAGES = ("bentoml", "httptools", "mlflow-skinny", "onnxruntime", "prometheus_client", "starlette", "uvicorn")

logger = logging.getLogger(__name__)


class NoChampionError(InputError):
    """The registry answers, and names no champion of what is asked for."""


def bentoml_home() -> Path:
    """Where Bentos are kept: `$BENTOML_HOME`, else `bentoml` in the state directory."""
    return environment.path("BENTOML_HOME") or state_dir() / "bentoml"


def bento_environment(home: Path | None = None) -> dict[str, str]:
    """The environment in which to run bentoml."""
    return environment.child(BENTOML_HOME=str(home or bentoml_home()), BENTOML_DO_NOT_TRACK="True")


def followed_place() -> Path:
    """Where what servers follow is kept."""
    return bentoml_home() / FOLDER


def build_bento(
    bundle: Path,
    golden: Path,
    *,
    name: str,
    version: int | str,
    facts: Mapping[str, Any],
    registered: str | None = None,
) -> str:
    """Build a Bento from a promoted version; one that is there already is kept.

    The tag is `<name>:<version>-<digest>`, so a tag always means the same model: registries that share a store
    may each have a version 1.

    Args:
        bundle: the model directory of the version.
        golden: its golden rows with expected probabilities.
        name: registered name.
        version: registered version.
        facts: what else `GET /v1/model` says: alias, metrics (at promotion), data_hash, git_commit ...
        registered: digest of the version; None: it is not registered, and its digest is found here.

    Returns:
        The tag.

    Raises:
        RegistryError: BentoML failed, or a file is missing; nothing was published.
        ModelError: ONNX Runtime's answers differ from torch's; likewise.
    """
    if not Path(golden).is_file():
        raise RegistryError(f"Bento of {name}: {golden} is missing; run the pipeline again")
    if registered and (found := find_bento(name, version, registered)):
        return found
    home, facts = bentoml_home(), {**facts, "name": name, "version": str(version)}
    with scratch_directory(home / "tmp" / f"build-{name.lower()}-{version}") as scratch:
        context, store = scratch / "context", scratch / "home"
        released = context / "release"
        released.mkdir(parents=True)
        store.mkdir()
        release.write_release(released, Path(bundle), Path(golden), facts, registered)
        why_torch = onnx_rows.prepare(released)
        release.seal(released, facts, registered)  # the graph may have come or gone
        model_digest = str(release.read_facts(released)["digest"])
        if found := find_bento(name, version, model_digest):
            return found
        tag = _tag(name, version, model_digest)
        target = _directory(home, tag)
        bento_name, _, bento_version = tag.partition(":")
        release.copy_source(context)
        labels = {"model": name, "model_version": str(version), DIGEST_LABEL: model_digest}
        bentofile = _bentofile(labels, release.runtime(Path(bundle)), why_torch)
        (context / "bentofile.yaml").write_text(yaml12.dump(bentofile), encoding="utf-8")
        _run_build(context, store, bento_name, bento_version)
        target.parent.mkdir(parents=True, exist_ok=True)
        built = _directory(store, tag)
        built.chmod(0o755)  # BentoML lets its owner in only, and a container runs as somebody else
        flush(built)
        try:
            built.rename(target)
        except OSError as error:
            if not find_bento(name, version, model_digest):  # else another run published the same model meanwhile
                raise RegistryError(
                    f"Bento {tag}: cannot be moved to {target}: {error.strerror or error}. Remove what is there"
                ) from None
    return tag


def find_bento(name: str, version: int | str, digest: str) -> str | None:
    """The tag of the Bento of a registered version, or None.

    Args:
        name: registered name.
        version: registered version.
        digest: of all that was registered; a Bento that another registry's version of the same number was built
            into is not it.
    """
    tag = _tag(name, version, digest)
    try:
        described = yaml12.read(_directory(bentoml_home(), tag) / "bento.yaml")
        return tag if described["labels"][DIGEST_LABEL] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def package_version(version: ModelVersion, tracking_uri: str | None = None, *, required_tag: bool = True) -> str:
    """Check a registered version as a server would, and build its Bento; one that is there already is kept.

    Args:
        version: of the registry.
        tracking_uri: of the registry; None takes its default.
        required_tag: whether the registry has to take down the Bento's tag; a server may only read there.

    Returns:
        The tag.

    Raises:
        ModelError: damaged files, or golden rows that come out otherwise.
        SchemaError: a model of another feature schema.
        RegistryError: the registry cannot be reached, or BentoML failed.
    """
    from metalayer.serving import registry

    with tempfile.TemporaryDirectory() as scratch:
        directory = registry.fetch_release(version, tracking_uri, Path(scratch))
        Engine(directory, registered=True)
        facts = release.read_facts(directory)
        tag = build_bento(
            directory,
            directory / release.GOLDEN,
            name=version.name,
            version=version.version,
            facts=facts,
            registered=version.digest,
        )
    try:
        registry.set_bento_tag(version.name, version.version, tag, tracking_uri)
    except RegistryError:
        if required_tag:
            raise
        logger.debug("the registry does not take the tag %s", tag, exc_info=True)
    return tag


def serve_command(tag: str, host: str | None = "127.0.0.1", port: int = 3000) -> list[str]:
    """The command that serves a Bento, a tag or a folder; it needs `bento_environment`."""
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port)]
    return command if host is None else [*command, "--host", host]


def serve(
    name: str | None = None,
    *,
    bento: str | None = None,
    host: str | None = None,
    port: str | int | None = None,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
) -> NoReturn:
    """Become the server of a Bento; does not return.

    Args:
        name: registered name, or the base model's; None where only one model has a champion.
        bento: tag of a Bento, or its folder; None takes the champion's, and then follows the champion.
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
    given = {"SSL_CERTFILE": ssl_certfile, "SSL_KEYFILE": ssl_keyfile}
    chosen = {f"{PREFIX}{name}": str(path.resolve()) for name, path in given.items() if path is not None}
    settings = ServingSettings.from_environment(os.environ | chosen)
    if settings.certificate() is None and settings.all_keys():
        logger.warning("API keys go over plain HTTP: give --ssl-certfile, or let a proxy before the server speak HTTPS")
    number = _listening(settings, host, port)
    if bento is None:
        from metalayer.serving import registry

        bento = followed_bento(name)
        chosen[f"{PREFIX}REGISTRY_URI"] = registry.default_tracking_uri()
    home = _home_to_write()
    folder = _directory(home, bento) if ":" in bento else Path(bento).resolve()
    if not os.access(folder / "bento.yaml", os.R_OK):
        raise InputError(f"Bento {bento}: no bento.yaml in {folder}, or not readable")
    if lacking := release.not_installed(folder / "src" / "release"):
        raise InputError(
            f"Bento {bento}: its model needs {', '.join(lacking)}, which is not installed here; serve it from the "
            "image metalayer-serving-language, or install metalayer[language]"
        )
    logger.info("serving %s", bento)
    command = serve_command(str(folder), host, number)
    os.execve(command[0], command, bento_environment() | settings.environment() | chosen)  # noqa: S606


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


def _home_to_write() -> Path:
    home = bentoml_home()
    try:
        for name in ("bentos", "models", "envs", "tmp"):  # BentoML makes what is missing of these
            (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{home}: {error.strerror}; mount a volume there, or set METALAYER_HOME to a folder that can be written"
        ) from None
    return home


def followed_bento(name: str | None = None) -> str:
    """The tag of the champion's Bento, which is kept as followed; arguments and errors like those of `serve`.

    Where the registry does not answer, or names no champion, that of the version that was followed last.
    """
    from metalayer.serving import registry

    uri, place = registry.default_tracking_uri(), followed_place()
    try:
        seen_at, tag = time.time(), champion_bento(name)
    except (RegistryError, NoChampionError) as error:
        found = [
            one
            for one in kept_models(place, uri)
            if name in (None, one.name.removeprefix(registry.NAME_PREFIX), one.name)
        ]
        if len(found) != 1 or (current := found[0].current()) is None:
            raise
        tag = _kept_bento(found[0], current, error)
    else:
        directory = _directory(bentoml_home(), tag) / "src" / "release"
        facts = release.read_facts(directory)
        version, model_digest = str(facts["version"]), str(facts["digest"])
        kept = Kept(place, uri, str(facts["name"]))
        with contextlib.suppress(OSError):  # of which the server speaks
            with kept.taken_in(version, model_digest, fetch=lambda: directory):
                pass
            kept.set_current(version, model_digest, seen_at)
    return tag


def _kept_bento(kept: Kept, current: Followed, error: MetalayerError) -> str:
    """The tag of the Bento of the version that was followed last, built where it was not packaged here."""
    when = datetime.fromtimestamp(current.seen_at, UTC).isoformat(timespec="seconds")
    logger.warning("%s", error)
    logger.warning("serving %s version %s, which was champion at %s", kept.name, current.version, when)
    if found := find_bento(kept.name, current.version, current.digest):
        return found
    with kept.loading():
        directory = kept.release(current.version, current.digest)
        if directory is None:
            raise error
        golden, facts = directory / release.GOLDEN, release.read_facts(directory)
        return build_bento(
            directory, golden, name=kept.name, version=current.version, facts=facts, registered=current.digest
        )


def champion_bento(name: str | None = None) -> str:
    """The tag of the champion's Bento, built where it was not packaged here; arguments and errors like `serve`'s."""
    from metalayer.serving import registry

    found = {version.name: version for version in registry.champions()}
    names = ", ".join(found)
    if not found:
        raise NoChampionError(_no_champion())
    if name is None and len(found) > 1:
        raise InputError(f"several models have a champion: {names}; name one with --model")
    wanted = name or next(iter(found))
    version = found.get(wanted) or found.get(registry.registered_name(wanted))
    if version is None:
        raise NoChampionError(f"--model {wanted}: no champion of that name; there are: {names}")
    if tag := find_bento(version.name, version.version, version.digest):
        return tag
    _home_to_write()
    return package_version(version, required_tag=False)


def _no_champion() -> str:
    """What to do where no version is champion."""
    from metalayer.serving import registry
    from metalayer.serving.line import RETIRED_TAG

    passed = [
        one
        for one in registry.versions()
        if one.tags.get(registry.DECISION_TAG) == registry.PROMOTED and RETIRED_TAG not in one.tags
    ]
    if not passed:
        return (
            f"no promoted model in the registry {registry.shown_uri()}; name the state folder of another run in "
            "METALAYER_HOME, or run the pipeline first: python pipelines/run.py --stack local"
        )
    listed = ", ".join(f"{one.name} version {one.version}" for one in passed)
    return (
        f"{registry.shown_uri()}: no registered version has the alias {registry.CHAMPION}: it was taken away, or the "
        f"version deleted. Passed the gate: {listed}. `metalayer registry promote VERSION --model {passed[-1].name}` "
        "makes one champion"
    )


def _tag(name: str, version: int | str, digest: str) -> str:
    return f"{name.lower()}:{version}-{digest[:_DIGEST_DIGITS]}"


def _directory(home: Path, tag: str) -> Path:
    name, _, version = tag.partition(":")
    return home / "bentos" / name / version


def _bentofile(labels: Mapping[str, str], requirements: Sequence[str], why_torch: str) -> dict[str, Any]:
    runs_in = f"torch: {why_torch}" if why_torch else "ONNX Runtime; on a GPU in torch"
    return {
        "service": SERVICE,
        "description": f"{labels['model']} version {labels['model_version']}. Rows run in {runs_in}.\n",
        "labels": {**labels, "engine": "torch" if why_torch else "onnxruntime"},
        "include": ["metalayer/**/*.py", "release/*"],
        "python": {
            # Locking resolves online, and pins CUDA.
            "lock_packages": False,
            "packages": release.pinned(*requirements, *_SERVER_PACKAGES),
        },
    }


def _run_build(context: Path, home: Path, name: str, version: str) -> None:
    # Named, because BentoML looks for no build file itself below a hidden directory (`.metalayer`).
    command = [sys.executable, "-m", "bentoml", "build", "--bentofile", "bentofile.yaml"]
    command += ["--name", name, "--version", version, "--output", "tag", "."]
    try:
        done = subprocess.run(
            command,
            cwd=context,
            env=bento_environment(home),
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(f"bentoml build of {name}:{version} did not end within {_BUILD_TIMEOUT_S} s") from None
    if done.returncode or not (_directory(home, f"{name}:{version}") / "bento.yaml").is_file():
        if told := storage.in_words(done.stderr):
            raise type(told)(f"bentoml build of {name}:{version}: {told}")
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise RegistryError(f"bentoml build of {name}:{version} failed with status {done.returncode}:\n{last}")
