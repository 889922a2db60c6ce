"""Mappings written by hand: which cell or layer each group of variables is, as TOML.

    [[site]]
    path = "encoder/cell"                 # where its leaves are, on the oracle's side
    layout = "tf1_lstm"                   # how its variables hold them
    features = 13                         # the layout's sizes
    units = 256
    variables = "my_model/enc/lstm"       # the scope of its variables, or a table of their names

A mapping is a bijection: every variable belongs to one site, every leaf to one site, and a layout says
which rectangle of which variable is which of which leaf.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oracle.bridge import attention_layouts, cell_layouts, keras_layouts, layouts
from oracle.bridge.layout import Layout, whole
from oracle.bridge.mapping import check_names
from oracle.bridge.sites import Site
from oracle.errors import BridgeError


def array(shape: Sequence[int]) -> Layout:
    """One variable that is one leaf, `value`, as it is."""
    if any(size < 1 for size in shape):
        raise BridgeError(f"layout: an array of shape {list(shape)} has no elements to map")
    shapes = {"value": tuple(shape)}
    return Layout(shapes, shapes, (whole("value", "value", tuple(shape)),))


LAYOUTS: Mapping[str, Callable[..., Layout]] = {
    "array": array,
    "keras_dense": keras_layouts.keras_dense,
    "keras_embedding": keras_layouts.keras_embedding,
    "keras_simple_rnn_cell": keras_layouts.keras_simple_rnn_cell,
    "keras_lstm_cell": keras_layouts.keras_lstm_cell,
    "keras_gru_cell": keras_layouts.keras_gru_cell,
    "keras_lstm": layouts.keras_lstm,
    "flax_lstm": layouts.flax_lstm,
    "tf1_lstm": layouts.tf1_lstm,
    "tf1_lstm_cell": cell_layouts.tf1_lstm_cell,
    "tf1_basic_rnn": cell_layouts.tf1_basic_rnn,
    "tf1_gru": cell_layouts.tf1_gru,
    "contrib_layer_norm_lstm": cell_layouts.contrib_layer_norm_lstm,
    "tfa_layer_norm_lstm": cell_layouts.tfa_layer_norm_lstm,
    "tfa_layer_norm_simple_rnn": cell_layouts.tfa_layer_norm_simple_rnn,
    "tfa_nas": cell_layouts.tfa_nas,
    "tfa_esn": cell_layouts.tfa_esn,
    "tfa_peephole_lstm": cell_layouts.tfa_peephole_lstm,
    "luong_attention": attention_layouts.luong_attention,
    "bahdanau_attention": attention_layouts.bahdanau_attention,
    "attention_layer": attention_layouts.attention_layer,
}
"""The layouts that a mapping may name, each with the sizes that its function takes."""

_ENTRIES = ("path", "layout", "variables")
_WHOLE = f"a whole number of at least 1 and at most {2**31 - 1}"
_TYPES: Mapping[str, tuple[type, ...]] = {"forget_bias": (float, int), "shape": (list,)}


def make_layout(name: str, sizes: Mapping[str, Any], *, where: str) -> Layout:
    """The layout of a name and its sizes.

    Raises:
        BridgeError: if there is none of that name, or a size is missing, unknown or impossible.
    """
    if name not in LAYOUTS:
        raise BridgeError(f"{where}: no layout {name!r}{_suggest(name, LAYOUTS)}; {', '.join(LAYOUTS)} exist")
    parameters = inspect.signature(LAYOUTS[name]).parameters
    for size, value in sizes.items():
        if size not in parameters:
            raise BridgeError(
                f"{where}: {name} has no size {size!r}{_suggest(size, parameters)}; "
                f"it takes {', '.join(parameters)}"
            )
        _check_size(name, size, value, parameters[size], where)
    missing = [
        size
        for size, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and size not in sizes
    ]
    if missing:
        raise BridgeError(f"{where}: {name} needs {', '.join(missing)}")
    return LAYOUTS[name](**sizes)


def _check_size(name: str, size: str, value: Any, parameter: inspect.Parameter, where: str) -> None:
    wanted: tuple[type, ...] = (bool,) if isinstance(parameter.default, bool) else _TYPES.get(size, (int,))
    right = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
    if right and wanted == (int,):
        right = 0 < value < 2**31
    if right and isinstance(value, list):
        right = all(
            isinstance(axis, int) and not isinstance(axis, bool) and 0 < axis < 2**31 for axis in value
        )
    if not right:
        kind = {(bool,): "true or false", (int,): _WHOLE, (list,): f"a list, each {_WHOLE}"}.get(
            wanted, "a number"
        )
        raise BridgeError(f"{where}: {size} = {value!r} of {name} must be {kind}")


def read_mapping(path: str | os.PathLike[str]) -> tuple[Site, ...]:
    """Read a mapping from a TOML file.

    Raises:
        BridgeError: if the file is absent or no TOML, an entry is unknown, missing or of the wrong type,
            or a variable or a leaf is in two sites; the message says in which site.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise BridgeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BridgeError(f"{path}: not TOML: {error}") from error
    return parse_mapping(values, where=str(path))


def parse_mapping(values: Mapping[str, Any], *, where: str) -> tuple[Site, ...]:
    """The sites of a mapping's plain values. `where` names their origin in messages.

    Raises:
        BridgeError: as `read_mapping`.
    """
    if unknown := values.keys() - {"site"}:
        name = min(unknown)
        raise BridgeError(
            f"{where}: unknown entry {name!r}{_suggest(name, ['site'])}; a mapping has [[site]] only"
        )
    entries = values.get("site")
    if not isinstance(entries, list) or not entries:
        raise BridgeError(f"{where}: it has no [[site]]; write one for each cell or layer")
    sites = tuple(_parse_site(entry, f"{where}: site {index + 1}") for index, entry in enumerate(entries))
    _check_once("variable", [(name, site) for site in sites for name in site.variables.values()], where)
    _check_once(
        "leaf", [(f"{site.path}/{leaf}", site) for site in sites for leaf in site.layout.leaves], where
    )
    return sites


def _parse_site(entry: Any, where: str) -> Site:
    if not isinstance(entry, dict):
        raise BridgeError(f"{where}: it is {entry!r}, and must be a table")
    for name in _ENTRIES:
        if name not in entry:
            near = difflib.get_close_matches(name, entry, n=1)
            raise BridgeError(
                f"{where}: it has no {name!r}" + (f" (is {near[0]!r} meant so?)" if near else "")
            )
    path, layout_name, variables = (entry[name] for name in _ENTRIES)
    if not isinstance(path, str) or not isinstance(layout_name, str):
        raise BridgeError(f"{where}: path and layout must be text")
    where = f"{where} ({path!r})"
    if {"", ".", ".."} & set(path.split("/")):
        raise BridgeError(
            f"{where}: path must be parts joined by /, as encoder/cell, and none of them . or .."
        )
    sizes = {name: value for name, value in entry.items() if name not in _ENTRIES}
    layout = make_layout(layout_name, sizes, where=where)
    if isinstance(variables, str):
        prefix = f"{variables}/" if variables else ""
        return Site(path, layout, {name: f"{prefix}{name}" for name in layout.variables})
    if not isinstance(variables, dict) or not all(isinstance(name, str) for name in variables.values()):
        raise BridgeError(f"{where}: variables must be a scope, or a table of the variables' names")
    for name in variables.keys() - layout.variables.keys():
        raise BridgeError(
            f"{where}: {layout_name} has no variable {name!r}{_suggest(name, layout.variables)}; "
            f"it has {', '.join(layout.variables)}"
        )
    for name in layout.variables:
        if name not in variables:
            raise BridgeError(f"{where}: variables lacks {name!r} {list(layout.variables[name])}")
    return Site(path, layout, {name: variables[name] for name in layout.variables})


def _check_once(kind: str, owners: Sequence[tuple[str, Site]], where: str) -> None:
    seen: dict[str, Site] = {}
    for name, site in owners:
        if name in seen:
            raise BridgeError(
                f"{where}: the {kind} {name!r} is in the sites {seen[name].path!r} and {site.path!r}; "
                "each belongs to one"
            )
        seen[name] = site


def check_leaves(sites: Sequence[Site], shapes: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Check that `shapes` names every leaf of the sites, with its shape, and no other.

    So a mapping is held against a spec's `weight_shapes`, and leaves against a mapping.

    Raises:
        BridgeError: otherwise; every problem in one message.
    """
    leaves = []
    for site in sites:
        own = site.layout.leaves
        alike = Layout(own, own, tuple(whole(leaf, leaf, shape) for leaf, shape in own.items()))
        leaves.append(Site(site.path, alike, {leaf: f"{site.path}/{leaf}" for leaf in own}))
    check_names(leaves, shapes, where=where)


def write_mapping(parts: Sequence[Mapping[str, Any]], *, comments: Sequence[str] = ()) -> str:
    """The TOML of a mapping.

    Args:
        parts: of each site its `path`, `layout`, sizes and `variables`, a scope or a table; and perhaps
            a `comment`.
        comments: lines that stand before everything.
    """
    lines = [f"# {line}" for line in comments]
    for part in parts:
        lines += ["", *(f"# {line}" for line in str(part.get("comment", "")).splitlines()), "[[site]]"]
        table = {}
        for name, value in part.items():
            if name == "comment" or value is None:
                continue
            if isinstance(value, Mapping):
                table = value
            else:
                lines.append(f"{name} = {_as_toml(value)}")
        if table:
            lines.append("[site.variables]")
            lines += [f"{_as_key(name)} = {_as_toml(value)}" for name, value in table.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def describe_variables(variables: Mapping[str, str]) -> str | dict[str, str]:
    """The variables of a site as a mapping has them: their scope if it is one, else a table."""
    prefixes = {
        whole_name.removesuffix(f"/{name}") if whole_name.endswith(f"/{name}") else None
        for name, whole_name in variables.items()
    }
    prefix = next(iter(prefixes)) if len(prefixes) == 1 else None
    return dict(variables) if prefix is None else prefix


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    # JSON's escapes are among TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def _as_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _as_toml(name)


def _suggest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
