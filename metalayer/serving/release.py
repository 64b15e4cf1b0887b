"""A release: the directory that is served, and nothing else is needed to serve it.

`model.safetensors` and `model.json` (the model directory), `model.onnx` (what servers on a CPU run, of
models that have it), `golden.parquet` (rows with the answers expected of them) and `release.json`
(name, version, alias, metrics at promotion, data hash, git commit). The package's own source and
pinned requirements travel beside it.
"""

from __future__ import annotations

import json
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
from metalayer.model_options import is_hub_id
from metalayer.models.bundle import DESCRIPTION, WEIGHTS, digest, read_description

MADE_WITH = "made_with"
"""Key of the metadata of golden rows: JSON of `made_with`."""
GOLDEN, FACTS, ONNX = "golden.parquet", "release.json", "model.onnx"
RUNTIME = ("filelock", "numpy", "polars", "pyarrow", "pydantic", "PyYAML", "safetensors", "scipy", "torch")
"""Distributions that every model needs to answer."""


def write_release(directory: Path, bundle: Path, golden: Path, facts: Mapping[str, Any]) -> None:
    """Fill an existing directory with a release.

    Args:
        directory: where to.
        bundle: the model directory.
        golden: Parquet of rows with expected donor, acceptor and neither.
        facts: name, version and what else is known; numbers that are not finite become null.

    Raises:
        RegistryError: a file of the model or the golden rows is missing.
    """
    for source, name in ((bundle / WEIGHTS, WEIGHTS), (bundle / DESCRIPTION, DESCRIPTION), (golden, GOLDEN)):
        if not source.is_file():
            raise RegistryError(f"release of {facts.get('name')}: {source} is missing; run the pipeline again")
        shutil.copyfile(source, directory / name)
    if (bundle / ONNX).is_file():
        shutil.copyfile(bundle / ONNX, directory / ONNX)
    (directory / FACTS).write_text(json.dumps(_finite(dict(facts)), indent=1, sort_keys=True), encoding="utf-8")


def made_with() -> dict[str, str]:
    """What rounds the answers of a model here: processor and versions of libraries, by name."""
    libraries = {name: version(name) for name in ("numpy", "torch")}
    return {"processor": platform.machine(), **libraries, "metalayer": metalayer.__version__}


def read_facts(directory: Path) -> dict[str, Any]:
    """`release.json` of a release.

    Raises:
        ModelError: missing, damaged, or without name and version.
    """
    path = Path(directory) / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"release {directory}: {FACTS}: {error.strerror or error}; package the model again") from None
    except ValueError:
        raise ModelError(f"release {directory}: {FACTS} is damaged; package the model again") from None
    if not isinstance(facts, dict) or not {"name", "version"} <= facts.keys():
        raise ModelError(f"release {directory}: {FACTS} does not name a model and its version; package it again")
    return facts


def release_digest(directory: Path) -> str:
    """SHA-256 of model and golden rows of a release, in hex: as registered.

    Raises:
        ModelError: golden rows that are missing, of a model that is there.
    """
    try:
        return digest(directory, directory / GOLDEN)
    except OSError as error:
        raise ModelError(f"golden rows {error.filename}: {error.strerror}; package the model again") from None


def copy_source(directory: Path) -> Path:
    """Copy the source of this package (Python files only) into `directory`; returns `directory`/metalayer."""
    root = Path(metalayer.__file__).parent
    for source in sorted(root.rglob("*.py")):
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
