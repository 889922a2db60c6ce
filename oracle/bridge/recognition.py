"""Cells and layers recognised by the names and shapes of their variables.

A name says what a shape alone cannot: a kernel [17, 16] is a dense layer's, a BasicLSTMCell's of 4 units
or a BasicRNNCell's of 16. Where the names do not say, the part is recognised as ambiguous, with every
reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from oracle.bridge.recognition_rules import MEMORY_LAYER, RULES, Shape, Shapes


@dataclass(frozen=True)
class Part:
    """A cell or layer.

    Args:
        scope: where its variables are.
        kind: what it is, as people call it: `BasicLSTMCell`, `Dense`.
        layout: the layout's name in a mapping, or None if no layout maps it.
        sizes: the layout's sizes.
        variables: for each variable of the layout, its whole name.
        doubt: what else it may be, or what its variables do not say; empty if there is none.
    """

    scope: str
    kind: str
    layout: str | None
    sizes: Mapping[str, Any]
    variables: Mapping[str, str]
    doubt: str = ""


def recognise(shapes: Shapes) -> tuple[Part, ...]:
    """The parts of a model, sorted by scope. Every variable is in exactly one."""
    left = dict(shapes)
    scopes = _find_scopes(shapes)
    parts = []
    for rule in RULES:
        for scope, names in scopes.items():
            inside = {name.removeprefix(scope): left[name] for name in names if name in left}
            found = rule(scope.rstrip("/"), inside) if inside else None
            if found is None:
                continue
            variables = {name: f"{scope}{inner}" for name, inner in found.names.items()}
            place = scope.rstrip("/")
            parts.append(Part(place, found.kind, found.layout, found.sizes, variables, found.doubt))
            for name in variables.values():
                del left[name]
    parts = _join_memories(parts)
    parts += [_lone(name, shape) for name, shape in left.items()]
    return tuple(sorted((_note_direction(part) for part in parts), key=lambda part: part.scope))


def _find_scopes(shapes: Shapes) -> dict[str, list[str]]:
    """The variables in or below every scope, the deepest scope first; each ends with a slash."""
    scopes: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split("/")
        for end in range(len(parts)):
            scopes.setdefault("/".join([*parts[:end], ""]), []).append(name)
    return dict(sorted(scopes.items(), key=lambda item: (-item[0].count("/"), item[0])))


def _join_memories(parts: list[Part]) -> list[Part]:
    """Give TF1's mechanisms their memory layers, which lie elsewhere, where no other can be meant."""
    joined = list(parts)
    while True:
        memories = [part for part in joined if part.kind == MEMORY_LAYER]
        for index, part in enumerate(joined):
            if part.layout not in ("luong_attention", "bahdanau_attention") or "depth" in part.sizes:
                continue
            units = part.sizes.get("units")
            fitting = [memory for memory in memories if units in (None, memory.sizes["units"])]
            if len(fitting) == 1:
                sizes = {"depth": fitting[0].sizes["features"], "units": fitting[0].sizes["units"]}
                kernel = {"memory_layer/kernel": fitting[0].variables["kernel"]}
                joined[index] = replace(
                    part, sizes={**part.sizes, **sizes}, variables={**part.variables, **kernel}
                )
                joined.remove(fitting[0])
                break
            names = " or ".join(repr(memory.scope) for memory in fitting) or "elsewhere: none here fits"
            joined[index] = replace(part, doubt=f"its memory layer may be {names}")
        else:
            break
    return [
        replace(part, layout=None)
        if part.layout in ("luong_attention", "bahdanau_attention") and "depth" not in part.sizes
        else part
        for part in joined
    ]


def _lone(name: str, shape: Shape) -> Part:
    last = name.rpartition("/")[2]
    if len(shape) == 2 and "embedding" in name.lower():
        sizes = {"input_dim": shape[0], "output_dim": shape[1]}
        return Part(name, "embedding matrix", "keras_embedding", sizes, {"embeddings": name})
    kind = {"gamma": "scale of a norm", "beta": "offset of a norm"}.get(last, "array")
    mappable = all(size > 0 for size in shape)
    return Part(name, kind, "array" if mappable else None, {"shape": list(shape)}, {"value": name})


def _note_direction(part: Part) -> Part:
    """Say which direction of a `Bidirectional` a cell is."""
    for direction, pattern in (
        ("forward", r"(?:^|/)(?:forward\w*|fw)(?:/|$)"),
        ("backward", r"(?:^|/)(?:backward\w*|bw)(?:/|$)"),
    ):
        if part.layout and part.layout not in ("array", "keras_dense") and re.search(pattern, part.scope):
            return replace(part, kind=f"{part.kind}, {direction} of two directions")
    return part
