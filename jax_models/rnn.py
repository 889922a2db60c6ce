"""Loops over time."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_models.cells import BasicLSTMCell, LSTMState


def dynamic_rnn(
    cell: BasicLSTMCell,
    inputs: Float[Array, "batch time features"],
    *,
    sequence_length: Int[Array, " batch"] | None = None,
    initial_state: LSTMState | None = None,
) -> tuple[Float[Array, "batch time units"], LSTMState]:
    """Run `cell` over the time axis, as `tf.compat.v1.nn.dynamic_rnn` does.

    A row's steps at and past its `sequence_length` give zero outputs and hand the state on
    unchanged, so that its final state is the one at its last real step (the initial state for
    length 0). Without an `initial_state` the loop starts from zeros.

    Returns the outputs and the final state.
    """
    batch, time = inputs.shape[:2]
    if initial_state is None:
        initial_state = cell.zero_state(batch, inputs.dtype)

    def step(cell, state, now):
        inputs_t, t = now
        new_state, output = cell(state, inputs_t)
        if sequence_length is None:
            return new_state, output
        alive = (t < sequence_length)[:, None]
        state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), new_state, state)
        return state, jnp.where(alive, output, jnp.zeros_like(output))

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=0,
        out_axes=0,
    )
    time_major = jnp.swapaxes(inputs, 0, 1)
    final_state, outputs = scan(cell, initial_state, (time_major, jnp.arange(time)))
    return jnp.swapaxes(outputs, 0, 1), final_state
