"""Recurrent cells of TensorFlow 1, as Flax modules with the state passed in and out as a value.

A cell is called as `state, output = cell(state, inputs)`, which is the order `jax.lax.scan` wants.
Its parameters are `kernel` [features, 4*units], `recurrent_kernel` [units, 4*units] and `bias`
[4*units], the gates in Flax's order i, f, g, o; `oracle.bridge` carries TensorFlow's layouts here.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class LSTMState(NamedTuple):
    """What an LSTM carries from one step to the next: the cell `c` and the output `h`."""

    c: Float[Array, "batch units"]
    h: Float[Array, "batch units"]


class BasicLSTMCell(nn.Module):
    """The LSTM of Hochreiter & Schmidhuber (1997) with Gers et al.'s (1999) forget gate.

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias)
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    It computes what `tf.compat.v1.nn.rnn_cell.BasicLSTMCell` does, whose `forget_bias` is added at
    run time, and, with `forget_bias=0`, what `tf.keras.layers.LSTMCell` does, whose bias holds it.
    """

    units: int
    forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, state: LSTMState, inputs: Float[Array, "batch features"]
    ) -> tuple[LSTMState, Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which is the state's `h`."""
        columns = 4 * self.units
        glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros_init()
        kernel = self.param("kernel", glorot, (inputs.shape[-1], columns), self.param_dtype)
        recurrent = self.param("recurrent_kernel", glorot, (self.units, columns), self.param_dtype)
        bias = self.param("bias", zeros, (columns,), self.param_dtype)

        i, f, g, o = jnp.split(inputs @ kernel + state.h @ recurrent + bias, 4, axis=-1)
        c = jax.nn.sigmoid(f + self.forget_bias) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LSTMState(c, h), h

    def zero_state(self, batch: int, dtype: DTypeLike) -> LSTMState:
        """The state TF1 starts from when none is given: zeros of shape [batch, units]."""
        zeros = jnp.zeros((batch, self.units), dtype)
        return LSTMState(zeros, zeros)
