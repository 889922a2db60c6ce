"""A fault: an edit of a real port's source, and what the comparison should say of it. No framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oracle.errors import OracleError


class FaultError(OracleError):
    """A seeded fault that no longer fits the port that it is seeded in."""


PORTS = Path(__file__).parent.parent.parent / "tf_models"
"""Where the ports' sources are."""

Family = Literal[
    "handoff",
    "cells",
    "lengths",
    "targets",
    "loss",
    "attention",
    "encoder",
    "stack",
    "dropout",
    "gradient",
    "seams",
    "precision",
    "pairs",
    "uncatalogued",
    "small",
]
"""What part of a model a fault is in. `uncatalogued` are faults that no cause describes; `small` are those
whose effect is one row or one element of one tensor, or of one row of the batch."""

FAMILIES: dict[str, str] = {
    "handoff": "the encoder's state on its way to the decoder",
    "cells": "what a cell computes",
    "lengths": "lengths of rows",
    "targets": "what is fed and what is predicted",
    "loss": "the loss",
    "attention": "the attention",
    "encoder": "the encoder's directions",
    "stack": "layers of a stack",
    "dropout": "dropout left on",
    "gradient": "what is done to the gradient",
    "seams": "gradients stopped",
    "precision": "roundings to another dtype",
    "pairs": "two faults at a time",
    "uncatalogued": "what no cause in the catalogue describes",
    "small": "one row or one element",
}
"""The families for people, in the order in which they are shown."""


@dataclass(frozen=True)
class Edit:
    """One replacement in a port's source.

    Args:
        old: what is there, exactly once unless `occurrence` is given.
        new: what is put in its place.
        occurrence: which of several, from 0.
    """

    old: str
    new: str
    occurrence: int | None = None


@dataclass(frozen=True)
class Fault:
    """A fault seeded in a port.

    Args:
        name: its own name, in words joined by hyphens.
        family: what it is about.
        module: the port's module under `tf_models`.
        subjects: in what it is seeded, by the names of `oracle.selftest.subjects`.
        edits: what is changed in the module's source.
        causes: the codes, each of which describes it; none if nothing in the catalogue does. Of a fault
            that is two at a time (`together`), both.
        places: where it may be said to begin: layers by the paths of their leaves, seams, tensors, or the
            names of `oracle.selftest.places`; a part of a path does for all that lies under it. There are
            several where several are true: mostly a tensor that is the first to be wrong, and the seam that
            made it.
        addition: source that is put before the module's first class: a cell, a mechanism, a function.
        backward: whether the forward pass is the oracle's, so that only gradients differ.
        hides_in_float32: why float32 cannot see it; empty if it should.
        hides_place: why it is not said to begin where it does; empty if it should.
        number: of a small fault, its size relative to what is changed; None of the others.
        together: whether the causes are a pair, to be named together.
    """

    name: str
    family: Family
    module: str
    subjects: tuple[str, ...]
    edits: tuple[Edit, ...]
    causes: tuple[str, ...]
    places: tuple[str, ...]
    addition: str = ""
    backward: bool = False
    hides_in_float32: str = ""
    hides_place: str = ""
    number: float | None = None
    together: bool = False


def edit_source(fault: Fault) -> str:
    """The port's source with the fault in it.

    Raises:
        FaultError: if an edit no longer applies: what it replaces is not there, or more than once.
    """
    path = PORTS / f"{fault.module}.py"
    source = path.read_text(encoding="utf-8")
    for edit in fault.edits:
        source = _replace(source, edit, where=f"fault {fault.name}: {path.name}")
    if fault.addition:
        start = source.index("\nclass ")
        source = f"{source[:start]}\n{fault.addition.strip()}\n\n{source[start:]}"
    return source


def _replace(source: str, edit: Edit, *, where: str) -> str:
    count = source.count(edit.old)
    if edit.occurrence is None and count != 1:
        raise FaultError(f"{where} has {edit.old!r} {count} times, not once; bring the fault up to date")
    if edit.occurrence is not None and count <= edit.occurrence:
        raise FaultError(
            f"{where} has {edit.old!r} {count} times, and number {edit.occurrence} is meant; "
            "bring the fault up to date"
        )
    parts = source.split(edit.old)
    cut = 1 + (edit.occurrence or 0)
    return edit.old.join(parts[:cut]) + edit.new + edit.old.join(parts[cut:])
