"""Copies to an artifact store that fails on the way."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from steps import transfer

BLOCK = 100


class Writer(AbstractBufferedFile):
    """A file of an object store, as s3fs has it: parts, and `close` makes the object of what there is."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__(store, path, "wb", block_size=BLOCK)
        self.parts: list[bytes] = []
        self.given_up = False

    def _initiate_upload(self) -> None:
        self.fs.uploads.append(self)

    def _upload_chunk(self, final: bool = False) -> bool:
        if len(self.parts) == self.fs.fails_at:
            raise OSError("the connection is gone")
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.objects[self.path] = b"".join(self.parts)
        return True

    def discard(self) -> None:
        self.given_up = True


class Store(AbstractFileSystem):
    """Fails at one part of each file."""

    cachable = False

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.uploads: list[Writer] = []
        self.fails_at = fails_at

    def open(self, path: str, mode: str) -> Writer:
        assert mode == "wb"
        return Writer(self, path)


class Plain:
    """A store of files, whose disk is full after the first block."""

    def open(self, path: str, mode: str) -> IO[Any]:
        file = Path(path).open(mode, buffering=0)  # noqa: SIM115
        write = file.write

        class Full:
            def write(self, data: bytes) -> int:
                write(data[:10])
                raise OSError(28, "No space left on device")

            def close(self) -> None:
                file.close()

        return Full()  # type: ignore[return-value]

    def remove(self, path: str) -> None:
        Path(path).unlink()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(250)))
    return path


def test_a_whole_copy(source: Path) -> None:
    store = Store()
    transfer.put(source, store, "target")
    assert store.objects == {"target": source.read_bytes()}


@pytest.mark.parametrize("part", [0, 1])
def test_what_was_there_stays_where_a_part_is_lost(source: Path, part: int) -> None:
    store = Store(fails_at=part)
    store.objects["target"] = b"before"
    with pytest.raises(OSError, match="the connection is gone"):
        transfer.put(source, store, "target")
    (upload,) = store.uploads
    assert upload.given_up
    upload.close()  # as the collector of garbage does
    assert store.objects == {"target": b"before"}


def test_what_was_there_stays_where_the_file_cannot_be_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.objects["target"] = b"before"

    def fails(reader: IO[bytes], writer: IO[bytes], _: int) -> None:
        writer.write(reader.read(30))
        raise OSError("the disk is gone")

    monkeypatch.setattr("shutil.copyfileobj", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        transfer.put(source, store, "target")
    assert store.objects == {"target": b"before"}


def test_what_cannot_be_taken_back_is_said(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the first error is raised."""

    def fails(_: Writer) -> None:
        raise ConnectionError("still gone")

    monkeypatch.setattr(Writer, "discard", fails)
    with pytest.raises(OSError, match="the connection is gone"):
        transfer.put(source, Store(fails_at=1), "target")
    assert "what was sent of target may be left in the store: ConnectionError: still gone" in caplog.text


def test_no_half_a_file_is_left(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        transfer.put(source, Plain(), str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()
