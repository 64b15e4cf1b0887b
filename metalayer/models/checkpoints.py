"""Where the checkpoint of a language model is: a directory, or a hub id at a pinned revision.

The local cache is asked before the hub. What is nowhere is an error that says what was looked for, where, and how to
put it there; nothing stands in for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metalayer.errors import ConfigError, ModelError
from metalayer.files import sha256
from metalayer.settings.encoders import is_hub_id


@dataclass(frozen=True)
class Checkpoint:
    """Files that are there.

    Attributes:
        directory: where they are.
        source: the hub id, or the directory as an absolute path.
        revision: commit of the hub id; None of a directory.
        sha256: of the names and contents of the files, in hex.
    """

    directory: Path
    source: str
    revision: str | None
    sha256: str


def find_checkpoint(
    name: str, revision: str | None, needed: Sequence[str], optional: Sequence[str] = (), expected: str | None = None
) -> Checkpoint:
    """Find a checkpoint; one from the hub is downloaded where the cache lacks it and the hub can be reached.

    Args:
        name: directory or hub id.
        revision: commit of a hub id.
        needed: names of files that must be there.
        optional: patterns of further files that belong to it.
        expected: the hash that it must have.

    Raises:
        ConfigError: it is not there.
        ModelError: it has another hash than expected.
    """
    if is_hub_id(name):
        directory, source = _from_hub(name, revision, needed, optional), name
    else:
        directory, revision = Path(name).expanduser().resolve(), None
        source = str(directory)
        absent = [file for file in needed if not (directory / file).is_file()]
        if absent:
            raise ConfigError(
                f"checkpoint {name}: {directory} has no {', '.join(absent)}; expected are {', '.join(needed)}, as "
                "`hf download ID --revision COMMIT --local-dir DIR` writes them"
            )
    found = Checkpoint(directory, source, revision, _digest(directory, needed, optional))
    if expected is not None and found.sha256 != expected:
        raise ModelError(
            f"checkpoint {source}{f' at {revision}' if revision else ''}: SHA-256 {found.sha256}; the model was "
            f"trained with {expected}. Put back the files that it was trained with, or train with bundle_encoder true"
        )
    return found


def _digest(directory: Path, needed: Sequence[str], optional: Sequence[str]) -> str:
    files = {path for pattern in (*needed, *optional) for path in directory.glob(pattern)}
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.name} {sha256(path)}\n".encode())
    return total.hexdigest()


def _from_hub(name: str, revision: str | None, needed: Sequence[str], optional: Sequence[str]) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
    except ModuleNotFoundError:
        raise ConfigError(
            f"checkpoint {name}: a hub id needs the package huggingface_hub; install metalayer[language], or give a "
            f"directory with {', '.join(needed)}"
        ) from None
    why = ""
    for local in (True, False):
        try:
            folder = snapshot_download(
                name, revision=revision, allow_patterns=[*needed, *optional], local_files_only=local
            )
        except (OSError, ValueError) as error:  # what huggingface_hub raises when it has or reaches nothing
            why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        if all((Path(folder) / file).is_file() for file in needed):
            return Path(folder)
        why = f"{folder} is not complete"
    raise ConfigError(
        f"checkpoint {name} at revision {revision} is not here and cannot be fetched; expected are "
        f"{', '.join(needed)}. Looked in the cache {constants.HF_HUB_CACHE} and on {constants.ENDPOINT} ({why}). Where "
        f"there is a network: hf download {name} --revision {revision} --local-dir DIR; copy DIR here and give DIR "
        "in place of the id. Nothing is used in its stead"
    )
