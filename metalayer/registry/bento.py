"""Packaging a promoted version as a Bento, and finding what was packaged.

A Bento holds the release, the source of this package and pinned requirements: it runs with nothing
beside it. BentoML builds in a process of its own, in a private store, from a directory that holds
just these files; the finished Bento is then moved into the store in one step.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalayer import environment, storage, yaml12
from metalayer.environment import state_dir
from metalayer.errors import InputError, RegistryError
from metalayer.files import flush, scratch_directory
from metalayer.models.description import read_description
from metalayer.release.folder import (
    GOLDEN,
    copy_source,
    pinned,
    read_facts,
    runtime,
    seal,
    write_release,
)

if TYPE_CHECKING:
    from metalayer.registry.versions import ModelVersion

SERVICE = "metalayer.serving.service:MetaLayerService"
DIGEST_LABEL = "model_digest"
_PAGES = ("serving/docs_page/*", "serving/view_page/*")
_BUILD_TIMEOUT_S = 300
_DIGEST_DIGITS = 12
_SERVER_PACKAGES = (
    *("bentoml", "h5py", "httptools", "mlflow-skinny", "onnxruntime", "prometheus_client", "pyBigWig", "pysam"),
    "starlette",
    "uvicorn",
)

logger = logging.getLogger(__name__)


def bentoml_home() -> Path:
    """Where Bentos are kept: `$BENTOML_HOME`, else `bentoml` in the state directory."""
    return environment.path("BENTOML_HOME") or state_dir() / "bentoml"


def writable_home() -> Path:
    """`bentoml_home`, with the folders that BentoML would make.

    Raises:
        InputError: it cannot be written.
    """
    home = bentoml_home()
    try:
        for name in ("bentos", "models", "envs", "tmp"):  # BentoML makes what is missing of these
            (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{home}: {error.strerror}; mount a volume there, or set METALAYER_HOME to a folder that can be written"
        ) from None
    return home


def bento_environment(home: Path | None = None) -> dict[str, str]:
    """The environment in which to run bentoml."""
    return environment.child(BENTOML_HOME=str(home or bentoml_home()), BENTOML_DO_NOT_TRACK="True")


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
    from metalayer.release.onnx import prepare  # which takes seconds, for torch, where a name alone may be asked for

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
        write_release(released, Path(bundle), Path(golden), facts, registered)
        why_torch = prepare(released)
        seal(released, facts, registered)  # the graph may have come or gone
        model_digest = str(read_facts(released)["digest"])
        if found := find_bento(name, version, model_digest):
            return found
        tag = _tag(name, version, model_digest)
        target = bento_directory(home, tag)
        bento_name, _, bento_version = tag.partition(":")
        copy_source(context, *_PAGES)
        labels = {"model": name, "model_version": str(version), DIGEST_LABEL: model_digest}
        bentofile = _bentofile(labels, runtime(Path(bundle)), why_torch)
        (context / "bentofile.yaml").write_text(yaml12.dump(bentofile), encoding="utf-8")
        _run_build(context, store, bento_name, bento_version)
        target.parent.mkdir(parents=True, exist_ok=True)
        built = bento_directory(store, tag)
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
        described = yaml12.read(bento_directory(bentoml_home(), tag) / "bento.yaml")
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
    from metalayer.registry import download, versions
    from metalayer.release.engine import Engine

    with tempfile.TemporaryDirectory() as scratch:
        directory = download.fetch_release(version, tracking_uri, Path(scratch))
        read_description(directory, f"{version.name} version {version.version}")
        Engine(directory, registered=True)
        facts = read_facts(directory)
        tag = build_bento(
            directory,
            directory / GOLDEN,
            name=version.name,
            version=version.version,
            facts=facts,
            registered=version.digest,
        )
    try:
        versions.set_bento_tag(version.name, version.version, tag, tracking_uri)
    except RegistryError:
        if required_tag:
            raise
        logger.debug("the registry does not take the tag %s", tag, exc_info=True)
    return tag


def _tag(name: str, version: int | str, digest: str) -> str:
    return f"{name.lower()}:{version}-{digest[:_DIGEST_DIGITS]}"


def bento_directory(home: Path, tag: str) -> Path:
    """The folder of a Bento in a store."""
    name, _, version = tag.partition(":")
    return home / "bentos" / name / version


def _bentofile(labels: Mapping[str, str], requirements: Sequence[str], why_torch: str) -> dict[str, Any]:
    runs_in = f"torch: {why_torch}" if why_torch else "ONNX Runtime; on a GPU in torch"
    return {
        "service": SERVICE,
        "description": f"{labels['model']} version {labels['model_version']}. Rows run in {runs_in}.\n",
        "labels": {**labels, "engine": "torch" if why_torch else "onnxruntime"},
        "include": ["metalayer/**/*.py", *(f"metalayer/{pages}" for pages in _PAGES), "release/*"],
        "python": {
            # Locking resolves online, and pins CUDA.
            "lock_packages": False,
            "packages": pinned(*requirements, *_SERVER_PACKAGES),
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
    if done.returncode or not (bento_directory(home, f"{name}:{version}") / "bento.yaml").is_file():
        if cause := storage.in_words(done.stderr):
            raise type(cause)(f"bentoml build of {name}:{version}: {cause}")
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise RegistryError(f"bentoml build of {name}:{version} failed with status {done.returncode}:\n{last}")
