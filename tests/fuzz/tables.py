"""Sorted tables with right checksums: so that what is damaged reaches the code behind the checksums."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from oracle.bridge.formats.crc32c import crc32c
from oracle.bridge.formats.table import MAGIC


def encode_varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(value)
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


def encode_entry(
    kind: int,
    shape: Sequence[int],
    size: int,
    *,
    offset: int = 0,
    shard: int = 0,
    content: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    """An entry of a checkpoint's index, whose checksum is that of the content."""
    axes = b"".join(encode_field(2, encode_field(1, axis)) for axis in shape)
    numbers = encode_field(3, shard) + encode_field(4, offset) + encode_field(5, size)
    checksum = encode_varint(6 << 3 | 5) + struct.pack("<I", mask(crc32c(content)))
    return encode_field(1, kind) + encode_field(2, axes) + numbers + checksum + extra


HEADER = encode_field(1, 1)
"""The header of an index of one data file."""


def mask(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def build_table(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A table of one block."""
    out = bytearray()

    def put(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        block = bytearray()
        restarts = []
        for key, value in pairs:
            restarts.append(len(block))
            block += b"\0" + encode_varint(len(key)) + encode_varint(len(value)) + key + value
        restarts = restarts or [0]
        block += b"".join(struct.pack("<I", restart) for restart in restarts) + struct.pack(
            "<I", len(restarts)
        )
        handle = encode_varint(len(out)) + encode_varint(len(block))
        whole = bytes(block) + b"\0"
        out.extend(whole + struct.pack("<I", mask(crc32c(whole))))
        return handle

    data = put(entries)
    meta = put([])
    index = put([(b"\xff\xff", data)])
    return bytes(out) + (meta + index).ljust(40, b"\0") + MAGIC
