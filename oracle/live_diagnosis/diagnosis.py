"""Diagnosing a live port. Its code is run, several times, on its own batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from oracle.bridge.mirror.port_loss import make_loss
from oracle.errors import CaseError, OracleError
from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis.failures import explain_raise
from oracle.live_diagnosis.holders import walk
from oracle.live_diagnosis.missing import explain_left_out, explain_missing, make_finding
from oracle.live_diagnosis.recording import Recording, record_operations
from oracle.live_diagnosis.runs import Run, Weight, find_roots, find_weights, run_port
from oracle.live_diagnosis.state import (
    Explained,
    find_dropped_state,
    find_hidden_variables,
    find_kept,
    find_new_variables,
)
from oracle.live_diagnosis.values import find_infinite, find_misshapen, find_python_gap, find_zero
from oracle.live_port import Build, LivePort, call_build, load_build


def diagnose_live(target: str | Build, *, seed: int = 0) -> list[Finding]:
    """What keeps a live port from having its gradients. Runs the port, in float32, and needs no JAX.

    The port is made twice and run up to five times on its batch: as it is, and with `tf.function` switched
    off, so that every operation can be watched. No reference is needed.

    Args:
        target: `package.module:function` or `path/to/file.py:function`, or the function itself.
        seed: of every random choice of TensorFlow and NumPy.

    Raises:
        UsageError: if there is no such function, or making the port raises.
        CaseError: if what it gives cannot be run, or has no weights.
    """
    tensorflow = import_tensorflow()
    name = target if isinstance(target, str) else ""
    functions_were_eager = tensorflow.config.functions_run_eagerly()
    backend = tensorflow.keras.backend
    floatx_was = backend.floatx()
    with record_operations() as recording:
        try:
            backend.set_floatx("float32")
            build = load_build(target) if isinstance(target, str) else target
            tensorflow.config.run_functions_eagerly(False)
            port = _make(build, name, recording, seed)
            hidden = find_hidden_variables(walk(find_roots(port)), where=port.name)
            as_it_is, error = _run_twice(port, recording, seed)
            if error is not None:
                raised = explain_raise(error, walk(find_roots(port)), where=port.name)
                gap = find_python_gap(recording, recording.phase) if raised.code == "G011" else None
                if gap is not None:
                    what = f"EagerPyFunc runs Python code that gives no gradient, so it raises {raised.what}"
                    raised = make_finding("G024", port.name, gap.place, what)
                return _drop_repeated([*hidden, raised])
            tensorflow.config.run_functions_eagerly(True)
            pairs = [(port, as_it_is)]
            port = _make(build, name, recording, seed)
            watched, error = _run_twice(port, recording, seed)
            if error is None and _name_missing(watched[-1]) == _name_missing(as_it_is[-1]):
                pairs.append((port, watched))
            else:
                # Only its functions have the fault, or only they run at all.
                port, watched = pairs[0]
                tensorflow.config.run_functions_eagerly(False)

            def probe(weights: Sequence[Weight], *, seed: int = seed) -> Run:
                with _changed_weights(weights, seed):
                    tensorflow.keras.utils.set_random_seed(seed)
                    return run_port(port, _loss_of(port), recording)

            found = _judge(recording, pairs, probe)
            if not (hidden or found or watched[-1].weights):
                raise CaseError(
                    f"{port.name}: the models ({', '.join(port.models)}) hold no trainable variable, so "
                    "there is no gradient to diagnose; give the objects that hold the weights"
                )
            if not found:
                found = find_misshapen(recording, watched[-1], where=port.name)
            if not found:
                found = find_infinite(recording, watched[-1], where=port.name)
            if not found:
                other = probe(watched[-1].weights)
                # Where it is zero at both, the other weights show by what: nothing there is zero by chance.
                found = find_zero(recording, other, watched[-1].gradients, where=port.name)
        finally:
            tensorflow.config.run_functions_eagerly(functions_were_eager)
            backend.set_floatx(floatx_was)
    return _drop_repeated([*hidden, *found])


def _name_missing(run: Run) -> list[str]:
    return [weight.path for weight in run.missing]


def _make(build: Build, name: str, recording: Recording, seed: int) -> LivePort:
    phase, recording.phase = recording.phase, 0
    import_tensorflow().keras.utils.set_random_seed(seed)
    port = call_build(build, name)
    recording.phase = phase
    return replace(port, name=name) if name and port.name == "live" else port


def _loss_of(port: LivePort) -> Callable[..., Any]:
    return make_loss(port, needs_reference=False)


def _run_twice(port: LivePort, recording: Recording, seed: int) -> tuple[list[Run], Exception | None]:
    """Run a port twice, its weights put back after each. What it keeps from the first shows in the second."""
    runs: list[Run] = []
    loss = _loss_of(port)
    try:
        for _ in range(2):
            import_tensorflow().keras.utils.set_random_seed(seed)
            with _kept_weights(find_weights(port)):
                runs.append(run_port(port, loss, recording))
    except OracleError:
        raise
    except Exception as error:  # Whatever it is: it is the answer.
        return runs, error
    return runs, None


def _judge(
    recording: Recording,
    pairs: Sequence[tuple[LivePort, Sequence[Run]]],
    probe: Callable[[Sequence[Weight]], Run],
) -> list[Finding]:
    """What the two ways of running show: state that is kept or lost, and why gradients are None."""
    explained = Explained()
    for port, runs in pairs:
        run, where = runs[-1], port.name
        names = {id(held.value): held.path for held in walk(find_roots(port))}
        for more in (
            find_kept(recording, runs, where=where),
            find_new_variables(recording, run, where=where),
            find_dropped_state(recording, run, names, where=where),
        ):
            explained = Explained(explained.findings + more.findings, explained.handles | more.handles)
    port, (*_, run) = pairs[-1]
    where = port.name
    missing = [weight for weight in run.missing if weight.handle not in explained.handles]
    return [
        *explained.findings,
        *explain_missing(recording, run, missing, probe, where=where),
        *explain_left_out(run, where=where),
    ]


@contextlib.contextmanager
def _changed_weights(weights: Sequence[Weight], seed: int) -> Iterator[None]:
    """Add noise to the weights within the context, so that what is zero at the own ones by chance shows."""
    rng = np.random.default_rng([seed, 1])
    before = [weight.variable.numpy() for weight in weights]
    try:
        for weight, value in zip(weights, before, strict=True):
            spread = float(max(value.shape[:1] or (1,))) ** -0.5 if value.ndim > 1 else 0.5
            weight.variable.assign((value + spread * rng.standard_normal(value.shape)).astype(value.dtype))
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.variable.assign(value)


@contextlib.contextmanager
def _kept_weights(weights: Sequence[Weight]) -> Iterator[None]:
    """Put the weights back after the context, whatever is done to them in it."""
    before = [weight.variable.numpy() for weight in weights]
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            if weight.variable.numpy().tobytes() != value.tobytes():
                weight.variable.assign(value)


def _drop_repeated(findings: Sequence[Finding]) -> list[Finding]:
    """One finding of what both ways of running show."""
    return list(dict.fromkeys(findings))
