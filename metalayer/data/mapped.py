"""A training set as memory-mapped Arrow: tokens, features, labels and weights, ready to index.

Made once from the Parquet, beside it, under a hidden name that says of which Parquet and which columns
it is; a Parquet of other content, or other code, gets a new one. Content is the SHA-256 of the whole file, read at
each opening (about 1 s a GB): size and time can be those of another file, and a footer may describe other rows alike.
So is that of the mapped arrays, which are made again where they are not those that were written.
Where the folder cannot be written to, the mapped file lies in a folder of the user's own. One record batch, so that
each column is one array.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.data.discovery import written_as
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, ConfigError, InputError, SchemaError
from metalayer.features import feature_matrix
from metalayer.files import publish_file, scratch_directory, sha256, taking_turns
from metalayer.integrity import open_parquet
from metalayer.provenance import code_hash
from metalayer.schema import CLASSES, FEATURES, IDENTITY_COLUMNS, LABEL_LEAKING_COLUMNS, ROW_SCORES

logger = logging.getLogger(__name__)

_BATCH_ROWS = 65_536
_SEAL = b"metalayer.sha256"
INDEX = "index"
"""Column with the 0-based labelled base in the sequence; without it, the middle."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the Parquet to read as what.

    Attributes:
        sequence: text, transcript sense.
        features: feature columns to take from the file; the others are computed from the row scores.
        label: class names or 0, 1, 2.
        weight: sample weights; a file without the column weighs all rows 1.
    """

    sequence: str = "sequence"
    features: tuple[str, ...] | None = None
    label: str = "label"
    weight: str = "sample_weight"


@dataclass(frozen=True)
class Arrays:
    """Mapped columns: windows uint8 (n, W), features float32 (n, F), labels int64 (n,), weights float32 (n,)."""

    windows: NDArray[np.uint8]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


def map_parquet(path: Path, columns: Columns, window_bp: int) -> Arrays:
    """The arrays of a training set.

    Args:
        path: Parquet.
        columns: see `Columns`.
        window_bp: width W of the windows; the labelled base is at W // 2.

    Raises:
        ArtifactError: no such file, no Parquet, one that is written to meanwhile, or another than its manifest lists.
        ConfigError: the user's own folder, where it is needed, is another's.
        SchemaError: a column that is missing, is no feature, or gives the label away; values that are no
            features, labels or weights.
    """
    file = _parquet(path)
    chosen = _check(path, file.schema_arrow.names, columns)
    content = sha256(path)
    written_as(path, lambda _: content)
    folder, family = _place(path, columns, window_bp)
    mapped = folder / f"{family}.{_short_hash([content, code_hash()])}.arrow"
    arrays = _open(mapped, window_bp)
    if arrays is None:
        with taking_turns(folder / family):
            arrays = _open(mapped, window_bp)
            if arrays is None:  # else another process made it meanwhile
                for old in folder.glob(f"{glob.escape(family)}.*.arrow"):
                    old.unlink(missing_ok=True)
                logger.info("mapping %s (%d rows, once)", path, file.metadata.num_rows)
                with publish_file(mapped) as draft, scratch_directory(mapped.with_suffix(".scratch")) as scratch:
                    _write(file, path, columns, chosen, window_bp, draft, scratch)
                    if sha256(path) != content:
                        raise ArtifactError(f"{path}: was written to while it was read; try again when it is whole")
                arrays = _open(mapped, window_bp)
    if arrays is None:
        raise ArtifactError(f"{mapped}: reads otherwise than it was just written; look at the disk that it is on")
    return arrays


def check_columns(path: Path, columns: Columns) -> int:
    """Number of rows, after checking that the columns are there; arguments and errors as in `map_parquet`."""
    file = _parquet(path)
    _check(path, file.schema_arrow.names, columns)
    rows: int = file.metadata.num_rows
    return rows


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return open_parquet(path, "write it again")
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; write it with prepare_training_dataset") from None


def _check(path: Path, there: Sequence[str], columns: Columns) -> list[str]:
    """Feature columns to read."""
    given = columns.features if columns.features is not None else [name for name in FEATURES if name in there]
    for name in given:
        if name in LABEL_LEAKING_COLUMNS or name in IDENTITY_COLUMNS:
            raise SchemaError(f"feature column {name!r} gives the label away or names the row; it is never a feature")
    unknown = [name for name in given if name not in FEATURES]
    if unknown:
        raise SchemaError(
            f"feature columns {', '.join(map(repr, unknown))} are no features; the features are {', '.join(FEATURES)}"
        )
    needed = (columns.sequence, columns.label, *ROW_SCORES, *given)
    missing = [name for name in dict.fromkeys(needed) if name not in there]
    if missing:
        raise SchemaError(f"{path}: no column {', '.join(missing)}; write it with prepare_training_dataset")
    return [name for name in FEATURES if name in given]


def _place(path: Path, columns: Columns, window_bp: int) -> tuple[Path, str]:
    """Folder of the mapped file, and what the names of all of the same set and columns begin with."""
    what = _short_hash([str(path.resolve()), repr(columns), window_bp])
    folder = path.parent if os.access(path.parent, os.W_OK) else _own_folder()
    return folder, f".{path.stem}.{what}"


def _own_folder() -> Path:
    """A folder that only this user reads and writes, whoever may write to the one that it is in.

    Raises:
        ConfigError: somebody else has made one of this name, or a link, or may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"metalayer-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{folder}: a link, another user's, or others may write to it; training sets are mapped only where nobody "
            "else can change them. Remove it, or set TMPDIR to a folder of your own"
        )
    folder.chmod(0o700)
    return folder


def _short_hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _write(
    file: pq.ParquetFile,
    path: Path,
    columns: Columns,
    features: Sequence[str],
    window_bp: int,
    draft: Path,
    scratch: Path,
) -> None:
    n = file.metadata.num_rows
    there = file.schema_arrow.names
    extra = [name for name in (INDEX, columns.weight) if name in there]
    wanted = list(dict.fromkeys([columns.sequence, columns.label, *ROW_SCORES, *features, *extra]))

    def array(name: str, kind: type[np.generic], *shape: int) -> np.memmap:
        return np.memmap(scratch / name, kind, "w+", shape=(max(n, 1), *shape))

    windows, labels = array("windows", np.uint8, window_bp), array("labels", np.int64)
    values, weights = array("features", np.float32, len(FEATURES)), array("weights", np.float32)
    start = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
        at = slice(start, start + len(frame))
        windows[at] = _windows(frame, columns, window_bp, path, start)
        values[at] = _features(frame, features, windows[at], path)
        labels[at] = _labels(frame[columns.label], path)
        weights[at] = _weights(frame, columns.weight, path)
        start += len(frame)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.Array.from_buffers(pa.binary(window_bp), n, [None, pa.py_buffer(windows)]),
            pa.FixedSizeListArray.from_arrays(pa.array(values[:n].reshape(-1)), len(FEATURES)),
            pa.array(labels[:n]),
            pa.array(weights[:n]),
        ],
        ["windows", "features", "labels", "weights"],
    )
    schema = batch.schema.with_metadata({_SEAL: _digest(Arrays(windows[:n], values[:n], labels[:n], weights[:n]))})
    with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _windows(frame: pl.DataFrame, columns: Columns, window_bp: int, path: Path, first: int) -> NDArray[np.uint8]:
    sequences = frame[columns.sequence]
    if sequences.null_count():
        raise SchemaError(f"{path}: {sequences.null_count()} rows have no sequence; drop them")
    index = frame[INDEX] if INDEX in frame.columns else sequences.str.len_bytes() // 2
    try:
        return encode_windows(sequences.cast(pl.String), index.to_numpy(), window_bp)
    except InputError as error:
        raise SchemaError(f"{path}, rows from {first} on: {error}") from None


def _features(
    frame: pl.DataFrame, features: Sequence[str], windows: NDArray[np.uint8], path: Path
) -> NDArray[np.float32]:
    if len(features) == len(FEATURES):
        out = frame.select(pl.col(FEATURES).cast(pl.Float32)).to_numpy()
    else:
        out = feature_matrix(frame.select(pl.col(ROW_SCORES).cast(pl.Float32)).to_numpy(), windows)
        for name in features:
            out[:, FEATURES.index(name)] = frame[name].cast(pl.Float32).to_numpy()
    bad = ~np.isfinite(out)
    if bad.any():
        names = ", ".join(FEATURES[i] for i in np.flatnonzero(bad.any(axis=0)))
        raise SchemaError(f"{path}: {int(bad.any(axis=1).sum())} rows have no number in {names}; drop or fix them")
    return np.asarray(out, dtype=np.float32)


def _labels(labels: pl.Series, path: Path) -> NDArray[np.int64]:
    if labels.dtype == pl.String:
        labels = labels.str.to_lowercase().replace_strict(list(CLASSES), [0, 1, 2], default=None)
    if labels.null_count() or not labels.is_in([0, 1, 2]).all():
        raise SchemaError(
            f"{path}: column {labels.name!r} holds other values than 0, 1, 2 (donor, acceptor, neither) or those names"
        )
    return labels.cast(pl.Int64).to_numpy()


def _weights(frame: pl.DataFrame, column: str, path: Path) -> NDArray[np.float32]:
    if column not in frame.columns:
        return np.ones(len(frame), dtype=np.float32)
    weights = frame[column].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise SchemaError(f"{path}: column {column!r} holds weights that are empty, negative or no numbers")
    return weights


def _open(mapped: Path, window_bp: int) -> Arrays | None:
    """The arrays of a mapped file; None where there is none, or another than was written."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(mapped))).get_batch(0)
        n = batch.num_rows
        windows = np.frombuffer(batch["windows"].buffers()[1], np.uint8)[: n * window_bp].reshape(n, window_bp)
        features = batch["features"].flatten().to_numpy(zero_copy_only=True).reshape(n, len(FEATURES))
        arrays = Arrays(windows, features, batch["labels"].to_numpy(), batch["weights"].to_numpy())
        if (batch.schema.metadata or {}).get(_SEAL) == _digest(arrays):
            return arrays
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        logger.warning("%s: %s", mapped, error)
    logger.warning("%s is damaged; it is made again", mapped)
    return None


def _digest(arrays: Arrays) -> bytes:
    total = hashlib.sha256()
    for array in (arrays.windows, arrays.features, arrays.labels, arrays.weights):
        total.update(f"{array.dtype.str} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest().encode()
