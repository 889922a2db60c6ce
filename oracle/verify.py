"""A record verified where there is JAX and no TensorFlow: the oracle runs on what the record was computed on.

The oracle is the Flax model of the record's spec, or a JAX function of the person's own,
`loss(params, batch)`. Either way it is the truth in float64, and in float32 the yardstick, as in every
comparison (`oracle.tolerance`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from oracle.bridge.mirror.spec import MirroredPart, MirrorSpec
from oracle.bridge.sites import Site
from oracle.case import Dtype, jitter_arrays, weight_shapes
from oracle.compare import Comparison, check_evidence, compare_closely, read_truths
from oracle.errors import RecordError, UsageError
from oracle.frameworks import import_jax, precise_jax
from oracle.mesh import DataMesh
from oracle.pair import Pair, compare_assumed
from oracle.rebuild import Rebuilt, carry, check_inputs, rebuild
from oracle.record import STEPS, Record
from oracle.run_jax import (
    compute_tensors,
    describe_oracle,
    describe_path,
)
from oracle.spec import Spec
from oracle.steps.leaves import nest_leaves
from oracle.steps.paths import DEFAULT_PATH, Path
from oracle.tolerance import FLOAT32_RUNS, FLOAT64_RUNS
from oracle.user_code import load_object

Arrays = Mapping[str, np.ndarray]

Compute = Callable[[Arrays, Arrays, bool], dict[str, np.ndarray | None]]
"""What the oracle computes of leaves and a batch, and whether with its sums in sequence: tensors by the names
that a record has."""


def verify_record(
    record: Record,
    *,
    spec: Spec | None = None,
    sites: Sequence[Site] | None = None,
    module: str | Callable[..., Any] | None = None,
    tolerance: float | None = None,
    path: Path = DEFAULT_PATH,
    mesh: DataMesh | None = None,
) -> Comparison | Pair:
    """Verify a port's record: run the oracle on the record's own weights and batch, and compare.

    Args:
        record: the port's, with weights and batch.
        spec: the model, if the record does not say it or it cannot be inferred.
        sites: a mapping of the record's variables to leaves.
        module: the person's own loss in JAX instead of the oracle's model, or where it is:
            `loss(params, batch)` gives the scalar, or the pair of it and of outputs by name. `params` are
            nested by the paths of leaves; of a record of variables without a mapping, the arrays by their
            names.
        tolerance: of a record in half or mixed precision, what to allow, as a part of a tensor's largest
            element, instead of what is assumed.
        path: by which of its two paths the oracle computes.
        mesh: over which devices the oracle spreads the batch; by default none. Not with a module.

    Returns:
        The comparison, as of any port. A record in half or mixed precision has no yardstick: it is held to
        the oracle as one record to another, by a bound that is assumed.

    Raises:
        RecordError: if the record is the oracle's, lacks weights or batch, or cannot be rebuilt.
        BridgeError: if its variables are not those of the spec or the mapping.
        CaseError: if its batch does not fit the spec.
        UsageError: if the module cannot be used, or a tolerance is given that is measured.
        MissingPackageError: if JAX or Flax is not installed.
    """
    if record.origin.side != "port":
        raise RecordError("verify: this is the oracle's record; give a port's")
    if record.failure is not None:
        return Comparison(
            record.origin, describe_oracle(record.origin, mode="jit", dtype="float64"), (), record.failure
        )
    is_measured = record.origin.dtype in ("float64", "float32")
    if tolerance is not None and is_measured:
        raise UsageError(
            f"verify: what a {record.origin.dtype} record may err is measured; leave out the tolerance, "
            "which is for half and mixed precision"
        )
    if module is not None and mesh is not None:
        raise UsageError("verify: a mesh is of the oracle's own model; leave it out with a module")
    import_jax()
    if module is not None:
        rebuilt, compute = _prepare_module(record, sites, module)
        return _hold(_Oracle(compute), rebuilt, tolerance)
    rebuilt = rebuild(record, spec=spec, sites=sites)
    return _hold(_Oracle(_prepare_model(rebuilt.spec, path, mesh), path, mesh), rebuilt, tolerance)


@dataclass(frozen=True)
class _Oracle:
    """What the oracle computes, and the path that it takes; a person's own module takes none."""

    compute: Compute
    path: Path | None = None
    mesh: DataMesh | None = None


def _hold(oracle: _Oracle, rebuilt: Rebuilt, tolerance: float | None) -> Comparison | Pair:
    """Run the oracle and compare the port's record with it."""
    port = rebuilt.port
    truth = _run(oracle, rebuilt, "float64")
    unknown = [name for name in port.tensors if name not in truth.tensors]
    # Outputs and inputs have names of the user's own; a gradient of a weight that is not known is a finding.
    ignored = [name for name in unknown if not _is_weight_gradient(name)]
    notes = list(rebuilt.notes)
    told = [name for name in ignored if not name.startswith(STEPS)]
    if told:
        notes.append(f"not compared, since the oracle has no tensor of that name: {', '.join(told)}")
    absent = [name for name in truth.tensors if name not in port.tensors and not _is_weight_gradient(name)]
    if absent:
        notes.append(f"not compared, since the record does not hold it: {', '.join(absent)}")
    flags = {**port.origin.flags} | ({"frozen": ", ".join(port.frozen)} if port.frozen else {})
    flags |= {"notes": "\n".join(notes)} if notes else {}
    tensors = {name: tensor for name, tensor in port.tensors.items() if name not in ignored}
    port = replace(
        port, spec=rebuilt.spec, tensors=tensors, origin=msgspec.structs.replace(port.origin, flags=flags)
    )
    shared = [name for name in truth.tensors if name in tensors]
    if port.origin.dtype not in ("float64", "float32"):
        weight_gradients = {f"gradient/{path}" for path in weight_shapes(rebuilt.spec)}
        check_evidence(read_truths(truth), weight_gradients)
        return compare_assumed(port, truth, tolerance=tolerance)
    runs = range(FLOAT32_RUNS if port.origin.dtype == "float32" else 0)
    yardstick = [_run(oracle, _jitter(rebuilt, number), "float32") for number in runs]
    ask_more = functools.partial(_run_more, oracle, rebuilt, port.origin.dtype)
    comparison = compare_closely(port, truth, ask_more, yardstick=yardstick, only=shared)
    # What the record lacks is in the notes; no one asked to leave it out.
    return msgspec.structs.replace(comparison, left_out=())


def _is_weight_gradient(name: str) -> bool:
    others = ("gradient/batch/", "gradient/state/", "gradient/embedded/", *STEPS)
    return name.startswith("gradient/") and not name.startswith(others)


def _run_more(oracle: _Oracle, rebuilt: Rebuilt, dtype: str) -> list[Record]:
    """What a comparison asks for: see `oracle.runner.run_more`."""
    if dtype == "float64":
        moved = [_jitter(rebuilt, number, "float64") for number in range(1, FLOAT64_RUNS + 1)]
        return [_run(oracle, each, dtype) for each in moved]
    from oracle.steps.sequential_sums import SequenceError

    moved = [_jitter(rebuilt, number) for number in range(FLOAT32_RUNS)]
    try:
        return [_run(oracle, each, dtype, sums_in_sequence=True) for each in moved]
    except SequenceError:
        # A person's own loss that looks at values.
        return []


def _run(oracle: _Oracle, rebuilt: Rebuilt, dtype: str, *, sums_in_sequence: bool = False) -> Record:
    batch = _cast(rebuilt.batch, dtype)
    path, flags = oracle.path, {}
    with precise_jax():
        tensors = oracle.compute(_cast(rebuilt.weights, dtype), batch, sums_in_sequence)
        if sums_in_sequence:
            flags = {"sums": "in sequence"}
        elif path is not None:
            flags = describe_path(rebuilt.spec, batch, path=path, dtype=dtype, mesh=oracle.mesh)
    origin = describe_oracle(rebuilt.port.origin, mode="jit", dtype=dtype, flags=flags)
    return Record(rebuilt.spec, origin, tensors)


def _prepare_model(spec: Spec, path: Path, mesh: DataMesh | None) -> Compute:
    """The oracle's own model of a spec."""

    def compute(weights: Arrays, batch: Arrays, sums_in_sequence: bool) -> dict[str, np.ndarray | None]:
        options = {"path": path, "mesh": mesh, "sums_in_sequence": sums_in_sequence}
        return compute_tensors(spec, weights, batch, **options)

    return compute


def _prepare_module(
    record: Record, sites: Sequence[Site] | None, module: str | Callable[..., Any]
) -> tuple[Rebuilt, Compute]:
    """A person's own loss, differentiated by every weight that the port trains."""
    import jax

    from oracle.steps.sequential_sums import SequenceError, sum_in_sequence

    check_inputs(record, needs_batch=False)
    name = module if isinstance(module, str) else getattr(module, "__name__", "the module")
    loss = load_object(module) if isinstance(module, str) else module
    if not callable(loss):
        raise UsageError(f"{name}: is a {type(loss).__name__}; give a function loss(params, batch)")
    port = record
    weights: dict[str, np.ndarray] = _cast(record.weights, "float64")
    if sites is not None:
        port, weights = carry(record, sites)
    is_flat = port.naming == "variable"
    trained = [path for path, array in weights.items() if array.dtype.kind == "f" and path not in port.frozen]
    order = [name.removeprefix("gradient/") for name in port.tensors if name.startswith("gradient/")]
    trained.sort(key=lambda path: order.index(path) if path in order else len(order))
    leaves = {path: weights[path].shape for path in trained}
    spec = MirrorSpec(MirroredPart(name, leaves=leaves))

    def value_of(moved: Arrays, still: Arrays, batch: Arrays) -> tuple[Any, dict[str, Any]]:
        params = {**still, **moved}
        result = loss(params if is_flat else nest_leaves(params), batch)
        value, outputs = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if np.shape(value) != () or not isinstance(outputs, Mapping):
            raise UsageError(
                f"{name}: gives a {type(result).__name__} of shape {list(np.shape(value))}; expected a "
                "scalar, or (scalar, outputs by name)"
            )
        return value, dict(outputs)

    differentiate = jax.value_and_grad(value_of, has_aux=True)
    differentiate_in_sequence = jax.jit(sum_in_sequence(differentiate))

    def compute(weights: Arrays, batch: Arrays, sums_in_sequence: bool) -> dict[str, np.ndarray | None]:
        step = differentiate_in_sequence if sums_in_sequence else differentiate
        moved = {path: jax.numpy.asarray(weights[path]) for path in trained}
        still = {path: array for path, array in weights.items() if path not in moved}
        arrays = {key: jax.numpy.asarray(array) for key, array in batch.items()}
        try:
            (value, outputs), gradients = step(moved, still, arrays)
        except (UsageError, SequenceError):
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{name}: raised {type(error).__name__}: {error}") from error
        computed = {f"output/{key}": output for key, output in outputs.items()}
        computed |= {"loss": value} | {f"gradient/{path}": gradients[path] for path in trained}
        return {key: np.asarray(array) for key, array in computed.items()}

    return Rebuilt(spec, weights, _cast(record.batch, "float64"), port), compute


def _cast(arrays: Arrays, dtype: str) -> dict[str, np.ndarray]:
    return {
        name: array.astype(dtype) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array
        for name, array in arrays.items()
    }


def _jitter(rebuilt: Rebuilt, number: int, dtype: Dtype = "float32") -> Rebuilt:
    """As `oracle.case.jitter_case` and, in float64, `oracle.run_jax.run_oracle` move a case's numbers."""
    if number == 0:
        return rebuilt
    seed = [rebuilt.port.origin.seed, 2 if dtype == "float32" else 3, number]
    weights, batch = jitter_arrays(rebuilt.weights, rebuilt.batch, seed=seed, dtype=dtype)
    return replace(rebuilt, weights=weights, batch=batch)
