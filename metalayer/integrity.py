"""Stored bytes are checked before a number depends on them: one idea, SHA-256, written with what is stored.

A file carries its own digest where its format has a place for one, so that no second file has to be published with it:

- JSON of ours has the key `content_sha256`, over all its other keys (`write_json`, `read_json`). With `files`, names to
  SHA-256, it is the manifest of a folder (`check_files`): of a release, a model, a training set, a base layer.
- A checkpoint of torch is a zip archive, whose comment holds the digest of all before it (`seal_archive`).
- Parquet of ours has a CRC-32 in each page and a digest over its metadata. Only pyarrow looks at the pages, so what
  polars reads is in a manifest, or named by its SHA-256, and checked first.

Files of others carry none of this, and are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.errors import ArtifactError, MetalayerError
from metalayer.file_kinds import PARQUET, head_of, kind_of
from metalayer.files import publish_file, sha256

SEAL, FILES = "content_sha256", "files"
PAGE_CHECKSUMS = {"write_page_checksum": True}
"""Options of a `pyarrow.parquet.ParquetWriter` of ours."""
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises of damage that it meets as it opens or reads a file."""
_METADATA_SEAL = "metalayer.sha256"
_SEALED_METADATA = (b"metalayer.", b"genome_build")
_COMMENT = b"metalayer sha256 "
_COMMENT_BYTES = len(_COMMENT) + 64
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_BYTES = 22
_DIGITS = 12


def content_digest(content: Any) -> str:
    """SHA-256 of JSON-ready content, whatever the order of its keys, in hex."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def content_hash(values: NDArray[np.generic]) -> str:
    """SHA-256 of an array, in hex."""
    found = hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode())
    found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready content as it will be read, with its digest in it."""
    plain: dict[str, Any] = json.loads(json.dumps(content))  # keys become text, which sorts otherwise than numbers
    return {**plain, SEAL: content_digest(plain)}


def unsealed(text: str) -> dict[str, Any]:
    """The content of sealed JSON.

    Raises:
        ValueError: no JSON, no seal, or other content than was sealed; says which.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from None
    if not isinstance(content, dict) or SEAL not in content:
        raise ValueError(f"no key {SEAL!r}, with which it was written")
    expected = content.pop(SEAL)
    if content_digest(content) != expected:
        raise ValueError(f"its content is not that of its SHA-256 {str(expected)[:_DIGITS]}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Publish sealed JSON; numbers that are not finite are for the caller to replace."""
    with publish_file(path) as draft:
        draft.write_text(json.dumps(sealed(content), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path, error: type[MetalayerError], advice: str) -> dict[str, Any]:
    """The content of a file of `write_json`.

    Args:
        path: of the file.
        error: what to raise.
        advice: what to do about a damaged file.

    Raises:
        OSError: it cannot be read.
        MetalayerError: it is damaged; of the kind `error`.
    """
    try:
        return unsealed(Path(path).read_text(encoding="utf-8"))
    except ValueError as cause:
        raise error(f"{path} is damaged: {cause}; {advice}") from None


def listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of the files that are in a folder, by name: for `FILES`."""
    return {name: sha256(folder / name) for name in sorted(names) if (folder / name).is_file()}


def check_files(folder: Path, files: Mapping[str, str], error: type[MetalayerError], advice: str) -> None:
    """See that the files of a manifest are there and as they were written.

    Args:
        folder: that their names are relative to.
        files: SHA-256 by name.
        error: what to raise.
        advice: what to do about damage.

    Raises:
        MetalayerError: one is not; of the kind `error`.
    """
    for name, expected in files.items():
        try:
            found = sha256(folder / name)
        except OSError as cause:
            raise error(f"{folder / name}: {cause.strerror or cause}; {advice}") from None
        if found != expected:
            raise error(
                f"{folder / name} is damaged or was changed: written with SHA-256 {str(expected)[:_DIGITS]}, read with "
                f"{found[:_DIGITS]}; {advice}"
            )


def seal_archive(path: Path) -> None:
    """Put the digest of a zip archive into its comment, which readers of the archive pass over."""
    with path.open("r+b") as handle:
        size = handle.seek(0, io.SEEK_END)
        handle.seek(size - _END_BYTES)
        end = handle.read()
        assert end.startswith(_END_OF_ARCHIVE) and end.endswith(b"\0\0"), "an archive that has a comment"
        handle.seek(size - 2)
        handle.write(struct.pack("<H", _COMMENT_BYTES))
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        handle.seek(0, io.SEEK_END)
        handle.write(_COMMENT + digest.encode())


def sealed_archive(path: Path) -> io.BytesIO:
    """The bytes of an archive of `seal_archive`, read once and found to be those that were written.

    Raises:
        OSError: it cannot be read.
        ValueError: they are not, or there is no digest; says which.
    """
    content = Path(path).read_bytes()
    body, comment = memoryview(content)[:-_COMMENT_BYTES], content[-_COMMENT_BYTES:]
    if not comment.startswith(_COMMENT):
        raise ValueError("its end, with its SHA-256, is missing")
    if hashlib.sha256(body).hexdigest().encode() != comment[len(_COMMENT) :]:
        raise ValueError("its content is not that of its SHA-256")
    return io.BytesIO(content)


def seal_metadata(metadata: Mapping[str, str], columns: Sequence[str] = ()) -> dict[str, str]:
    """Metadata of a Parquet file of ours, with their digest.

    Args:
        metadata: of the file.
        columns: names of its columns, which are sealed too; none of a file that users may give other columns, since
            pyarrow keeps the metadata of what it has read in what it writes.
    """
    return {**metadata, _METADATA_SEAL: _metadata_digest(metadata, columns)}


def open_parquet(path: Path, advice: str) -> pq.ParquetFile:
    """A Parquet file whose pages are checked as they are read, and its metadata now, where it has checksums.

    Raises:
        FileNotFoundError: no such file.
        ArtifactError: another kind of file, no whole Parquet file, or metadata that are not those that were written.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        columns = file.schema_arrow.names
    except FileNotFoundError:
        raise
    except PARQUET_ERRORS as error:
        raise no_parquet(path, error, advice) from None
    metadata = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in (file.metadata.metadata or {}).items()
        if key.startswith(_SEALED_METADATA)
    }
    expected = metadata.pop(_METADATA_SEAL, None)
    if expected not in (None, _metadata_digest(metadata, ()), _metadata_digest(metadata, columns)):
        raise ArtifactError(f"{path} is damaged: its metadata are not those that were written; {advice}")
    return file


def no_parquet(path: Path, cause: Exception, advice: str) -> ArtifactError:
    """What to raise of a file that could not be read as Parquet: what it is, where that is plain."""
    kind = kind_of(head_of(path, "Parquet", ArtifactError)) if path.is_file() else None
    if kind not in (None, PARQUET):
        return ArtifactError(f"{path}: this is {kind}; needed is Parquet, as metalayer writes it")
    return ArtifactError(f"{path}: not a whole Parquet file ({cause}); {advice}")


def _metadata_digest(metadata: Mapping[str, str], columns: Sequence[str]) -> str:
    return content_digest([dict(metadata), list(columns)])
