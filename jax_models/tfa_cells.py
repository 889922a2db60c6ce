"""Recurrent cells of TensorFlow Addons (`tfa.rnn`), all under its names.

They are called as `state, output = cell(state, inputs)`. Their biases hold what Keras' do: an LSTM's
forget bias is a part of `bias`, which begins at one there, and not added at run time. Those that
derive from a Keras cell take its dropout as data, the `DropoutMasks` of `jax_models.keras_dropout`.
Those with layer normalisation are defined in `jax_models.layer_norm_cells`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_models.cell_base import (
    LSTMState,
    RNNCell,
    check_step,
    declare_peephole,
    gate_kernels,
    lstm_bias,
)
from jax_models.checks import check_fields, check_number
from jax_models.keras_activations import Activation, get_activation
from jax_models.keras_dropout import (
    DropoutMasks,
    check_implementation,
    check_masks,
    check_rates,
    count_masks,
    draw_gate_masks,
    project_gates,
)
from jax_models.layer_norm_cells import LayerNormLSTMCell, LayerNormSimpleRNNCell

__all__ = [
    "ESNCell",
    "LayerNormLSTMCell",
    "LayerNormSimpleRNNCell",
    "NASCell",
    "PeepholeLSTMCell",
]


class PeepholeLSTMCell(RNNCell):
    """The LSTM of Gers et al. (2002), whose gates see the cell `c` through peepholes.

        i, f, g, o = split(x @ kernel + h @ recurrent_kernel + bias)
        i, f = recurrent_activation(i + peephole_i * c), recurrent_activation(f + peephole_f * c)
        c' = f * c + i * activation(g)
        h' = recurrent_activation(o + peephole_o * c') * activation(c')

    It computes what `tfa.rnn.PeepholeLSTMCell` does. `implementation` decides only what dropout does: 1
    drops the inputs with a mask for each gate, 2 with one for all; a `recurrent_dropout` forces 1.
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

    @property
    def state_size(self) -> LSTMState:
        return LSTMState(self.units, self.units)

    @property
    def output_size(self) -> int:
        return self.units

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
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, 4 * self.units)
        apart = count_masks(self, 4) == 4
        masks = check_masks(
            dropout_masks, inputs, self.units, masks=4 if apart else 1, recurrent_masks=4 if apart else 0
        )
        x = project_gates(inputs, kernel, masks.inputs, gates=4, masked_apart=apart)
        h = project_gates(state.h, recurrent, masks.recurrent, gates=4, masked_apart=apart)
        i, f, g, o = (from_x + from_h for from_x, from_h in zip(x, h, strict=True))
        if self.use_bias:
            shape, initial = (4 * self.units,), lstm_bias(self.unit_forget_bias)
            parts = jnp.split(self.param("bias", initial, shape, self.param_dtype), 4)
            i, f, g, o = (gate + part for gate, part in zip((i, f, g, o), parts, strict=True))
        activate, gate = get_activation(self.activation), get_activation(self.recurrent_activation)
        i = gate(i + declare_peephole(self, "i") * state.c)
        f = gate(f + declare_peephole(self, "f") * state.c)
        c = f * state.c + i * activate(g)
        output = gate(o + declare_peephole(self, "o") * c) * activate(c)
        return LSTMState(c, output), output

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """Masks for all steps, whatever `time` is, as those of a Keras `RNN` layer are."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=count_masks(self, 4))


class NASCell(RNNCell):
    """The cell that Zoph & Le (2017) found by search.

    With x0..x7 = split(x @ kernel), m0..m7 = split(m @ recurrent_kernel + bias):

        a = sigmoid(x0 + m0) * relu(x1 + m1)            b = sigmoid(x2 + m2) + relu(x3 * m3)
        d = tanh(x4 + m4) * sigmoid(x5 + m5)            e = tanh(x6 + m6) + sigmoid(x7 + m7)
        c' = tanh(tanh(a) + c) * tanh(b)
        m' = tanh(c' * tanh(tanh(d) + sigmoid(e))) @ projection_kernel

    It computes what `tfa.rnn.NASCell` does. The bias is a part of m, also in the product x3 * m3. The
    projection is there if `projection` is given. The state is an `LSTMState` whose `h` is m.
    """

    units: int
    projection: int | None = None
    use_bias: bool = False
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units", "projection")
        super().__post_init__()

    @property
    def state_size(self) -> LSTMState:
        return LSTMState(self.units, self.output_size)

    @property
    def output_size(self) -> int:
        return self.units if self.projection is None else self.projection

    @nn.compact
    def __call__(
        self, state: LSTMState, inputs: Float[Array, "batch features"]
    ) -> tuple[LSTMState, Float[Array, "batch outputs"]]:
        """Advance one step. Returns the new state and the output, which is the state's `h`."""
        check_step(self, state, inputs)
        columns = 8 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.output_size, columns)
        from_state = state.h @ recurrent
        if self.use_bias:
            zeros = nn.initializers.zeros_init()
            from_state = from_state + self.param("bias", zeros, (columns,), self.param_dtype)
        x, m = jnp.split(inputs @ kernel, 8, axis=-1), jnp.split(from_state, 8, axis=-1)
        sigmoid, relu, tanh = jax.nn.sigmoid, jax.nn.relu, jnp.tanh

        a = tanh(sigmoid(x[0] + m[0]) * relu(x[1] + m[1]))
        b = tanh(sigmoid(x[2] + m[2]) + relu(x[3] * m[3]))
        d = tanh(tanh(x[4] + m[4]) * sigmoid(x[5] + m[5]))
        e = sigmoid(tanh(x[6] + m[6]) + sigmoid(x[7] + m[7]))
        c = tanh(a + state.c) * b
        output = tanh(c * tanh(d + e))
        if self.projection is not None:
            glorot, shape = nn.initializers.glorot_uniform(), (self.units, self.projection)
            output = output @ self.param("projection_kernel", glorot, shape, self.param_dtype)
        return LSTMState(c, output), output


class ESNCell(RNNCell):
    """The echo state network of Jaeger (2001): a fixed random reservoir.

        h' = (1 - leaky) * h + leaky * activation(x @ kernel + h @ recurrent_kernel + bias)

    It computes what `tfa.rnn.ESNCell` does. Nothing in it is trainable in TensorFlow, so the gradients
    of its parameters are zero here, unless `trainable`; those of the inputs and of the state flow. Its
    recurrent kernel begins sparse, with a share `connectivity` of its elements, and scaled to
    `spectral_radius` (to that 2-norm if `use_norm2`). The state is `h` [batch, units].
    """

    units: int
    connectivity: float = 0.1
    leaky: float = 1.0
    spectral_radius: float = 0.9
    use_norm2: bool = False
    use_bias: bool = True
    activation: str | Activation | None = "tanh"
    trainable: bool = False
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        share = "a share in [0, 1], of the elements that are not 0"
        check_number("ESNCell: connectivity", self.connectivity, share, holds=lambda c: (c >= 0) & (c <= 1))
        check_number("ESNCell: leaky", self.leaky)
        check_number("ESNCell: spectral_radius", self.spectral_radius)
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
        glorot, dtype, units = nn.initializers.glorot_uniform(), self.param_dtype, self.units
        weights = {
            "kernel": self.param("kernel", glorot, (inputs.shape[-1], units), dtype),
            "recurrent_kernel": self.param("recurrent_kernel", self._reservoir, (units, units), dtype),
        }
        if self.use_bias:
            weights["bias"] = self.param("bias", nn.initializers.zeros_init(), (units,), dtype)
        if not self.trainable:
            weights = jax.lax.stop_gradient(weights)
        drive = inputs @ weights["kernel"] + state @ weights["recurrent_kernel"] + weights.get("bias", 0)
        h = (1 - self.leaky) * state + self.leaky * get_activation(self.activation)(drive)
        return h, h

    def _reservoir(self, key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        weight_key, mask_key = jax.random.split(key)
        weights = nn.initializers.glorot_uniform()(weight_key, shape, dtype)
        weights = jnp.where(jax.random.bernoulli(mask_key, self.connectivity, shape), weights, 0)
        # The spectral radius by powers, since JAX has the eigenvalues of a general matrix on CPUs only.
        radius = jnp.linalg.norm(weights, 2) if self.use_norm2 else spectral_radius(weights)
        return jnp.where(radius > 0, weights * (self.spectral_radius / jnp.where(radius > 0, radius, 1)), 0)


def spectral_radius(matrix: Float[Array, "units units"]) -> Float[Array, ""]:
    """The largest absolute value of an eigenvalue, by Gelfand's formula on the power 2**30."""

    def square(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        power, log_scale = carry
        norm = jnp.linalg.norm(power)
        power = power / jnp.where(norm > 0, norm, 1)
        return (power @ power, 2 * (log_scale + jnp.where(norm > 0, jnp.log(norm), -jnp.inf))), None

    # Normalising before each squaring keeps the powers within range; the logarithms are summed.
    start = (matrix, jnp.zeros((), matrix.dtype))
    (power, log_scale), _ = jax.lax.scan(square, start, None, length=30)
    norm = jnp.linalg.norm(power)
    return jnp.where(norm > 0, jnp.exp((log_scale + jnp.log(jnp.where(norm > 0, norm, 1))) / 2.0**30), 0)
