"""Input files of a run whose steps are elsewhere: put into the artifact store once, by content.

The process that starts a run sees the base-layer files; a pod does not. On a stack whose artifact store is
remote the start copies them to `inputs/<data hash>/` of the store, and the steps that read them fetch them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalayer.core import ArtifactLoader
from metalayer.errors import ArtifactError
from metalayer.integrity import sealed, unsealed
from metalayer.settings.evidence import moved_sources
from metalayer.settings.sections import DataConfig
from steps import transfer

_LIST, _EVIDENCE = "files.json", "evidence"

logger = logging.getLogger(__name__)


def stage(data: DataConfig, data_hash: str, store: Any) -> int:
    """Copy the input files to a remote artifact store, unless they are there; the list of them comes last.

    Args:
        data: which files.
        data_hash: of their contents.
        store: ZenML's artifact store.

    Returns:
        The number of files copied.

    Raises:
        ArtifactError: no such files.
    """
    folder = _folder(store, data_hash)
    if store.exists(_join(folder, _LIST)):
        return 0
    files = ArtifactLoader(data).files()
    beside = [path for path in files.nucleotide_scores if path.suffix != ".parquet"]  # found in the artifacts' folder
    kinds = {
        "artifacts": [item.path for item in files.artifacts] + beside,
        "nucleotide_scores": [path for path in files.nucleotide_scores if path not in beside],
        "gene_table": [files.gene_table] if files.gene_table else [],
        "variants": [files.variants] if files.variants else [],
        "aliases": [files.aliases] if files.aliases else [],
    }
    evidence = {f"{number}-{path.name}": path for number, path in enumerate(files.evidence)}
    store.makedirs(folder)
    for kind, paths in kinds.items():
        for path in paths:
            transfer.put(path, store, _join(folder, kind, path.name))
    for name, path in evidence.items():
        transfer.put(path, store, _join(folder, _EVIDENCE, name))
    listed = {
        "genome_build": files.genome_build,
        "annotation_source": files.annotation_source,
        **{kind: [path.name for path in paths] for kind, paths in kinds.items()},
        _EVIDENCE: list(evidence),
    }
    with store.open(_join(folder, _LIST), "w") as handle:
        json.dump(sealed(listed), handle)
    return sum(len(paths) for paths in kinds.values()) + len(evidence)


def local_inputs(data: DataConfig, data_hash: str, folder: Path) -> DataConfig:
    """`data` on a local stack; else the same with the files of the store, copied to `folder`.

    Raises:
        ArtifactError: as in `fetch`.
    """
    store = _active_store()
    return fetch(data, data_hash, folder, store) if "://" in store.path else data


def fetch(data: DataConfig, data_hash: str, folder: Path, store: Any) -> DataConfig:
    """`data` with the files that `stage` put into the store, copied to `folder`.

    Raises:
        ArtifactError: they are not there, or not what the run was started with.
    """
    source = _folder(store, data_hash)
    if not store.exists(_join(source, _LIST)):
        raise ArtifactError(f"{source} is not in the store; start the run again")
    with store.open(_join(source, _LIST), "r") as handle:
        try:
            listed = unsealed(handle.read())
        except ValueError as error:
            raise ArtifactError(
                f"{_join(source, _LIST)} is damaged: {error}; delete {source} and start the run again"
            ) from None
    paths: dict[str, list[Path]] = {}
    for kind in ("artifacts", "nucleotide_scores", "gene_table", "variants", "aliases", _EVIDENCE):
        (folder / kind).mkdir(parents=True)
        paths[kind] = [folder / kind / name for name in listed.get(kind, [])]  # earlier versions stored no aliases
        for path in paths[kind]:
            transfer.get(store, _join(source, kind, path.name), path)
    found = data.model_copy(
        update={
            "data_root": folder,
            "genome_build": listed["genome_build"],
            "annotation_source": listed["annotation_source"],
            "artifacts_dir": folder / "artifacts" if listed["artifacts"] else None,
            "nucleotide_scores": folder / "nucleotide_scores" if listed["nucleotide_scores"] else None,
            "gene_table": next(iter(paths["gene_table"]), None),
            "splicevardb_path": next(iter(paths["variants"]), None),
            "aliases": next(iter(paths["aliases"]), None),
            "evidence": moved_sources(data.evidence, paths[_EVIDENCE]),
        }
    )
    if ArtifactLoader(found).fingerprint() != data_hash:
        raise ArtifactError(f"{source} is not what the run was started with; delete it and start the run again")
    logger.info("fetched %d input files", sum(len(kept) for kept in paths.values()))
    return found


def put_files(files: Mapping[Path, str], store: Any) -> int:
    """Copy files to a remote artifact store, to `inputs/<SHA-256>/`, unless they are there.

    Args:
        files: SHA-256 by path.
        store: ZenML's artifact store.

    Returns:
        The number of files copied.
    """
    copied = 0
    for path, digest in files.items():
        target = _join(_folder(store, digest), path.name)
        if store.exists(target):
            continue
        store.makedirs(_folder(store, digest))
        transfer.put(path, store, target)
        copied += 1
    return copied


def local_files(files: Mapping[str, str], source: Path, folder: Path) -> list[Path]:
    """Files that `put_files` was given: those of `source` on a local stack, else copies in `folder`.

    Args:
        files: SHA-256 by name; whoever reads them compares it.
        source: their folder on the machine that started the run.
        folder: gets those of the store.

    Raises:
        ArtifactError: they are not in the store.
    """
    store = _active_store()
    if "://" not in store.path:
        return [source / name for name in files]
    paths = []
    for name, digest in files.items():
        stored = _join(_folder(store, digest), name)
        if not store.exists(stored):
            raise ArtifactError(f"{stored} is not in the store; start the run again")
        transfer.get(store, stored, folder / name)
        paths.append(folder / name)
    return paths


def _active_store() -> Any:
    from zenml.client import Client

    return Client().active_stack.artifact_store


def _folder(store: Any, data_hash: str) -> str:
    return _join(store.path, "inputs", data_hash)


def _join(*parts: str) -> str:
    return os.path.join(*parts)  # noqa: PTH118  a URI on remote stores
