"""What was found of where a port leaves the oracle, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from oracle.localisation import Check, Place
from oracle.places import join_words

_SEAMS = {
    "handoff": "its first state is not the encoder's final state (handoff)",
    "memory": "the memory is not the encoder's outputs without their padding (memory)",
    "feeding": "it is not fed the attention of the step before (feeding)",
    "loss": "the loss is not the one of these outputs (loss)",
}
"""Seams that have names of their own, and what it means forward that one is wrong."""

_BACK = {
    "handoff": "from the decoder's first state to the encoder's final state (handoff)",
    "memory": "from the attention's memory to the encoder's outputs (memory)",
    "feeding": "from a decoder's step to the attention that it is fed (feeding)",
    "loss": "from the loss to the outputs (loss)",
}


def describe_localisation(
    forward: Place | None,
    backward: Place | None,
    checks: Sequence[Check],
    *,
    lost: Sequence[str],
    has_steps: bool,
) -> tuple[str, ...]:
    """The lines of a localisation, the most telling first.

    Args:
        forward: the first place of the forward pass.
        backward: that of the backward pass.
        checks: of the layers by themselves.
        lost: the layers of which an adjoint, or a weight's gradient, is None and should not be.
        has_steps: whether the port's steps are known.
    """
    guilty = [check for check in checks if not check.output_agrees]
    ahead = [check for check in guilty if check.direction == "forward"]
    behind = [check for check in guilty if check.direction == "backward"]
    what = "every layer at every step" if has_steps else "every recorded tensor"
    if forward is None and backward is None and not guilty:
        return (f"{what} is the oracle's, forward and backward",)
    lines = _describe_forward(forward, ahead) if forward is not None or ahead else []
    known = {check.layer for check in ahead}
    back = _describe_backward(backward, [check for check in behind if check.layer not in known])
    if lost and not (backward is not None and backward.layer in lost and backward.port_value is None):
        back.append(f"backward: nothing connects {join_words(lost)} to the loss: the gradients are None")
    if not lines:
        return (*back, f"forward: {what} is the oracle's")
    if not behind and backward is not None and checks:
        back.append("backward: no layer and no seam goes wrong by itself; this follows from the forward pass")
    return (*lines, *back)


def _describe_forward(place: Place | None, checks: Sequence[Check]) -> list[str]:
    lines = []
    if place is not None and not checks:
        start = f"forward: everything agrees up to {place.layer}; " if _is_step(place) else "forward: "
        lines.append(f"{start}{_describe_place(place)}")
    for number, check in enumerate(checks):
        start = "forward: "
        if number == 0 and place is not None and _is_step(place):
            start = f"forward: everything agrees up to {place.layer}; "
        lines.append(f"{start}{_blame_forward(check)}{_where(check)}")
    if place is not None and checks:
        lines.append(f"forward: the first wrong number: {_describe_place(place)}")
    return lines


def _describe_backward(place: Place | None, checks: Sequence[Check]) -> list[str]:
    lines = [f"backward: {_blame_backward(check)}{_where(check)}" for check in checks]
    if place is None:
        return lines
    if place.port_value is None and "None" in place.note:
        since = "" if place.step is None else " from the last step on"
        found = f"backward: {_name_adjoint(place)} is None{since}: nothing connects it to the loss"
        return [found, *lines]
    return [*lines, f"backward, from the loss: {_describe_place(place)}"]


def _blame_forward(check: Check) -> str:
    site, _, part = check.layer.rpartition("/")
    if check.layer in _SEAMS:
        return _SEAMS[check.layer]
    if part == "state":
        return f"{site} does not go on from the state of the step before ({check.layer})"
    if part in ("input", "query"):
        return f"{site} does not read what was given to it ({check.layer})"
    return f"{check.layer} by itself is wrong: from the same input the oracle's gives something else"


def _blame_backward(check: Check) -> str:
    site, _, part = check.layer.rpartition("/")
    lost = "the gradient is lost or changed on the way "
    if check.layer in _BACK:
        return lost + _BACK[check.layer]
    if part == "state":
        return f"{lost}from a step of {site} to the one before ({check.layer})"
    if part in ("input", "query"):
        return f"{lost}from what {site} reads to where it was made ({check.layer})"
    if part == "weights":
        return f"the gradients of {site}'s weights are not the sum of what its steps contribute"
    if part in ("c", "h", "output", "alignments"):
        return f"the adjoint of {site}'s {part} is not the sum of what comes back from what reads it"
    return f"{check.layer} by itself is wrong: from the same adjoint the oracle's gives back something else"


def _where(check: Check) -> str:
    return f", {check.where}" if check.where else ""


def _describe_place(place: Place) -> str:
    what = _name_adjoint(place) if place.direction == "backward" else _name_value(place)
    at = [] if place.step is None else [f"step {place.step}"]
    at += [] if place.row is None else [f"row {place.row}"]
    at += [f"unit {', '.join(map(str, place.unit))}"] if place.unit else []
    where = f" at {', '.join(at)}" if at else ""
    value = "nothing" if place.port_value is None else f"{place.port_value:.6g}"
    note = f" ({place.note})" if place.note else ""
    return f"{what} is {value}{where}, the oracle's {place.oracle_value:.6g}{note}"


def _name_value(place: Place) -> str:
    if not _is_step(place):
        return place.tensor
    part = place.tensor.rpartition("/")[2]
    if part.startswith("state_"):
        return f"the {part[-1]} that {place.layer} starts from"
    return f"{place.layer}'s {part}"


def _name_adjoint(place: Place) -> str:
    if not _is_step(place):
        return place.tensor
    return f"the adjoint of {place.layer}'s {place.tensor.rpartition('/')[2]}"


def _is_step(place: Place) -> bool:
    return place.tensor.startswith(("step/", "gradient/step/"))
