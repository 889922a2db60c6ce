"""The recurrent cells of Keras 2.15, as Flax modules with the state passed in and out as a value.

A cell is called as `state, output = cell(state, inputs)`; Keras has it the other way round, and an
LSTM's state as [h, c] where `LSTMState` is (c, h): `flatten_keras_states` and its inverse carry one
to the other. The leaves are `kernel` [features, gates*units], `recurrent_kernel` [units, gates*units]
and `bias`, the gates in Keras' own order: i, f, g, o for an LSTM (Keras' c is our g), z, r, h for a
GRU. Keras stores the forget bias in the bias, so that nothing is added to it at run time.

Dropout is data. A cell multiplies by the `DropoutMasks` that it is given and by nothing otherwise;
`draw_dropout_masks` makes them from an explicit key, one draw for all steps, as Keras' RNN layers do.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jax_models.cell_base import LSTMState, RNNCell, check_step
from jax_models.checks import check_fields
from jax_models.keras_activations import Activation, get_activation
from jax_models.keras_dropout import (
    DropoutMasks,
    check_implementation,
    check_masks,
    check_rates,
    count_masks,
    draw_gate_masks,
    drop,
    project_gates,
)


class SimpleRNNCell(RNNCell):
    """Elman's (1990) network: h' = activation(x @ kernel + h @ recurrent_kernel + bias).

    The state is h itself, [batch, units]. Source: `tf.keras.layers.SimpleRNNCell`.
    """

    units: int
    activation: str | Activation | None = "tanh"
    use_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        check_rates(self.dropout, self.recurrent_dropout)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        state: Float[Array, "batch units"],
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> tuple[Float[Array, "batch units"], Float[Array, "batch units"]]:
        """Advance one step. Returns the new state twice: as the state, and as the output."""
        check_step(self, state, inputs)
        kernel, recurrent = declare_kernels(self, inputs.shape[-1], 1)
        masks = check_masks(dropout_masks, inputs, self.units, masks=1, recurrent_masks=1)
        total = drop(inputs, masks.inputs, 0) @ kernel
        if self.use_bias:
            total += self.param("bias", nn.initializers.zeros_init(), (self.units,), self.param_dtype)
        h = get_activation(self.activation)(total + drop(state, masks.recurrent, 0) @ recurrent)
        return h, h

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    def draw_dropout_masks(
        self, key: PRNGKeyArray, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """One mask for the inputs and one for the state."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=1)


class LSTMCell(RNNCell):
    """The LSTM of Hochreiter & Schmidhuber (1997) with Gers et al.'s (1999) forget gate.

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias)
        c' = recurrent_activation(f) * c + recurrent_activation(i) * activation(g)
        h' = recurrent_activation(o) * activation(c')

    `unit_forget_bias` starts the forget gate's part of `bias` at 1 and has no effect afterwards.
    `implementation` decides only what dropout does: 1 drops the inputs with a mask for each gate, 2
    with one mask for all. A `recurrent_dropout` forces 1, as it does in Keras.
    Source: `tf.keras.layers.LSTMCell` (TF 2). For `tf.compat.v1.keras.layers.LSTMCell` set
    `recurrent_activation="hard_sigmoid"` and `implementation=1`, which are its defaults.
    """

    units: int
    activation: str | Activation | None = "tanh"
    recurrent_activation: str | Activation | None = "sigmoid"
    use_bias: bool = True
    unit_forget_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    implementation: int = 2
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        get_activation(self.recurrent_activation)
        check_rates(self.dropout, self.recurrent_dropout)
        check_implementation(self.implementation)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        state: LSTMState,
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> tuple[LSTMState, Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which is the state's `h`."""
        check_step(self, state, inputs)
        kernel, recurrent = declare_kernels(self, inputs.shape[-1], 4)
        apart = count_masks(self, 4) == 4
        masks = check_masks(
            dropout_masks, inputs, self.units, masks=4 if apart else 1, recurrent_masks=4 if apart else 0
        )
        gates = project_gates(inputs, kernel, masks.inputs, gates=4, masked_apart=apart)
        from_state = project_gates(state.h, recurrent, masks.recurrent, gates=4, masked_apart=apart)
        gates = [a + b for a, b in zip(gates, from_state, strict=True)]
        if self.use_bias:
            bias = self.param("bias", self._initial_bias, (4 * self.units,), self.param_dtype)
            gates = [a + b for a, b in zip(gates, jnp.split(bias, 4), strict=True)]
        i, f, g, o = gates
        activate, gate = get_activation(self.activation), get_activation(self.recurrent_activation)
        c = gate(f) * state.c + gate(i) * activate(g)
        h = gate(o) * activate(c)
        return LSTMState(c, h), h

    @property
    def state_size(self) -> LSTMState:
        return LSTMState(self.units, self.units)  # pyright: ignore[reportArgumentType]

    @property
    def output_size(self) -> int:
        return self.units

    def draw_dropout_masks(
        self, key: PRNGKeyArray, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """Masks for each gate (`implementation` 1), or one mask of the inputs for all (2)."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=count_masks(self, 4))

    def _initial_bias(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        bias = jnp.zeros(shape, dtype)
        return bias.at[self.units : 2 * self.units].set(1) if self.unit_forget_bias else bias


class GRUCell(RNNCell):
    """The gated recurrent unit of Cho et al. (2014), in the two forms that Keras has.

        z, r = recurrent_activation(x @ kernel + h @ recurrent_kernel + biases), the first two gates
        n = activation(x @ kernel_h + b_h + r * (h @ recurrent_kernel_h + b'_h))    reset_after
        n = activation(x @ kernel_h + b_h + (r * h) @ recurrent_kernel_h)           not reset_after
        h' = z * h + (1 - z) * n

    `bias` is [2, 3*units] with `reset_after`, the inputs' and the state's, else [3*units]. The state
    is h itself, [batch, units]. `implementation` is as in `LSTMCell`; the last line's h is never
    dropped. Source: `tf.keras.layers.GRUCell` (TF 2). For `tf.compat.v1.keras.layers.GRUCell` set
    `reset_after=False`, `recurrent_activation="hard_sigmoid"` and `implementation=1`.
    """

    units: int
    activation: str | Activation | None = "tanh"
    recurrent_activation: str | Activation | None = "sigmoid"
    use_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    implementation: int = 2
    reset_after: bool = True
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        get_activation(self.recurrent_activation)
        check_rates(self.dropout, self.recurrent_dropout)
        check_implementation(self.implementation)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        state: Float[Array, "batch units"],
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> tuple[Float[Array, "batch units"], Float[Array, "batch units"]]:
        """Advance one step. Returns the new state twice: as the state, and as the output."""
        check_step(self, state, inputs)
        kernel, recurrent = declare_kernels(self, inputs.shape[-1], 3)
        apart = count_masks(self, 3) == 3
        masks = check_masks(
            dropout_masks, inputs, self.units, masks=3 if apart else 1, recurrent_masks=3 if apart else 0
        )
        x_z, x_r, x_h = project_gates(inputs, kernel, masks.inputs, gates=3, masked_apart=apart)
        # The candidate's part of the state is projected here only if it is reset after that.
        now = 3 if self.reset_after else 2
        columns, dropped = recurrent[:, : now * self.units], masks.recurrent
        h_z, h_r, *h_h = project_gates(state, columns, dropped, gates=now, masked_apart=apart)
        if self.use_bias:
            shape = (2, 3 * self.units) if self.reset_after else (3 * self.units,)
            bias = self.param("bias", nn.initializers.zeros_init(), shape, self.param_dtype)
            b_z, b_r, b_h = jnp.split(bias[0] if self.reset_after else bias, 3)
            x_z, x_r, x_h = x_z + b_z, x_r + b_r, x_h + b_h
            if self.reset_after:
                c_z, c_r, c_h = jnp.split(bias[1], 3)
                h_z, h_r, h_h = h_z + c_z, h_r + c_r, [h_h[0] + c_h]

        activate, gate = get_activation(self.activation), get_activation(self.recurrent_activation)
        z, r = gate(x_z + h_z), gate(x_r + h_r)
        if self.reset_after:
            candidate = activate(x_h + r * h_h[0])
        else:
            candidate = activate(x_h + (r * drop(state, dropped, 2)) @ recurrent[:, 2 * self.units :])
        h = z * state + (1 - z) * candidate
        return h, h

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    def draw_dropout_masks(
        self, key: PRNGKeyArray, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """Masks for each gate (`implementation` 1), or one mask of the inputs for all (2)."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=count_masks(self, 3))


def declare_kernels(cell: nn.Module, features: int, gates: int) -> tuple[Array, Array]:
    """A cell's `kernel` and `recurrent_kernel`, from Keras' initialisers: Glorot and orthogonal."""
    glorot, columns = nn.initializers.glorot_uniform(), gates * cell.units
    kernel = cell.param("kernel", glorot, (features, columns), cell.param_dtype)
    return kernel, cell.param("recurrent_kernel", _draw_orthogonal, (cell.units, columns), cell.param_dtype)


def _draw_orthogonal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    # The QR decomposition knows no 16-bit floats.
    wide = jnp.promote_types(dtype, jnp.float32)
    return nn.initializers.orthogonal()(key, shape, wide).astype(dtype)
