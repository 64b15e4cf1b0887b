"""Constants of a frozen TensorFlow graph, read from the protobuf wire format without TensorFlow.

Of the messages GraphDef, NodeDef, AttrValue, TensorProto and TensorShapeProto the fields below are read; all else is
passed over. A reader of our own, as the protobuf runtime comes with the extra pipeline alone and would need the schema
of these messages, which TensorFlow has.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import ModelError

_NODE = 1  # of a graph
_NAME, _OPERATION, _ATTRIBUTE = 1, 2, 5  # of a node
_KEY, _VALUE = 1, 2  # of an entry of a map
_TENSOR = 8  # of a value
_TYPE, _SHAPE, _CONTENT = 1, 2, 4  # of a tensor
_DIMENSION, _SIZE = 2, 1  # of a shape, of a dimension
_FLOAT = 1  # the type float32
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED = {_FIXED_64: 8, _FIXED_32: 4}
_MOST_BITS = 64

_Message = memoryview


def float_constants(path: Path) -> dict[str, NDArray[np.float32]]:
    """Constants of type float32 with a content, by the name of their node.

    Raises:
        ModelError: a file that is no whole GraphDef.
    """
    try:
        return dict(_constants(memoryview(path.read_bytes())))
    except ValueError as error:
        raise ModelError(f"{path}: no whole frozen TensorFlow graph ({error}); copy it again") from None


def _constants(graph: _Message) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for number, node in _messages(graph):
        if number != _NODE:
            continue
        parts = dict(_messages(node))  # name and operation stand once
        if bytes(parts.get(_OPERATION, b"")) != b"Const":
            continue
        attributes = (dict(_messages(entry)) for number, entry in _messages(node) if number == _ATTRIBUTE)
        for attribute in attributes:
            if bytes(attribute.get(_KEY, b"")) == b"value" and _VALUE in attribute:
                tensor = _tensor(dict(_messages(attribute[_VALUE])).get(_TENSOR, memoryview(b"")))
                if tensor is not None:
                    yield bytes(parts.get(_NAME, b"")).decode(), tensor


def _tensor(message: _Message) -> NDArray[np.float32] | None:
    """None for one of another type, or whose few numbers stand elsewhere than in its content."""
    kinds = [value for number, value in _fields(message) if number == _TYPE and isinstance(value, int)]
    parts = dict(_messages(message))
    if kinds != [_FLOAT] or _CONTENT not in parts:
        return None
    dimensions = [size for number, size in _messages(parts.get(_SHAPE, memoryview(b""))) if number == _DIMENSION]
    shape = [
        sum(size for number, size in _fields(one) if number == _SIZE and isinstance(size, int)) for one in dimensions
    ]
    content = parts[_CONTENT]
    if len(content) != 4 * prod(shape):
        raise ValueError(f"a tensor of shape {tuple(shape)} has {len(content)} bytes")
    return np.frombuffer(content, dtype="<f4").reshape(shape).astype(np.float32)


def _messages(message: _Message) -> Iterator[tuple[int, _Message]]:
    """Number and bytes of the fields that have a length."""
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            yield number, value


def _fields(message: _Message) -> Iterator[tuple[int, int | _Message]]:
    """Number and value of each field: whole numbers of variable length, and bytes.

    Raises:
        ValueError: the message ends within a field, or has one of an unknown kind.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > len(message):
            raise ValueError("it ends within a field")
        yield number, message[at : at + length]
        at += length


def _varint(message: _Message, at: int) -> tuple[int, int]:
    """A whole number of variable length, and where it ends."""
    value = 0
    for shift in range(0, _MOST_BITS, 7):
        if at == len(message):
            raise ValueError("it ends within a field")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
