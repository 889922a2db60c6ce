"""Files of named arrays: safetensors, and Flax's msgpack.

Flax's own `msgpack_restore` needs JAX and trusts the lengths in a file, so the file is read by msgpack,
its extension types as `flax.serialization` writes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.tensors import as_dtype
from oracle.bridge.formats.weight_file import GROUPS, NAMINGS, WeightFile, sort_tensors
from oracle.errors import MissingPackageError
from oracle.storage import METADATA_KEY

WEIGHTS_KEY = "gradient-oracle.weights"
"""In a safetensors file's metadata: how its arrays are named, and which are no variables."""

SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}

_STEP_NAMES = {"step", "opt_state"}


def read_safetensors(path: Path) -> WeightFile:
    """Read a safetensors file, of anyone's making.

    Raises:
        DamageError: if it is damaged, or is a record or a case, which hold no weights alone.
    """
    import safetensors

    data = path.read_bytes()
    try:
        listed = safetensors.deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise DamageError(f"not a whole safetensors file: {error}") from error
    metadata = header.get("__metadata__") or {}
    arrays = {}
    for name, tensor in listed:
        if tensor["dtype"] not in SAFETENSORS_DTYPES:
            raise DamageError(f"{name!r} is of the dtype {tensor['dtype']}, which NumPy has not")
        dtype = as_dtype(SAFETENSORS_DTYPES[tensor["dtype"]])
        arrays[name] = np.frombuffer(bytearray(tensor["data"]), dtype).reshape(tensor["shape"])
    if METADATA_KEY in metadata:
        raise DamageError(
            "a record or a case of gradient-oracle: `oracle compare` makes and reads those, and its weights "
            "are among its arrays"
        )
    return _sort_flat(str(path), "safetensors", arrays, metadata)


def _sort_flat(
    path: str, format: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> WeightFile:
    ordered = dict(sorted(arrays.items()))
    notes = {name: str(value)[:200] for name, value in sorted(metadata.items()) if name != WEIGHTS_KEY}
    if WEIGHTS_KEY not in metadata:
        return WeightFile(path, format, "leaves", **sort_tensors(ordered, "leaves"), notes=notes)
    try:
        own = json.loads(metadata[WEIGHTS_KEY])
        naming, order = own["convention"], own["groups"]
        full_names = {str(name): str(full) for name, full in own.get("full_names", {}).items()}
        groups = {group: {name: arrays[name] for name in order.get(group, [])} for group in GROUPS}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError("what it says of its arrays is not what is in it") from error
    listed = [name for group in groups.values() for name in group]
    if naming not in NAMINGS or sorted(listed) != list(ordered):
        raise DamageError("what it says of its arrays is not what is in it")
    return WeightFile(path, format, naming, **groups, notes=notes, full_names=full_names)


def read_msgpack(path: Path) -> WeightFile:
    """Read what `flax.serialization.to_bytes` or `msgpack_serialize` wrote. The leaves' names are paths.

    Variables under `params` alone are named without it.

    Raises:
        DamageError: if it is damaged, or holds anything but nested dictionaries of arrays and numbers.
        MissingPackageError: if msgpack, which comes with Flax, is not installed.
    """
    try:
        import msgpack
    except ImportError as error:
        raise MissingPackageError(
            "reading Flax's msgpack needs msgpack; install it with `pip install msgpack`"
        ) from error
    data = path.read_bytes()
    try:
        tree = msgpack.unpackb(
            data, ext_hook=_read_extension, raw=False, max_array_len=0, max_map_len=min(len(data), 2**20)
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise DamageError(f"not a whole msgpack file: {error}") from error
    if not isinstance(tree, dict):
        raise DamageError("a msgpack file, but no dictionary of arrays")
    others: dict[str, str] = {}
    leaves = _flatten(tree, "", others, Budget(len(data), exact=True))
    return sort_tree(str(path), "flax-msgpack", leaves, others)


def sort_tree(
    path: str, format: str, leaves: Mapping[str, np.ndarray], others: Mapping[str, str]
) -> WeightFile:
    """The leaves of a tree, which may have a collection `params` and our own `slots` and so on."""
    ordered = dict(sorted(leaves.items()))
    tops = {name.partition("/")[0] for name in leaves}
    if "params" not in tops or not tops <= {"params", *GROUPS, *_STEP_NAMES}:
        return WeightFile(path, format, "leaves", **sort_tensors(ordered, "leaves"), others=others)
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
    for name, leaf in ordered.items():
        top, _, inner = name.partition("/")
        if top == "params":
            groups["variables"][inner or name] = leaf
        elif top in GROUPS:
            groups[top][inner or name] = leaf
        elif leaf.ndim:
            groups["slots"][name] = leaf
        else:
            groups["counters"][name] = leaf
    if sum(map(len, groups.values())) < len(ordered) or _shared(groups):
        raise DamageError("two of its arrays have one name")
    return WeightFile(path, format, "leaves", **groups, others=others)


def _shared(groups: Mapping[str, Mapping[str, np.ndarray]]) -> bool:
    names = [name for group in groups.values() for name in group]
    return len(set(names)) < len(names)


def _read_extension(code: int, data: bytes) -> Any:
    """An array (1), a complex number (2) or a scalar of NumPy's (3)."""
    import msgpack

    if code not in (1, 2, 3):
        raise DamageError(f"it holds the unknown extension {code}")
    values = msgpack.unpackb(data, raw=True, max_ext_len=0, max_map_len=0, max_array_len=64)
    if code == 2:
        if len(values) != 2 or not all(isinstance(part, float) for part in values):
            raise DamageError("a complex number in it is none")
        return np.array(complex(*values))
    if not isinstance(values, list) or len(values) != 3:
        raise DamageError("an array in it is none")
    shape, name, content = values
    if not isinstance(shape, list) or not isinstance(name, bytes) or not isinstance(content, bytes):
        raise DamageError("an array in it is none")
    dtype = as_dtype(name[:40].decode(errors="replace"))
    if any(not isinstance(size, int) or size < 0 for size in shape) or len(shape) > 32:
        raise DamageError(f"an array in it claims the impossible shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise DamageError(f"an array in it has {len(content)} bytes, and its shape {shape} wants others")
    return np.frombuffer(bytearray(content), dtype).reshape(shape)


def _flatten(
    tree: Mapping[Any, Any], path: str, others: dict[str, str], budget: Budget
) -> dict[str, np.ndarray]:
    leaves: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise DamageError(f"a key in it is {key!r}, and no text")
        name = f"{path}/{key}" if path else key
        if isinstance(value, dict) and "__msgpack_chunked_array__" in value:
            found = {name: _join_chunks(value, name, budget)}
        elif isinstance(value, dict):
            found = _flatten(value, name, others, budget)
            if not value:
                others[name] = "an empty dictionary"
        elif isinstance(value, np.ndarray):
            found = {name: value}
        elif isinstance(value, bool | int | float):
            found = {name: _as_scalar(value, name)}
        else:
            others[name] = f"a value of type {type(value).__name__}"
            found = {}
        if found.keys() & leaves.keys():
            raise DamageError(f"two of its arrays are called {min(found.keys() & leaves.keys())!r}")
        leaves |= found
    return leaves


def _as_scalar(value: bool | float, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DamageError(f"{name!r} is a number of more than 64 bits")
    return array


def _join_chunks(value: Mapping[Any, Any], name: str, budget: Budget) -> np.ndarray:
    """An array that Flax cut into pieces, since it is larger than a message may be."""
    shape, chunks = value.get("shape"), value.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict):
        raise DamageError(f"{name!r} is cut into pieces that are none")
    pieces = [chunks.get(str(index)) for index in range(len(chunks))]
    sizes = [shape.get(str(index)) for index in range(len(shape))]
    if (
        not pieces
        or any(not isinstance(piece, np.ndarray) or piece.dtype != pieces[0].dtype for piece in pieces)
        or any(not isinstance(size, int) or size < 0 for size in sizes)
        or math.prod(sizes) != sum(piece.size for piece in pieces)
    ):
        raise DamageError(f"{name!r} is cut into pieces that do not fit its shape")
    budget.take(sizes, pieces[0].dtype.itemsize, name)
    return np.concatenate([piece.ravel() for piece in pieces]).reshape(sizes)
