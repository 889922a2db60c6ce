"""Gradients that exist and are zero throughout, or not finite, and the operation by which they become so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis.flow import SHAPES, is_floating, trace_back
from oracle.live_diagnosis.missing import make_finding, name_several
from oracle.live_diagnosis.recording import Operation, Recording, number_of
from oracle.live_diagnosis.runs import Run


def find_infinite(recording: Recording, run: Run, *, where: str) -> list[Finding]:
    """Say by which operation the loss or a gradient becomes infinite or undefined."""
    operations = recording.in_phase(run.phase)
    if not _is_finite(recording, run.loss):
        origin = _find_first(recording, operations, run.loss)
        return [_describe("the loss", origin, operations, where)]
    grouped: dict[tuple[Operation | None], list[str]] = {}
    for path, gradient in run.gradients.items():
        numbers = list_numbers(gradient)
        if all(_is_finite(recording, number) for number in numbers):
            continue
        origin = next((_find_first(recording, operations, number) for number in numbers), None)
        grouped.setdefault((origin,), []).append(path)
    return [
        _describe(f"the gradient of {name_several(paths)}", origin, operations, where)
        for (origin,), paths in grouped.items()
    ]


def find_python_gap(recording: Recording, phase: int) -> Operation | None:
    """A `tf.py_function` that gave no gradient: TensorFlow puts a single zero for it, whatever the shape."""
    operations = recording.in_phase(phase)
    calls = [o for o in operations if o.type == "EagerPyFunc" and o.is_recorded]
    for backward in operations:
        if backward.type != "EagerPyFunc" or backward.is_recorded:
            continue
        given = [recording.tensors[number] for number in backward.outputs]
        shapes = [{tuple(recording.tensors[n].shape) for n in call.inputs} for call in calls]
        if calls and any(tensor.shape == () and not np.any(_to_array(tensor)) for tensor in given):
            lost = [call for call, known in zip(calls, shapes, strict=True) if () not in known]
            if lost:
                return lost[-1]
    return None


def find_misshapen(recording: Recording, run: Run, *, where: str) -> list[Finding]:
    """Say of which weights a Python function gave a gradient that is none."""
    gap = find_python_gap(recording, run.phase)
    wrong = [
        weight.path
        for weight in run.weights
        if (gradient := run.gradients.get(weight.path)) is not None
        and hasattr(gradient, "shape")
        and not gradient.shape.is_compatible_with(weight.variable.shape)
    ]
    if gap is None or not wrong:
        return []
    what = (
        f"the gradient of {name_several(wrong)} is a single zero, since EagerPyFunc's Python code gives none"
    )
    return [make_finding("G024", where, gap.place, what)]


def find_zero(recording: Recording, run: Run, other: Mapping[str, Any], *, where: str) -> list[Finding]:
    """Say which gradients are zero at the port's own weights and at others, and what made them so.

    Args:
        recording: what was run.
        run: at the port's own weights.
        other: the gradients at other weights, by path.
        where: what to call the port.
    """
    zero = [path for path, gradient in run.gradients.items() if _is_zero(gradient)]
    zero = [path for path in zero if path in other and _is_zero(other[path])]
    operations = recording.in_phase(run.phase)
    forward = {n for o in operations if o.is_recorded for n in (*o.inputs, *o.outputs)}
    grouped: dict[Operation | None, list[str]] = {}
    for path in zero:
        numbers = list_numbers(run.gradients[path])
        needed = trace_back(operations, numbers)
        grouped.setdefault(_find_zeroing(recording, operations, needed, forward), []).append(path)
    findings = []
    for origin, paths in grouped.items():
        by, place = _name_origin(origin, operations)
        what = f"the gradient of {name_several(paths)} is zero, here and at other weights{by}"
        findings.append(make_finding("G013", where, place, what))
    return findings


def list_numbers(gradient: Any) -> list[int]:
    """The numbers of the tensors of a gradient, dense or sparse; none if it is None."""
    parts = [getattr(gradient, "values", gradient)] if gradient is not None else []
    return [number for part in parts if (number := number_of(part)) is not None]


def _is_zero(gradient: Any) -> bool:
    if gradient is None:
        return False
    array = np.asarray(getattr(gradient, "values", gradient))
    return bool(array.size) and not array.any()


def _find_first(recording: Recording, operations: Sequence[Operation], target: int) -> Operation | None:
    """The first operation on the way to `target` that gives what is not finite of what is."""
    needed = trace_back(operations, [target])
    for operation in operations:
        given = [number for number in operation.outputs if number in needed]
        if _all_finite(recording, given) or not _all_finite(recording, operation.inputs):
            continue
        return operation
    return None


def _find_zeroing(
    recording: Recording, operations: Sequence[Operation], needed: set[int], forward: set[int]
) -> Operation | None:
    """The first backward operation that gives zeros though the gradient that it was given has others."""
    for operation in operations:
        if operation.is_recorded or operation.type in SHAPES:
            continue
        given = [n for n in operation.outputs if n in needed and is_floating(recording, n)]
        upstream = [n for n in operation.inputs if n not in forward and is_floating(recording, n)]
        if not given or any(_any(recording, number) for number in given):
            continue
        if any(_any(recording, number) for number in upstream):
            return operation
    return None


def _describe(what: str, origin: Operation | None, operations: Sequence[Operation], where: str) -> Finding:
    by, place = _name_origin(origin, operations)
    return make_finding("G014", where, place, f"{what} is not finite{by}")


def _name_origin(origin: Operation | None, operations: Sequence[Operation]) -> tuple[str, str]:
    """What an operation is called, and its line; of a backward one, those of the forward one it is of."""
    if origin is None:
        return "", ""
    if origin.is_recorded:
        return f", from {origin.type} on", origin.place
    # A backward operation, or a mask that is made for it, reads what the forward one read or gave.
    backward = [operation for operation in operations if not operation.is_recorded]
    read = set(origin.inputs)
    read |= {n for o in backward if not read.isdisjoint(o.outputs) for n in o.inputs}
    forward = [o for o in operations if o.is_recorded]
    related = [o for o in forward if not read.isdisjoint(o.outputs)]
    related = [o for o in forward if len(read.intersection(o.inputs)) > 1] or related
    if not related:
        return f", from {origin.type} on, in the backward pass", ""
    near = related[-1]
    return f", from {origin.type} on, in the backward pass of {near.type}", near.place


def _all_finite(recording: Recording, numbers: Iterable[int]) -> bool:
    return all(_is_finite(recording, number) for number in numbers)


def _is_finite(recording: Recording, number: int) -> bool:
    tensor = recording.tensors.get(number)
    if tensor is None or not is_floating(recording, number):
        return True
    return bool(np.isfinite(_to_array(tensor)).all())


def _any(recording: Recording, number: int) -> bool:
    return bool(np.any(_to_array(recording.tensors[number])))


def _to_array(tensor: Any) -> np.ndarray:
    array = np.asarray(tensor)
    # bfloat16 has no isfinite of NumPy's own.
    return array.astype("float32") if array.dtype.kind not in "fc" else array
