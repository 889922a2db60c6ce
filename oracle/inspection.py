"""What is in a weight file, described: for people, for programs, and as a mapping to start from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.bridge.formats.reading import FORMATS, read_weight_file
from oracle.bridge.formats.weight_file import GROUPS, WeightFile
from oracle.bridge.mapping_file import describe_variables, make_layout, write_mapping
from oracle.bridge.recognition import Part, recognise
from oracle.bridge.sites import Site
from oracle.bridge.spec_inference import Inference, infer_spec
from oracle.errors import BridgeError
from oracle.spec import describe, encode

SCHEMA = 1
"""The version of the JSON description."""

NAMINGS = {
    "tf1": "named by TF1's variable scopes",
    "keras": "named by the attributes of objects",
    "layers": "named by Keras layers",
    "places": "named by their places in a Keras file",
    "leaves": "named as leaves, or by no convention of TensorFlow's",
}
SHOWN = 12
"""How many slots, averages and notes are listed unless all are asked for."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Args:
        weights: what it holds.
        parts: the cells and layers recognised, every variable in exactly one.
        inference: the spec, or why there is none.
    """

    weights: WeightFile
    parts: tuple[Part, ...]
    inference: Inference


def inspect_weights(path: str | os.PathLike[str]) -> Inspection:
    """Read a weight file and recognise what is in it.

    Raises:
        BridgeError: if it cannot be read.
    """
    weights = read_weight_file(path)
    shapes = {name: array.shape for name, array in weights.variables.items()}
    return Inspection(weights, recognise(shapes), infer_spec(shapes, weights.convention))


def render_text(inspection: Inspection, *, verbose: bool = False) -> str:
    """The description for people. `verbose` lists every slot and note."""
    weights = inspection.weights
    numbers = sum(array.size for array in weights.variables.values())
    counts = [f"{len(weights.variables)} variables of {numbers:,} numbers"]
    counts += [f"{len(getattr(weights, group))} {group}" for group in GROUPS[1:] if getattr(weights, group)]
    lines = [
        _show(weights.path),
        f"  {FORMATS[weights.format]}; its variables are {NAMINGS[weights.convention]}",
        f"  {', '.join(counts)}",
        "",
        "recognised",
    ]
    for part in inspection.parts:
        lines += _render_part(part, weights.variables)
    if not inspection.parts:
        lines.append("  no variables")
    for group in GROUPS[1:]:
        arrays = _in_natural_order(getattr(weights, group))
        if arrays:
            limit = None if verbose or group == "counters" else SHOWN
            lines += ["", group, *_render_arrays(arrays, limit, values=group == "counters")]
    if weights.others:
        others = [f"  {_show(name)}: {_show(other)}" for name, other in weights.others.items()]
        lines += ["", "no numbers", *(others if verbose else _cut(others, SHOWN))]
    if weights.notes:
        lines += ["", "what it says of itself"]
        notes = [f"  {_show(name)}: {_show(note)}" for name, note in weights.notes.items()]
        lines += notes if verbose else _cut(notes, SHOWN)
    inference = inspection.inference
    lines += ["", "spec"]
    if inference.spec is None:
        lines.append(f"  none: not an encoder-decoder that a spec describes ({_show(inference.reason)})")
    else:
        lines.append(f"  {describe(inference.spec)}")
        lines += [f"  {inference.reason}"] if inference.reason else []
    return "\n".join(lines) + "\n"


def render_json(inspection: Inspection) -> str:
    """The description for programs."""
    weights, inference = inspection.weights, inspection.inference
    groups = {
        group: [
            {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in (arrays if group == "variables" else _in_natural_order(arrays)).items()
        ]
        for group in GROUPS
        for arrays in [getattr(weights, group)]
    }
    parts = [
        {
            "scope": part.scope,
            "kind": part.kind,
            "layout": part.layout,
            "sizes": dict(part.sizes),
            "variables": dict(part.variables),
            "doubt": part.doubt,
        }
        for part in inspection.parts
    ]
    described = {
        "schema": SCHEMA,
        "path": weights.path,
        "format": weights.format,
        "convention": weights.convention,
        **groups,
        "others": dict(weights.others),
        "notes": dict(weights.notes),
        "parts": parts,
        "spec": None if inference.spec is None else encode(inference.spec),
        "reason": inference.reason,
    }
    return json.dumps(described, indent=2) + "\n"


def render_mapping(inspection: Inspection) -> str:
    """The inferred mapping as TOML, to start from. It can be read again as it is.

    Raises:
        BridgeError: if there is nothing to map.
    """
    weights, inference = inspection.weights, inspection.inference
    sites = {frozenset(site.variables.values()): site for site in inference.sites}
    entries: list[dict[str, Any]] = []
    for part in inspection.parts:
        entries += _describe_part(part, sites.get(frozenset(part.variables.values())), weights)
    empty = [name for name, array in weights.variables.items() if not array.size]
    entries = [entry for entry in entries if entry["path"] not in empty]
    if not entries:
        raise BridgeError(f"{weights.path}: it holds no variables to map")
    comments = [f"The variables of {_show(weights.path)}, as they were recognised."]
    if inference.spec is not None:
        comments.append(_show(describe(inference.spec)))
    comments += [f"{_show(name)} has no elements, and no mapping holds it." for name in empty]
    return write_mapping(entries, comments=comments)


def _describe_part(part: Part, site: Site | None, weights: WeightFile) -> list[dict[str, Any]]:
    if part.layout is None:
        return [_describe_array(name, part, weights.variables[name]) for name in part.variables.values()]
    layout, sizes = part.layout, dict(part.sizes)
    path = part.scope if site is None else site.path
    if site is not None and make_layout(layout, sizes, where=path) != site.layout:
        # An encoder-decoder's oracle adds the forget bias at run time, and Keras stores it.
        layout = "keras_lstm"
        sizes = {"features": sizes["features"], "units": sizes["units"], "forget_bias": 1.0}
        if make_layout(layout, sizes, where=path) != site.layout:
            return [_describe_array(name, part, weights.variables[name]) for name in part.variables.values()]
    entry: dict[str, Any] = {"path": path or "model", "layout": layout, **sizes}
    if part.doubt:
        entry["comment"] = f"In doubt: {_show(part.doubt)}."
    return [{**entry, "variables": describe_variables(part.variables)}]


def _describe_array(name: str, part: Part, array: np.ndarray) -> dict[str, Any]:
    entry = {"path": name, "layout": "array", "shape": list(array.shape), "variables": {"value": name}}
    return {"comment": f"{_show(part.kind)}: {_show(part.doubt)}.", **entry} if part.doubt else entry


def _render_part(part: Part, variables: Mapping[str, np.ndarray]) -> list[str]:
    sizes = [
        f"{name} {value}"
        for name, value in part.sizes.items()
        if name != "shape" and not isinstance(value, bool)
    ]
    flags = [name for name, value in part.sizes.items() if value is True and name != "use_bias"]
    lines = [f"  {_show(part.scope) or '(at the top)'}: {', '.join([part.kind, *sizes, *flags])}"]
    if part.doubt:
        lines.append(f"    in doubt: {_show(part.doubt)}")
    own = {name: variables[name] for name in part.variables.values()}
    if list(own) == [part.scope]:
        array = own[part.scope]
        return [f"  {_show(part.scope)}: {part.kind}, {list(array.shape)} {array.dtype.name}", *lines[1:]]
    prefix = f"{part.scope}/"
    return lines + [f"  {line}" for line in _render_arrays(own, None, prefix=prefix)]


def _render_arrays(
    arrays: Mapping[str, np.ndarray], limit: int | None, *, prefix: str = "", values: bool = False
) -> list[str]:
    names = {name: _show(name.removeprefix(prefix) if name != prefix else name) for name in arrays}
    width = min(60, max(map(len, names.values()), default=0))
    lines = []
    for name, array in arrays.items():
        shape = str(list(array.shape))
        value = f"  {array.item()}" if values and array.size == 1 else ""
        lines.append(f"  {names[name]:<{width}}  {shape:<14} {array.dtype.name}{value}".rstrip())
    return _cut(lines, limit)


def _in_natural_order(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by name, numbers in names as numbers: `vars/2` before `vars/10`."""

    def key(name: str) -> list[tuple[int, str]]:
        pieces = re.split(r"([0-9]+)", name)
        # Every second piece is a number; a longer one without leading zeros is larger.
        return [
            (len(piece.lstrip("0")), piece.lstrip("0")) if index % 2 else (0, piece)
            for index, piece in enumerate(pieces)
        ]

    return {name: arrays[name] for name in sorted(arrays, key=key)}


def _cut(lines: Sequence[str], limit: int | None) -> list[str]:
    if limit is None or len(lines) <= limit:
        return list(lines)
    return [*lines[:limit], f"  ... and {len(lines) - limit} more (--verbose lists them)"]


def _show(text: str) -> str:
    """A name out of a file, without what a terminal would obey."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )
