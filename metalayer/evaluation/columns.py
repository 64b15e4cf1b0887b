"""Arrays on disk, for what is made once, is read several times and would not fit into memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns:
    """Arrays that come in parts (those of a gene, of a batch): a file without a name each, read a part at a time.

    Reading is no mapping: memory holds what was asked for, and the file system keeps of the rest what it has room for.
    The files lie where `TMPDIR` says and go with the object, or the process.
    """

    def __init__(self, columns: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]) -> None:
        """Begin with no part.

        Args:
            columns: name to type and shape of a position.
        """
        self._columns = dict(columns)
        self._files = {name: scratch_file() for name in columns}
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
        file = self._files[name]
        file.seek(start * array.itemsize * math.prod(shape))
        if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise OSError(f"scratch file of {name} in {tempfile.gettempdir()}: shorter than what was written to it")
        return array

    def _write(self, name: str, start: int, array: NDArray[np.generic]) -> None:
        file = self._files[name]
        file.seek(start * array.itemsize * math.prod(array.shape[1:]))
        write(file, array)


def scratch_file() -> FileIO:
    """A file without a name, where `TMPDIR` says, that goes when it is closed."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it outlives this call
    assert isinstance(file, FileIO)
    return file


def write(file: FileIO, array: NDArray[Any]) -> None:
    """Write all of an array where the file stands.

    Raises:
        OSError: with the folder of the scratch files and the cause, such as a full disk.
    """
    left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        cause = f"{error.strerror}, of the scratch files; TMPDIR names another folder"
        raise OSError(error.errno, cause, tempfile.gettempdir()) from None
