"""States of a frozen language model on disk: computed once for each sequence, then read from mapped files.

A store is a folder of Arrow files, each written whole: what a killed run had finished is there for the next one. An
item is found by its key, the hash of all that it depends on beside the model, which the folder stands for. Its CRC-32
is looked at when it is first read, since a SHA-256 of all would take minutes. States are float16: half the disk, and an
error of 2^-11 of their size. Axes: S bases read from a chunk, D channels.
"""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metalayer.errors import ConfigError, TrainingError
from metalayer.files import publish_file

KEY_BYTES = 16
_AGAIN = "remove the file and run again, which computes its states again"
States = NDArray[np.float16]


def state_key(*parts: bytes) -> bytes:
    """The key of an item that depends on these bytes."""
    return hashlib.blake2b(b"|".join(parts), digest_size=KEY_BYTES).digest()


@dataclass(frozen=True)
class _Part:
    """One file: its items (n, *shape), the CRC-32 of each (n,), and whether that was looked at (n,)."""

    path: Path
    states: States
    crcs: NDArray[np.uint32]
    checked: NDArray[np.bool_]

    def read(self, rows: NDArray[np.int64]) -> States:
        found = self.states[rows]
        for row, item in zip(rows.tolist(), found, strict=True):
            if not self.checked[row] and zlib.crc32(np.ascontiguousarray(item).data) != self.crcs[row]:
                raise TrainingError(f"{self.path} is damaged: state {row} is not as it was written; {_AGAIN}")
        self.checked[rows] = True
        return found


class StateStore:
    """Items of one shape by key, in mapped files."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        """Open what is there.

        Args:
            folder: of one model and one kind of items.
            shape: of an item.
        """
        self.folder, self.shape = Path(folder), shape
        self._parts: dict[str, _Part] = {}
        self._place: dict[bytes, tuple[str, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Open what other processes have written."""
        for path in sorted(self.folder.glob("[!.]*.arrow")):
            if path.name not in self._parts:
                try:
                    with pa.memory_map(str(path)) as file:
                        batch = pa.ipc.open_file(file).get_batch(0)
                    n = batch.num_rows
                    found = np.frombuffer(batch["states"].buffers()[1], np.float16)
                    states = found[: n * int(np.prod(self.shape))].reshape(n, *self.shape)
                    self._parts[path.name] = _Part(path, states, batch["crc"].to_numpy(), np.zeros(n, np.bool_))
                    self._place.update({key: (path.name, i) for i, key in enumerate(batch["key"].to_pylist())})
                except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                    raise TrainingError(f"{path} is damaged ({error}); {_AGAIN}") from None

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Which of the items are not there, each key once, by their number in `keys`.

        Raises:
            ConfigError: the disk does not hold them.
        """
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if key not in self._place:
                first.setdefault(key, i)
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = len(first) * self.item_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"train.embedding_cache: the states of {len(first):,} sequences need {needed / 1e9:.1f} GB in "
                f"{self.folder}, which has {free / 1e9:.1f} GB; give a folder on another disk, train on fewer genes, "
                "or do not freeze the encoder"
            )
        return list(first.values())

    @property
    def item_bytes(self) -> int:
        """Bytes of an item on disk, its key aside."""
        return 2 * int(np.prod(self.shape))

    def add(self, keys: Sequence[bytes], states: NDArray[np.float32]) -> None:
        """Write items as one more file.

        Args:
            keys: of the items.
            states: float32 (n, *shape).

        Raises:
            TrainingError: states that are no numbers in float16.
        """
        if not (np.abs(states) <= np.finfo(np.float16).max).all():
            raise TrainingError(
                "the language model gives states that are no numbers or above 65,504; check its weights"
            )
        half = np.ascontiguousarray(states, dtype=np.float16)
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array(keys, pa.binary(KEY_BYTES)),
                pa.Array.from_buffers(pa.binary(self.item_bytes), len(keys), [None, pa.py_buffer(half)]),
                pa.array([zlib.crc32(item.data) for item in half], pa.uint32()),
            ],
            ["key", "states", "crc"],
        )
        path = self.folder / f"{state_key(*keys).hex()}.arrow"
        with publish_file(path) as draft, pa.ipc.new_file(str(draft), batch.schema) as writer:
            writer.write_batch(batch)

    def read(self, keys: Sequence[bytes]) -> MappedStates:
        """Items that are there, in this order."""
        names = {name: number for number, name in enumerate(self._parts)}
        places = [self._place[key] for key in keys]
        return MappedStates(
            list(self._parts.values()),
            np.array([names[name] for name, _ in places], dtype=np.int64),
            np.array([row for _, row in places], dtype=np.int64),
            self.shape,
        )


class MappedStates:
    """Items in order, each a place in one of several mapped arrays."""

    def __init__(
        self, parts: list[_Part], part: NDArray[np.int64], row: NDArray[np.int64], shape: tuple[int, ...]
    ) -> None:
        self._parts, self._part, self._row, self._shape = parts, part, row, shape

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, at: NDArray[np.int64]) -> States:
        """Items by their numbers (n,): float16 (n, *shape).

        Raises:
            TrainingError: one that is not as it was written.
        """
        out = np.empty((len(at), *self._shape), dtype=np.float16)
        part = self._part[at]
        for number in np.unique(part):
            mine = part == number
            out[mine] = self._parts[number].read(self._row[at[mine]])
        return out


class GeneStates:
    """States of the row positions of genes, from one before to one behind each, chunk by chunk."""

    def __init__(self, chunks: MappedStates, first_chunk: NDArray[np.int64], stride_bp: int, channels: int) -> None:
        """Read chunks as genes.

        Args:
            chunks: items (S, D), gene after gene.
            first_chunk: int64 (G + 1,), the number of each gene's first chunk.
            stride_bp: S.
            channels: D.
        """
        self._chunks, self._first, self._stride, self._channels = chunks, first_chunk, stride_bp, channels

    def stretch(self, gene: int, start: int, n: int) -> States:
        """States of n row positions of a gene, the first at `start` - 1 in it; 0 beyond the end: float16 (n, D)."""
        first, end = self._first[gene] + start // self._stride, self._first[gene] + -(-(start + n) // self._stride)
        found = self._chunks[np.arange(first, min(end, self._first[gene + 1]))].reshape(-1, self._channels)
        found = found[start % self._stride :][:n]
        out = np.zeros((n, self._channels), dtype=np.float16)
        out[: len(found)] = found
        return out
