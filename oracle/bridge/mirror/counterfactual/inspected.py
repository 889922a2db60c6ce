"""A call that both sides make, and what it comes to: places, checks and errors step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oracle.bridge.mirror.counterfactual.agreement import CALL_BOUND, Difference, find_factor
from oracle.bridge.mirror.counterfactual.calls import SETUP_MEMORY, Call, is_float
from oracle.bridge.mirror.counterfactual.parts import show_part
from oracle.localisation import Check, Pass, Place


@dataclass(frozen=True)
class Inspected:
    """What one call of both sides comes to.

    Args:
        oracle: the reference's call.
        port: the port's; None if it makes none.
        arguments: what goes in and differs.
        outputs: what comes out and is not what the oracle's part makes of the port's arguments.
        adjoints: of the outputs, those that differ.
        back: of the arguments' adjoints those that are not what the oracle makes of the port's outputs'.
        is_checked: whether the call could be held to account by itself, forward and backward.
    """

    oracle: Call
    port: Call | None
    arguments: list[Difference]
    outputs: list[Difference]
    adjoints: list[Difference]
    back: list[Difference]
    is_checked: tuple[bool, bool] = (False, False)

    @property
    def name(self) -> str:
        """The part's, for people."""
        return show_part(self.oracle.part)

    @property
    def shown(self) -> str:
        """The part, and which of its calls, but for the first."""
        return f"`{self.name}`" + (f" (call {self.oracle.number + 1})" if self.oracle.number else "")


def find_place(found: Inspected, difference: Difference, direction: Pass, *, is_stepped: bool) -> Place:
    """The first element that differs: in time, then by row.

    Args:
        found: the call.
        difference: of one of its arrays.
        direction: the pass; backward, the last step is the first.
        is_stepped: whether the part is called once a step, so that the call says which.
    """
    ours, theirs = difference.oracle, difference.port
    shown = ours if ours is not None else theirs
    assert shown is not None
    wrong = np.ones(shown.shape, bool)
    if ours is not None and theirs is not None and ours.shape == theirs.shape:
        apart = np.abs(theirs.astype(np.float64) - ours.astype(np.float64))
        scale = float(np.abs(ours).max(initial=0.0)) or 1.0
        wrong = ~(apart <= CALL_BOUND * scale)
        wrong = wrong if wrong.any() else np.ones(shown.shape, bool)
    elif ours is not None and theirs is None:
        wrong = ours != 0 if (ours != 0).any() else wrong
    index = _find_first(wrong, direction, timed=_is_timed(shown))
    timed = _is_timed(shown)
    whole = tuple(index)
    return Place(
        direction,
        f"{'gradient/' if direction == 'backward' else ''}{found.oracle.part}/{difference.name}",
        found.name,
        whole[1] if timed else (found.oracle.number if is_stepped else None),
        whole[0] if whole else None,
        whole[2:] if timed else whole[1:],
        None if theirs is None or theirs.shape != shown.shape else float(theirs[whole]),
        0.0 if ours is None else float(ours[whole]),
        _say_length(found.oracle, whole) if timed else "",
    )


def list_checks(found: Inspected) -> list[Check]:
    """What is said of the part by itself."""
    if found.port is None:
        return []
    checks = []
    if found.is_checked[0]:
        error = max((difference.error for difference in found.outputs), default=0.0)
        where = describe_where(found.outputs[0]) if found.outputs else ""
        checks.append(Check(found.name, "forward", not found.arguments, not found.outputs, error, where))
    if found.is_checked[1]:
        error = max((difference.error for difference in found.back), default=0.0)
        checks.append(Check(found.name, "backward", not found.adjoints, not found.back, error))
    return checks


def measure_steps(found: Inspected, direction: Pass) -> list[float | None]:
    """The largest error of a call's main array, step by step if it has steps."""
    ours: Mapping[str, np.ndarray | None]
    if found.oracle.method == SETUP_MEMORY:
        ours, theirs = found.oracle.arguments, found.port.arguments if found.port else {}
        if direction == "backward":
            ours, theirs = found.oracle.argument_adjoints, found.port.argument_adjoints if found.port else {}
    elif direction == "forward":
        ours, theirs = found.oracle.outputs, found.port.outputs if found.port else {}
    else:
        ours, theirs = found.oracle.output_adjoints, found.port.output_adjoints if found.port else {}
    floats = {name: array for name, array in ours.items() if array is not None and is_float(array)}
    name = next((n for n, array in floats.items() if array.ndim > 2), next(iter(floats), None))
    if name is None or found.port is None:
        return [None]
    array, other = floats[name], theirs.get(name)
    if other is None:
        other = np.zeros_like(array) if direction == "backward" else np.full_like(array, np.nan)
    if other.shape != array.shape:
        return [float("inf")]
    scale = float(np.abs(array).max(initial=0.0)) or 1.0
    apart = np.abs(other - array) / scale
    apart = np.where(np.isfinite(apart), apart, np.inf)
    if array.ndim < 3:
        return [float(apart.max(initial=0.0))]
    return [float(apart[:, step].max(initial=0.0)) for step in range(array.shape[1])]


def _find_first(wrong: np.ndarray, direction: Pass, *, timed: bool | None = None) -> tuple[int, ...]:
    """The first wrong element: of the first step (the last, backward), then of the first row."""
    places = np.argwhere(wrong)
    if not len(places):
        return ()
    if not (_is_timed(wrong) if timed is None else timed):
        return tuple(int(i) for i in places[0])
    steps = places[:, 1]
    step = steps.min() if direction == "forward" else steps.max()
    return tuple(int(i) for i in places[steps == step][0])


def _is_timed(array: np.ndarray) -> bool:
    """Whether the second axis is time: of vectors for each row and step, and of ids and masks."""
    return array.ndim > 2 or (array.ndim == 2 and array.dtype.kind in "iu")


def describe_where(difference: Difference) -> str:
    """From which step and row on an output is wrong, and by how much."""
    if difference.port is None:
        return f"it has no {difference.name}"
    if difference.oracle is None or difference.port.shape != difference.oracle.shape:
        return f"the {difference.name} is of another shape"
    scale = float(np.abs(difference.oracle).max(initial=0.0)) or 1.0
    wrong = ~(np.abs(difference.port - difference.oracle) <= CALL_BOUND * scale)
    first = _find_first(wrong, "forward")
    if _is_timed(wrong):
        return f"from step {first[1]} on, row {first[0]}, by {difference.error:.2g} of the largest element"
    return f"row {first[0]}, by {difference.error:.2g} of the largest element" if first else "its value"


def _say_length(call: Call, index: tuple[int, ...]) -> str:
    for name in ("sequence_length", "memory_sequence_length"):
        lengths = call.arguments.get(name)
        if lengths is not None and lengths.ndim == 1 and index[1] >= lengths[index[0]]:
            return f"past the row's end (length {int(lengths[index[0]])})"
    mask = call.arguments.get("mask")
    if mask is not None and mask.ndim == 2 and not mask[index[0], index[1]]:
        return "where the mask leaves the step out"
    return ""


def say_size(difference: Difference) -> str:
    """How an adjoint differs, if it is none or a multiple."""
    if difference.port is None or not difference.port.any():
        return ": none arrives"
    assert difference.oracle is not None
    factor = find_factor(difference.port, difference.oracle)
    return f": it is {factor:.6g} times the oracle's" if factor is not None else ""


def is_cut(found: Inspected) -> bool:
    """Whether no gradient arrives at what a call gives."""
    assert found.port is not None
    floats = [
        a for n, a in found.port.output_adjoints.items() if found.oracle.output_adjoints.get(n) is not None
    ]
    return all(adjoint is None or not adjoint.any() for adjoint in floats)
