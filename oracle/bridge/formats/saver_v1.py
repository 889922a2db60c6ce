"""Checkpoints of a TF1 Saver's first format: one sorted table that holds everything.

Sources: `saved_tensor_slice.proto`; `tensor_slice_writer.cc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.table import read_table
from oracle.bridge.formats.tensors import Slice, find_dtype, index_slice, read_shape, read_slice, read_tensor
from oracle.bridge.formats.wire import as_message, as_number, as_text, read_fields


@dataclass
class _Tensor:
    """A tensor in the making."""

    array: np.ndarray
    filled: np.ndarray


def read_saver_v1(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint of one file or several, sorted by name.

    Raises:
        DamageError: if it is damaged, or a part is missing.
        OSError: if a file cannot be read.
    """
    budget = Budget(sum(path.stat().st_size for path in files))
    tensors: dict[str, _Tensor] = {}
    for path in files:
        described = False
        for key, value in read_table(memoryview(path.read_bytes())):
            for number, _, field in read_fields(value):
                if not key and number == 1:
                    described = True
                    _describe(as_message(field), tensors, budget)
                elif key and number == 2:
                    _fill(as_message(field), tensors, budget)
        if not described:
            raise DamageError("it is a table, but no checkpoint")
    for name, tensor in tensors.items():
        if not tensor.filled.all():
            raise DamageError(f"a part of {name!r} is missing")
    return {name: tensors[name].array for name in sorted(tensors)}


def _describe(data: memoryview, tensors: dict[str, _Tensor], budget: Budget) -> None:
    for number, _, value in read_fields(data):
        if number != 1:
            continue
        name, shape, kind = "", (), 0
        for field, _, inner in read_fields(as_message(value)):
            if field == 1:
                name = as_text(inner)
            elif field == 2:
                shape = read_shape(as_message(inner))
            elif field == 3:
                kind = as_number(inner)
        dtype = find_dtype(kind)
        if dtype is None:
            raise DamageError(f"{name!r} holds no numbers, which this format cannot")
        if name in tensors:
            # The parts of one variable may be in several files, each of which describes it.
            if tensors[name].array.shape != shape or tensors[name].array.dtype != dtype:
                raise DamageError(f"{name!r} is described in two ways")
            continue
        budget.take(shape, dtype.itemsize + 1, name)
        tensors[name] = _Tensor(np.zeros(shape, dtype), np.zeros(shape, bool))


def _fill(data: memoryview, tensors: dict[str, _Tensor], budget: Budget) -> None:
    name, part, content = "", None, None
    for number, _, value in read_fields(data):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            part = read_slice(as_message(value))
        elif number == 3:
            content = as_message(value)
    if name not in tensors or part is None or content is None:
        raise DamageError(f"it holds a part of {name!r}, which it does not describe")
    tensor = tensors[name]
    whole: Slice = part or tuple((0, None) for _ in tensor.array.shape)
    index = index_slice(whole, tensor.array.shape)
    shape = tensor.array[index].shape
    # The message leaves its dtype and shape to the description.
    values = read_tensor(content, budget, name, shape=shape, dtype=tensor.array.dtype)
    if math.prod(shape):
        tensor.array[index] = values
        tensor.filled[index] = True
