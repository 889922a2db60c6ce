"""The live objects of a port by attribute path, and what to call them before people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oracle.bridge.mirror import Named
from oracle.bridge.mirror.context import Context, mirror_object
from oracle.bridge.mirror.pieces import Piece


@dataclass(frozen=True)
class _Noting(Context):
    """A context that notes every object which is mirrored in it."""

    found: dict[str, Any] = field(default_factory=dict)

    def mirror(self, obj: Any, attribute: str) -> Piece:
        path = f"{self.path}/{attribute}" if self.path else attribute
        self.found[path] = obj
        inner = _Noting(path, self.ancestors | {id(obj)}, self.found)
        return mirror_object(obj, inner)


def find_parts(models: Mapping[str, Any]) -> dict[str, Any]:
    """Every mirrored object within some models, by attribute path: `decoder/wrapper/cell`.

    Raises:
        MirrorError: if something cannot be mirrored.
    """
    subject = Named(dict(models))
    context = _Noting("", frozenset([id(subject)]))
    mirror_object(subject, context)
    return context.found


def choose_names(parts: Mapping[str, Any]) -> dict[str, str]:
    """For each path the one by which its object is known: the shortest, the first of several."""
    shortest: dict[int, str] = {}
    for path, part in parts.items():
        known = shortest.setdefault(id(part), path)
        if path.count("/") < known.count("/"):
            shortest[id(part)] = path
    return {path: shortest[id(part)] for path, part in parts.items()}


def show_part(path: str) -> str:
    """A path as Python has it: `decoder.layers[0]`."""
    return re.sub(r"/(\d+)(?=/|$)", r"[\1]", path).replace("/", ".")
