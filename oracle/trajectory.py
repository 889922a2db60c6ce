"""Two trajectories held against each other, step by step. Pure NumPy.

A trajectory is what training does: at every step the loss, the gradient's norm, the optimizer's slots and the
parameters. Each side steps alone from the same weights on the same batches; `compare_trajectories` takes a
step from each as they come, so that no more than one of each is held.

**What may differ.** Rounding grows from step to step, since each starts where the last one ended, so the
bound is wider than for one step: `BOUND` of a tensor's largest element. A parameter is held against how far
it has moved: beside a weight of 1, a step of 1e-3 that is wrong by a hundred-thousandth would not show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from oracle.errors import RecordError, UsageError
from oracle.explanation import Explanation
from oracle.tolerance import largest

BOUND = 1e-8
"""The largest error allowed of any tensor at any step, as a part of its largest element."""

LEAST_MOVE = 1e-6
"""A parameter counts as moved by at least this part of its largest element: rounding is 1e-16 of that, and
must not be taken for an error of the move where that is smaller still."""

AFTER = 8
"""How many steps after the one at which trajectories part an explanation looks at."""

KEPT_BYTES = 2**29
"""How much of a port's trajectory is held for an explanation."""

Finding = Literal["mismatch", "missing", "unexpected", "nonfinite", "shape"]


class Slices(NamedTuple):
    """A gradient of some rows, as `tf.IndexedSlices`: values [slices, ...] and indices [slices]."""

    values: np.ndarray
    indices: np.ndarray


Gradient = np.ndarray | Slices


@dataclass(frozen=True)
class Step:
    """One step of a trajectory.

    Args:
        step: which one, from 1 on.
        loss: the loss before it; None where an optimizer is driven by given gradients.
        gradient_norm: the L2 norm of the gradients before it, of all variables together, before clipping.
        tensors: after it, `slot/<slot>/<variable>`, `slot/<scalar>` and `parameter/<variable>`, in float64.
        gradients: what the optimizer was given, by variable; None if that is not known.
    """

    step: int
    loss: float | None
    gradient_norm: float
    tensors: Mapping[str, np.ndarray]
    gradients: Mapping[str, Gradient | None] | None = None


class Divergence(msgspec.Struct, frozen=True):
    """Where two trajectories part.

    Args:
        step: at which step, from 1 on.
        name: `loss`, `gradient norm`, or the tensor's name.
        finding: what was found.
        needed: the bound that would have passed, None if none would.
        index: where the largest difference is.
        port_value: the port's value there.
        oracle_value: the oracle's value there.
    """

    step: int
    name: str
    finding: Finding
    needed: float | None = None
    index: tuple[int, ...] | None = None
    port_value: float | None = None
    oracle_value: float | None = None


class StepRow(msgspec.Struct, frozen=True):
    """What was found of one step.

    Args:
        step: which one, from 1 on.
        port_loss: the port's loss before it.
        oracle_loss: the oracle's.
        port_norm: the port's gradient norm.
        oracle_norm: the oracle's.
        tensors: how many numbers and tensors were compared.
        needed: the largest difference of all, as a part of the tensor's largest element; None if not finite.
        worst: what that is of.
        by_kind: the largest difference of `loss`, `gradient norm`, `slot` and `parameter`.
        drift: the largest difference of a parameter as a part of its largest element, not of its move.
    """

    step: int
    port_loss: float | None
    oracle_loss: float | None
    port_norm: float
    oracle_norm: float
    tensors: int
    needed: float | None
    worst: str
    by_kind: dict[str, float]
    drift: float = 0.0


class TrajectoryComparison(msgspec.Struct, frozen=True):
    """Two trajectories held against each other.

    Args:
        rows: one a step.
        divergence: the first tensor of the first step that does not agree, in the order loss, gradient norm,
            slots, parameters; None if all do.
        bound: what was allowed.
        explanation: why they part, if that was asked for.
    """

    rows: tuple[StepRow, ...]
    divergence: Divergence | None
    bound: float = BOUND
    explanation: Explanation | None = None

    @property
    def matches(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return bool(self.rows) and self.divergence is None

    @property
    def needed(self) -> float | None:
        """The bound under which every step would have passed; None if none would."""
        needed = [row.needed for row in self.rows]
        if not needed or None in needed or (self.divergence is not None and self.divergence.needed is None):
            return None
        return max(value for value in needed if value is not None)

    @property
    def worst(self) -> StepRow | None:
        """The step with the largest difference."""
        return max(self.rows, key=lambda row: np.inf if row.needed is None else row.needed, default=None)

    @property
    def growth(self) -> float | None:
        """The power of the number of steps as which the drift grows, by least squares over all steps.

        None if fewer than ten steps differ at all. Rounding that adds up at random grows as 0.5, that adds
        up to one side as 1; training that amplifies it, faster.
        """
        points = [(row.step, row.drift) for row in self.rows if 0 < row.drift < np.inf]
        if len(points) < 10:
            return None
        steps, needed = np.log([[step, value] for step, value in points]).T
        steps = steps - steps.mean()
        return float(steps @ needed / (steps @ steps))


Explain = Callable[[Sequence[Step], Divergence], Explanation]
"""What finds out why a port parts: from its steps with their gradients, and from where it parts."""


def compare_trajectories(
    port: Iterable[Step],
    oracle: Iterable[Step],
    *,
    initial: Mapping[str, np.ndarray],
    bound: float = BOUND,
    explain: Explain | None = None,
) -> TrajectoryComparison:
    """Hold the port's trajectory against the oracle's.

    Args:
        port: the port's steps.
        oracle: the oracle's steps.
        initial: the parameters before the first step, by variable; a parameter is held against its move.
        bound: what is allowed, as a part of each tensor's largest element, or of a parameter's largest move.
        explain: called if the trajectories part, with the port's steps until `AFTER` steps later, if they
            have their gradients and are no more than `KEPT_BYTES`, and with where they part.

    Raises:
        RecordError: if one has more steps than the other, or the oracle's are not finite: then it can judge
            nothing.
    """
    rows, divergence = [], None
    held = _Held()
    for one, other in itertools.zip_longest(port, oracle):
        if one is None or other is None or one.step != other.step:
            raise RecordError(
                f"trajectory: the {'port' if one is None else 'oracle'} ended after {len(rows)} steps, the "
                "other side goes on; let both do as many"
            )
        findings = list(_compare_step(one, other, initial))
        rows.append(_summarise(one, other, findings, _measure_drift(one, other)))
        if divergence is None:
            divergence = next((each for each in findings if not _agrees(each, bound)), None)
        if explain is not None:
            held.add(one, divergence)
    explanation = None
    if explain is not None and divergence is not None and len(held.steps) >= divergence.step:
        explanation = explain(held.steps, divergence)
    return TrajectoryComparison(tuple(rows), divergence, bound, explanation)


class _Held:
    """The port's first steps, with their gradients: for an explanation they are of use from the first on."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._left = KEPT_BYTES
        self._closed = False

    def add(self, step: Step, divergence: Divergence | None) -> None:
        """Hold one more step, as long as it is of use and there is room."""
        if divergence is not None and step.step > divergence.step + AFTER:
            self._closed = True
        if self._closed:
            return
        self._left -= _count_bytes(step)
        if step.gradients and self._left >= 0:
            self.steps.append(step)
            return
        self._closed = True
        if divergence is None:
            self.steps.clear()


def _count_bytes(step: Step) -> int:
    arrays = [*step.tensors.values()]
    for gradient in (step.gradients or {}).values():
        arrays += gradient if isinstance(gradient, Slices) else [] if gradient is None else [gradient]
    return sum(array.nbytes for array in arrays)


def _agrees(found: Divergence, bound: float) -> bool:
    return found.finding == "mismatch" and found.needed is not None and found.needed <= bound


def _compare_step(port: Step, oracle: Step, initial: Mapping[str, np.ndarray]) -> Iterator[Divergence]:
    numbers = {"loss": (port.loss, oracle.loss), "gradient norm": (port.gradient_norm, oracle.gradient_norm)}
    for name, (one, other) in numbers.items():
        if one is not None or other is not None:
            yield _compare_arrays(port.step, name, _number(one), _number(other), None)
    names = sorted(oracle.tensors, key=lambda name: not name.startswith("slot/"))
    for name in names:
        start = initial.get(name.removeprefix("parameter/")) if name.startswith("parameter/") else None
        if name not in port.tensors:
            yield Divergence(port.step, name, "missing")
            continue
        yield _compare_arrays(port.step, name, port.tensors[name], oracle.tensors[name], start)
    for name in port.tensors:
        if name not in oracle.tensors:
            yield Divergence(port.step, name, "unexpected")


def _number(value: float | None) -> np.ndarray:
    return np.asarray(np.nan if value is None else value, np.float64)


def _compare_arrays(
    step: int, name: str, port: np.ndarray, oracle: np.ndarray, start: np.ndarray | None
) -> Divergence:
    if port.shape != oracle.shape:
        return Divergence(step, name, "shape")
    if not np.isfinite(oracle).all():
        raise RecordError(
            f"trajectory: the oracle's own {name} is not finite at step {step}, so it can judge no port; is "
            "the learning rate too large?"
        )
    port, oracle = port.astype(np.float64), oracle.astype(np.float64)
    error = np.abs(port - oracle)
    finite = np.isfinite(port)
    index = np.unravel_index(int((error if finite.all() else ~finite).argmax()), error.shape)
    place: dict[str, Any] = {
        "index": tuple(int(axis) for axis in index),
        "port_value": float(port[index]),
        "oracle_value": float(oracle[index]),
    }
    if not finite.all():
        return Divergence(step, name, "nonfinite", None, **place)
    scale = largest(oracle)
    if start is not None:
        scale = max(largest(oracle - start), LEAST_MOVE * scale)
    max_abs = largest(error)
    needed = 0.0 if max_abs == 0 else (max_abs / scale if scale else None)
    return Divergence(step, name, "mismatch", needed, **place)


def _measure_drift(port: Step, oracle: Step) -> float:
    drift = 0.0
    for name, array in oracle.tensors.items():
        other, scale = port.tensors.get(name), largest(array)
        if name.startswith("parameter/") and other is not None and other.shape == array.shape and scale:
            drift = max(drift, float(np.nan_to_num(largest(other - array) / scale, nan=np.inf)))
    return drift


def _summarise(port: Step, oracle: Step, findings: list[Divergence], drift: float) -> StepRow:
    worst = max(findings, key=lambda each: np.inf if each.needed is None else each.needed)
    by_kind: dict[str, float] = {}
    for each in findings:
        kind = each.name.partition("/")[0]
        by_kind[kind] = max(by_kind.get(kind, 0.0), np.inf if each.needed is None else each.needed)
    return StepRow(
        port.step,
        port.loss,
        oracle.loss,
        port.gradient_norm,
        oracle.gradient_norm,
        len(findings),
        worst.needed,
        worst.name,
        by_kind,
        drift,
    )


def gradient_norm(gradients: Iterable[Any]) -> float:
    """The L2 norm of all gradients together, in float64. None counts as zero; a row's `Slices` are summed."""
    squares = 0.0
    for gradient in gradients:
        if isinstance(gradient, Slices):
            rows = np.zeros((int(gradient.indices.max(initial=-1)) + 1, *gradient.values.shape[1:]))
            np.add.at(rows, gradient.indices, gradient.values)
            squares += float(np.sum(np.square(rows)))
        elif gradient is not None:
            squares += float(np.sum(np.square(np.asarray(gradient, np.float64))))
    return float(np.sqrt(squares))


def mirror_optimizer(optimizer: Any) -> Any:
    """The counterpart in optax of a live TensorFlow optimizer, read from its own configuration.

    Args:
        optimizer: of `tf.keras.optimizers`, `tf.keras.optimizers.legacy`, `tf.compat.v1.train` or
            `tfa.optimizers`, before or after its first step. Its slots are not read: the counterpart starts
            anew.

    Returns:
        An `optax.GradientTransformation`; `jax_models.optimizers.read_slots` reads its state.

    Raises:
        UsageError: if its class, its schedule or one of its options has no counterpart; by name.
        MissingPackageError: if TensorFlow, JAX or Flax is not installed.
    """
    from oracle.frameworks import import_jax, import_tensorflow

    import_tensorflow()
    import_jax()
    from oracle.steps.optimizers import build_optimizer
    from tf_models.optimizers import describe_optimizer

    return build_optimizer(describe_optimizer(optimizer))


def check_steps(steps: int) -> None:
    """Raise UsageError unless there is a step to do."""
    if steps < 1:
        raise UsageError(f"steps {steps}: nothing to compare; give at least 1")
