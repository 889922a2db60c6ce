"""The witness on a live port: right, cut, and another model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.jax]


def double_gradient(x: Any) -> Any:
    """The identity, with a gradient twice too large, and no forward mode."""
    import jax

    identity = jax.custom_vjp(lambda x: x)
    identity.defvjp(lambda x: (x, None), lambda _, gradient: (2 * gradient,))
    return identity(x)


def build(kind: str) -> Any:
    import tensorflow as tf

    from oracle.live_port import LivePort

    rng = np.random.default_rng(0)
    lstm, dense = tf.keras.layers.LSTM(4), tf.keras.layers.Dense(2)
    batch = {"x": rng.standard_normal((3, 5, 2)), "y": rng.standard_normal((3, 2))}

    calls = []

    def loss(batch: Any) -> Any:
        calls.append(0)
        if kind == "once" and len(calls) > 2:
            raise ValueError("the memory is used up")
        hidden = lstm(batch["x"])
        if kind in ("cut", "once"):
            hidden = tf.stop_gradient(hidden)
        if kind == "forward":
            hidden = 1.1 * hidden
        return tf.reduce_mean((dense(hidden) - batch["y"]) ** 2)

    def reference(mirror: Any, params: Any, batch: Any) -> Any:
        import jax.numpy as jnp

        hidden = mirror.lstm.apply(batch["x"], params=params["lstm"])
        if kind == "reference":
            hidden = double_gradient(hidden)
        return jnp.mean((mirror.dense.apply(hidden, params=params["dense"]) - batch["y"]) ** 2)

    return LivePort({"lstm": lstm, "dense": dense}, batch, loss, reference)


@pytest.mark.parametrize(
    "kind, verdict",
    [
        ("right", "consistent"),
        ("cut", "autodiff"),
        ("forward", "forward"),
        ("reference", "reference"),
        ("once", "unknown"),
    ],
)
def test_the_witness_says_who_is_wrong_of_a_live_port_and_restores_it(kind: str, verdict: str) -> None:
    from oracle.bridge.mirror.hear_live import hear_live
    from oracle.bridge.mirror.run_oracle_side import run_oracle_side
    from oracle.bridge.mirror.run_port_side import run_port_side, use_precision
    from oracle.live_port import LiveRecords

    with use_precision("float64", 0):
        port = build(kind)
        run = run_port_side(port, dtype="float64", mode="eager", seed=0)
    before = [weight.numpy() for model in port.models.values() for weight in model.weights]
    (truth,) = run_oracle_side(port, run, dtype="float64")
    judgement = hear_live(port, run, truth, LiveRecords(run.record, truth).compare(), seed=0)
    assert judgement.verdict == verdict, judgement.lines
    if kind == "once":
        assert "called again, the port's loss raises ValueError: the memory is used up" in judgement.lines[0]
    after = [weight.numpy() for model in port.models.values() for weight in model.weights]
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
