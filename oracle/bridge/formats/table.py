"""Sorted tables, LevelDB's format: a checkpoint's index, and the whole of a V1 checkpoint.

Every block's checksum is checked. Sources: LevelDB's `table_format.md`; TensorFlow's `lib/io/format.cc`;
Snappy's `format_description.txt`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from oracle.bridge.formats.crc32c import crc32c, unmask
from oracle.bridge.formats.damage import FLOOR, DamageError
from oracle.bridge.formats.wire import read_varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER = 48
_TRAILER = 5
_PLAIN, _SNAPPY = 0, 1


def read_table(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a table, in order.

    Raises:
        DamageError: if it is no table, or a checksum is wrong.
    """
    if len(data) < _FOOTER or bytes(data[-8:]) != MAGIC:
        raise DamageError("its last bytes are not those of a table")
    footer = data[len(data) - _FOOTER :]
    _, _, position = _read_handle(footer, 0)
    offset, size, _ = _read_handle(footer, position)
    read = 0
    last = None
    for _, handle in _read_block(_load_block(data, offset, size)):
        offset, size, _ = _read_handle(handle, 0)
        read += size
        # No two blocks of a table overlap.
        if read > len(data):
            raise DamageError("its blocks are longer than the file")
        for key, value in _read_block(_load_block(data, offset, size)):
            if last is not None and key <= last:
                raise DamageError("its keys are out of order")
            last = key
            yield key, value


def _read_handle(data: memoryview, position: int) -> tuple[int, int, int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return offset, size, position


def _load_block(data: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + _TRAILER > len(data) - _FOOTER:
        raise DamageError("a block of it lies past its end")
    checked, trailer = data[offset : offset + size + 1], data[offset + size + 1 : offset + size + _TRAILER]
    if crc32c(checked) != unmask(struct.unpack("<I", trailer)[0]):
        raise DamageError("a block's checksum is wrong")
    kind = checked[-1]
    if kind == _PLAIN:
        return checked[:-1]
    if kind == _SNAPPY:
        return memoryview(uncompress(checked[:-1]))
    raise DamageError(f"a block of it is compressed in the unknown way {kind}")


def _read_block(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    if len(block) < 4:
        raise DamageError("a block of it is too short")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise DamageError("a block of it is too short")
    entries, position, key = block[:end], 0, b""
    while position < end:
        shared, position = read_varint(entries, position)
        added, position = read_varint(entries, position)
        size, position = read_varint(entries, position)
        if shared > len(key) or added + size > end - position:
            raise DamageError("an entry of it is longer than its block")
        key = key[:shared] + bytes(entries[position : position + added])
        position += added
        yield key, entries[position : position + size]
        position += size


def uncompress(data: memoryview) -> bytes:
    """What Snappy compressed.

    Raises:
        DamageError: if the data are damaged, or claim to become more than they can.
    """
    size, position = read_varint(data, 0)
    # The densest element copies 64 bytes in two.
    if size > max(32 * len(data), 64) or size > FLOOR * 16:
        raise DamageError("a compressed block claims to be larger than it can be")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(_take(data, position, extra), "little")
                position += extra
            out += _take(data, position, length + 1)
            position += length + 1
        else:
            if tag & 3 == 1:
                length, width = (tag >> 2 & 7) + 4, 1
                distance = (tag >> 5) << 8 | int.from_bytes(_take(data, position, 1), "little")
            else:
                length, width = (tag >> 2) + 1, 2 if tag & 3 == 2 else 4
                distance = int.from_bytes(_take(data, position, width), "little")
            position += width
            if not 0 < distance <= len(out):
                raise DamageError("a compressed block points before its start")
            start = len(out) - distance
            # A copy may overlap what it makes, and so repeat it.
            piece = bytes(out[start : start + length])
            out += (piece * (length // len(piece) + 1))[:length]
        if len(out) > size:
            raise DamageError("a compressed block is larger than it says")
    if len(out) != size:
        raise DamageError("a compressed block is shorter than it says")
    return bytes(out)


def _take(data: memoryview, position: int, size: int) -> memoryview:
    if size > len(data) - position:
        raise DamageError("a compressed block ends too soon")
    return data[position : position + size]
