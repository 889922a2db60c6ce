"""Recurrent cells with layer normalisation: that of `tf.contrib.rnn` and those of `tfa.rnn`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jax_models.cell_base import (
    LSTMState,
    PerStep,
    RNNCell,
    check_keep_prob,
    check_step,
    drop,
    gate_kernels,
    lstm_bias,
)
from jax_models.checks import check_callable, check_fields, check_number
from jax_models.keras_activations import Activation, get_activation
from jax_models.keras_dropout import DropoutMasks, check_masks, check_rates, draw_gate_masks
from jax_models.keras_dropout import drop as multiply


class LayerNormBasicLSTMCell(RNNCell):
    """The LSTM of Ba et al. (2016), every gate normalised, with Semeniuta et al.'s (2016) dropout of g.

        i, f, g, o = (norm(gate) for gate in split(x @ kernel + h @ recurrent_kernel))
        c' = norm(sigmoid(f + forget_bias) * c + sigmoid(i) * dropout(activation(g)))
        h' = sigmoid(o) * activation(c')

    It computes what TF 1.15's `tf.contrib.rnn.LayerNormBasicLSTMCell` does: each gate is normalised over
    its own units, epsilon is 1e-12, the state carries the *normalised* c, and there is a `bias` only
    without `layer_norm`. The parameters `gate_norm/{scale,bias}` [4*units] hold the gates in the order
    i, f, g, o; `state_norm/{scale,bias}` [units] belong to c. With `dropout_keep_prob` below 1 each step
    needs `dropout_masks`, which `draw_dropout_masks` makes.
    """

    units: int
    forget_bias: float = 1.0
    activation: Activation = jnp.tanh
    layer_norm: bool = True
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    dropout_keep_prob: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        check_callable("LayerNormBasicLSTMCell: activation", self.activation, optional=False)
        for name in ("forget_bias", "norm_gain", "norm_shift"):
            check_number(f"LayerNormBasicLSTMCell: {name}", getattr(self, name))
        check_keep_prob("LayerNormBasicLSTMCell", "dropout_keep_prob", self.dropout_keep_prob)
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
        dropout_masks: Bool[Array, "#batch units"] | None = None,
    ) -> tuple[LSTMState, Float[Array, "batch units"]]:
        """Advance one step. `dropout_masks` is True where an element of g is kept."""
        check_step(self, state, inputs)
        columns = 4 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, columns)
        gates = inputs @ kernel + state.h @ recurrent
        if self.layer_norm:
            gates = self._norm("gate_norm", groups=4)(gates)
        else:
            gates = gates + self.param("bias", nn.initializers.zeros_init(), (columns,), self.param_dtype)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        g = drop("dropout_masks", self.activation(g), dropout_masks, self.dropout_keep_prob)
        c = jax.nn.sigmoid(f + self.forget_bias) * state.c + jax.nn.sigmoid(i) * g
        if self.layer_norm:
            c = self._norm("state_norm", groups=1)(c)
        h = jax.nn.sigmoid(o) * self.activation(c)
        return LSTMState(c, h), h

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> Any:
        """The mask of one step, boolean [batch, units], or, given `time`, those of as many `PerStep`."""
        if self.dropout_keep_prob == 1:
            return None
        shape = (batch, self.units)
        if time is None:
            return jax.random.bernoulli(key, self.dropout_keep_prob, shape)
        return PerStep(jax.random.bernoulli(key, self.dropout_keep_prob, (time, *shape)))

    def _norm(self, name: str, *, groups: int) -> LayerNorm:
        return LayerNorm(1e-12, groups, self.norm_gain, self.norm_shift, self.param_dtype, name=name)


class LayerNormLSTMCell(RNNCell):
    """An LSTM whose two products and whose c are normalised (Ba et al., 2016).

        i, f, g, o = split(norm(x @ kernel) + norm(h @ recurrent_kernel) + bias)
        c' = norm(recurrent_activation(f) * c + recurrent_activation(i) * activation(g))
        h' = recurrent_activation(o) * activation(c')

    It computes what `tfa.rnn.LayerNormLSTMCell` does: a product is normalised over the 4*units columns
    of all gates together, and the state carries the *normalised* c. The parameters of the norms are
    `kernel_norm`, `recurrent_norm` and `state_norm`, each with `scale` and `bias`. Dropout has one
    mask of the inputs and one of h.
    """

    units: int
    activation: str | Activation | None = "tanh"
    recurrent_activation: str | Activation | None = "sigmoid"
    use_bias: bool = True
    unit_forget_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    norm_epsilon: float = 1e-3
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        get_activation(self.recurrent_activation)
        name, epsilon = "LayerNormLSTMCell: norm_epsilon", self.norm_epsilon
        check_number(name, epsilon, "0 or more", holds=lambda e: e >= 0)
        check_rates(self.dropout, self.recurrent_dropout)
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
        columns = 4 * self.units
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, columns)
        masks = check_masks(dropout_masks, inputs, self.units, masks=1, recurrent_masks=1)
        gates = self._norm("kernel_norm")(multiply(inputs, masks.inputs, 0) @ kernel)
        gates += self._norm("recurrent_norm")(multiply(state.h, masks.recurrent, 0) @ recurrent)
        if self.use_bias:
            gates += self.param("bias", lstm_bias(self.unit_forget_bias), (columns,), self.param_dtype)
        activate, gate = get_activation(self.activation), get_activation(self.recurrent_activation)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = self._norm("state_norm")(gate(f) * state.c + gate(i) * activate(g))
        h = gate(o) * activate(c)
        return LSTMState(c, h), h

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """Masks for all steps, whatever `time` is, as those of a Keras `RNN` layer are."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=1)

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(self.norm_epsilon, param_dtype=self.param_dtype, name=name)


class LayerNormSimpleRNNCell(RNNCell):
    """Elman's layer, normalised: `h' = activation(norm(x @ kernel + h @ recurrent_kernel) + bias)`.

    It computes what `tfa.rnn.LayerNormSimpleRNNCell` does. The norm has a `norm/scale` (Keras' gamma)
    and no bias of its own, so that without `use_bias` there is none at all. Dropout has one mask of the
    inputs and one of h. The state is `h` [batch, units].
    """

    units: int
    activation: str | Activation | None = "tanh"
    use_bias: bool = True
    layernorm_epsilon: float = 1e-5
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        name, epsilon = "LayerNormSimpleRNNCell: layernorm_epsilon", self.layernorm_epsilon
        check_number(name, epsilon, "0 or more", holds=lambda e: e >= 0)
        check_rates(self.dropout, self.recurrent_dropout)
        super().__post_init__()

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    @nn.compact
    def __call__(
        self,
        state: Float[Array, "batch units"],
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> tuple[Float[Array, "batch units"], Float[Array, "batch units"]]:
        """Advance one step. Returns the new state and the output, which are the same array."""
        check_step(self, state, inputs)
        kernel, recurrent = gate_kernels(self, inputs.shape[-1], self.units, self.units)
        masks = check_masks(dropout_masks, inputs, self.units, masks=1, recurrent_masks=1)
        total = multiply(inputs, masks.inputs, 0) @ kernel + multiply(state, masks.recurrent, 0) @ recurrent
        norm = LayerNorm(self.layernorm_epsilon, param_dtype=self.param_dtype, use_bias=False, name="norm")
        total = norm(total)
        if self.use_bias:
            total += self.param("bias", nn.initializers.zeros_init(), (self.units,), self.param_dtype)
        h = get_activation(self.activation)(total)
        return h, h

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> DropoutMasks:
        """Masks for all steps, whatever `time` is, as those of a Keras `RNN` layer are."""
        return draw_gate_masks(self, key, batch, features, dtype, masks=1)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al., 2016) of the last axis, in `groups` equal parts of their own.

    `(x - mean) / sqrt(variance + epsilon) * scale + bias`, with parameters of the last axis' size.
    """

    epsilon: float
    groups: int = 1
    scale_init: float = 1.0
    bias_init: float = 0.0
    param_dtype: DTypeLike = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "*axes units"]) -> Float[Array, "*axes units"]:
        """Normalise `inputs`."""
        size = inputs.shape[-1]
        parts = inputs.reshape(*inputs.shape[:-1], self.groups, size // self.groups)
        centred = parts - parts.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normalised = (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(inputs.shape)
        constant = nn.initializers.constant
        scaled = normalised * self.param("scale", constant(self.scale_init), (size,), self.param_dtype)
        if not self.use_bias:
            return scaled
        return scaled + self.param("bias", constant(self.bias_init), (size,), self.param_dtype)
