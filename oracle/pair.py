"""Two records held against each other: of two TensorFlows, CPU and GPU, before and after, two precisions.

Neither is the oracle, so neither is the truth: they are called A and B. Where both are in float64 the rule
is that of every comparison in float64: nothing but the order of rounding may differ. Where one is not, there
is no yardstick to measure what the precision costs, so the bound is assumed, and said to be:
`ASSUMED_ROUNDINGS` of the coarser precision, as a part of the tensor's largest element. It can be
overridden, and the tolerance that would have passed is always given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from oracle.compare import Row, Status
from oracle.errors import RecordError, UsageError
from oracle.rebuild import name_as_port
from oracle.record import STEPS, Failure, Origin, Record
from oracle.tolerance import FLOAT64_BOUND, largest, root_mean_square

ROUNDINGS: Mapping[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "mixed": 2.0**-8,
}
"""The error of one rounding, as a part of the number that is rounded. Of a mixed record that of the coarsest
precision that it may have computed in, since it does not say which."""

ASSUMED_ROUNDINGS: Mapping[str, float] = {"float32": 2048.0, "float16": 32.0, "bfloat16": 16.0, "mixed": 16.0}
"""How many roundings of the largest element two records may differ by: assumed, not measured on their
case. In float32 that is 1.2e-4: eight times what float32 differs from float64 by in the worst tensor of
this project's translator (1.5e-5, the attention's v), as a port may err eight times as much as the oracle.
In half precision it is a guess, which only a gross fault exceeds."""


@dataclass(frozen=True)
class Pair:
    """Two records held against each other.

    Args:
        a: where A came from.
        b: where B came from.
        rows: one a tensor, in A's order. `port_value` is A's, `oracle_value` B's.
        allowed: the tolerance, as a part of the tensor's largest element on either side.
        basis: where the tolerance is from: `float64`, `assumed` or `given`.
        failures: what A and B raised, if they did.
        names: what to call the two in sentences.
        notes: what else there is to say of them.
    """

    a: Origin
    b: Origin
    rows: tuple[Row, ...]
    allowed: float
    basis: str
    failures: tuple[Failure | None, Failure | None] = (None, None)
    names: tuple[str, str] = ("A", "B")
    notes: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return bool(self.rows) and not any(self.failures) and not self.findings

    @property
    def findings(self) -> tuple[Row, ...]:
        """The rows that are not `match`."""
        return tuple(row for row in self.rows if row.status != "match")

    @property
    def needed(self) -> float | None:
        """The tolerance under which every row would have passed; None if none would."""
        needed = [row.needed for row in self.rows]
        if any(self.failures) or not needed or None in needed:
            return None
        return max(value for value in needed if value is not None)


def compare_pair(a: Record, b: Record, *, tolerance: float | None = None) -> Pair:
    """Hold record A against record B, tensor by tensor.

    Args:
        a: a record.
        b: another, of the same weights and batch.
        tolerance: what is allowed, as a part of a tensor's largest element; by default see the module.

    Raises:
        RecordError: if they are of different weights or batches, beyond what the coarser of their precisions
            rounds; or name their weights differently; or hold no tensor in common, or no gradient that is
            more than None or zero.
        UsageError: if the tolerance is no positive number.
    """
    b, notes = _align_names(a, b)
    _check_inputs(a, b)
    failures = (a.failure, b.failure)
    allowed, basis = _choose_tolerance(a.origin, b.origin, tolerance)
    if any(failures):
        return Pair(a.origin, b.origin, (), allowed, basis, failures, notes=notes)
    if not a.tensors.keys() & b.tensors.keys():
        raise RecordError(
            f"compare: A ({a.origin.model}) and B ({b.origin.model}) have no tensor in common; A names "
            f"{_shorten(a.tensors)}, B {_shorten(b.tensors)}; record them with the same names"
        )
    notes = (*notes, *_check_evidence(a, b))
    return Pair(a.origin, b.origin, compare_tensors(a, b, allowed), allowed, basis, notes=notes)


def _check_evidence(a: Record, b: Record) -> tuple[str, ...]:
    """Say which gradients are None or zero on both sides, and refuse records in which all of them are."""
    lost: dict[str, list[str]] = {"None": [], "zero throughout": []}
    shared = [name for name in a.tensors if name.startswith("gradient/") and name in b.tensors]
    for name in shared:
        both = a.tensors[name], b.tensors[name]
        if all(array is None for array in both):
            lost["None"].append(name)
        elif all(array is not None and array.size and not array.any() for array in both):
            lost["zero throughout"].append(name)
    if shared and sum(map(len, lost.values())) == len(shared):
        raise RecordError(
            "compare: every gradient is None or zero throughout in A and in B, so their agreement says "
            "nothing; see what `oracle verify` says of one of them"
        )
    return tuple(f"{what} on both sides: {', '.join(names)}" for what, names in lost.items() if names)


def compare_assumed(port: Record, oracle: Record, *, tolerance: float | None = None) -> Pair:
    """Hold a port's record in half or mixed precision against the oracle's, by an assumed tolerance.

    Raises:
        UsageError: if a tolerance is given that is no positive number.
    """
    allowed, basis = _choose_tolerance(port.origin, oracle.origin, tolerance)
    names = ("the port", "the oracle")
    common = {name: oracle.tensors[name] for name in oracle.tensors if name in port.tensors}
    weights = {name: oracle.tensors[name] for name in oracle.tensors if name.startswith("gradient/")}
    spared = ("gradient/batch/", "gradient/state/", "gradient/embedded/", *STEPS)
    missing = {name: array for name, array in weights.items() if not name.startswith(spared)}
    truth = Record(oracle.spec, oracle.origin, {**common, **missing})
    rows = compare_tensors(port, truth, allowed, names=names)
    return Pair(port.origin, oracle.origin, rows, allowed, basis, names=names)


def compare_tensors(
    a: Record, b: Record, allowed: float, *, names: tuple[str, str] = ("A", "B")
) -> tuple[Row, ...]:
    """One row for each tensor of either record."""
    ordered = [*a.tensors, *(name for name in b.tensors if name not in a.tensors)]
    return tuple(_compare_tensor(name, a, b, allowed, names) for name in ordered)


def _choose_tolerance(a: Origin, b: Origin, tolerance: float | None) -> tuple[float, str]:
    if tolerance is not None:
        if not 0 < tolerance < float("inf"):
            raise UsageError(f"tolerance {tolerance:g}: give a positive number")
        return tolerance, "given"
    coarser = max((a.dtype, b.dtype), key=lambda dtype: ROUNDINGS[dtype])
    if coarser == "float64":
        return FLOAT64_BOUND, "float64"
    return ASSUMED_ROUNDINGS[coarser] * ROUNDINGS[coarser], "assumed"


def _align_names(a: Record, b: Record) -> tuple[Record, tuple[str, ...]]:
    """B with A's names of its weights, where they differ only in how Keras numbers and names its layers."""
    ways: tuple[Callable[[str], str], ...] = (_drop_numbers, lambda name: _drop_numbers(name_as_port(name)))
    ours, theirs = _trained(a), _trained(b)
    if ours.keys() == theirs.keys():
        return b, ()
    for way in ways:
        known = {way(name): name for name in ours}
        renamed = {name: way(name) for name in theirs}
        if not len(known) == len(ours) == len(theirs) or set(renamed.values()) != set(known):
            continue
        names = {name: known[new] for name, new in renamed.items()}
        gradients = {f"gradient/{name}": f"gradient/{new}" for name, new in names.items()}
        changed = [f"{name} is {new}" for name, new in names.items() if name != new]
        aligned = replace(
            b,
            tensors={gradients.get(name, name): tensor for name, tensor in b.tensors.items()},
            weights={names.get(name, name): array for name, array in b.weights.items()},
            sparse={gradients.get(name, name): slices for name, slices in b.sparse.items()},
        )
        return aligned, (f"weights matched by name but for Keras' numbers: B's {', '.join(changed)} in A",)
    return b, ()


def _drop_numbers(name: str) -> str:
    """`decoder/lstm_cell_1/kernel` as `decoder/lstm_cell/kernel`."""
    return re.sub(r"_\d+(?=/|$)", "", name)


def _trained(record: Record) -> dict[str, np.ndarray]:
    """The weights but for counters and the states of random generators, which are no part of the model."""
    return {
        name: array
        for name, array in record.weights.items()
        if name not in record.frozen or array.dtype.kind not in "iub"
    }


def _check_inputs(a: Record, b: Record) -> None:
    if a.origin.case == b.origin.case or any((a.failure, b.failure)):
        return
    who = f"A ({a.origin.model}, {a.origin.dtype}) and B ({b.origin.model}, {b.origin.dtype})"
    coarser = max((a.origin.dtype, b.origin.dtype), key=lambda dtype: ROUNDINGS[dtype])
    for kind, ours, theirs in (("weights", _trained(a), _trained(b)), ("batch", a.batch, b.batch)):
        if not ours or not theirs:
            raise RecordError(
                f"compare: {who} are of different weights or batches, or one does not hold them; record both "
                "on the same"
            )
        if ours.keys() != theirs.keys():
            differing = sorted(ours.keys() ^ theirs.keys())
            raise RecordError(
                f"compare: {who} have {kind} of different names: {_shorten(differing)} is in one alone; name "
                "them alike, as in r.weights({'encoder/kernel': variable})"
            )
        for name, array in ours.items():
            if not _agree(array, theirs[name], coarser):
                raise RecordError(
                    f"compare: {who} were computed on different {kind}: {name} differs by more than a "
                    f"rounding of {coarser}; record both on the same"
                )


def _agree(ours: np.ndarray, theirs: np.ndarray, precision: str) -> bool:
    """Whether two arrays are the same but for one rounding of each element to a precision."""
    if ours.shape != theirs.shape:
        return False
    if "f" not in (ours.dtype.kind, theirs.dtype.kind) and "V" not in (ours.dtype.kind, theirs.dtype.kind):
        return bool(np.array_equal(ours, theirs))
    first, second = ours.astype(np.float64), theirs.astype(np.float64)
    if ours.dtype == theirs.dtype:
        return bool(np.array_equal(first, second, equal_nan=True))
    # The smallest numbers have fewer digits.
    least = 2.0**-25 if precision == "float16" else 2.0**-134
    near = np.abs(first - second) <= ROUNDINGS[precision] * np.maximum(np.abs(first), np.abs(second)) + least
    return bool((near | (first == second) | (np.isnan(first) & np.isnan(second))).all())


def _compare_tensor(name: str, a: Record, b: Record, allowed: float, names: tuple[str, str]) -> Row:
    variables = a.variables.get(name, ()) or b.variables.get(name, ())
    first, second = a.tensors.get(name), b.tensors.get(name)
    shapes = [np.shape(tensor) for tensor in (second, first) if tensor is not None]
    shape = shapes[0] if shapes else ()
    for side, record in zip(names, (a, b), strict=True):
        if name not in record.tensors:
            other = names[1] if side == names[0] else names[0]
            status: Status = "missing" if side == names[0] else "unexpected"
            return Row(name, status, shape, variables, note=f"{other} has it, {side} does not")
    if first is None and second is None:
        return Row(name, "match", (), variables, needed=0.0, note="None on both sides")
    if first is None or second is None:
        which = names[0] if first is None else names[1]
        return Row(name, "none", shape, variables, note=f"{which}'s gradient is None: nothing connects it")
    if first.shape != second.shape:
        note = f"{names[0]}'s shape is {list(first.shape)}, {names[1]}'s {list(second.shape)}"
        return Row(name, "shape", second.shape, variables, note=note)
    return _measure(name, first.astype(np.float64), second.astype(np.float64), allowed, names, variables)


def _measure(
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    allowed: float,
    names: tuple[str, str],
    variables: tuple[str, ...],
) -> Row:
    finite = [np.isfinite(array) for array in (first, second)]
    if not all(mask.all() for mask in finite):
        return _describe_nonfinite(name, first, second, names, variables)
    error = first - second
    max_abs, scale = largest(error), max(largest(first), largest(second))
    if not first.size:
        return Row(name, "match", first.shape, variables, needed=0.0, note="it has no elements")
    index = tuple(int(axis) for axis in np.unravel_index(int(np.abs(error).argmax()), error.shape))
    needed = max_abs / scale if scale else 0.0
    zero = [side for side, array in zip(names, (first, second), strict=True) if not array.any()]
    status: Status = "match" if needed <= allowed else "zero" if zero else "mismatch"
    norms = root_mean_square(first), root_mean_square(second)
    cosine = None
    if all(norms):
        peaks = [array.ravel() / largest(array) for array in (first, second)]
        cosine = float(peaks[0] @ peaks[1] / (np.linalg.norm(peaks[0]) * np.linalg.norm(peaks[1])))
    return Row(
        name,
        status,
        first.shape,
        variables,
        max_abs=max_abs,
        index=index,
        port_value=float(first[index]),
        oracle_value=float(second[index]),
        rel_l2=root_mean_square(error) / norms[1] if norms[1] else None,
        cosine=cosine,
        needed=needed,
        note=f"every element of {zero[0]}'s is zero" if status == "zero" else "",
    )


def _describe_nonfinite(
    name: str, first: np.ndarray, second: np.ndarray, names: tuple[str, str], variables: tuple[str, ...]
) -> Row:
    """Infinite or NaN in the same places, and near elsewhere, is still no agreement to rely on."""
    wrong = ~(np.isfinite(first) & np.isfinite(second))
    index = tuple(int(axis) for axis in np.argwhere(wrong)[0])
    counts = [int((~np.isfinite(array)).sum()) for array in (first, second)]
    note = f"NaN or infinite: {counts[0]} of {names[0]}'s {wrong.size} elements, {counts[1]} of {names[1]}'s"
    values = {"port_value": float(first[index]), "oracle_value": float(second[index])}
    return Row(name, "nonfinite", first.shape, variables, index=index, note=note, **values)


def count_statuses(pair: Pair) -> str:
    """How many findings of each kind: `2 mismatch, 1 none`."""
    return ", ".join(f"{n} {status}" for status, n in Counter(row.status for row in pair.findings).items())


def _shorten(names: Mapping[str, object] | list[str]) -> str:
    shown = list(names)[:4]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "") if shown else "none"
