"""Why a gradient is None: where the way from a variable to the loss is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from oracle.legacy_graph.codes import CODES
from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis.flow import (
    HELD,
    PYTHON,
    SHAPES,
    follow,
    has_gradient,
    is_floating,
    passes,
    trace_back,
)
from oracle.live_diagnosis.holders import is_mechanism
from oracle.live_diagnosis.recording import Operation, Recording
from oracle.live_diagnosis.runs import Run, Weight

Cause = tuple[str, str, str]
"""A code, a line of the person's code, and what is there."""


def explain_missing(
    recording: Recording,
    run: Run,
    weights: Iterable[Weight],
    probe: Callable[[Sequence[Weight]], Run],
    *,
    where: str,
) -> list[Finding]:
    """Say for weights whose gradient is None where the connection is lost. Those of one cause go together.

    Args:
        recording: what was run.
        run: the run in which they are None.
        weights: which.
        probe: runs the port again with other values of these weights.
        where: what to call the port.
    """
    forward = _find_forward(recording, run)
    needed = trace_back(forward, [run.loss])
    causes = {weight: _find_cause(recording, run, forward, needed, weight) for weight in weights}
    dropped = [weight for weight, (code, *_) in causes.items() if code == "G026"]
    dropped = [weight for weight in dropped if any(weight.handle in o.inputs for o in forward)]
    if dropped:
        # Not every way out of TensorFlow is watched; what left by another changes with the weights too.
        place = _find_changed_constant(recording, run, probe(dropped))
        if place is not None:
            what = "a constant changes with it: its value was taken as NumPy and came back here"
            causes |= dict.fromkeys(dropped, ("G025", place, what))
    grouped: dict[Cause, list[str]] = {}
    for weight, cause in causes.items():
        grouped.setdefault(cause, []).append(weight.path)
    return [
        make_finding(code, where, place, f"the gradient of {name_several(paths)} is None: {what}")
        for (code, place, what), paths in grouped.items()
    ]


def _find_forward(recording: Recording, run: Run) -> list[Operation]:
    """A run's operations up to the one that gives the loss."""
    operations = recording.in_phase(run.phase)
    end = max((i for i, o in enumerate(operations) if run.loss in o.outputs), default=-1) + 1
    return operations[:end]


def _find_changed_constant(recording: Recording, run: Run, other: Run) -> str | None:
    """The line that reads another constant in a run with other weights; None if there is none."""
    sides = []
    for one in (run, other):
        forward = _find_forward(recording, one)
        needed = trace_back(forward, [one.loss])
        made = {number for operation in forward for number in operation.outputs} | one.batch
        sides.append([(o, made) for o in forward if not needed.isdisjoint(o.outputs)])
    for (operation, made), (twin, made_there) in zip(*sides, strict=False):
        if operation.type != twin.type:
            return None
        for number, there in zip(operation.inputs, twin.inputs, strict=False):
            if number in made or there in made_there or not is_floating(recording, number):
                continue
            if not np.array_equal(
                np.asarray(recording.tensors[number]), np.asarray(recording.tensors[there]), equal_nan=True
            ):
                return operation.place
    return None


def explain_left_out(run: Run, *, where: str) -> list[Finding]:
    """Say which weights the port's own train step asks no gradient of."""
    left = [weight.path for weight in run.weights if weight.path not in run.gradients]
    if not left:
        return []
    return [make_finding("G027", where, "", f"`gradients` gives none for {name_several(left)}")]


def make_finding(code: str, where: str, place: str, what: str) -> Finding:
    """A finding of a code, at a line if one is known."""
    return Finding(code, f"{where}: {place}" if place else where, what, CODES[code].remedy)


def name_several(paths: Sequence[str]) -> str:
    """Up to four names, and how many more there are."""
    more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
    return ", ".join(paths[:4]) + more


def _find_cause(
    recording: Recording, run: Run, forward: Sequence[Operation], needed: set[int], weight: Weight
) -> Cause:
    reached = follow(forward, [weight.handle])
    if run.loss not in reached:
        return _explain_absence(recording, run, forward, reached, weight)
    # py_function has a gradient unless its body breaks it; it is blamed if nothing else can be.
    for python in (True, False):
        breaks = _find_breaks(recording, forward, needed, weight, python=python)
        if breaks:
            return _describe_break(recording, run, forward, needed, reached, breaks[-1])
    return (
        "G012",
        "",
        "every operation on its way to the loss has a gradient, so the tape did not watch it, or one of them "
        "gives none for this input",
    )


def _explain_absence(
    recording: Recording, run: Run, forward: Sequence[Operation], reached: set[int], weight: Weight
) -> Cause:
    if not any(weight.handle in operation.inputs for operation in forward):
        made = follow(recording.in_phase(0), [weight.handle])
        early = [read for read in recording.reads if read.phase == 0 and read.tensor in made]
        if early:
            what = "the loss never reads it, but its value was taken as NumPy here while the port was made"
            return "G026", early[-1].place, what
        return "G026", "", "the loss never reads it"
    reads = [
        read
        for read in recording.reads
        if read.phase == run.phase and read.tensor in reached and is_floating(recording, read.tensor)
    ]
    if reads:
        read = reads[-1]
        makers = [operation for operation in forward if read.tensor in operation.outputs]
        made = f", made by {_name_operation(makers[-1])}," if makers else ""
        what = f"the value of a tensor that depends on it{made} is taken as NumPy here"
        if read.for_function:
            return "G024", read.place, f"{what}, for a function of Python"
        return "G025", read.place, what
    last = [operation for operation in forward if not reached.isdisjoint(operation.outputs)]
    ends = f"; the last operation is {_name_operation(last[-1])}" if last else ""
    return "G026", last[-1].place if last else "", f"nothing that is computed from it reaches the loss{ends}"


def _find_breaks(
    recording: Recording, forward: Sequence[Operation], needed: set[int], weight: Weight, *, python: bool
) -> list[Operation]:
    """The operations on the way to the loss that a gradient does not pass, in the order in which they ran."""
    reached, breaks = {weight.handle}, []
    for operation in forward:
        if reached.isdisjoint(operation.inputs) or needed.isdisjoint(operation.outputs):
            continue
        if passes(recording, operation, python=python):
            reached.update(number for number in operation.outputs if is_floating(recording, number))
        elif operation.type not in SHAPES:
            breaks.append(operation)
    return breaks


def _describe_break(
    recording: Recording,
    run: Run,
    forward: Sequence[Operation],
    needed: set[int],
    reached: set[int],
    found: Operation,
) -> Cause:
    name = _name_operation(found)
    if found.type in HELD:
        return "G023", found.place, f"{name} holds it back"
    if found.type in PYTHON:
        return "G024", found.place, f"{name} runs Python code, which the tape does not see into"
    if found.is_recorded:
        what = "gives no floating number" if has_gradient(found.type) else "has no gradient"
        return "G022", found.place, f"{name} {what}"
    crossing = _find_crossing(forward, needed, reached) or [found]
    last = crossing[-1]
    outputs = {number for operation in crossing for number in operation.outputs}
    kept = [held for number, held in run.held.items() if number in outputs and is_mechanism(held.owner)]
    if kept:
        path = kept[0].path
        return "G102", last.place, f"no tape records while {path} is computed, by {_name_operation(last)}"
    return "G021", last.place, f"no tape records {_name_operation(last)}, whose result the recorded part uses"


def _find_crossing(forward: Sequence[Operation], needed: set[int], reached: set[int]) -> list[Operation]:
    """The operations outside the tape whose results are used within it."""
    used = {
        number
        for operation in forward
        if operation.is_recorded and not needed.isdisjoint(operation.outputs)
        for number in operation.inputs
    }
    return [
        operation
        for operation in forward
        if not operation.is_recorded and not (used & reached).isdisjoint(operation.outputs)
    ]


def _name_operation(operation: Operation) -> str:
    return f"{operation.type} ({operation.place})" if operation.place else operation.type
