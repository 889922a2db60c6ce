"""Weight files written: whole or not at all, and never with something silently left out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from oracle.bridge.formats.bundle import OBJECT_GRAPH, VALUE_SUFFIX
from oracle.bridge.formats.flat_files import SAFETENSORS_DTYPES, WEIGHTS_KEY
from oracle.bridge.formats.graph_def import CONSTANT
from oracle.bridge.formats.keras_writing import write_keras_h5, write_keras_weights
from oracle.bridge.formats.object_graph import describe_objects
from oracle.bridge.formats.weight_file import GROUPS, Naming, WeightFile, sort_tensors
from oracle.errors import BridgeError
from oracle.frameworks import import_jax, import_tensorflow
from oracle.storage import write_bytes

WRITTEN = (
    "safetensors",
    "flax-msgpack",
    "tf1-checkpoint",
    "tf2-checkpoint",
    "keras-weights-h5",
    "keras-h5",
)
"""The formats that are written."""

_BY_SUFFIX = (
    (".safetensors", "safetensors"),
    (".msgpack", "flax-msgpack"),
    (".weights.h5", "keras-weights-h5"),
    (".h5", "keras-h5"),
    (".hdf5", "keras-h5"),
)
_NAMING_OF: Mapping[str, Naming] = {
    "tf1-checkpoint": "tf1",
    "tf2-checkpoint": "keras",
    "keras-weights-h5": "places",
    "keras-h5": "layers",
}
_CONFIGURATIONS = ("model_config", "training_config", "saved_model.pb")


def choose_format(path: Path, naming: Naming, format: str | None) -> str:
    """The format to write to a path: the one asked for, or the one that its name says.

    Raises:
        BridgeError: if the format is not written, or the name does not say.
    """
    if format is not None:
        if format not in WRITTEN:
            raise BridgeError(f"{path}: {format!r} is not written; {', '.join(WRITTEN)} are")
        return format
    name = path.name.lower()
    for suffix, by_suffix in _BY_SUFFIX:
        if name.endswith(suffix):
            return by_suffix
    if name.endswith((".keras", ".pb")):
        raise BridgeError(
            f"{path}: {Path(name).suffix} holds a model beside its weights and is not written; write "
            ".weights.h5 or a checkpoint, and load it into the model"
        )
    by_naming = {"tf1": "tf1-checkpoint", "keras": "tf2-checkpoint"}
    if (name.endswith(".ckpt") or "." not in name) and naming in by_naming:
        return by_naming[naming]
    raise BridgeError(f"{path}: its name does not say its format; give --format, one of {', '.join(WRITTEN)}")


def write_weight_file(
    weights: WeightFile,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    weights_only: bool = False,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write weights to a file, or to a checkpoint's prefix, under the names that they have.

    Args:
        weights: what to write.
        path: where.
        format: one of `WRITTEN`; by default what the path's ending says.
        weights_only: write the variables alone, without slots, averages, counters and what is no numbers.
        overwrite: replace what is there.

    Returns:
        What was left out: a line each.

    Raises:
        BridgeError: if the place cannot be written or is taken, or the format cannot represent something;
            the message names it. Nothing is written then.
        MissingPackageError: if the format's package is not installed.
    """
    path = Path(path)
    chosen = choose_format(path, weights.convention, format)
    _check_place(path, chosen, overwrite=overwrite)
    layers = _choose_layers(weights, path) if chosen == "keras-h5" else {}
    kept, left_out = _choose_groups(weights, path, chosen, weights_only=weights_only)
    for group in GROUPS:
        for name, array in kept[group].items():
            if array.dtype.kind not in "biufc" and array.dtype.name not in SAFETENSORS_DTYPES.values():
                raise BridgeError(f"{path}: {name!r} is {array.dtype}, which is no number")
    writers: Mapping[str, Callable[[Path], None]] = {
        "safetensors": lambda to: _write_safetensors(kept, weights, to),
        "flax-msgpack": lambda to: _write_msgpack(kept, to),
        "tf1-checkpoint": lambda to: _write_bundle(_merge(kept), {}, to),
        "tf2-checkpoint": lambda to: _write_object_checkpoint(_merge(kept), weights, to),
        "keras-weights-h5": lambda to: write_keras_weights(_merge(kept), to),
        "keras-h5": lambda to: write_keras_h5(kept["variables"], layers, to),
    }
    writers[chosen](path)
    return left_out


def _choose_layers(weights: WeightFile, path: Path) -> dict[str, list[str]]:
    """The layers of a legacy HDF5 file and their variables, in the model's own order.

    Raises:
        BridgeError: if the weights do not come with it. Two variables of one shape would change places.
    """
    layers = {
        layer: [name for name in names if name in weights.variables]
        for layer, names in weights.layers.items()
    }
    listed = [name for names in layers.values() for name in names]
    if sorted(listed) != sorted(weights.variables):
        raise BridgeError(
            f"{path}: Keras loads a legacy .h5 by the order of the model's layers, not by name, and only "
            f"another legacy .h5 says that order, which {weights.path} is not; give .weights.h5 or a TF2 "
            "checkpoint, which are loaded by name, or write into the model itself with write_into "
            "(docs/weights.md)"
        )
    return layers


Kept = dict[str, Mapping[str, np.ndarray]]


def _choose_groups(
    weights: WeightFile, path: Path, format: str, *, weights_only: bool
) -> tuple[Kept, tuple[str, ...]]:
    """What to write of each group, and what is left out."""
    kept: Kept = {group: dict(getattr(weights, group)) for group in GROUPS}
    left_out = [f"{name}: {note}" for name, note in weights.notes.items() if name in _CONFIGURATIONS]
    constants = sum(note.startswith(CONSTANT) for note in weights.notes.values())
    if constants:
        left_out.append(f"{constants} constants of the graph that were no variables")
    if weights_only:
        for group in GROUPS[1:]:
            if kept[group]:
                left_out.append(f"{len(kept[group])} {group}, such as {next(iter(kept[group]))!r}")
                kept[group] = {}
        left_out += [f"{name}: {other}" for name, other in weights.others.items()]
    problems = _find_problems(weights, kept, format)
    if weights.others and not weights_only:
        first = next(iter(weights.others))
        problems.append(f"{len(weights.others)} things that are no numbers, such as {first!r}")
    if problems:
        raise BridgeError(
            f"{path}: {format} cannot represent {'; '.join(problems)}; write another format"
            + ("" if weights_only else ", or the variables alone with --weights-only")
        )
    if not any(kept.values()):
        raise BridgeError(f"{path}: {weights.path} holds no arrays to write")
    return kept, tuple(left_out)


def _find_problems(weights: WeightFile, kept: Kept, format: str) -> list[str]:
    """What a format has no place for.

    A checkpoint says by a name alone what a slot is: it is represented if it will be understood so again.
    """
    if format == "keras-h5":
        return [
            f"{len(kept[group])} {group}, such as {next(iter(kept[group]))!r}"
            for group in GROUPS[1:]
            if kept[group]
        ]
    if format not in _NAMING_OF:
        return []
    understood = sort_tensors(_merge(kept), _NAMING_OF[format], full_names=weights.full_names)
    problems = []
    for group in GROUPS:
        others = [name for name in kept[group] if name not in understood[group]]
        if others:
            problems.append(f"{len(others)} {group}, such as {others[0]!r}, which it would take for others")
    return problems


def _merge(kept: Kept) -> dict[str, np.ndarray]:
    return {name: array for group in GROUPS for name, array in kept[group].items()}


def _check_place(path: Path, format: str, *, overwrite: bool) -> None:
    checkpoint = format in ("tf1-checkpoint", "tf2-checkpoint")
    data = _data_files(path) if checkpoint and path.parent.is_dir() else []
    there = data[0] if data else Path(f"{path}.index") if checkpoint else path
    if not path.parent.is_dir():
        raise BridgeError(f"{path}: {path.parent} is no folder")
    if path.is_dir():
        raise BridgeError(f"{path}: a folder; give a file's name in it")
    if there.exists() and not overwrite:
        raise BridgeError(f"{there}: is there already; give another place, or --overwrite")


def _write_safetensors(kept: Kept, weights: WeightFile, path: Path) -> None:
    import safetensors

    names = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
    arrays = _merge(kept)
    for name, array in arrays.items():
        if array.dtype.name not in names:
            raise BridgeError(
                f"{path}: safetensors has no {array.dtype}, which {name!r} is; write flax-msgpack"
            )
    groups = {group: list(kept[group]) for group in GROUPS if kept[group]}
    tensors = {
        name: {"dtype": array.dtype.name, "shape": array.shape, "data": _bytes_of(array)}
        for name, array in arrays.items()
    }
    own: dict[str, object] = {"convention": weights.convention, "groups": groups}
    if full_names := _choose_full_names(weights, arrays):
        own["full_names"] = full_names
    try:
        data = safetensors.serialize(tensors, {WEIGHTS_KEY: json.dumps(own)})
    except safetensors.SafetensorError as error:
        raise BridgeError(f"{path}: this version of safetensors cannot write it ({error})") from error
    write_bytes(path, data)


def _choose_full_names(weights: WeightFile, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: full for name, full in weights.full_names.items() if name in arrays}


def _bytes_of(array: np.ndarray) -> bytes:
    """The bytes in little-endian order, whatever the array's strides."""
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _write_msgpack(kept: Kept, path: Path) -> None:
    import_jax()
    from flax import serialization

    tree: dict[str, object] = {"params": _nest(kept["variables"], path)}
    tree |= {group: _nest(kept[group], path) for group in GROUPS[1:] if kept[group]}
    write_bytes(path, serialization.msgpack_serialize(tree))


def _nest(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, object]:
    """Nested dictionaries of the names' parts."""
    tree: dict[str, object] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = tree
        for part in parents:
            inner = node.setdefault(part, {})
            if not isinstance(inner, dict):
                raise BridgeError(
                    f"{path}: {name!r} lies below {part!r}, which is an array itself; rename one"
                )
            node = inner
        if last in node:
            raise BridgeError(f"{path}: {name!r} is an array, and other arrays lie below it; rename one")
        node[last] = np.ascontiguousarray(array).reshape(array.shape)
    return tree


def _write_object_checkpoint(arrays: Mapping[str, np.ndarray], weights: WeightFile, path: Path) -> None:
    import_tensorflow()
    graph = describe_objects(arrays, full_names=_choose_full_names(weights, arrays))
    keys = {f"{name}{VALUE_SUFFIX}": array for name, array in arrays.items()}
    _write_bundle(keys, {OBJECT_GRAPH: graph}, path)


def _write_bundle(arrays: Mapping[str, np.ndarray], strings: Mapping[str, bytes], path: Path) -> None:
    """Let TensorFlow write the files in a folder beside, and move them: the index goes first, comes last."""
    tf = import_tensorflow()
    if any(character in str(path) for character in "*?["):
        raise BridgeError(f"{path}: TensorFlow takes * ? [ in a checkpoint's name for a pattern; rename it")
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise BridgeError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        with tf.init_scope(), tf.device("CPU"):
            values = [*(tf.constant(array) for array in arrays.values()), *map(tf.constant, strings.values())]
            names = [*arrays, *strings]
            tf.raw_ops.SaveV2(
                prefix=str(folder / path.name),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=values,
            )
        index = Path(f"{path}.index")
        index.unlink(missing_ok=True)
        for old in _data_files(path):
            old.unlink()
        for made in _data_files(folder / path.name):
            os.replace(made, path.parent / made.name)
        os.replace(folder / index.name, index)
    except tf.errors.OpError as error:
        raise BridgeError(f"{path}: TensorFlow cannot write it ({str(error).splitlines()[0]})") from error
    except (TypeError, ValueError) as error:
        raise BridgeError(f"{path}: TensorFlow cannot hold it ({error})") from error
    except OSError as error:
        raise BridgeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _data_files(prefix: Path) -> list[Path]:
    start = f"{prefix.name}.data-"
    return [path for path in prefix.parent.iterdir() if path.name.startswith(start)]
