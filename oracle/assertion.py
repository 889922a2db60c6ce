"""Gradients verified in a test: one function for pytest, unittest and absl."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from oracle.assertion_context import AssertionContext, Precision, current_context
from oracle.case import Dtype, check_seed, choose_dtypes
from oracle.compare import Comparison, Row
from oracle.errors import CaseError, UsageError
from oracle.frameworks import import_tensorflow
from oracle.judgement import WitnessWhen
from oracle.live_port import Build, LivePort, record_live, write_records
from oracle.record import write_record
from oracle.report.verdict import (
    describe_case,
    describe_sides,
    explain_row,
    name_port,
    state_account,
    state_tolerance,
    state_verdict,
)
from oracle.step_port import record_step
from oracle.verify import verify_record

SHOWN = 8
"""How many of the worst tensors a failing assertion shows."""


class GradientMismatchError(AssertionError):
    """The port's gradients are not the reference's.

    Attributes:
        comparisons: what was compared.
        folder: where the records are.
    """

    def __init__(self, message: str, comparisons: Sequence[Comparison], folder: Path) -> None:
        super().__init__(message)
        self.comparisons = tuple(comparisons)
        self.folder = folder


def assert_gradients_match(
    port: Any,
    *,
    loss: Any = None,
    batch: Any = None,
    reference: Callable[..., Any] | None = None,
    weights: Mapping[str, Any] | Literal["random", "own"] = "random",
    precision: Precision | None = None,
    mode: str | None = None,
    seed: int | None = None,
    witness: WitnessWhen = "on-finding",
) -> tuple[Comparison, ...]:
    """Fail unless every gradient of a TensorFlow port is the one that JAX computes.

    Three ways to say what the port is:

    - A function without arguments that makes an `oracle.LivePort`, in each precision that is asked for.
    - A live Keras model, layer or module, or several by name, with `loss` and `batch` as `LivePort` takes
      them. It runs in the dtype of its own weights. A loss of Keras needs no reference; a function of the
      batch needs one, `reference(mirror, params, batch)`, composed of the mirror's pieces.
    - A step of your own, `port(batch)` or `port()`, which gives the loss and the gradients, by name or as
      pairs (gradient, variable); `reference(weights, batch)` or `reference(weights)` in JAX, which gives the
      same loss; and `weights`, what the step's variables hold, by the same names.

    Args:
        port: what is tested.
        loss: the loss of live models.
        batch: NumPy arrays or tensors by name; or the pair (x, y), or (x, y, sample_weight).
        reference: the same loss in JAX.
        weights: for live models, `random` to draw all weights anew for the comparison, by which nothing
            vanishes, or `own`; they are put back. For a step of your own, the weights by name.
        precision: for ports that are built: `f64`, `f32` or `both`; by default the context's, `f64`.
        mode: how TensorFlow runs a live port: `eager`, `function` or `xla`; by default `eager`.
        seed: of every random choice; by default 0.
        witness: when to find out who is wrong, of a live port in float64: it takes a few hundred losses.

    Returns:
        What was compared, one for each precision.

    Raises:
        GradientMismatchError: an `AssertionError`, if a tensor does not match. It names the first that
            differs, shows the worst, and says where the records are and how to repeat it.
        OracleError: if the comparison could not be made.
    """
    __tracebackhide__ = True
    context = current_context()
    mode = context.mode if mode is None else mode
    seed = context.seed if seed is None else seed
    precision = context.precision if precision is None else precision
    check_seed(seed)
    if isinstance(weights, Mapping):
        runs = [_run_step(port, loss, batch, reference, weights, seed)]
    else:
        build, dtypes = _make_build(port, loss, batch, reference, weights, precision)
        runs = [_run_live(build, dtype, mode, seed, witness) for dtype in dtypes]
    comparisons = tuple(run.comparison for run in runs)
    context.comparisons.extend(comparisons)
    if not all(comparison.matches for comparison in comparisons):
        folder = context.make_folder()
        for number, run in enumerate(runs):
            place = folder if len(runs) == 1 else folder / str(number)
            place.mkdir(exist_ok=True)
            run.write(place)
        repeat = next((run.repeat for run in runs if run.repeat), "")
        message = explain(comparisons, context, folder, repeat=repeat)
        raise GradientMismatchError(message, comparisons, folder)
    return comparisons


@dataclass(frozen=True)
class _Run:
    """One comparison, what writes its records to a folder, and the command that repeats it from there."""

    comparison: Comparison
    write: Callable[[Path], None]
    repeat: str = ""


def _run_live(build: Build, dtype: Dtype, mode: str, seed: int, witness: WitnessWhen) -> _Run:
    records = record_live(build, dtype=dtype, mode=mode, seed=seed, witness=witness)
    return _Run(records.compare(), lambda folder: write_records(records, folder))


def _run_step(
    step: Any,
    loss: Any,
    batch: Any,
    reference: Callable[..., Any] | None,
    weights: Mapping[str, Any],
    seed: int,
) -> _Run:
    if loss is not None or reference is None:
        wrong = "needs a reference" if reference is None else "computes its own loss: leave out loss="
        raise UsageError(
            f"assert_gradients_match: with weights by name the port is a step of your own, which {wrong}; "
            "reference(weights, batch) gives the loss in JAX"
        )
    record = record_step(step, weights, _name_batch(batch) or {}, seed=seed)
    parameters = list(inspect.signature(reference).parameters.values())
    # A second parameter with a default is an option of the reference, unless there is a batch to give it.
    takes_batch = len(parameters) > 1 and (batch is not None or parameters[1].default is parameters[1].empty)
    loss_of = reference if takes_batch else _without_batch(reference)
    comparison = verify_record(record, module=loss_of)
    assert isinstance(comparison, Comparison)
    name = f"{reference.__module__}:{reference.__qualname__}" if hasattr(reference, "__qualname__") else ""
    repeat = f"oracle verify port.safetensors --module {name}" if name and "<" not in name else ""
    return _Run(comparison, lambda folder: write_record(record, folder / "port.safetensors"), repeat)


def _without_batch(reference: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(reference)
    def loss(weights: Any, batch: Any) -> Any:
        del batch
        return reference(weights)

    return loss


def _make_build(
    port: Any,
    loss: Any,
    batch: Any,
    reference: Callable[..., Any] | None,
    weights: Literal["random", "own"],
    precision: Precision,
) -> tuple[Build, tuple[Dtype, ...]]:
    """What makes the live port, and the dtypes that it is to run in."""
    if loss is None:
        if batch is not None or reference is not None:
            raise UsageError(
                "assert_gradients_match: without a loss, give a function alone that makes an "
                "oracle.LivePort; or, for a step of your own, weights={name: array} with the reference"
            )
        if isinstance(port, LivePort):
            return lambda: port, (own_dtype(port.models),)
        if not callable(port):
            raise UsageError(
                f"assert_gradients_match: the port is a {type(port).__name__}; give a model with loss= and "
                "batch=, or a function that makes an oracle.LivePort"
            )
        return cast("Build", port), choose_dtypes(precision)
    named = _name_batch(batch)
    if named is None:
        raise UsageError("assert_gradients_match: a loss needs a batch: batch={'x': ..., 'y': ...}")
    models = dict(port) if isinstance(port, Mapping) else {"model": port}
    live = LivePort(models, named, loss, reference, name="port", weights=weights)
    return lambda: live, (own_dtype(models),)


def own_dtype(models: Mapping[str, Any]) -> Dtype:
    """The dtype of live models' weights; of those that have none yet, what they will be made in.

    Raises:
        CaseError: if they are of several, or neither of float64 nor of float32.
    """
    import_tensorflow()
    import tensorflow as tf

    found: dict[str, str] = {}
    for name, model in models.items():
        made = getattr(model, "trainable_variables", None) or ()
        names = {variable.dtype.base_dtype.name for variable in made if variable.dtype.is_floating}
        # A layer of Keras that is not built knows what its weights will be.
        later = getattr(model, "variable_dtype", None) or tf.keras.backend.floatx()
        found |= dict.fromkeys(names or {later}, name)
    (dtype, *others) = sorted(found)
    if others or dtype not in ("float64", "float32"):
        raise CaseError(
            f"assert_gradients_match: the weights are {', '.join(f'{d} ({n})' for d, n in found.items())}; "
            "make them all float64, or all float32 (tf.keras.backend.set_floatx)"
        )
    return "float64" if dtype == "float64" else "float32"


def _name_batch(batch: Any) -> dict[str, np.ndarray] | None:
    """A batch as arrays by name. None stays None."""
    if batch is None:
        return None
    if isinstance(batch, tuple | list):
        names = ("x", "y", "sample_weight")
        if len(batch) > len(names):
            raise CaseError(
                f"assert_gradients_match: the batch is a {type(batch).__name__} of {len(batch)}; give "
                "(x, y), (x, y, sample_weight), or arrays by name"
            )
        batch = dict(zip(names, batch, strict=False))
    if not isinstance(batch, Mapping):
        raise CaseError(f"assert_gradients_match: the batch is a {type(batch).__name__}; give arrays by name")
    return {name: np.asarray(array) for name, array in batch.items()}


def explain(
    comparisons: Sequence[Comparison], context: AssertionContext, folder: Path, *, repeat: str = ""
) -> str:
    """What a failing assertion says.

    Args:
        comparisons: those that were made; the ones that match are named only.
        context: what was in force.
        folder: where the records are.
        repeat: the command that repeats it from the records, in that folder.
    """
    lines = []
    for comparison in comparisons:
        lines += _explain_one(comparison)
    lines += ["", f"records: {folder}"]
    if context.test:
        lines.append(f"repeat:  pytest {shlex.quote(context.test)}{_options(context)}")
    if repeat:
        lines.append(f"     or: {repeat}")
    return "\n".join(lines)


def _options(context: AssertionContext) -> str:
    return "" if context.precision == "f64" else f" --oracle-precision {context.precision}"


def _explain_one(comparison: Comparison) -> list[str]:
    lines = [
        f"{name_port(comparison)}: {state_verdict(comparison)}",
        f"  {describe_sides(comparison)}",
        f"  {describe_case(comparison)}",
    ]
    findings = comparison.findings
    if not findings:
        return lines
    place = [row.name for row in comparison.rows].index(findings[0].name) + 1
    lines += [
        f"  first divergent, in order of computation: {findings[0].name} "
        f"(tensor {place} of {len(comparison.rows)})",
        f"  worst {min(SHOWN, len(findings))} of {len(findings)}:",
    ]
    for row in sorted(findings, key=_badness, reverse=True)[:SHOWN]:
        lines += [f"  - {explain_row(row)}"]
        if row.max_abs is not None:
            lines.append(f"    max abs error {row.max_abs:.3g}{_relative(row)}; needed {_needed(row)}")
    lines.append(f"  {state_tolerance(comparison)}")
    return [*lines, *(f"  {said}" for said in state_account(comparison))]


def _badness(row: Row) -> float:
    """How wrong a tensor is: what no tolerance would pass comes first."""
    return float("inf") if row.needed is None else row.needed


def _relative(row: Row) -> str:
    parts = [] if row.rel_l2 is None else [f"relative L2 {row.rel_l2:.3g}"]
    parts += [] if row.cosine is None else [f"cosine {row.cosine:.6f}"]
    return "".join(f", {part}" for part in parts)


def _needed(row: Row) -> str:
    return "no tolerance would do" if row.needed is None else f"{row.needed:.2g}"
