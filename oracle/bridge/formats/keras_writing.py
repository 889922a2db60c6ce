"""Keras' weight files: `.weights.h5`, and the legacy layout of `.h5`."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oracle.bridge.formats.keras_files import TOP_LEVEL
from oracle.errors import BridgeError, MissingPackageError
from oracle.storage import write_bytes

_ATTRIBUTE_LIMIT = 64512
"""The bytes of an attribute that Keras puts into one object header."""


def write_keras_weights(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the layout of `.weights.h5`, of names that are places, `layers/lstm/cell/vars/0`.

    Raises:
        BridgeError: if a name is no place, or the file cannot be written.
    """
    for name in arrays:
        if not re.search(r"(?:^|/)vars/\d+$", name) or "//" in name:
            raise BridgeError(
                f"{path}: .weights.h5 holds weights by places such as lstm/cell/vars/0, and {name!r} is "
                "none; give a mapping to such names, write .h5, or write straight into the model"
            )
    h5py = _import_h5py()
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        # Keras opens the model's own variables, of which most have none.
        file.require_group("vars")
        for name, array in arrays.items():
            if array.dtype.kind in "biufc":
                file.create_dataset(name, data=array)
            else:
                # As Keras 3 does: HDF5 has none of ml_dtypes' types.
                bits = np.ascontiguousarray(array).view(np.dtype(f"V{array.dtype.itemsize}"))
                file.create_dataset(name, data=bits.reshape(array.shape))
                file[name].attrs["dtype"] = array.dtype.name
    write_bytes(path, memory.getvalue())


def write_keras_h5(arrays: Mapping[str, np.ndarray], layers: Mapping[str, Sequence[str]], path: Path) -> None:
    """Write the legacy layout: the layers, and the names of each one's weights, in the model's own order.

    Keras loads such a file by the order of layers and of weights, whatever they are called.

    Raises:
        BridgeError: if a dtype is not in HDF5, or the file cannot be written.
    """
    h5py = _import_h5py()
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise BridgeError(f"{path}: Keras' legacy HDF5 has no {array.dtype}, which {name!r} is")
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise BridgeError(f"{path}: {name!r} is no path in an HDF5 file")
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        _write_names(file, "layer_names", [layer for layer in layers if layer != TOP_LEVEL])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
        for layer, names in layers.items():
            group = file.create_group(layer)
            _write_names(group, "weight_names", [f"{name}:0" for name in names])
            for name in names:
                group.create_dataset(f"{name}:0", data=arrays[name])
    write_bytes(path, memory.getvalue())


def _write_names(group: Any, kind: str, names: Sequence[str]) -> None:
    """Names as an attribute, or as several where they are too long for one."""
    encoded = np.asarray([name.encode() for name in names])
    count = -(-encoded.nbytes // _ATTRIBUTE_LIMIT)
    if count <= 1:
        group.attrs[kind] = encoded
        return
    for index, piece in enumerate(np.array_split(encoded, count)):
        group.attrs[f"{kind}{index}"] = piece


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("writing HDF5 needs h5py; install it with `pip install h5py`") from error
    return h5py
