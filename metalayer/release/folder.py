"""A release: the directory that is served, and nothing else is needed to serve it.

`model.safetensors` and `model.json` (the model directory), `model.onnx` (what servers on a CPU run, of models that
have it), `golden.parquet` (rows with the answers expected of them), `facts.json` (metrics at promotion, figures of
held-out genes, data hash, git commit) and `release.json`: as which version of which name it is registered, its
digest, and SHA-256 of all the others, each of which is checked before it is used. The digest is of all that was
registered: graph, facts and golden rows too. The package's own source and pinned requirements travel beside it.
"""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

import metalayer
from metalayer.errors import ModelError, RegistryError
from metalayer.files import sha256
from metalayer.integrity import FILES, check_files, content_digest, listed, read_json, write_json
from metalayer.models.description import DESCRIPTION, WEIGHTS, read_description
from metalayer.settings.encoders import is_hub_id

MADE_WITH = "made_with"
"""Key of the metadata of golden rows: JSON of `made_with`."""
GOLDEN, RELEASE, FACTS, ONNX = "golden.parquet", "release.json", "facts.json", "model.onnx"
_REGISTERED = (WEIGHTS, DESCRIPTION, ONNX, FACTS)
_AS_REGISTERED = ("name", "version", "alias", "run_id")
"""Facts of `release.json`: those that are known once there is a version."""
_DIGEST = "digest"
_AGAIN = "package the model again"
RUNTIME = ("filelock", "numpy", "polars", "pyarrow", "pydantic", "PyYAML", "safetensors", "scipy", "torch")
"""Distributions that every model needs to answer."""


def write_release(
    directory: Path, bundle: Path, golden: Path, facts: Mapping[str, Any], digest: str | None = None
) -> None:
    """Fill an existing directory with a release.

    Args:
        directory: where to.
        bundle: the model directory, with the graph where there is one.
        golden: Parquet of rows with expected donor, acceptor and neither.
        facts: name, version and what else is known; numbers that are not finite become null.
        digest: as it was registered; None: it was not.

    Raises:
        RegistryError: a file of the model or the golden rows is missing.
    """
    for source, name in ((bundle / WEIGHTS, WEIGHTS), (bundle / DESCRIPTION, DESCRIPTION), (golden, GOLDEN)):
        if not source.is_file():
            raise RegistryError(f"release of {facts.get('name')}: {source} is missing; run the pipeline again")
        shutil.copyfile(source, directory / name)
    if (bundle / ONNX).is_file():
        shutil.copyfile(bundle / ONNX, directory / ONNX)
    if digest and (bundle / FACTS).is_file():
        shutil.copyfile(bundle / FACTS, directory / FACTS)  # they are of the digest
    else:
        write_facts(directory, facts)
    seal(directory, facts, digest)


def write_facts(directory: Path, facts: Mapping[str, Any]) -> None:
    """Put what is known before there is a version into a model directory that is to be registered, or a release."""
    known = {name: value for name, value in facts.items() if name not in (*_AS_REGISTERED, _DIGEST)}
    write_json(directory / FACTS, _finite(known))


def seal(directory: Path, facts: Mapping[str, Any], digest: str | None = None) -> None:
    """Write `release.json` of the files that are in a release; arguments as in `write_release`."""
    registered = {name: _finite(facts[name]) for name in _AS_REGISTERED if name in facts}
    digest = digest or release_digest(directory, directory / GOLDEN)
    files = listed(directory, [*_REGISTERED, GOLDEN])
    write_json(directory / RELEASE, {**registered, _DIGEST: digest, FILES: files})


def release_digest(bundle: Path, golden: Path) -> str:
    """SHA-256 of all that is registered of a model, in hex: weights, description, graph, facts and golden rows.

    Raises:
        OSError: a file that cannot be read.
    """
    return content_digest({**listed(bundle, _REGISTERED), GOLDEN: sha256(golden)})


def made_with() -> dict[str, str]:
    """What rounds the answers of a model here: processor and versions of libraries, by name."""
    libraries = {name: version(name) for name in ("numpy", "torch")}
    return {"processor": platform.machine(), **libraries, "metalayer": metalayer.__version__}


def read_facts(directory: Path) -> dict[str, Any]:
    """What a release says of itself: name, version, digest, and what was known when it was registered.

    Raises:
        ModelError: missing, damaged, or without name and version.
    """
    facts = _manifest(directory)
    files = facts.pop(FILES)
    if FACTS in files:
        check_files(Path(directory), {FACTS: files[FACTS]}, ModelError, _AGAIN)
        facts = {**read_json(Path(directory) / FACTS, ModelError, _AGAIN), **facts}
    return facts


def check_release(directory: Path) -> None:
    """See that every file of a release is as it was written.

    Raises:
        ModelError: one is not, or `release.json` is missing or damaged.
    """
    check_files(Path(directory), _manifest(directory)[FILES], ModelError, _AGAIN)


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = read_json(Path(directory) / RELEASE, ModelError, _AGAIN)
    except OSError as error:
        raise ModelError(f"release {directory}: {RELEASE}: {error.strerror or error}; {_AGAIN}") from None
    if not {"name", "version", _DIGEST, FILES} <= manifest.keys():
        raise ModelError(f"release {directory}: {RELEASE} does not name a model and its version; {_AGAIN}")
    return manifest


def copy_source(directory: Path, *others: str) -> Path:
    """Copy the source of this package into `directory`; returns `directory`/metalayer.

    Args:
        directory: to fill.
        others: patterns of files beside Python's, as in `serving/docs_page/*`.
    """
    root = Path(metalayer.__file__).parent
    for source in sorted(path for pattern in ("**/*.py", *others) for path in root.glob(pattern)):
        target = directory / "metalayer" / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return directory / "metalayer"


def runtime(bundle: Path) -> tuple[str, ...]:
    """Distributions that the model of a bundle needs to answer."""
    options = read_description(bundle)["model"]
    needed = list(RUNTIME)
    if options["sequence_encoder"] == "huggingface":
        needed.append("transformers")
    named = not (options["sequence_encoder_config"] or {}).get("bundle_encoder", True)
    if named and is_hub_id(options["encoder_checkpoint"]["source"]):  # looked for in the hub's cache
        needed.append("huggingface_hub")
    return tuple(needed)


def not_installed(bundle: Path) -> list[str]:
    """Distributions that the model of a bundle needs to answer and that are not here.

    Raises:
        ModelError: no model, or a damaged one.
    """
    there = {canonicalize_name(one.name) for one in distributions()}
    return [name for name in runtime(bundle) if canonicalize_name(name) not in there]


def pinned(*distributions: str) -> list[str]:
    """`name==version` as in this environment, without a local part (`+cpu`), which no other index may have."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in distributions]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
