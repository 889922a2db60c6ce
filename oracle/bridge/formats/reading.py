"""One reader of every format: which one a path is in, and what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oracle.bridge.formats.bundle import VALUE_SUFFIX, Bundle, read_bundle
from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.flat_files import read_msgpack, read_safetensors, sort_tree
from oracle.bridge.formats.graph_def import find_graphs, read_frozen_graph, scan_graph
from oracle.bridge.formats.isolated import read_isolated
from oracle.bridge.formats.keras_files import read_keras_archive, read_keras_h5
from oracle.bridge.formats.object_graph import find_attribute_names, read_full_names
from oracle.bridge.formats.orbax import find_checkpoint, measure
from oracle.bridge.formats.saver_v1 import read_saver_v1
from oracle.bridge.formats.table import MAGIC
from oracle.bridge.formats.weight_file import OPTIMIZER_SLOT, WeightFile, sort_tensors
from oracle.errors import BridgeError

FORMATS = {
    "tf1-checkpoint": "a TF1 Saver's checkpoint, V2",
    "tf1-checkpoint-v1": "a TF1 Saver's checkpoint, V1",
    "tf2-checkpoint": "a TF2 object checkpoint",
    "saved-model": "a SavedModel",
    "graph-def": "a frozen GraphDef",
    "keras-h5": "Keras' legacy HDF5",
    "keras-weights-h5": "Keras' .weights.h5",
    "keras-archive": "a .keras archive",
    "safetensors": "safetensors",
    "flax-msgpack": "Flax's msgpack",
    "orbax": "an Orbax checkpoint",
}
"""The formats that are read, and what to call them."""

_NAMES = {**FORMATS, "tf2-checkpoint": "a checkpoint"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_ZIP = b"PK\x03\x04"


def read_weight_file(path: str | os.PathLike[str]) -> WeightFile:
    """Read a weight file of any format. Nothing in it is run, and no framework is imported here.

    Args:
        path: a file, the prefix of a checkpoint, or the folder of a SavedModel, of an Orbax checkpoint or
            of checkpoints, whose latest is read.

    Raises:
        BridgeError: if there is nothing, or it is in no known format, damaged, incomplete, or holds what
            is refused; the message has the path and the reason.
        MissingPackageError: if a package that the format needs is not installed.
    """
    if not os.fspath(path):
        raise BridgeError("the path of the weights is empty; give a file, a folder or a checkpoint's prefix")
    path = Path(path)
    kind, target = find_format(path)
    try:
        return _READERS[kind](target)
    except DamageError as error:
        raise BridgeError(
            f"{target}: {_NAMES[kind]} that cannot be read: {error}; copy it again, or write it anew"
        ) from error
    except MemoryError as error:
        raise BridgeError(f"{target}: it does not fit in memory") from error
    except OSError as error:
        raise BridgeError(f"{target}: cannot be read: {error.strerror or error}") from error


def find_format(path: Path) -> tuple[str, Path]:
    """The format of what is at `path`, told by its content, and the path to give to its reader.

    Raises:
        BridgeError: if there is nothing, or nothing known.
    """
    try:
        if path.is_dir():
            return _find_in_folder(path)
        prefix = Path(re.sub(r"\.(?:index|data-\d{5}-of-\d{5})$", "", str(path)))
        if Path(f"{prefix}.index").is_file():
            return "tf2-checkpoint", prefix
        if path.is_file():
            return _find_by_content(path), path
        if list(path.parent.glob(f"{_escape(path.name)}-?????-of-?????")):
            return "tf1-checkpoint-v1", path
        if path.exists():
            raise BridgeError(f"{path}: a device, a socket or a pipe; give a regular file")
    except (OSError, ValueError) as error:
        raise BridgeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    near = sorted(other.name for other in path.parent.glob(f"{_escape(path.name)}*"))[:3]
    hint = f"; beside it are {', '.join(near)}" if near else ""
    raise BridgeError(
        f"{path}: no such file, folder or checkpoint{hint}; give a file or a checkpoint's prefix"
    )


def _find_in_folder(folder: Path) -> tuple[str, Path]:
    if (folder / "saved_model.pb").is_file():
        return "saved-model", folder
    orbax = find_checkpoint(folder)
    if orbax is not None:
        return "orbax", orbax
    latest = find_latest(folder)
    if latest is not None:
        if Path(f"{latest}.index").is_file():
            return "tf2-checkpoint", latest
        return "tf1-checkpoint-v1", latest
    raise BridgeError(
        f"{folder}: a folder with no saved_model.pb, no Orbax _METADATA and no `checkpoint` file; give the "
        "file itself or a checkpoint's prefix"
    )


def find_latest(folder: Path) -> Path | None:
    """The prefix that a folder's `checkpoint` file calls the latest, or None."""
    state = folder / "checkpoint"
    if not state.is_file() or state.stat().st_size > 2**20:
        return None
    match = re.search(
        r'^model_checkpoint_path: "((?:[^"\\]|\\.)*)"', state.read_text("utf-8", "replace"), re.M
    )
    if match is None:
        return None
    prefix = folder / re.sub(r"\\(.)", r"\1", match[1])
    # A folder that was moved is named by where it was; and no folder sends its reader elsewhere.
    inside = Path(os.path.abspath(prefix)).is_relative_to(os.path.abspath(folder))
    return prefix if inside else folder / prefix.name


def _find_by_content(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(max(0, size - len(MAGIC)))
        end = file.read()
    if start.startswith(_HDF5):
        return "keras-h5"
    if start.startswith(_ZIP):
        return "keras-archive"
    if end == MAGIC:
        return "tf1-checkpoint-v1"
    suffix = path.suffix.lower()
    by_suffix = {
        ".safetensors": "safetensors",
        ".msgpack": "flax-msgpack",
        ".pb": "graph-def",
        ".h5": "keras-h5",
        ".hdf5": "keras-h5",
        ".keras": "keras-archive",
    }
    if suffix in by_suffix:
        return by_suffix[suffix]
    if start[:1] == b"\x80" and start[1:2] in _PICKLE_PROTOCOLS:
        raise BridgeError(
            f"{path}: a pickle, which could run code and is never read; write the weights as safetensors"
        )
    if len(start) > 8 and int.from_bytes(start[:8], "little") <= size and start[8:9] == b"{":
        return "safetensors"
    if start[:1] and (0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return "flax-msgpack"
    raise BridgeError(
        f"{path}: in no format that is known ({', '.join(FORMATS)}); a frozen graph must be called .pb"
    )


def _read_checkpoint(prefix: Path) -> WeightFile:
    return sort_bundle(str(prefix), read_bundle(str(prefix)))


def sort_bundle(path: str, bundle: Bundle, *, by_attributes: bool = False) -> WeightFile:
    """The tensors of a checkpoint of the V2 format, sorted into groups.

    `by_attributes` names those by attributes that it names by a SavedModel's lists.

    Raises:
        DamageError: if two tensors have one name, or the graph of objects is damaged.
    """
    if bundle.objects is None:
        groups = sort_tensors(bundle.tensors, "tf1")
        return WeightFile(path, "tf1-checkpoint", "tf1", **groups, others=bundle.others)
    named = {key.removesuffix(VALUE_SUFFIX): tensor for key, tensor in bundle.tensors.items()}
    if len(named) < len(bundle.tensors):
        raise DamageError("two of its tensors have one name")
    listed = read_full_names(memoryview(bundle.objects))
    if by_attributes:
        better = find_attribute_names(memoryview(bundle.objects))
        named = _rename(named, better)
        listed = _rename(listed, better)
    full_names = {name: full for name, full in sorted(listed.items()) if name in named and full != name}
    groups = sort_tensors(named, "keras", full_names=full_names)
    others = {key.removesuffix(VALUE_SUFFIX): other for key, other in bundle.others.items()}
    return WeightFile(path, "tf2-checkpoint", "keras", **groups, others=others, full_names=full_names)


def _rename(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Values under better names, sorted; a slot goes with its variable.

    Raises:
        DamageError: if two of them get one name.
    """
    renamed = {}
    for name, value in sorted(values.items()):
        variable, mark, slot = name.partition(OPTIMIZER_SLOT)
        renamed[f"{names.get(variable, variable)}{mark}{slot}"] = value
    if len(renamed) < len(values):
        raise DamageError("two of its tensors have one name")
    return dict(sorted(renamed.items()))


def _read_saver_v1(path: Path) -> WeightFile:
    files = [path] if path.is_file() else sorted(path.parent.glob(f"{_escape(path.name)}-?????-of-?????"))
    counts = {file.name.rpartition("-")[2] for file in files}
    if not path.is_file() and (len(counts) != 1 or int(next(iter(counts))) != len(files)):
        raise DamageError(f"{len(files)} of its files are here, which is not all")
    groups = sort_tensors(read_saver_v1(files), "tf1")
    return WeightFile(str(path), "tf1-checkpoint-v1", "tf1", **groups)


def _read_saved_model(folder: Path) -> WeightFile:
    data = memoryview((folder / "saved_model.pb").read_bytes())
    graphs = list(find_graphs(data))
    if not graphs:
        raise DamageError("its saved_model.pb holds no graph")
    notes = {
        "saved_model.pb": f"{sum(scan_graph(graph).nodes for graph in graphs)} nodes of a graph; not run"
    }
    prefix = folder / "variables" / "variables"
    if Path(f"{prefix}.index").is_file():
        read = sort_bundle(str(folder), read_bundle(str(prefix)), by_attributes=True)
        return replace(read, format="saved-model", notes={**read.notes, **notes})
    arrays, others = read_frozen_graph(graphs[0])
    return WeightFile(str(folder), "saved-model", "tf1", arrays, notes={**others, **notes})


def _read_graph(path: Path) -> WeightFile:
    data = memoryview(path.read_bytes())
    arrays, notes = read_frozen_graph(data)
    return WeightFile(str(path), "graph-def", "tf1", **sort_tensors(arrays, "tf1"), notes=notes)


def _read_orbax(folder: Path) -> WeightFile:
    others, arrays = read_isolated("orbax", str(folder.resolve()), size=measure(folder))
    return sort_tree(str(folder), "orbax", arrays, others)


def _escape(name: str) -> str:
    """A name in which no character means a pattern."""
    return re.sub(r"([*?[])", r"[\1]", name)


_READERS: Mapping[str, Callable[[Path], WeightFile]] = {
    "tf2-checkpoint": _read_checkpoint,
    "tf1-checkpoint-v1": _read_saver_v1,
    "saved-model": _read_saved_model,
    "graph-def": _read_graph,
    "keras-h5": read_keras_h5,
    "keras-archive": read_keras_archive,
    "safetensors": read_safetensors,
    "flax-msgpack": read_msgpack,
    "orbax": _read_orbax,
}
