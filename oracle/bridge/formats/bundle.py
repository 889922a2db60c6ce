"""Checkpoints of the V2 format, a TF1 Saver's and TF2's: an index, a sorted table, and data files.

Read without TensorFlow, whose reader aborts the process on some shapes. Every length is held against the
files before memory is asked for, and every tensor's checksum is checked. Sources: `tensor_bundle.proto`;
`tensor_bundle.cc`; `ordered_code.cc`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oracle.bridge.formats.crc32c import crc32c, unmask
from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.table import read_table
from oracle.bridge.formats.tensors import STRING, Slice, find_dtype, index_slice, read_shape, read_slice
from oracle.bridge.formats.wire import as_message, as_number, read_fields, read_varint

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class _Entry:
    """Where a tensor's bytes are."""

    kind: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """What a checkpoint of the V2 format holds.

    Args:
        tensors: its arrays, sorted by their keys.
        others: what is no numbers, by its key.
        objects: the graph of its objects, if it is a TF2 checkpoint.
    """

    tensors: dict[str, np.ndarray]
    others: dict[str, str]
    objects: bytes | None = None


def read_bundle(prefix: str) -> Bundle:
    """Read every tensor of a checkpoint.

    Raises:
        DamageError: if it is damaged, or a file of it is missing.
        OSError: if a file cannot be read.
    """
    entries, shards, big = _read_index(Path(f"{prefix}.index").read_bytes())
    used = sorted({entry.shard for entry in entries.values() if not entry.slices})
    files = {shard: Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}") for shard in used}
    for shard, path in files.items():
        if shard >= shards or not path.is_file():
            raise DamageError(f"{path.name} is missing")
    sizes = {shard: path.stat().st_size for shard, path in files.items()}
    budget = Budget(sum(sizes.values()), exact=True)
    tensors, others, objects, parts = {}, {}, None, _name_parts(entries)
    for key, entry in entries.items():
        if key.startswith(b"\0"):
            continue
        name = _as_name(key)
        dtype = find_dtype(entry.kind)
        if dtype is None:
            what = "strings" if entry.kind == STRING else "no numbers"
            if name == OBJECT_GRAPH and entry.kind == STRING:
                objects = _load_text(entry, files, sizes)
            else:
                others[name] = f"{what}, shape {list(entry.shape)}, {entry.size} bytes"
            continue
        budget.take(entry.shape, dtype.itemsize, name)
        if not entry.slices:
            tensors[name] = _load(entry, dtype, name, files, sizes, big=big)
            continue
        whole = np.zeros(entry.shape, dtype)
        filled = np.zeros(entry.shape, bool)
        for part in entry.slices:
            piece = parts.get((key, part))
            if piece is None or find_dtype(piece.kind) != dtype:
                raise DamageError(f"a part of {name!r} is missing")
            index = index_slice(part, entry.shape)
            if whole[index].shape != piece.shape:
                raise DamageError(f"a part of {name!r} has another shape than it should")
            whole[index] = _load(piece, dtype, name, files, sizes, big=big)
            filled[index] = True
        if not filled.all():
            raise DamageError(f"a part of {name!r} is missing")
        tensors[name] = whole
    return Bundle(dict(sorted(tensors.items())), others, objects)


def _read_index(data: bytes) -> tuple[dict[bytes, _Entry], int, bool]:
    """The entries by their keys, the number of data files, and whether numbers are big-endian."""
    entries: dict[bytes, _Entry] = {}
    shards, big = 0, False
    for key, value in read_table(memoryview(data)):
        if key:
            entries[key] = _read_entry(value)
            continue
        for number, _, field in read_fields(value):
            if number == 1:
                shards = as_number(field)
            elif number == 2:
                big = as_number(field) == 1
    if not 0 < shards < 100_000:
        raise DamageError("its index has no header")
    return entries, shards, big


def _read_entry(data: memoryview) -> _Entry:
    values: dict[str, int] = {}
    shape: tuple[int, ...] = ()
    slices = []
    names = {1: "kind", 3: "shard", 4: "offset", 5: "size"}
    for number, _, value in read_fields(data):
        if number in names:
            values[names[number]] = as_number(value)
        elif number == 2:
            shape = read_shape(as_message(value))
        elif number == 6:
            stored = as_message(value)
            if len(stored) != 4:
                raise DamageError("a checksum in it is not of 32 bits")
            values["checksum"] = struct.unpack("<I", stored)[0]
        elif number == 7:
            slices.append(read_slice(as_message(value)))
    if any(values.get(name, 0) < 0 for name in ("shard", "offset", "size")):
        raise DamageError("an entry of its index has a negative place or size")
    return _Entry(shape=shape, slices=tuple(slices), **values)


def _load(
    entry: _Entry,
    dtype: np.dtype,
    name: str,
    files: Mapping[int, Path],
    sizes: Mapping[int, int],
    *,
    big: bool,
) -> np.ndarray:
    # The whole tensor's shape was held against the budget; a part's size is held against the file's.
    if entry.offset + entry.size > sizes.get(entry.shard, 0):
        raise DamageError(f"{name!r} lies past the end of its data file")
    elements = 1
    for size in entry.shape:
        elements *= size
    if elements < 0 or elements * dtype.itemsize != entry.size:
        raise DamageError(
            f"{name!r} has {entry.size} bytes, and its shape {list(entry.shape)} of {dtype} wants others"
        )
    data = _load_bytes(entry, files)
    if len(data) != entry.size or crc32c(data) != unmask(entry.checksum):
        raise DamageError(f"the checksum of {name!r} is wrong")
    array = np.frombuffer(bytearray(data), dtype).reshape(entry.shape)
    return array.byteswap() if big else array


def _load_text(entry: _Entry, files: Mapping[int, Path], sizes: Mapping[int, int]) -> bytes:
    """One string: its length, the length's checksum, its bytes."""
    if entry.offset + entry.size > sizes.get(entry.shard, 0) or entry.shape:
        raise DamageError("the graph of its objects lies past the end of its data file")
    data = memoryview(_load_bytes(entry, files))
    length, position = read_varint(data, 0)
    if position + 4 + length != entry.size or len(data) != entry.size:
        raise DamageError("the graph of its objects has another length than it says")
    return bytes(data[position + 4 :])


def _load_bytes(entry: _Entry, files: Mapping[int, Path]) -> bytes:
    with files[entry.shard].open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size)


def _as_name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise DamageError("a name in its index is not UTF-8") from error


def _name_parts(entries: Mapping[bytes, _Entry]) -> dict[tuple[bytes, Slice], _Entry]:
    """The entries of the parts of partitioned variables, by the variable's key and the slice."""
    return {
        (key, part): entries[code]
        for key, entry in entries.items()
        for part in entry.slices
        if (code := _encode_part(key, part)) in entries
    }


def _encode_part(key: bytes, part: Slice) -> bytes:
    """The key of a part: 0, the name, the rank, and of each axis start and length, as ordered code."""
    text = key.replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff") + b"\0\x01"
    rank = len(part).to_bytes((len(part).bit_length() + 7) // 8, "big")
    numbers = b"".join(
        _encode_number(start) + _encode_number(-1 if length is None else length) for start, length in part
    )
    return b"\0" + text + bytes([len(rank)]) + rank + numbers


_HEADERS = (b"\0\0", b"\x80\0", b"\xc0\0", b"\xe0\0", b"\xf0\0", b"\xf8\0", b"\xfc\0", b"\xfe\0", b"\xff\0")


def _encode_number(value: int) -> bytes:
    """A signed number so that the order of bytes is that of numbers."""
    magnitude = ~value if value < 0 else value
    length = magnitude.bit_length() // 7 + 1
    if length > 8:
        # No axis is so long that its numbers take nine bytes or more.
        raise DamageError("a slice in it is larger than any array")
    code = bytearray(value.to_bytes(length, "big", signed=True))
    code[0] ^= _HEADERS[length][0]
    return bytes(code)
