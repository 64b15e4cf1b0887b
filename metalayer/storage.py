"""Why something cannot be written, in words: a disk that is full, a folder that is read-only.

Each library says it in its own way: with a number of the system, with its words alone, or as an error of its database.
"""

from __future__ import annotations

import errno
import os
import re

from metalayer.errors import InputError, MetalayerError

_FULL = "free some space on the disk, or use another one; then run the same command again"
_DAMAGED = "check the disk, or use another one; then run the same command again"
_OURS = "name a path that can be written (METALAYER_HOME names the state folder)"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EIO, errno.ESTALE), _DAMAGED),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _OURS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG), _OURS),
}
"""What to do, by the number of the system; other numbers are not of this kind."""
_WORDS = {
    **{os.strerror(number): number for number in _ADVICE},
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "disk I/O error": errno.EIO,
}
"""What libraries write where they give no number, or that of SQLite."""
_LIBRARIES = re.compile(r"(sqlite3|sqlalchemy|mlflow|polars|pyarrow|safetensors_rust|zenml|builtins|torch)(\.|$)")
_PATH = re.compile(r": '(/[^']+)'")


def explained(error: BaseException) -> MetalayerError | None:
    """An error of a disk as a message, which a cause of the error may be too.

    Returns:
        InputError where another path has to be given, MetalayerError where the disk has to be seen to, None where the
        error is of another kind.
    """
    found: BaseException | None = error
    while found is not None:
        number = found.errno if isinstance(found, OSError) else None
        if number in _ADVICE:
            assert isinstance(found, OSError)
            given = found.filename2 or found.filename  # of a copy, where it goes to
            told: MetalayerError | None = _error(number, given if isinstance(given, str) else "")
        else:
            told = in_words(str(found)) if _LIBRARIES.match(type(found).__module__) else None
            if type(found).__module__.startswith("mlflow") and "sqlite3." not in str(found):
                told = None  # a server that refuses says `Permission denied` too
        if told:
            told.__cause__ = error
            return told
        found = found.__cause__
    return None


def in_words(text: str) -> MetalayerError | None:
    """As `explained`, of the text of an error."""
    number = next((number for words, number in _WORDS.items() if words in text), None)
    path = _PATH.search(text)
    return None if number is None else _error(number, path[1] if path else "")


def _error(number: int, place: str) -> MetalayerError:
    message = f"{f'{place}: ' if place else ''}{os.strerror(number)}; {_ADVICE[number]}"
    return InputError(message) if _ADVICE[number] == _OURS else MetalayerError(message)
