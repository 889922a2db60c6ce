"""TensorFlow's dtypes, shapes and TensorProto, as the messages of its files.

Sources: `types.proto`, `tensor_shape.proto`, `tensor.proto`, `tensor_slice.proto`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.wire import (
    BYTES,
    VARINT,
    as_message,
    as_number,
    read_fields,
    unpack_varints,
)
from oracle.errors import MissingPackageError

STRING = 7

_REFERENCE = 100
"""TF1 variables have reference types, which are numbered so much higher."""

DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}

_QUANTIZED = {11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16"}

_NUMBERS: dict[int, tuple[Any, str]] = {
    # The field of TensorProto: how its numbers are stored, and by which way they become the dtype's.
    5: (np.dtype("<f4"), "cast"),
    6: (np.dtype("<f8"), "cast"),
    7: (None, "cast"),
    9: (np.dtype("<f4"), "pairs"),
    10: (None, "cast"),
    11: (None, "cast"),
    12: (np.dtype("<f8"), "pairs"),
    13: (None, "bits"),
    16: (None, "cast"),
    17: (None, "cast"),
}

Slice = tuple[tuple[int, int | None], ...]
"""Of each axis, the start and the length; a length of None is all of it."""


def as_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name, among them those of `ml_dtypes`.

    Raises:
        MissingPackageError: if the dtype needs ml_dtypes, which is not installed.
        DamageError: if there is no such dtype.
    """
    if name in _ML_DTYPES:
        try:
            import ml_dtypes
        except ImportError as error:
            raise MissingPackageError(
                f"a file that holds {name} needs ml_dtypes; install it with `pip install ml-dtypes`"
            ) from error
        return np.dtype(getattr(ml_dtypes, name))
    if name not in _PLAIN_DTYPES:
        raise DamageError(f"it holds the dtype {name!r}, which is no number")
    return np.dtype(name)


_ML_DTYPES = {"bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3b11fnuz"}
_PLAIN_DTYPES = {name for name in DTYPES.values() if name not in _ML_DTYPES}


def find_dtype(number: int) -> np.dtype | None:
    """NumPy's dtype of TensorFlow's `DataType`; None for strings and what else is no number.

    Raises:
        DamageError: if there is no such type.
    """
    number -= _REFERENCE if number > _REFERENCE else 0
    name = DTYPES.get(number) or _QUANTIZED.get(number)
    if name is not None:
        return as_dtype(name)
    if number in (STRING, 20, 21):
        return None
    raise DamageError(f"it names the unknown type {number}")


def read_shape(data: memoryview) -> tuple[int, ...]:
    """A TensorShapeProto.

    Raises:
        DamageError: if it is of unknown rank, or of more axes than there can be.
    """
    shape = []
    for number, _, value in read_fields(data):
        if number == 2:
            sizes = [as_number(size) for field, _, size in read_fields(as_message(value)) if field == 1]
            shape.append(sizes[-1] if sizes else 0)
        elif number == 3 and value:
            raise DamageError("a shape in it is of unknown rank")
        if len(shape) > 254:
            raise DamageError("a shape in it has more than 254 axes")
    return tuple(shape)


def read_slice(data: memoryview) -> Slice:
    """A TensorSliceProto."""
    extents = []
    for number, _, value in read_fields(data):
        if number == 1:
            start, length = 0, None
            for field, _, inner in read_fields(as_message(value)):
                if field == 1:
                    start = as_number(inner)
                elif field == 2:
                    length = as_number(inner)
            extents.append((start, length))
    return tuple(extents)


def index_slice(part: Slice, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of a slice in an array.

    Raises:
        DamageError: if it lies outside.
    """
    if len(part) != len(shape):
        raise DamageError("a slice in it has another rank than its array")
    index = []
    for (start, length), size in zip(part, shape, strict=True):
        stop = size if length is None else start + length
        if not 0 <= start <= stop <= size:
            raise DamageError(f"a slice in it lies outside of its array of shape {list(shape)}")
        index.append(slice(start, stop))
    return tuple(index)


def read_tensor(
    data: memoryview,
    budget: Budget,
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype | None = None,
) -> np.ndarray | None:
    """A TensorProto: an array, or None if it holds no numbers.

    Fewer numbers than the shape has elements are continued by the last one, which is how TensorFlow
    stores constants of one value. `shape` and `dtype`, if given, stand for the message's own.

    Raises:
        DamageError: if it contradicts itself, or is larger than the budget.
    """
    kind, content, own_shape = 0, None, ()
    numbers: dict[int, list[np.ndarray]] = {}
    for number, wire_type, value in read_fields(data):
        if number == 1:
            kind = as_number(value)
        elif number == 2:
            own_shape = read_shape(as_message(value))
        elif number == 4:
            content = as_message(value)
        elif number in _NUMBERS:
            numbers.setdefault(number, []).append(_read_numbers(number, wire_type, value))
    dtype = find_dtype(kind) if dtype is None else dtype
    if dtype is None:
        return None
    shape = own_shape if shape is None else shape
    size = budget.take(shape, dtype.itemsize, name)
    if content is not None and len(content):
        if len(content) != size:
            raise DamageError(f"{name!r} has {len(content)} bytes, and its shape {list(shape)} wants {size}")
        return np.frombuffer(bytes(content), dtype).reshape(shape)
    if len(numbers) > 1:
        raise DamageError(f"{name!r} holds numbers of several kinds")
    flat = np.zeros(size // dtype.itemsize, dtype)
    for field, pieces in numbers.items():
        values = _convert(np.concatenate(pieces), _NUMBERS[field][1], dtype, name)
        if len(values) > len(flat):
            raise DamageError(f"{name!r} has {len(values)} numbers, too many for its shape {list(shape)}")
        flat[: len(values)] = values
        if len(values):
            flat[len(values) :] = values[-1]
    return flat.reshape(shape)


def _read_numbers(number: int, wire_type: int, value: int | memoryview) -> np.ndarray:
    stored = _NUMBERS[number][0]
    if wire_type == VARINT:
        return np.array([value], np.uint64)
    if stored is None:
        if wire_type != BYTES:
            raise DamageError("a number in it is stored as another kind")
        return unpack_varints(as_message(value))
    if len(as_message(value)) % stored.itemsize:
        raise DamageError("it ends within a number")
    return np.frombuffer(bytes(as_message(value)), stored)


def _convert(numbers: np.ndarray, way: str, dtype: np.dtype, name: str) -> np.ndarray:
    if way == "bits":
        if dtype.itemsize > 2:
            raise DamageError(f"{name!r} holds 16-bit numbers for {dtype}")
        return numbers.astype(f"<u{dtype.itemsize}").view(dtype)
    if way == "pairs":
        if dtype.kind != "c" or len(numbers) % 2 or numbers.dtype.itemsize * 2 != dtype.itemsize:
            raise DamageError(f"{name!r} holds complex numbers for {dtype}")
        return numbers.view(dtype)
    if numbers.dtype.kind == "f":
        if numbers.dtype != dtype:
            raise DamageError(f"{name!r} holds {numbers.dtype} for {dtype}")
        return numbers
    if dtype.kind == "b":
        return numbers != 0
    if dtype.kind not in "iu":
        raise DamageError(f"{name!r} holds integers for {dtype}")
    # Negative numbers are stored as 64-bit two's complement.
    return numbers.astype(f"<u{dtype.itemsize}").view(dtype)
