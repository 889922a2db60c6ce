"""What the oracle's side finds out about a port: where it leaves the oracle, and why. Runs under JAX."""

from __future__ import annotations

import numpy as np

from oracle.case import Case, cast_case
from oracle.explain import explain_record
from oracle.explanation import Explanation
from oracle.frameworks import import_jax
from oracle.localisation import Localisation
from oracle.localise import localise
from oracle.record import Record
from oracle.run_jax import trace_oracle
from oracle.steps.counterfactual import Evaluator
from oracle.steps.layers import check_layers
from oracle.steps.paths import DEFAULT_PATH, Path
from oracle.tolerance import FLOAT64_BOUND, largest


def explain_port(case: Case, *, port: Record, oracle: Record) -> Explanation:
    """Why a port's record is not the oracle's.

    Args:
        case: what both records are of.
        port: the port's, in float64.
        oracle: the oracle's, in float64.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
    """
    import_jax()
    weights, batch = cast_case(case, "float64")
    return explain_record(port, oracle, Evaluator(case.spec, weights, batch), weights=weights, batch=batch)


def localise_port(
    case: Case,
    *,
    port: Record,
    trace: Record | None,
    truth: Record | None = None,
    path: Path = DEFAULT_PATH,
) -> Localisation:
    """Where a port leaves the oracle.

    Args:
        case: what the records are of.
        port: the port's record, in float64.
        trace: what the port computes step by step, run eagerly; None if it cannot be. It counts only if the
            port computes the same in it as in its record.
        truth: what the oracle computes step by step (`oracle.run_jax.trace_oracle`), in float64; by default
            it is computed.
        path: by which of its two paths the oracle computes it.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
    """
    import_jax()
    if truth is None:
        truth = trace_oracle(case, model=port.origin.model, path=path)
    if trace is None or not _agree(port, trace):
        return localise(port, truth, case=case)
    weights, batch = cast_case(case, "float64")
    return localise(
        trace,
        truth,
        case=case,
        checks=check_layers(case.spec, weights, batch, trace.tensors, oracle_trace=truth.tensors),
    )


def _agree(port: Record, trace: Record) -> bool:
    """Whether both ran, or both raised, and the tensors that both have are the same but for roundings."""
    if (port.failure is None) != (trace.failure is None):
        return False
    for name in port.tensors.keys() & trace.tensors.keys():
        first, second = port.tensors[name], trace.tensors[name]
        if first is None or second is None:
            if first is not second:
                return False
        elif first.shape != second.shape:
            return False
        else:
            # What is no number in both is the same.
            differs = (first != second) & ~(np.isnan(first) & np.isnan(second))
            apart = largest(first[differs] - second[differs])
            if not apart <= FLOAT64_BOUND * largest(first[np.isfinite(first)]):
                return False
    return True
