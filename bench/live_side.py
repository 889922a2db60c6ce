"""The contestants of a live port: TensorFlow's modes of it, and its mirrored oracle.

Making the port takes TensorFlow, and mirroring it JAX too, so that each of the two processes imports both;
each runs contestants of its own framework alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.prepared import AbsentError, Clock, Prepared
from oracle.errors import UsageError
from oracle.frameworks import import_jax, import_tensorflow
from oracle.live_port import run_live, split_gradients, split_outputs
from oracle.record import Record
from oracle.steps.leaves import flatten_leaves, nest_leaves
from oracle.tolerance import FLOAT32_RUNS

MODES = {"tf-eager": "eager", "tf-function": "function", "tf-xla": "xla"}


def prepare_port(name: str, target: str, *, seed: int) -> Prepared:
    """Make a live port ready in one of TensorFlow's modes, its record made as `oracle compare` does.

    Raises:
        AbsentError: if the port raises in that mode.
        OracleError: if it cannot be made or mirrored.
    """
    from oracle.bridge.mirror.port_loss import make_loss

    tf = import_tensorflow()
    port, run = run_live(target, dtype="float32", mode=MODES[name], seed=seed)
    if run.record.failure is not None:
        raise AbsentError(f"{run.record.failure.type}: {run.record.failure.message}")
    tensors = {key: tf.constant(array) for key, array in run.batch.items()}
    run.mirror.assign(nest_leaves(run.weights))
    loss, own, sources = make_loss(port), port.gradients, dict(run.mirror.tensors)

    def differentiate(tensors: Mapping[str, Any]) -> Any:
        if own is not None:
            value, pairs = split_gradients(own(tensors), port.name)
            return value, [gradient for gradient, _ in pairs]
        with tf.GradientTape() as tape:
            value, _ = split_outputs(loss(tensors), "the loss")
        return value, tape.gradient(value, sources)

    clock, trace = Clock(), None
    call: Any = differentiate
    if name != "tf-eager":
        call = tf.function(differentiate, jit_compile=True if name == "tf-xla" else None)
        call.get_concrete_function(tensors)
        trace = clock.lap()

    def step() -> None:
        value, _ = call(tensors)
        if "GPU" in value.device:
            tf.test.experimental.sync_devices()
        value.numpy()

    step()
    clock.lap()
    return Prepared(step, lambda: run.record.tensors, clock.total(), trace, record=run.record)


def compute_truth(target: str, *, seed: int) -> list[Record]:
    """The mirrored oracle's records of a live port: in float64, then all of the yardstick's in float32."""
    from oracle.bridge.mirror.run_oracle_side import run_oracle_side

    port, run = run_live(target, dtype="float32", mode="eager", seed=seed)
    truth = run_oracle_side(port, run, dtype="float64")
    yardstick = run_oracle_side(port, run, dtype="float32", jitters=range(FLOAT32_RUNS))
    in_sequence = run_oracle_side(
        port, run, dtype="float32", jitters=range(FLOAT32_RUNS), sums_in_sequence=True
    )
    return [*truth, *yardstick, *in_sequence]


def prepare_mirror(target: str, *, seed: int) -> Prepared:
    """Make the mirrored oracle of a live port ready, jitted.

    Raises:
        UsageError: if the port raises, or its reference cannot be compiled.
    """
    from oracle.bridge.mirror.run_oracle_side import make_reference

    jax = import_jax()
    port, run = run_live(target, dtype="float32", mode="eager", seed=seed)
    if run.record.failure is not None:
        raise UsageError(f"{port.name}: the port raised {run.record.failure.message}; diagnose it first")
    reference: Callable[..., Any] = port.reference or make_reference(port, run.mirror)
    others = {name: array for name, array in run.batch.items() if array.dtype.kind != "f"}
    floats = {name: array for name, array in run.batch.items() if array.dtype.kind == "f"}

    def loss_of(params: Any, floats: Mapping[str, Any]) -> Any:
        result = reference(run.mirror, run.mirror.expand(params), {**floats, **others})
        return split_outputs(result, "the reference")[0]

    params = jax.device_put(nest_leaves(dict(run.weights)))
    placed = jax.device_put(floats)
    clock = Clock()
    lowered = jax.jit(jax.value_and_grad(loss_of)).lower(params, placed)
    trace = clock.lap()
    compiled = lowered.compile()
    compiling = clock.lap()

    def step() -> Any:
        return jax.block_until_ready(compiled(params, placed))

    step()
    clock.lap()

    def result() -> dict[str, np.ndarray | None]:
        loss, gradients = jax.device_get(step())
        trained = run.mirror.spec.weight_shapes()
        leaves = flatten_leaves(gradients)
        named = {f"gradient/{leaf}": np.asarray(leaves[leaf]) for leaf in trained}
        return {"loss": np.asarray(loss), **named}

    return Prepared(step, result, clock.total(), trace, compiling, record=run.record)
