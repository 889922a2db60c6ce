"""What all recurrent cells share: the form of a cell and its state, and the checks of one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_models.checks import check_array, check_dtype, check_number, check_size

Activation = Callable[[Array], Array]
"""An elementwise function, such as `jnp.tanh`."""


class LSTMState(NamedTuple):
    """What an LSTM carries from one step to the next: the cell `c` and the output `h`."""

    c: Float[Array, "batch units"]
    h: Float[Array, "batch outputs"]


class PerStep(NamedTuple):
    """Marks a mask as one for each step of a loop: `masks` has time as its first axis.

    A loop shares every other mask between its steps. A cell never sees a `PerStep`.
    """

    masks: Array


class RNNCell(nn.Module):
    """What every cell has: the sizes of its state and output, and the zero state made of them.

    A subclass defines the properties `state_size` (a pytree of ints shaped like its state) and
    `output_size` (an int), as TF1's cells do, and `__call__(state, inputs) -> (state, output)`. One that
    drops numbers takes its masks as a further keyword argument `dropout_masks`, and has
    `draw_dropout_masks(key, batch, features, dtype, *, time=None)`, which draws them.
    """

    @property
    def state_size(self) -> Any:
        """The number of columns of each array of the state, in a pytree shaped like the state."""
        raise NotImplementedError(f"{type(self).__name__} does not say its state_size")

    @property
    def output_size(self) -> int:
        """The number of columns of the output."""
        raise NotImplementedError(f"{type(self).__name__} does not say its output_size")

    def zero_state(self, batch: int, dtype: DTypeLike) -> Any:
        """The state TF1 starts from when none is given: zeros of shape [batch, size]."""
        check_zero_state(type(self).__name__, batch, dtype)
        return jax.tree.map(lambda size: jnp.zeros((batch, size), dtype), self.state_size)


def check_zero_state(owner: str, batch: Any, dtype: Any) -> None:
    """Raise TypeError or ValueError unless a zero state of so many rows and such a dtype can be made."""
    check_size(f"{owner}: batch of the zero state", batch, at_least=0)
    check_dtype(f"{owner}: dtype of the zero state", dtype)


def gate_kernels(cell: nn.Module, features: int, outputs: int, columns: int) -> tuple[Array, Array]:
    """The parameters `kernel` [features, columns] and `recurrent_kernel` [outputs, columns]."""
    glorot, dtype = nn.initializers.glorot_uniform(), cell.param_dtype
    kernel = cell.param("kernel", glorot, (features, columns), dtype)
    recurrent_kernel = cell.param("recurrent_kernel", glorot, (outputs, columns), dtype)
    # A caller's parameters may be NumPy arrays.
    return jnp.asarray(kernel), jnp.asarray(recurrent_kernel)


def declare_peephole(cell: nn.Module, gate: str) -> Array:
    """The parameter `peephole_i`, `_f` or `_o` [units] of `cell`."""
    # The range that glorot_uniform, TensorFlow's default, has for a vector: all its sizes are `units`.
    spread = (3.0 / cell.units) ** 0.5

    def uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jax.random.uniform(key, shape, dtype, -spread, spread)

    return jnp.asarray(cell.param(f"peephole_{gate}", uniform, (cell.units,), cell.param_dtype))


def lstm_bias(unit_forget_bias: bool) -> nn.initializers.Initializer:
    """Keras' initial bias of an LSTM: zeros, but ones for the forget gate if `unit_forget_bias`."""

    def initial(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        gate = jnp.arange(shape[0]) // (shape[0] // 4)
        return jnp.where((gate == 1) & unit_forget_bias, 1, 0).astype(dtype)

    return initial


def clip(values: Array, bound: float | None) -> Array:
    """Clip to [-bound, bound], if there is a bound, with the gradient of `tf.clip_by_value`.

    At a value equal to its bound the gradient is 1, where that of `jnp.clip` is 0.5.
    """
    if bound is None:
        return values
    return jnp.where(values > bound, bound, jnp.where(values < -bound, -bound, values))


def drop(
    name: str, values: Array, mask: Array | None, keep_prob: float, *, scale: float | None = None
) -> Array:
    """Zero `values` where `mask` is False and multiply the rest by `scale`, by default 1/keep_prob.

    Raises:
        ValueError: naming the mask `name`, if one is missing, superfluous or of a wrong shape.
    """
    if keep_prob == 1:
        if mask is not None:
            raise ValueError(f"{name}: a mask was given but its keep_prob is 1; expected None")
        return values
    if mask is None:
        raise ValueError(
            f"{name} is None but its keep_prob is {keep_prob}; expected a mask. Maybe you meant to draw "
            "one with draw_dropout_masks, or to pass key= to the loop, or to set the keep_prob to 1"
        )
    mask = check_array(name, mask, (...,), "boolean", hint="True where an element is kept")
    if mask.shape not in (values.shape, (1, *values.shape[1:])):
        raise ValueError(
            f"{name} has shape {list(mask.shape)}; expected {list(values.shape)}, or one row for all"
        )
    return jnp.where(mask, values * (1 / keep_prob if scale is None else scale), 0)


def check_keep_prob(owner: str, name: str, keep_prob: float) -> None:
    """Raises TypeError or ValueError unless `keep_prob` is a number in (0, 1]."""
    expected = "a probability in (0, 1], of being kept"
    check_number(f"{owner}: {name}", keep_prob, expected, holds=lambda p: (p > 0) & (p <= 1))


def check_step(cell: RNNCell, state: Any, inputs: Any) -> None:
    """Raises TypeError or ValueError unless `state` and `inputs` are what one step of `cell` takes."""
    owner, sizes = type(cell).__name__, cell.state_size
    if getattr(inputs, "ndim", None) == 1:
        raise ValueError(
            f"{owner}: inputs is {_describe(inputs)}; expected an array [batch, features]. Maybe what a loop "
            "or a sampler was given lacks its last axis: [batch, time, features]"
        )
    if getattr(inputs, "ndim", None) != 2:
        raise TypeError(
            f"{owner}: inputs is {_describe(inputs)}; expected an array [batch, features]. Maybe you "
            "passed (inputs, state), TensorFlow's order, instead of (state, inputs)"
        )
    ids = "Maybe they are ids: an Embedding makes vectors of them"
    check_array(f"{owner}: inputs", inputs, ("batch", "features"), "float", hint=ids)
    if jax.tree.structure(state) != jax.tree.structure(sizes):
        raise TypeError(
            f"{owner}: state is {_describe(state)}; expected {jax.tree.structure(sizes)}. Maybe you "
            "passed (inputs, state), TensorFlow's order, or Keras' [h, c] instead of LSTMState(c, h)"
        )
    for array, size in zip(jax.tree.leaves(state), jax.tree.leaves(sizes), strict=True):
        if jnp.shape(array) != (inputs.shape[0], size):
            raise ValueError(
                f"{owner}: state has an array of shape {list(jnp.shape(array))}; expected "
                f"{[inputs.shape[0], size]}, for inputs of shape {list(inputs.shape)}"
            )
        check_array(f"{owner}: state", array, ("batch", size), "float")


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {list(value.shape)} and dtype {value.dtype}"
    shapes = jax.tree.map(lambda array: list(jnp.shape(array)), value)
    return f"a {type(value).__name__} of shapes {shapes}"
