"""Arrays on disk, for what is made once, is read several times and would not fit into memory."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """A file without a name, where `TMPDIR` says, that goes with the object, or the process.

    Reading is no mapping: memory holds what was asked for, and the file system keeps of the rest what it has room for.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it is closed below
        weakref.finalize(self, self._file.close)

    def write(self, at: int, array: NDArray[Any]) -> None:
        """Write an array at a byte of the file.

        Raises:
            OSError: with the folder of the file and the cause, such as a full disk.
        """
        self._file.seek(at)
        left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            cause = f"{error.strerror}, of the scratch files; TMPDIR names another folder"
            raise OSError(error.errno, cause, tempfile.gettempdir()) from None

    def read(self, at: int, array: NDArray[Any]) -> None:
        """Fill a contiguous array with what was written at a byte of the file.

        Raises:
            OSError: less was.
        """
        self._file.seek(at)
        left = array.reshape(-1).view(np.uint8).data
        while left:
            more = self._file.readinto(left)
            if not more:
                raise OSError(f"a scratch file in {tempfile.gettempdir()} is shorter than what was written to it")
            left = left[more:]


class Columns:
    """Arrays that come in parts (those of a gene, of a batch): a `Scratch` file each, read a part at a time."""

    def __init__(self, columns: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]) -> None:
        """Begin with no part.

        Args:
            columns: name to type and shape of a position.
        """
        self._columns = dict(columns)
        self._files = {name: Scratch() for name in columns}
        self._starts = [0]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, **arrays: NDArray[np.generic]) -> None:
        """A part, with an array (n, ...) for each column."""
        lengths = {len(array) for array in arrays.values()}
        assert lengths and arrays.keys() == self._columns.keys() and len(lengths) == 1
        for name, array in arrays.items():
            kind, shape = self._columns[name]
            assert array.shape[1:] == shape
            self._write(name, self._starts[-1], np.ascontiguousarray(array, kind))
        self._starts.append(self._starts[-1] + lengths.pop())

    def replace(self, name: str, number: int, array: NDArray[np.generic]) -> None:
        """Another array for a column of a part."""
        self._write(name, self._starts[number], np.ascontiguousarray(array, self._columns[name][0]))

    def read(self, name: str, number: int) -> NDArray[Any]:
        """A column of a part."""
        kind, shape = self._columns[name]
        start, end = self._starts[number : number + 2]
        array = np.empty((end - start, *shape), kind)
        self._files[name].read(start * array.itemsize * math.prod(shape), array)
        return array

    def _write(self, name: str, start: int, array: NDArray[np.generic]) -> None:
        self._files[name].write(start * array.itemsize * math.prod(array.shape[1:]), array)
