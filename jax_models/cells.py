"""Recurrent cells of TensorFlow 1, as Flax modules with the state passed in and out as a value.

A cell is called as `state, output = cell(state, inputs)`, which is the order `jax.lax.scan` wants.
Its parameters are `kernel` [features, gates*units], `recurrent_kernel` [units, gates*units] and `bias`
[gates*units], an LSTM's gates in Flax's order i, f, g, o and a GRU's in Keras' order z, r, h;
`oracle.bridge` carries TensorFlow's layouts here.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_models.cell_base import (
    Activation,
    LSTMState,
    RNNCell,
    check_step,
    clip,
    declare_peephole,
    gate_kernels,
)
from jax_models.checks import check_callable, check_fields, check_number


class BasicRNNCell(RNNCell):
    """The recurrent layer of Elman (1990): `h' = activation(x @ kernel + h @ recurrent_kernel + bias)`.

    It computes what `tf.compat.v1.nn.rnn_cell.BasicRNNCell` does. The state is `h` [batch, units].
    """

    units: int
    activation: Activation = jnp.tanh
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        check_callable(f"{type(self).__name__}: activation", self.activation, optional=False)
        super().__post_init__()

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    @nn.compact
    def __call__(
        self, state: Float[Array, "batch units"], inputs: Float[Array, "batch features"]
    ) -> tuple[Float[Array, "batch units"], Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which are the same array."""
        check_step(self, state, inputs)
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, self.units)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.units,), self.param_dtype)
        h = self.activation(inputs @ kernel + state @ recurrent + bias)
        return h, h


class BasicLSTMCell(RNNCell):
    """The LSTM of Hochreiter & Schmidhuber (1997) with Gers et al.'s (1999) forget gate.

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias)
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * activation(g)
        h' = sigmoid(o) * activation(c')

    It computes what `tf.compat.v1.nn.rnn_cell.BasicLSTMCell` does, whose `forget_bias` is added at
    run time, and, with `forget_bias=0`, what `tf.keras.layers.LSTMCell` does, whose bias holds it.
    """

    units: int
    forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32
    activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        check_fields(self, "units")
        check_number("BasicLSTMCell: forget_bias", self.forget_bias)
        check_callable("BasicLSTMCell: activation", self.activation, optional=False)
        super().__post_init__()

    @property
    def state_size(self) -> LSTMState:
        return LSTMState(self.units, self.units)

    @property
    def output_size(self) -> int:
        return self.units

    @nn.compact
    def __call__(
        self, state: LSTMState, inputs: Float[Array, "batch features"]
    ) -> tuple[LSTMState, Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which is the state's `h`."""
        check_step(self, state, inputs)
        columns = 4 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, columns)
        bias = self.param("bias", nn.initializers.zeros_init(), (columns,), self.param_dtype)

        i, f, g, o = jnp.split(inputs @ kernel + state.h @ recurrent + bias, 4, axis=-1)
        kept = jax.nn.sigmoid(f + self.forget_bias) * state.c
        c = kept + jax.nn.sigmoid(i) * self.activation(g)
        h = jax.nn.sigmoid(o) * self.activation(c)
        return LSTMState(c, h), h


class LSTMCell(RNNCell):
    """The LSTM of Sak et al. (2014): peepholes, a projected output, and clipping of both.

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias)
        c' = sigmoid(f + forget_bias + peephole_f * c) * c + sigmoid(i + peephole_i * c) * activation(g)
        c' = clip(c', cell_clip)
        h' = sigmoid(o + peephole_o * c') * activation(c')
        h' = clip(h' @ projection_kernel, proj_clip)

    It computes what `tf.compat.v1.nn.rnn_cell.LSTMCell` does. The peepholes are there if
    `use_peepholes`, the projection if `num_proj` is given, and each clip if its bound is; `proj_clip`
    without `num_proj` does nothing, as in TF1. The gradient passes unchanged where a value lies on
    its bound. The state's `c` is [batch, units], its `h` and the output [batch, num_proj or units].
    """

    units: int
    use_peepholes: bool = False
    cell_clip: float | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    forget_bias: float = 1.0
    activation: Activation = jnp.tanh
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units", "num_proj")
        check_number("LSTMCell: forget_bias", self.forget_bias)
        check_callable("LSTMCell: activation", self.activation, optional=False)
        for name in ("cell_clip", "proj_clip"):
            if (bound := getattr(self, name)) is not None:
                expected = "None or a bound of at least 0"
                check_number(f"LSTMCell: {name}", bound, expected, holds=lambda b: b >= 0)
        super().__post_init__()

    @property
    def state_size(self) -> LSTMState:
        return LSTMState(self.units, self.output_size)

    @property
    def output_size(self) -> int:
        return self.units if self.num_proj is None else self.num_proj

    @nn.compact
    def __call__(
        self, state: LSTMState, inputs: Float[Array, "batch features"]
    ) -> tuple[LSTMState, Float[Array, "batch outputs"]]:
        """Advance one step. Returns the new state and the output, which is the state's `h`."""
        check_step(self, state, inputs)
        columns = 4 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.output_size, columns)
        bias = self.param("bias", nn.initializers.zeros_init(), (columns,), self.param_dtype)

        i, f, g, o = jnp.split(inputs @ kernel + state.h @ recurrent + bias, 4, axis=-1)
        f = f + self.forget_bias
        if self.use_peepholes:
            f = f + declare_peephole(self, "f") * state.c
            i = i + declare_peephole(self, "i") * state.c
        c = clip(
            jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * self.activation(g),
            self.cell_clip,
        )
        if self.use_peepholes:
            o = o + declare_peephole(self, "o") * c
        h = jax.nn.sigmoid(o) * self.activation(c)
        if self.num_proj is not None:
            glorot, shape = nn.initializers.glorot_uniform(), (self.units, self.num_proj)
            h = clip(h @ self.param("projection_kernel", glorot, shape, self.param_dtype), self.proj_clip)
        return LSTMState(c, h), h


class GRUCell(RNNCell):
    """The gated recurrent unit of Cho et al. (2014), its reset gate applied before the matrix product.

        z, r = sigmoid(split(x @ kernel_zr + h @ recurrent_kernel_zr + bias_zr))
        h' = z * h + (1 - z) * activation(x @ kernel_h + (r * h) @ recurrent_kernel_h + bias_h)

    It computes what `tf.compat.v1.nn.rnn_cell.GRUCell` does (z is its u), and what
    `tf.keras.layers.GRUCell(reset_after=False)` does. The biases of z and r begin at one. The state is
    `h` [batch, units].
    """

    units: int
    activation: Activation = jnp.tanh
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        check_callable(f"{type(self).__name__}: activation", self.activation, optional=False)
        super().__post_init__()

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    @nn.compact
    def __call__(
        self, state: Float[Array, "batch units"], inputs: Float[Array, "batch features"]
    ) -> tuple[Float[Array, "batch units"], Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which are the same array."""
        check_step(self, state, inputs)
        gates = 2 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, 3 * self.units)

        def open_gates(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            return jnp.where(jnp.arange(shape[0]) < gates, 1, 0).astype(dtype)

        bias = self.param("bias", open_gates, (3 * self.units,), self.param_dtype)
        projected = inputs @ kernel + bias
        zr = jax.nn.sigmoid(projected[:, :gates] + state @ recurrent[:, :gates])
        z, r = jnp.split(zr, 2, axis=-1)
        candidate = self.activation(projected[:, gates:] + (r * state) @ recurrent[:, gates:])
        h = z * state + (1 - z) * candidate
        return h, h
