"""The port's calls held against the reference's: which arguments, outputs and adjoints differ, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oracle.bridge.mirror.counterfactual.calls import LENGTHS, MASKS, MEMORY_LENGTHS, Call, is_float, is_state
from oracle.bridge.mirror.counterfactual.parts import show_part
from oracle.tolerance import FLOAT64_BOUND, largest

CALL_BOUND = 10 * FLOAT64_BOUND
"""How far an array at a call may be off, as a part of its largest element: an adjoint within a model can be
the small difference of two large numbers, which a gradient is not."""


@dataclass(frozen=True)
class Difference:
    """One array of a call that is not the oracle's.

    Args:
        name: of the argument, output or adjoint.
        port: the port's; None if it passes nothing, or no gradient arrives.
        oracle: the oracle's; None if the reference passes nothing.
        error: the largest error, as a part of the largest element; infinite if they cannot be compared.
    """

    name: str
    port: np.ndarray | None
    oracle: np.ndarray | None
    error: float


def measure(port: np.ndarray, oracle: np.ndarray) -> float:
    """The largest error as a part of the oracle's largest element; infinite of other shapes or no numbers."""
    if port.shape != oracle.shape:
        return float("inf")
    if not (is_float(port) and is_float(oracle)):
        return 0.0 if np.array_equal(port, oracle) else float("inf")
    error, scale = largest(port - oracle), largest(oracle)
    if not np.isfinite(error):
        return float("inf")
    return error / scale if scale else (0.0 if error == 0 else float("inf"))


def compare_arguments(port: Call, oracle: Call) -> list[Difference]:
    """The arguments that differ. A state of zeros is none, and a mask that leaves out nothing is none."""
    found = []
    expected, given = spell_out_mask(oracle.arguments), spell_out_mask(port.arguments)
    for name in (*expected, *(other for other in given if other not in expected)):
        ours, theirs = expected.get(name), given.get(name)
        if ours is not None and theirs is not None:
            error = measure(theirs, ours)
            if error > CALL_BOUND:
                found.append(Difference(name, theirs, ours, error))
        else:
            (only,) = (array for array in (ours, theirs) if array is not None)
            call = oracle if theirs is None else port
            if not _says_nothing(name, only, call):
                found.append(Difference(name, theirs, ours, float("inf")))
    return found


def spell_out_mask(arguments: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """A call's arguments, with the lengths of a memory as its mask: either says the same."""
    lengths, memory = arguments.get(MEMORY_LENGTHS), arguments.get("input")
    if lengths is None or memory is None or memory.ndim < 2:
        return arguments
    mask = np.arange(memory.shape[1]) < lengths[:, None]
    return {name: a for name, a in arguments.items() if name != MEMORY_LENGTHS} | {"memory_mask": mask}


def compare_outputs(port: Mapping[str, np.ndarray], oracle: Mapping[str, np.ndarray]) -> list[Difference]:
    """The outputs that differ."""
    found = []
    for name, ours in oracle.items():
        theirs = port.get(name)
        error = float("inf") if theirs is None else measure(theirs, ours)
        if error > CALL_BOUND:
            found.append(Difference(name, theirs, ours, error))
    return found


def compare_adjoints(
    port: Mapping[str, np.ndarray | None], oracle: Mapping[str, np.ndarray | None]
) -> list[Difference]:
    """The adjoints that differ, of those that the port's tape was asked for. None is zero."""
    found = []
    for name, theirs in port.items():
        ours = oracle.get(name)
        if ours is None:
            continue
        error = measure(np.zeros_like(ours) if theirs is None else theirs, ours)
        if error > CALL_BOUND:
            found.append(Difference(name, theirs, ours, error))
    return found


def describe_arguments(
    differences: Sequence[Difference], port: Call, oracle: Call, calls: Sequence[Call]
) -> str:
    """What the port passes in place of what the reference passes, for people.

    Args:
        differences: of the arguments of one call.
        port: the port's call.
        oracle: the reference's.
        calls: all of the reference's, among whose arrays the port's are looked for.
    """
    said: dict[str, list[str]] = {}
    for difference in differences:
        subject, what = _describe_argument(difference, port, oracle, calls)
        named = said.setdefault(what, [])
        named += [subject] if subject not in named else []
    return "; ".join(
        f"{' and '.join(subjects)} {'are' if ' and ' in ' and '.join(subjects) else 'is'} {what}"
        for what, subjects in said.items()
    )


def _describe_argument(
    difference: Difference, port: Call, oracle: Call, calls: Sequence[Call]
) -> tuple[str, str]:
    """What is said of, and what is said."""
    name, theirs, ours = difference.name, difference.port, difference.oracle
    subject = f"`{name}`"
    if theirs is None:
        whole = f"`{name.split('/', maxsplit=1)[0]}`"
        return whole, "not passed in your port" + (", so that it starts from zeros" if is_state(name) else "")
    if ours is None:
        return subject, "passed in your port, but not in the reference"
    if theirs.shape != ours.shape:
        return subject, f"of shape {list(theirs.shape)} in your port, {list(ours.shape)} in the reference"
    if is_float(theirs) and not theirs.any():
        return subject, "zero throughout in your port, but not in the reference"
    for label, array in oracle.arguments.items():
        if label != name and is_state(name) and is_state(label) and _is_same(theirs, array):
            back = port.arguments.get(label)
            if back is not None and _is_same(back, ours):
                first, second = sorted((name, label))
                return f"`{first}` and `{second}`", "exchanged in your port"
            return subject, f"in your port what `{label}` is in the reference"
    for call in calls:
        for label, array in call.outputs.items():
            if is_float(array) and _is_same(theirs, array):
                return subject, f"in your port {name_output(call, label)}"
    factor = find_factor(theirs, ours) if is_float(ours) else None
    if factor is not None:
        return subject, f"{factor:.6g} times the reference's"
    if ours.dtype.kind in "iub":
        return subject, f"another in {len(np.argwhere(theirs != ours))} of {ours.size} elements"
    return subject, f"off by {difference.error:.2g} of its largest element"


def name_output(call: Call, name: str) -> str:
    """An output for people: of a recurrent layer the sequence, or the final state."""
    number = name.removeprefix("output").strip("/")
    first, this = call.outputs.get("output/0"), call.outputs[name]
    what, notes = "the output", [f"call {call.number + 1}"] if call.number else []
    if number and number.split("/", maxsplit=1)[0] != "0":
        is_final = first is not None and this.ndim == 2 and first.shape[0] == this.shape[0]
        what, notes = "the final state" if is_final else "a further output", [f"output {number}", *notes]
    said = f" ({', '.join(notes)})" if notes else ""
    return f"{what} of `{show_part(call.part)}`{said}"


def find_factor(port: np.ndarray, oracle: np.ndarray) -> float | None:
    """The number by which the port's array is a multiple of the oracle's; None if it is none."""
    if port.shape != oracle.shape or not oracle.any():
        return None
    factor = float(np.sum(port * oracle) / np.sum(oracle * oracle))
    if factor == 0 or abs(factor - 1) <= CALL_BOUND:
        return None
    return factor if measure(port, factor * oracle) <= CALL_BOUND else None


def find_readers(array: np.ndarray, calls: Iterable[Call]) -> list[str]:
    """The parts that are given just this array: as a state, if some are."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for call in calls:
        for name, argument in call.arguments.items():
            if is_float(argument) and argument.shape == array.shape and np.array_equal(argument, array):
                found[is_state(name)].append(show_part(call.part))
    return list(dict.fromkeys(found[True] or found[False]))


def _says_nothing(name: str, array: np.ndarray, call: Call) -> bool:
    """Whether passing this argument is the same as passing none."""
    if is_state(name):
        return not array.any()
    if name.split("/", maxsplit=1)[0] in MASKS:
        return bool(array.all())
    if name in LENGTHS:
        inputs = call.arguments.get("input")
        return inputs is not None and inputs.ndim > 1 and bool((array >= inputs.shape[1]).all())
    # Other options, such as `maximum_iterations`, are not what is compared.
    return not is_float(array)


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(second.any()) and measure(first, second) <= CALL_BOUND
