"""Where a port leaves the oracle: what `oracle.localise` finds, and every report shows. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

Pass = Literal["forward", "backward"]
"""From the inputs to the loss, or from the loss back to the inputs."""


class Place(msgspec.Struct, frozen=True):
    """The first element of one pass, in the order in which the pass computes, that is not the oracle's.

    Args:
        direction: in which pass.
        tensor: the record's name of the tensor.
        layer: the layer that computes it, by the path of its leaves: `decoder/cell`.
        step: the time step; None of a tensor without time.
        row: the row of the batch; None of a tensor without rows.
        unit: the index along what axes remain.
        port_value: what the port has there; None for a gradient that is None.
        oracle_value: what the oracle has.
        note: what is special about the place: `past the row's end (length 5)`.
    """

    direction: Pass
    tensor: str
    layer: str
    step: int | None
    row: int | None
    unit: tuple[int, ...]
    port_value: float | None
    oracle_value: float
    note: str = ""


class Check(msgspec.Struct, frozen=True):
    """One layer held to account by itself, on the very input (or adjoint) that the port gave it.

    Args:
        layer: by the path of its leaves.
        direction: its output from its input, or its input's adjoint from its output's.
        input_agrees: whether what goes in is the oracle's, too.
        output_agrees: whether what comes out is what the oracle's layer makes of the port's input.
        error: the largest error of what comes out, as a part of its largest element.
        where: the steps and rows in which it is wrong, for people: `steps >= 5 of rows 2 and 3`.
    """

    layer: str
    direction: Pass
    input_agrees: bool
    output_agrees: bool
    error: float
    where: str = ""


class HeatMap(msgspec.Struct, frozen=True):
    """How far one pass is off, layer by layer and step by step.

    Args:
        direction: which pass.
        layers: the names of the rows, in the order of the forward pass.
        errors: for each layer and time step, the largest error as a part of the layer's largest element;
            None where a layer has no such step, infinity where the port has no number.
    """

    direction: Pass
    layers: tuple[str, ...]
    errors: tuple[tuple[float | None, ...], ...]


class Localisation(msgspec.Struct, frozen=True):
    """Where a port leaves the oracle.

    Args:
        lines: the same for people, the most telling first.
        forward: where the forward pass first differs; None if nowhere.
        backward: where the backward pass first differs, walking from the loss to the inputs.
        checks: the layers held to account by themselves, in the order of the forward pass.
        maps: one for each pass in which something differs.
    """

    lines: tuple[str, ...]
    forward: Place | None = None
    backward: Place | None = None
    checks: tuple[Check, ...] = ()
    maps: tuple[HeatMap, ...] = ()
