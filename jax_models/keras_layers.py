"""The layers of Keras 2.15 that an encoder-decoder is made of, all under Keras' own names.

`Dense`, and the two that make masks, `Embedding` and `Masking`, are defined here. In Keras a mask
travels unseen, as an attribute of the tensor; here `compute_mask` returns it and the next layer takes
it as an argument.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from jax_models.checks import check_array, check_fields, check_number
from jax_models.keras_activations import Activation, get_activation
from jax_models.keras_cells import (
    GRUCell,
    LSTMCell,
    SimpleRNNCell,
)
from jax_models.keras_dropout import DropoutMasks, choose_dropout_masks
from jax_models.keras_rnn import GRU, LSTM, RNN, SimpleRNN
from jax_models.keras_stack import StackedRNNCells, flatten_keras_states, unflatten_keras_states
from jax_models.keras_wrappers import Bidirectional

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Dense",
    "DropoutMasks",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Masking",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNNCells",
    "choose_dropout_masks",
    "flatten_keras_states",
    "unflatten_keras_states",
]


class Dense(nn.Module):
    """activation(inputs @ kernel + bias), on the last axis.

    The leaves are `kernel` [features, units] and `bias` [units]. Source: `tf.keras.layers.Dense`.
    """

    units: int
    activation: str | Activation | None = None
    use_bias: bool = True
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Float[Array, "*leading features"]) -> Float[Array, "*leading units"]:
        """Inputs of rank 2 or more, as in Keras."""
        inputs = check_array("Dense: inputs", inputs, ("batch", ..., "features"), "float")
        shape = (inputs.shape[-1], self.units)
        outputs = inputs @ self.param("kernel", nn.initializers.glorot_uniform(), shape, self.param_dtype)
        if self.use_bias:
            zeros = nn.initializers.zeros_init()
            outputs += self.param("bias", zeros, (self.units,), self.param_dtype)
        return get_activation(self.activation)(outputs)


class Embedding(nn.Module):
    """A vector for each id: the leaf `embedding` [input_dim, output_dim].

    With `mask_zero` id 0 is padding: `compute_mask` is False there. The id keeps its row in the table
    all the same, and the row its gradient, where something reads the masked step. Ids that are not
    integers are cut to integers, but only after the mask was made from them. An id outside
    [0, input_dim) gives NaN, as a traced program cannot raise; Keras fails on a CPU.
    Source: `tf.keras.layers.Embedding`.
    """

    input_dim: int
    output_dim: int
    mask_zero: bool = False
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "input_dim", "output_dim")
        super().__post_init__()

    @nn.compact
    def __call__(self, ids: Num[Array, "*shape"]) -> Float[Array, "*shape output_dim"]:
        """The vectors of `ids`, of any shape."""
        table = self.param("embedding", _draw_embedding, (self.input_dim, self.output_dim), self.param_dtype)
        rows = check_array("Embedding: ids", ids, (...,), "number").astype(jnp.int32)
        # A negative index would count from the end.
        rows = jnp.where(rows < 0, self.input_dim, rows)
        return jnp.take(table, rows, axis=0, mode="fill", fill_value=jnp.nan)

    def compute_mask(self, ids: Num[Array, "*shape"]) -> Bool[Array, "*shape"] | None:
        """Where `ids` are not 0; None without `mask_zero`."""
        ids = check_array("Embedding: ids", ids, (...,), "number")
        return ids != 0 if self.mask_zero else None


class Masking(nn.Module):
    """Marks the steps of which every feature is `mask_value`, and sets them to zero.

    Source: `tf.keras.layers.Masking`.
    """

    mask_value: float = 0.0

    def __post_init__(self) -> None:
        check_number("Masking: mask_value", self.mask_value, "a number", holds=lambda _: True)
        super().__post_init__()

    def __call__(self, inputs: Float[Array, "*leading features"]) -> Float[Array, "*leading features"]:
        """The inputs, zero in the masked steps. No gradient reaches a masked step."""
        inputs = check_array("Masking: inputs", inputs, (..., "features"), "float")
        return inputs * self.compute_mask(inputs)[..., None].astype(inputs.dtype)

    def compute_mask(self, inputs: Float[Array, "*leading features"]) -> Bool[Array, "*leading"]:
        """True where any feature differs from `mask_value`."""
        inputs = check_array("Masking: inputs", inputs, (..., "features"), "float")
        return jnp.any(inputs != self.mask_value, axis=-1)


def _draw_embedding(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)
