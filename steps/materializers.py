"""How tables, models and what else steps return pass between them: as files in the artifact store, checked when read.

A step returns `TableRef.of(path)`; the Parquet file moves into the artifact store (a hard link on the
same file system, else a copy or an upload). The next step gets a `TableRef` whose `path` is a local
file again, checked against its hash. `ModelRef` does the same for a model directory. Dictionaries (the split, the
evaluation, the decision ...) are JSON with a digest of its own.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow.parquet as pq
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry

from metalayer.environment import state_dir
from metalayer.errors import MetalayerError
from metalayer.files import sha256
from metalayer.integrity import content_digest, sealed, unsealed
from steps import transfer

_HEAD_ROWS = 5
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class TableRef:
    """A Parquet table, or the fact that there is none.

    Attributes:
        path: local file; None where the run has no such table.
        sha256: of the file's bytes, in hex.
        rows: number of rows.
        bytes: size of the file.
    """

    path: Path | None = None
    sha256: str = ""
    rows: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, path: Path) -> TableRef:
        """Describe a file; a file that is not there gives the empty reference."""
        if not path.is_file():
            return cls()
        return cls(path, sha256(path), pq.read_metadata(path).num_rows, path.stat().st_size)

    @property
    def file(self) -> Path:
        """The file of a table that every run has.

        Raises:
            MetalayerError: there is none.
        """
        if self.path is None:
            raise MetalayerError("a step got no table where every run has one; run again with --no-cache")
        return self.path


@dataclass(frozen=True)
class ModelRef:
    """A model directory.

    Attributes:
        path: local directory.
        sha256: over names and contents of its files, in hex.
    """

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> ModelRef:
        """Describe a directory."""
        total = hashlib.sha256()
        for file in sorted(path.iterdir()):
            total.update(f"{file.name}\0{sha256(file)}\n".encode())
        return cls(path, total.hexdigest())


class _FileMaterializer(BaseMaterializer):
    """Moves files between a step and the artifact store, and keeps their facts beside them as JSON."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    _FACTS = "facts.json"

    def _put(self, source: Path, name: str) -> None:
        target = os.path.join(self.uri, name)  # noqa: PTH118  a URI on remote stores
        if "://" not in self.uri:
            try:
                Path(target).hardlink_to(source)
                return
            except OSError:
                pass  # another file system, or one without hard links
        transfer.put(source, self.artifact_store, target)

    def _get(self, name: str, folder: Path) -> Path:
        """The stored file itself on a local store; else a copy in `folder`."""
        stored = os.path.join(self.uri, name)  # noqa: PTH118
        if "://" not in self.uri:
            if not Path(stored).is_file():
                raise _gone(stored)
            return Path(stored)
        try:
            transfer.get(self.artifact_store, stored, folder / name)
        except FileNotFoundError:
            raise _gone(stored) from None
        return folder / name

    def _download_folder(self) -> Path:
        if "://" not in self.uri:
            return Path(self.uri)
        work = state_dir() / "work"
        work.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="input-", dir=work))

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        with self.artifact_store.open(os.path.join(self.uri, self._FACTS), "w") as handle:  # noqa: PTH118
            json.dump(sealed(facts), handle)

    def _read_facts(self) -> dict[str, Any]:
        stored = os.path.join(self.uri, self._FACTS)  # noqa: PTH118
        try:
            with self.artifact_store.open(stored, "r") as handle:
                return unsealed(handle.read())
        except FileNotFoundError:
            raise _gone(stored) from None
        except ValueError as error:
            raise _damaged(stored, error) from None

    def _visualise(self, text: str) -> dict[str, VisualizationType]:
        uri = os.path.join(self.uri, "summary.html")  # noqa: PTH118
        with self.artifact_store.open(uri, "w") as handle:
            handle.write(text)
        return {uri: VisualizationType.HTML}

    def _changed(self, facts: Mapping[str, Any], found: str) -> MetalayerError:
        return MetalayerError(
            f"{self.uri}: stored with SHA-256 {facts['sha256']}, read with {found}; the artifact store was changed or "
            "is damaged. Run again with --no-cache"
        )


class TableMaterializer(_FileMaterializer):
    """Stores a `TableRef`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (TableRef,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    _TABLE = "table.parquet"

    def save(self, data: TableRef) -> None:
        """Move the file into the artifact store."""
        if data.path is not None:
            self._put(data.path, self._TABLE)
        self._write_facts({key: value for key, value in asdict(data).items() if key != "path"})

    def load(self, data_type: type[Any]) -> TableRef:
        """A reference to a local file.

        Raises:
            MetalayerError: the file is gone, or is another than was stored.
        """
        facts = self._read_facts()
        if not facts["sha256"]:
            return TableRef()
        path = self._get(self._TABLE, self._download_folder())
        found = sha256(path)
        if found != facts["sha256"]:
            raise self._changed(facts, found)
        return TableRef(path, **facts)

    def compute_content_hash(self, data: TableRef) -> str | None:
        """The table's hash: a step that gets the same table again is cached."""
        return data.sha256 or "absent"

    def extract_metadata(self, data: TableRef) -> dict[str, Any]:
        """Rows, columns, bytes and hash."""
        if data.path is None:
            return {"present": False}
        schema = pl.read_parquet_schema(data.path)
        return {
            "present": True,
            "rows": data.rows,
            "columns": {name: str(kind) for name, kind in schema.items()},
            "bytes": data.bytes,
            "sha256": data.sha256,
        }

    def save_visualizations(self, data: TableRef) -> dict[str, VisualizationType]:
        """Schema and first rows."""
        if data.path is None:
            return self._visualise("<p>This run has no such table.</p>")
        head = pl.read_parquet(data.path, n_rows=_HEAD_ROWS)
        cells = [[name, str(head.schema[name]), *map(_short, head[name].to_list())] for name in head.columns]
        header = ["column", "type", *(f"row {i}" for i in range(len(head)))]
        lines = [_html_row("th", header), *(_html_row("td", row) for row in cells)]
        summary = f"{data.rows:,} rows, {len(head.columns)} columns, {data.bytes:,} bytes, SHA-256 {data.sha256}"
        return self._visualise(f"<p>{summary}</p><table border='1' cellpadding='3'>{''.join(lines)}</table>")


class ModelMaterializer(_FileMaterializer):
    """Stores a `ModelRef`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ModelRef,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: ModelRef) -> None:
        """Move the files into the artifact store."""
        names = sorted(file.name for file in data.path.iterdir())
        self.artifact_store.makedirs(os.path.join(self.uri, "model"))  # noqa: PTH118
        for name in names:
            self._put(data.path / name, f"model/{name}")
        self._write_facts({"sha256": data.sha256, "files": names})

    def load(self, data_type: type[Any]) -> ModelRef:
        """A reference to a local directory.

        Raises:
            MetalayerError: a file is gone, or is another than was stored.
        """
        facts = self._read_facts()
        folder = self._download_folder()
        (folder / "model").mkdir(exist_ok=True)
        for name in facts["files"]:
            self._get(f"model/{name}", folder)
        model = ModelRef.of(folder / "model")
        if model.sha256 != facts["sha256"]:
            raise self._changed(facts, model.sha256)
        return model

    def compute_content_hash(self, data: ModelRef) -> str | None:
        """The directory's hash."""
        return data.sha256

    def extract_metadata(self, data: ModelRef) -> dict[str, Any]:
        """Files, sizes and hash."""
        return {"sha256": data.sha256, "files": {file.name: file.stat().st_size for file in data.path.iterdir()}}


class JsonMaterializer(_FileMaterializer):
    """Stores a dictionary, JSON-ready, in place of ZenML's own, which does not see that its file was changed."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (dict,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    _FACTS = "data.json"

    def save(self, data: dict[str, Any]) -> None:
        """Write it with its digest."""
        self._write_facts({"content": data})

    def load(self, data_type: type[Any]) -> dict[str, Any]:
        """The dictionary.

        Raises:
            MetalayerError: the file is gone, or is another than was stored.
        """
        content: dict[str, Any] = self._read_facts()["content"]
        return content

    def compute_content_hash(self, data: dict[str, Any]) -> str | None:
        """Of the content: a step that gets the same again is cached."""
        return content_digest(json.loads(json.dumps(data)))


materializer_registry.register_and_overwrite_type(key=dict, type_=JsonMaterializer)


def _damaged(stored: str, error: ValueError) -> MetalayerError:
    return MetalayerError(
        f"{stored} is damaged: {error}; the artifact store was changed or is damaged. Run again with --no-cache"
    )


def _gone(stored: str) -> MetalayerError:
    return MetalayerError(f"{stored} is gone from the artifact store; run again with --no-cache")


def _html_row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)})"
