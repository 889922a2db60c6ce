"""Two records held against each other, tensor by tensor. Pure NumPy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from oracle.case import weight_shapes
from oracle.errors import RecordError
from oracle.explanation import Explanation
from oracle.judgement import FAULTS, Judgement, WitnessWhen
from oracle.localisation import Localisation
from oracle.record import STEPS, Failure, Origin, Record
from oracle.tolerance import (
    Tolerance,
    float32_tolerance,
    float64_tolerance,
    largest,
    root_mean_square,
)

Status = Literal["match", "mismatch", "none", "zero", "nonfinite", "missing", "unexpected", "shape"]
"""What was found of one tensor. Only `match` is no finding.

- `match`: every element agrees within the tolerance.
- `mismatch`: some element does not.
- `none`: the port's gradient is None.
- `zero`: every element of the port's is zero, and the oracle's is not.
- `nonfinite`: an element of the port's is NaN or infinite.
- `missing`: the oracle has the tensor and the port does not.
- `unexpected`: the port has a tensor that the oracle does not.
- `shape`: the shapes differ, or the port's dtype is not the one that was asked for.
"""


class Row(msgspec.Struct, frozen=True):
    """What was found of one tensor.

    Args:
        name: its name in the records.
        status: what was found.
        shape: its shape on the oracle's side (the port's if `unexpected`).
        variables: for a leaf's gradient, the TensorFlow variables that hold the leaf.
        max_abs: the largest absolute difference of any element.
        index: where that is.
        port_value: the port's value there.
        oracle_value: the oracle's value there.
        rel_l2: the L2 norm of the difference by that of the oracle's tensor.
        cosine: the cosine of the angle between the two tensors.
        noise: the yardstick, in absolute terms: in float32 the oracle's own largest error, in float64
            one rounding of the largest element.
        needed: the tolerance that would have passed: in float64, as a part of the largest element;
            in float32, as a multiple of the oracle's own error. None if no tolerance would.
        note: what else there is to say.
    """

    name: str
    status: Status
    shape: tuple[int, ...]
    variables: tuple[str, ...] = ()
    max_abs: float | None = None
    index: tuple[int, ...] | None = None
    port_value: float | None = None
    oracle_value: float | None = None
    rel_l2: float | None = None
    cosine: float | None = None
    noise: float | None = None
    needed: float | None = None
    note: str = ""


class Comparison(msgspec.Struct, frozen=True):
    """A port's record held against the oracle's.

    Args:
        port: where the port's record came from.
        oracle: where the oracle's record came from.
        rows: one a tensor, in the order of computation.
        failure: what the port raised, if it did; then there are no rows.
        left_out: the oracle's tensors that the caller asked not to compare.
        witness: who is wrong, if the witness was asked.
        localisation: where the port leaves the oracle, if it was looked for.
        explanation: why, if it was looked for.
    """

    port: Origin
    oracle: Origin
    rows: tuple[Row, ...]
    failure: Failure | None = None
    left_out: tuple[str, ...] = ()
    witness: Judgement | None = None
    localisation: Localisation | None = None
    explanation: Explanation | None = None

    @property
    def matches(self) -> bool:
        """Whether something was compared and all of it agrees, and the witness has nothing against it."""
        agrees = bool(self.rows) and self.failure is None and not self.findings
        return agrees and (self.witness is None or self.witness.verdict not in FAULTS)

    def wants_witness(self, when: WitnessWhen) -> bool:
        """Whether the witness is to be asked, of something that was compared."""
        if self.failure is not None or not self.rows:
            return False
        return when == "always" or (when == "on-finding" and not self.matches)

    @property
    def wants_more_runs(self) -> bool:
        """Whether a tensor differs by what may be no more than roundings leave open, or their order."""
        # In float32 they are of other orders of summation, and zeros are no sum.
        open_ones = ("mismatch",) if self.port.dtype == "float32" else ("mismatch", "zero")
        return any(row.status in open_ones for row in self.rows)

    @property
    def findings(self) -> tuple[Row, ...]:
        """The rows that are not `match`."""
        return tuple(row for row in self.rows if row.status != "match")

    @property
    def needed(self) -> float | None:
        """The tolerance under which every row would have passed; None if none would."""
        needed = [row.needed for row in self.rows]
        if self.failure is not None or not needed or None in needed:
            return None
        return max(value for value in needed if value is not None)


def compare_records(
    port: Record,
    oracle: Record,
    *,
    yardstick: Sequence[Record] = (),
    spread: Sequence[Record] = (),
    only: Collection[str] | None = None,
) -> Comparison:
    """Hold a port's record against the oracle's, tensor by tensor.

    Args:
        port: the port's record, in float64 or float32.
        oracle: the oracle's record, in float64: the truth.
        yardstick: for a float32 port, the oracle's records in float32: on the case itself, and on the
            case jittered by roundings (`oracle.case.jitter_case`).
        spread: further records of the oracle, in the port's precision, for what it leaves open of a tensor:
            in float64 under roundings of the case (`oracle.run_jax.run_oracle(jitter=...)`), in float32 those
            of the yardstick once more, with sums in sequence. They are worth asking for where a comparison
            without them `wants_more_runs`; see `oracle.runner.run_more`.
        only: the names of the tensors to compare, where a port does not give all of them; the report
            says what was left out. The gradients of the weights are compared whether named or not. By
            default all are, and one that the port does not give is a finding.

    Raises:
        RecordError: if the records are not a port's and the oracle's of one case, are not of these
            precisions, or hold no tensor at all; if the oracle's own are not finite, or its gradient of
            a weight is zero throughout, or that of every weight zero but for roundings; or if `only` names a
            tensor that the oracle does not have.
    """
    _check_records(port, oracle, yardstick, spread)
    if port.failure is not None:
        return Comparison(port.origin, oracle.origin, (), port.failure)
    truths = {name: truth for name, truth in read_truths(oracle).items() if not name.startswith(STEPS)}
    weight_gradients = {f"gradient/{path}" for path in weight_shapes(oracle.spec)}
    check_evidence(truths, weight_gradients)
    if only is not None and (unknown := sorted(set(only) - truths.keys())):
        raise RecordError(
            f"compare: the oracle has no tensor {', '.join(unknown)}; it has {', '.join(truths)}"
        )
    asked = truths.keys() if only is None else weight_gradients | set(only)
    left_out = tuple(name for name in truths if name not in asked)
    truths = {name: truth for name, truth in truths.items() if name not in left_out}
    tolerances = _tolerances(truths, yardstick, spread)
    widest = _widen(truths, yardstick, spread) if yardstick and spread else tolerances
    if spread:
        _check_size({name: truths[name] for name in truths if name in weight_gradients}, widest)
    rows = [_compare_tensor(name, port, truth, tolerances[name]) for name, truth in truths.items()]
    if widest is not tolerances:
        # What is zero throughout is no sum in another order.
        rows = [
            _compare_tensor(row.name, port, truths[row.name], widest[row.name])
            if row.status == "mismatch"
            else row
            for row in rows
        ]
    rows += [
        Row(name, "unexpected", np.shape(tensor), note="the oracle has no such tensor")
        for name, tensor in port.tensors.items()
        if name not in oracle.tensors and not name.startswith(STEPS)
    ]
    return Comparison(port.origin, oracle.origin, tuple(rows), left_out=left_out)


def compare_closely(
    port: Record,
    oracle: Record,
    ask_more: Callable[[], Sequence[Record]],
    *,
    yardstick: Sequence[Record] = (),
    only: Collection[str] | None = None,
) -> Comparison:
    """As `compare_records`, with further runs of the oracle asked for only where a tensor differs.

    Args:
        port: the port's record.
        oracle: the oracle's, in float64.
        ask_more: gives the spread: `oracle.runner.run_more`.
        yardstick: as of `compare_records`.
        only: as of `compare_records`.

    Raises:
        RecordError: as `compare_records`.
    """
    comparison = compare_records(port, oracle, yardstick=yardstick, only=only)
    if not comparison.wants_more_runs:
        return comparison
    return compare_records(port, oracle, yardstick=yardstick, spread=ask_more(), only=only)


def _check_records(
    port: Record, oracle: Record, yardstick: Sequence[Record], spread: Sequence[Record]
) -> None:
    sides = {record.origin.side for record in (oracle, *yardstick, *spread)}
    if port.origin.side != "port" or sides != {"oracle"}:
        raise RecordError(
            f"compare: a port's record is held against the oracle's, not the {port.origin.side}'s against "
            f"the {oracle.origin.side}'s; maybe one file was given twice, or the two were exchanged"
        )
    if oracle.origin.case != port.origin.case:
        raise RecordError(
            "compare: the records are of different weights or batches "
            f"({port.origin.model}: {port.origin.weights}, {port.origin.data}, seed {port.origin.seed}; "
            f"{oracle.origin.model}: {oracle.origin.weights}, {oracle.origin.data}, seed "
            f"{oracle.origin.seed}); record both sides on one case"
        )
    for other in (oracle, *yardstick, *spread):
        if other.spec != port.spec:
            raise RecordError("compare: the records are of different specs; record both sides on one case")
        if not other.tensors:
            raise RecordError("compare: the oracle's record holds no tensor; nothing can be compared")
    if oracle.origin.dtype != "float64":
        raise RecordError("compare: the oracle's record is in float32; the truth must be in float64")
    if (port.origin.dtype == "float32") != bool(yardstick):
        raise RecordError(
            f"compare: the port ran in {port.origin.dtype} and the yardstick has {len(yardstick)} records; "
            "a float32 port needs the oracle's float32 records, a float64 port none"
        )
    if any(run.origin.dtype != port.origin.dtype for run in spread):
        raise RecordError(f"compare: a record of the oracle's spread is not in {port.origin.dtype}")
    if any(run.origin.dtype != "float32" for run in yardstick):
        raise RecordError("compare: a record of the yardstick is not in float32")
    if port.failure is None and not port.tensors:
        raise RecordError("compare: the port's record holds no tensor; nothing can be compared")


def check_evidence(truths: Mapping[str, np.ndarray], weight_gradients: Collection[str]) -> None:
    """Refuse a case on which a gradient is zero throughout, which a port that has lost it would match.

    Raises:
        RecordError: if there is one.
    """
    vacuous = [name for name, truth in truths.items() if name in weight_gradients and not truth.any()]
    if vacuous:
        raise RecordError(
            f"compare: the oracle's {', '.join(vacuous)} is zero throughout on this case, which a port "
            "without any gradient would match too; are weights or data all zeros? Give others"
        )


def _check_size(gradients: Mapping[str, np.ndarray], tolerances: Mapping[str, Tolerance]) -> None:
    """Refuse a case on which all gradients are lost in roundings: a port without any would match."""
    sizes = {name: (largest(truth), root_mean_square(truth)) for name, truth in gradients.items()}
    if sizes and all(tolerances[name].passes(*size) for name, size in sizes.items()):
        raise RecordError(
            f"compare: the oracle's {', '.join(sizes)} are no larger than roundings leave open, so that a "
            "port without any gradient would match; does the loss depend on the weights? Give another case"
        )


def read_truths(oracle: Record) -> dict[str, np.ndarray]:
    """The oracle's tensors, none of which may be None or infinite: then the fault is the oracle's.

    Raises:
        RecordError: if one is.
    """
    arrays = {}
    for name, tensor in oracle.tensors.items():
        if tensor is None or not np.isfinite(tensor).all():
            state = "None" if tensor is None else "not finite"
            raise RecordError(
                f"compare: the oracle's own {name} is {state}, so it can judge no port; is the batch or are "
                "the weights so large that the model overflows?"
            )
        arrays[name] = tensor
    return arrays


def _tolerances(
    truths: Mapping[str, np.ndarray], yardstick: Sequence[Record], spread: Sequence[Record]
) -> dict[str, Tolerance]:
    if not yardstick:
        moved = [read_truths(record) for record in spread]
        return {
            name: float64_tolerance(truth, [run[name] for run in moved]) for name, truth in truths.items()
        }
    runs = [read_truths(record) for record in yardstick]
    return {name: float32_tolerance(truth, [run[name] for run in runs]) for name, truth in truths.items()}


def _widen(
    truths: Mapping[str, np.ndarray], yardstick: Sequence[Record], spread: Sequence[Record]
) -> dict[str, Tolerance]:
    """The tolerances in float32, of the yardstick and of the same runs in another order of summation.

    A tensor of these that is not finite says nothing of roundings.
    """
    widest = {}
    for name, truth in truths.items():
        found = [run.tensors[name] for run in (*yardstick, *spread)]
        runs = [tensor for tensor in found if tensor is not None and np.isfinite(tensor).all()]
        widest[name] = float32_tolerance(truth, runs)
    return widest


def _compare_tensor(name: str, port: Record, truth: np.ndarray, tolerance: Tolerance) -> Row:
    variables = port.variables.get(name, ())
    if name not in port.tensors:
        return Row(name, "missing", truth.shape, variables, note="the port gives no such tensor")
    tensor = port.tensors[name]
    if tensor is None:
        note = "the port's gradient is None: nothing connects it to the loss"
        return Row(name, "none", truth.shape, variables, note=note)
    if tensor.shape != truth.shape:
        note = f"the port's shape is {list(tensor.shape)}"
        return Row(name, "shape", truth.shape, variables, note=note)
    if tensor.dtype != port.origin.dtype:
        note = f"the port's dtype is {tensor.dtype}, though it was run in {port.origin.dtype}"
        return Row(name, "shape", truth.shape, variables, note=note)
    if not np.isfinite(tensor).all():
        return _describe_nonfinite(name, tensor, truth, variables)
    return _measure(name, tensor.astype(np.float64), truth, tolerance, variables)


def _measure(
    name: str,
    tensor: np.ndarray,
    truth: np.ndarray,
    tolerance: Tolerance,
    variables: tuple[str, ...],
) -> Row:
    error = tensor - truth
    max_abs, rms = largest(error), root_mean_square(error)
    index = np.unravel_index(int(np.abs(error).argmax()), error.shape)
    if tolerance.passes(max_abs, rms):
        status: Status = "match"
    else:
        status = "mismatch" if tensor.any() else "zero"
    truth_rms = root_mean_square(truth)
    return Row(
        name,
        status,
        truth.shape,
        variables,
        max_abs=max_abs,
        index=tuple(int(axis) for axis in index),
        port_value=float(tensor[index]),
        oracle_value=float(truth[index]),
        rel_l2=rms / truth_rms if truth_rms else None,
        cosine=_cosine(tensor, truth),
        noise=tolerance.noise,
        needed=tolerance.needed(max_abs, rms),
        note="every element of the port's is zero" if status == "zero" else "",
    )


def _describe_nonfinite(name: str, tensor: np.ndarray, truth: np.ndarray, variables: tuple[str, ...]) -> Row:
    wrong = ~np.isfinite(tensor)
    index = tuple(int(axis) for axis in np.argwhere(wrong)[0])
    return Row(
        name,
        "nonfinite",
        truth.shape,
        variables,
        index=index,
        port_value=float(tensor[index]),
        oracle_value=float(truth[index]),
        note=f"{int(wrong.sum())} of the port's {wrong.size} elements are NaN or infinite",
    )


def _cosine(tensor: np.ndarray, truth: np.ndarray) -> float | None:
    """The cosine of the angle between two tensors; None if either is all zeros."""
    peaks = [largest(tensor), largest(truth)]
    if 0.0 in peaks:
        return None
    first, second = (side.ravel() / peak for side, peak in zip((tensor, truth), peaks, strict=True))
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
