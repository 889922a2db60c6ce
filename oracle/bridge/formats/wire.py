"""Protocol buffers' wire format, as much of it as TensorFlow's files need.

TensorFlow's own reader aborts the process on a checkpoint whose checksums are right and whose shapes are
not, so nothing of a file is given to it. A message is read as its fields, in their order; what a field
means is for the callers. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.bridge.formats.damage import DamageError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | memoryview]
"""Its number, its wire type, and its value: a memoryview if the type is not VARINT."""


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The unsigned 64-bit number at `position`, and the position after it.

    Raises:
        DamageError: if the data ends within it, or it is longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise DamageError("it ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 2**64:
                break
            return value, position
    raise DamageError("a number in it has more than 64 bits")


def read_fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message.

    Raises:
        DamageError: if it is no message.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, position = read_varint(data, position)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, position = read_varint(data, position)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise DamageError(f"a field in it has the unknown wire type {kind}")
        if size > len(data) - position:
            raise DamageError("a field in it is longer than the rest")
        yield number, kind, data[position : position + size]
        position += size


def as_message(value: int | memoryview) -> memoryview:
    """The value of a field that must be a message, a string or packed numbers.

    Raises:
        DamageError: if it is a number.
    """
    if isinstance(value, int):
        raise DamageError("a number in it stands where a message should")
    return value


def as_number(value: int | memoryview) -> int:
    """The value of a field that must be an int32 or int64, with its sign.

    Raises:
        DamageError: if it is none.
    """
    if not isinstance(value, int):
        raise DamageError("a message in it stands where a number should")
    return value - 2**64 if value >= 2**63 else value


def as_text(value: int | memoryview) -> str:
    """The value of a field that must be text.

    Raises:
        DamageError: if it is none.
    """
    try:
        return bytes(as_message(value)).decode()
    except UnicodeDecodeError as error:
        raise DamageError("a name in it is not UTF-8") from error


def unpack_varints(data: memoryview) -> np.ndarray:
    """Packed varints, [n] uint64.

    Raises:
        DamageError: if the last one is not whole, or one is too long.
    """
    packed = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(packed < 128)
    if len(packed) and (not len(ends) or ends[-1] != len(packed) - 1):
        raise DamageError("it ends within a number")
    if not len(ends):
        return np.zeros(0, np.uint64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(packed)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 9:
        raise DamageError("a number in it has more than 64 bits")
    parts = (packed & 127).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts)
