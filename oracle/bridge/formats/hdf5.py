"""The arrays of an HDF5 file, and the attributes that Keras writes. Run in a process of its own.

Links that leave the file, or lead anywhere but to an object of it, virtual datasets and datasets in other
files are refused; a dataset's size is held against the file's before it is read.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.tensors import as_dtype
from oracle.errors import MissingPackageError

DEPTH = 64
ATTRIBUTES = re.compile(
    r"(?:layer_names|weight_names)\d*|name|dtype|keras_version|backend|model_config|training_config"
)
# Deflate, shuffle, Fletcher's checksum, szip, n-bit, scale and offset, LZF.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}


def read(path: str, size: int) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """The attributes of every object, by its path (the root's is empty), and every dataset.

    Raises:
        DamageError: if the file is damaged, or holds what is refused.
        MissingPackageError: if h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("reading HDF5 needs h5py; install it with `pip install h5py`") from error
    walk = _Walk(h5py, Budget(size), os.path.getsize(path))
    with h5py.File(path, "r", locking=False) as file:
        walk.visit(file, "", ())
    return walk.attributes, walk.arrays


class _Walk:
    """What was found so far."""

    def __init__(self, h5py: Any, budget: Budget, size: int) -> None:
        self.h5py, self.budget, self.size = h5py, budget, size
        self.attributes: dict[str, dict[str, Any]] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.objects = 0

    def visit(self, group: Any, path: str, above: tuple[int, ...]) -> None:
        """Read a group and what is below it."""
        address = self.h5py.h5o.get_info(group.id).addr
        if address in above or len(above) > DEPTH:
            raise DamageError(f"its group {path!r} contains itself")
        self.read_attributes(group, path)
        for name in group:
            self.objects += 1
            # The smallest object has a header of 16 bytes and an entry in a table.
            if self.objects > self.size // 16:
                raise DamageError("it lists more objects than fit in it")
            inner = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if not isinstance(link, self.h5py.HardLink):
                target = f"{getattr(link, 'filename', '')}:{getattr(link, 'path', '')}".lstrip(":")
                raise DamageError(f"{inner!r} is a link to {target!r}, and links are not followed")
            value = group[name]
            if isinstance(value, self.h5py.Group):
                self.visit(value, inner, (*above, address))
            elif isinstance(value, self.h5py.Dataset):
                self.read_attributes(value, inner)
                self.read_dataset(value, inner)

    def read_attributes(self, value: Any, path: str) -> None:
        """Keep the attributes that Keras writes."""
        found = {}
        for name in value.attrs:
            if not ATTRIBUTES.fullmatch(name):
                continue
            attribute = value.attrs.get_id(name)
            if int(np.prod(attribute.shape or (0,), dtype=np.int64)) > self.size:
                raise DamageError(f"its attribute {name!r} of {path!r} is larger than the file")
            found[name] = _as_text(value.attrs[name])
        if found:
            self.attributes[path] = found

    def read_dataset(self, dataset: Any, path: str) -> None:
        """Read a dataset of numbers."""
        if dataset.is_virtual or dataset.external:
            raise DamageError(f"{path!r} lies in other files, which are not read")
        if dataset.shape is None:
            return
        creation = dataset.id.get_create_plist()
        filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
        if not filters <= _FILTERS:
            raise DamageError(f"{path!r} is compressed by the unknown filter {min(filters - _FILTERS)}")
        stored = self.attributes.get(path, {}).get("dtype")
        dtype = dataset.dtype
        # HDF5 has no bfloat16: Keras 3 stores its bits, and says so in an attribute.
        opaque = dtype.kind == "V" and dtype.fields is None and dtype.subdtype is None
        if opaque and isinstance(stored, str):
            target = as_dtype(stored)
        elif dtype.kind in "biufc" and dtype.fields is None:
            target = as_dtype(dtype.newbyteorder("=").name)
        else:
            raise DamageError(f"{path!r} holds {dtype}, which is no number")
        if target.itemsize != dtype.itemsize:
            raise DamageError(f"{path!r} holds {dtype}, and says that it is {target}")
        self.budget.take(dataset.shape, max(dtype.itemsize, 1), path)
        if dataset.chunks is not None:
            self.budget.take(dataset.chunks, dtype.itemsize, path)
        array = dataset[()]
        if opaque:
            array = np.frombuffer(np.asarray(array).tobytes(), target).reshape(dataset.shape)
        self.arrays[path] = np.asarray(array).astype(target, copy=False)


def _as_text(value: Any) -> Any:
    """An attribute as JSON has it: text or a list of texts."""
    if isinstance(value, np.ndarray):
        return [_as_text(item) for item in value.ravel()]
    if isinstance(value, bytes):
        return value.decode(errors="strict")
    return str(value)
