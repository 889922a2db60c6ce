"""The files of Keras: `.h5` of whole models and of weights, `.weights.h5`, and `.keras` archives.

Read without TensorFlow and without Keras. No configuration in them is turned into objects.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oracle.bridge.formats.damage import FLOOR, RATIO, DamageError
from oracle.bridge.formats.isolated import read_isolated
from oracle.bridge.formats.weight_file import Naming, WeightFile, sort_tensors

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
"""What a `.keras` archive holds; anything else below `assets/`."""

TOP_LEVEL = "top_level_model_weights"
"""The group of those weights in a legacy file that are the model's own, and no layer's."""

_ZIP_ERRORS = (EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError)
"""What `zipfile` raises too: RuntimeError if a member wants a password, ValueError for a negative place."""

Attributes = Mapping[str, Mapping[str, Any]]


def read_keras_h5(path: Path, *, archive: Path | None = None) -> WeightFile:
    """Read an HDF5 file of Keras, of any of its layouts.

    In the legacy layout a variable has its weight's name without `:0`, `lstm/lstm_cell/kernel`, or where
    two layers' weights have one name, every variable is put below its layer. In the layout of
    `.weights.h5` it has its place, `layers/lstm/cell/vars/0`. `archive` is what the file was taken from.

    Raises:
        DamageError: if it is damaged or holds what is refused.
        MissingPackageError: if h5py is not installed.
    """
    whole = path if archive is None else archive
    attributes, arrays = read_isolated("hdf5", str(path), size=whole.stat().st_size)
    shown = str(whole)
    notes = _note_configuration(attributes)
    for root in ("", "model_weights"):
        if _names(attributes, root, "layer_names") is not None:
            return _read_legacy(shown, root, attributes, arrays, notes)
    naming: Naming = "places" if any(_is_place(name) for name in arrays) else "leaves"
    ordered = {name: arrays[name] for name in sorted(arrays, key=_natural)}
    sorted_arrays = sort_tensors(ordered, naming)
    return WeightFile(shown, "keras-weights-h5", naming, **sorted_arrays, notes=notes)


def read_keras_archive(path: Path) -> WeightFile:
    """Read a `.keras` archive of Keras 2.15 or Keras 3.

    Raises:
        DamageError: if it is damaged, holds what is refused, or would unpack to far more than it is.
        MissingPackageError: if h5py is not installed.
    """
    limit = max(FLOOR, RATIO * path.stat().st_size)
    try:
        with (
            zipfile.ZipFile(path) as archive,
            tempfile.TemporaryDirectory(prefix="gradient-oracle-") as folder,
        ):
            members = archive.infolist()
            _check_members(members, limit)
            names = {member.filename for member in members}
            if "model.weights.h5" not in names:
                raise DamageError("a zip archive, but no model of Keras: it has no model.weights.h5")
            inner = Path(folder) / "model.weights.h5"
            with archive.open("model.weights.h5") as source, inner.open("wb") as target:
                _copy(source, target, limit)
            read = read_keras_h5(inner, archive=path)
            notes = dict(read.notes)
            if "config.json" in names:
                notes |= _describe_configuration(_read_member(archive, "config.json", limit))
            if "metadata.json" in names:
                metadata = _parse(_read_member(archive, "metadata.json", limit))
                notes["keras_version"] = str(metadata.get("keras_version", "unknown"))[:40]
            assets = sorted(name for name in names - MEMBERS if not name.endswith("/"))
    except DamageError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, lzma.LZMAError, *_ZIP_ERRORS) as error:
        raise DamageError(f"not a whole zip archive: {error}") from error
    return replace(read, format="keras-archive", notes=notes, others=dict.fromkeys(assets, "an asset"))


def _read_legacy(
    path: str, root: str, attributes: Attributes, arrays: Mapping[str, np.ndarray], notes: dict[str, str]
) -> WeightFile:
    found: dict[tuple[str, str], np.ndarray] = {}
    used = set()
    layers = [*(_names(attributes, root, "layer_names") or ()), TOP_LEVEL]
    for layer in dict.fromkeys(layers):
        for weight in _names(attributes, _under(root, layer), "weight_names") or ():
            place = _under(_under(root, layer), weight)
            if place not in arrays or (layer, weight) in found:
                raise DamageError(f"its layer {layer!r} lists the weight {weight!r}, which is not there once")
            found[layer, weight] = arrays[place]
            used.add(place)
    names = {place: _without_output(place[1]) for place in found}
    if len(set(names.values())) < len(found):
        names = {(layer, weight): f"{layer}/{_without_output(weight)}" for layer, weight in found}
    variables = {names[place]: array for place, array in found.items()}
    if len(variables) < len(found):
        raise DamageError("two of its weights have one name")
    groups = sort_tensors(variables, "layers")
    by_layer: dict[str, tuple[str, ...]] = {}
    for (layer, _), name in names.items():
        by_layer[layer] = (*by_layer.get(layer, ()), name)
    counters, slots = dict(groups["counters"]), dict(groups["slots"])
    for weight in _names(attributes, "optimizer_weights", "weight_names") or ():
        place = _under("optimizer_weights", weight)
        if place not in arrays:
            raise DamageError(f"its optimizer lists the weight {weight!r}, which is not there")
        used.add(place)
        group = slots if arrays[place].ndim else counters
        group[f"optimizer_weights/{_without_output(weight)}"] = arrays[place]
    for place in sorted(arrays.keys() - used):
        raise DamageError(f"it holds the array {place!r}, which no layer lists")
    groups |= {"slots": slots, "counters": counters}
    return WeightFile(path, "keras-h5", "layers", **groups, notes=notes, layers=by_layer)


def _names(attributes: Attributes, path: str, kind: str) -> list[str] | None:
    """A list of names, which Keras puts into several attributes if it is long."""
    own = attributes.get(path, {})
    if kind in own:
        return _as_list(own[kind])
    pieces = []
    while f"{kind}{len(pieces)}" in own:
        pieces.append(_as_list(own[f"{kind}{len(pieces)}"]))
    return [name for piece in pieces for name in piece] if pieces else None


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _note_configuration(attributes: Attributes) -> dict[str, str]:
    notes = {}
    for own in attributes.values():
        for name in ("keras_version", "backend"):
            if name in own:
                notes[name] = str(own[name])[:40]
    own = attributes.get("", {})
    if "model_config" in own:
        notes |= _describe_configuration(str(own["model_config"]))
    if "training_config" in own:
        notes["training_config"] = "the loss and the optimizer, as JSON"
    return notes


def _describe_configuration(text: str | bytes) -> dict[str, str]:
    value = _parse(text)
    config = value.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    count = f" of {len(layers)} layers" if isinstance(layers, list) else ""
    kind = str(value.get("class_name", "model"))[:60]
    return {"model_config": f"{kind} {str(name)[:60]!r}{count}, as JSON; not run"}


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamageError("its configuration is not JSON") from error
    return value if isinstance(value, dict) else {}


def _check_members(members: Sequence[zipfile.ZipInfo], limit: int) -> None:
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise DamageError("two of its members have one name")
    if sum(member.file_size for member in members) > limit:
        raise DamageError(f"it would unpack to more than the {limit} bytes that it can be trusted with")
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if os.path.isabs(member.filename) or ".." in parts or re.match(r"[A-Za-z]:", member.filename):
            raise DamageError(f"its member {member.filename!r} would leave its folder")
        # The upper half are a file's Unix mode, 0o12 a symbolic link's.
        if member.external_attr >> 28 == 0o12:
            raise DamageError(f"its member {member.filename!r} is a symbolic link")


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise DamageError(f"its member {name!r} unpacks to more than it says")
    return data


def _copy(source: Any, target: Any, limit: int) -> None:
    copied = 0
    while piece := source.read(1 << 20):
        copied += len(piece)
        if copied > limit:
            raise DamageError("a member of it unpacks to more than it says")
        target.write(piece)


def _is_place(name: str) -> bool:
    return bool(re.search(r"(?:^|/)vars/\d+$", name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key to sort by, numbers as numbers: `vars/2` before `vars/10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split("/")]


def _without_output(name: str) -> str:
    return name.removesuffix(":0")


def _under(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
