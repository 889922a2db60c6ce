"""Loops over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_models.cell_base import PerStep
from jax_models.cell_calls import call_cell, check_cell, draw_dropout_masks
from jax_models.checks import check_array, check_key, check_lengths, check_same


@runtime_checkable
class Cell(Protocol):
    """What a loop asks of a cell: one step, and the state to start from."""

    def __call__(self, state: Any, inputs: Any, /) -> tuple[Any, Any]: ...

    def zero_state(self, batch: int, dtype: DTypeLike) -> Any: ...


def dynamic_rnn(
    cell: Cell,
    inputs: Float[Array, "rows columns features"],
    *,
    sequence_length: Int[Array, " batch"] | None = None,
    initial_state: Any = None,
    time_major: bool = False,
    dropout_masks: Any = None,
    key: Array | None = None,
) -> tuple[Any, Any]:
    """Run `cell` over the time axis, as `tf.compat.v1.nn.dynamic_rnn` does.

    A row's steps at and past its `sequence_length` give zero outputs and hand the state on
    unchanged, so that its final state is the one at its last real step (the initial state for
    length 0). Without an `initial_state` the loop starts from zeros.

    Args:
        cell: the cell; bound to its parameters, or within a module's compact method.
        inputs: [batch, time, features], or [time, batch, features] if `time_major`.
        sequence_length: each row's number of real steps; without it all are.
        initial_state: a pytree of arrays [batch, size].
        time_major: whether time is the first axis of the inputs and of the outputs.
        dropout_masks: the masks of a cell with dropout, shared by all steps, except those marked as
            `PerStep`, which have one for each step, with time as their first axis.
        key: draws the masks, if they are not given.

    Returns:
        The outputs, with the axes of the inputs, and the final state.

    Raises:
        TypeError: on another dtype than floats for the inputs, and integers for the lengths.
        ValueError: on arguments whose shapes do not fit, or a negative length.
    """
    _check_bound("dynamic_rnn", cell)
    inputs = _check_inputs("dynamic_rnn", inputs)
    steps = inputs if time_major else jnp.swapaxes(inputs, 0, 1)
    time, batch, features = steps.shape
    sequence_length = _check_lengths("dynamic_rnn", sequence_length, batch)
    if initial_state is None:
        initial_state = cell.zero_state(batch, inputs.dtype)
    masks = _choose_masks("dynamic_rnn", cell, dropout_masks, key, (time, batch, features), inputs.dtype)
    each, tree = jax.tree.flatten(masks, is_leaf=_is_per_step)

    def step(cell: Any, state: Any, now: Any) -> tuple[Any, Any]:
        inputs_t, t, masks_t = now
        own = iter(masks_t)
        masks = jax.tree.unflatten(tree, [next(own) if _is_per_step(mask) else mask for mask in each])
        return _take_step(cell, state, inputs_t, masks, t, sequence_length)

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=0,
        out_axes=0,
    )
    each_step = (steps, jnp.arange(time), [m.masks for m in each if _is_per_step(m)])
    final_state, outputs = scan(cell, initial_state, each_step)
    if not time_major:
        outputs = jax.tree.map(lambda output: jnp.swapaxes(output, 0, 1), outputs)
    return outputs, final_state


def bidirectional_dynamic_rnn(
    cell_fw: Cell,
    cell_bw: Cell,
    inputs: Float[Array, "rows columns features"],
    *,
    sequence_length: Int[Array, " batch"] | None = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    time_major: bool = False,
    dropout_masks: tuple[Any, Any] | None = None,
    key: Array | None = None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Run one cell forward and one backward in time, as `bidirectional_dynamic_rnn` of TF1 does.

    The backward cell reads each row from its last real step to its first, and its outputs are put back
    in the order of the inputs. The arguments are those of `dynamic_rnn`, `dropout_masks` a pair; the
    backward cell's first mask belongs to the step that it takes first.

    Returns:
        The outputs (forward, backward) and the final states (forward, backward).
    """
    check_cell("bidirectional_dynamic_rnn: cell_fw", cell_fw)
    check_cell("bidirectional_dynamic_rnn: cell_bw", cell_bw)
    inputs = _check_inputs("bidirectional_dynamic_rnn", inputs)
    time, batch = inputs.shape[:2] if time_major else inputs.shape[:2][::-1]
    # TensorFlow's reversal, unlike its loop, refuses a length past the end.
    sequence_length = _check_lengths("bidirectional_dynamic_rnn", sequence_length, batch, at_most=time)
    check_key("bidirectional_dynamic_rnn: key", key)
    if dropout_masks is not None and (not isinstance(dropout_masks, tuple) or len(dropout_masks) != 2):
        raise TypeError(
            f"bidirectional_dynamic_rnn: dropout_masks is a {type(dropout_masks).__name__}, expected the "
            "pair (forward, backward)"
        )
    masks_fw, masks_bw = (None, None) if dropout_masks is None else dropout_masks
    key_fw, key_bw = (None, None) if key is None else jax.random.split(key)

    def reverse(values: Array) -> Array:
        return reverse_time(values, sequence_length=sequence_length, time_major=time_major)

    outputs_fw, state_fw = dynamic_rnn(
        cell_fw,
        inputs,
        sequence_length=sequence_length,
        initial_state=initial_state_fw,
        time_major=time_major,
        dropout_masks=masks_fw,
        key=key_fw,
    )
    outputs_bw, state_bw = dynamic_rnn(
        cell_bw,
        reverse(inputs),
        sequence_length=sequence_length,
        initial_state=initial_state_bw,
        time_major=time_major,
        dropout_masks=masks_bw,
        key=key_bw,
    )
    return (outputs_fw, jax.tree.map(reverse, outputs_bw)), (state_fw, state_bw)


def static_rnn(
    cell: Cell,
    inputs: Sequence[Float[Array, "batch features"]],
    *,
    sequence_length: Int[Array, " batch"] | None = None,
    initial_state: Any = None,
    dropout_masks: Any = None,
    key: Array | None = None,
) -> tuple[list[Any], Any]:
    """Run `cell` over a list of inputs, one a step, unrolled, as `tf.compat.v1.nn.static_rnn` does.

    The arguments, and the outputs and states past a row's `sequence_length`, are those of `dynamic_rnn`.
    Call it within a module's method: the steps share the cell's parameters.

    Returns:
        The list of outputs and the final state.
    """
    _check_bound("static_rnn", cell)
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise ValueError(
            "static_rnn: inputs must be a list with an array [batch, features] for each step, at least "
            "one. Maybe you passed one array [batch, time, features], which is what dynamic_rnn takes"
        )
    first = check_array("static_rnn: inputs[0]", inputs[0], ("batch", "features"), "float")
    time, (batch, features) = len(inputs), first.shape
    hint = "The shape of the first step's"
    inputs = [
        check_array(f"static_rnn: inputs[{t}]", one, first.shape, "float", hint=hint)
        for t, one in enumerate(inputs)
    ]
    sequence_length = _check_lengths("static_rnn", sequence_length, batch)
    sizes = (time, batch, features)
    masks = _choose_masks("static_rnn", cell, dropout_masks, key, sizes, inputs[0].dtype)
    state = cell.zero_state(batch, inputs[0].dtype) if initial_state is None else initial_state
    outputs = []
    for t, inputs_t in enumerate(inputs):
        masks_t = jax.tree.map(
            lambda mask, t=t: mask.masks[t] if _is_per_step(mask) else mask, masks, is_leaf=_is_per_step
        )
        state, output = _take_step(cell, state, inputs_t, masks_t, t, sequence_length)
        outputs.append(output)
    return outputs, state


def hold_finished(
    t: Any, sequence_length: Int[Array, " batch"], new_state: Any, state: Any, output: Any
) -> tuple[Any, Any]:
    """The state and output of step `t`: for the rows that end before it, the old state and zeros."""
    alive = t < sequence_length

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(alive.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    held = jax.tree.map(choose, new_state, state)
    return held, jax.tree.map(lambda values: choose(values, jnp.zeros_like(values)), output)


def reverse_time(
    values: Float[Array, "rows columns *rest"],
    *,
    sequence_length: Int[Array, " batch"] | None = None,
    time_major: bool = False,
) -> Float[Array, "rows columns *rest"]:
    """Reverse each row's first `sequence_length` steps, as `tf.reverse_sequence` does.

    Without a `sequence_length` all steps are reversed.
    """
    time_axis = 0 if time_major else 1
    if sequence_length is None:
        return jnp.flip(values, time_axis)
    t = jnp.arange(values.shape[time_axis])
    lengths = sequence_length[:, None]
    index = jnp.where(t < lengths, lengths - 1 - t, t)
    index = index.T if time_major else index
    return jnp.take_along_axis(values, index.reshape(*index.shape, *(1,) * (values.ndim - 2)), time_axis)


def _take_step(
    cell: Any, state: Any, inputs_t: Array, masks: Any, t: Any, sequence_length: Array | None
) -> tuple[Any, Any]:
    if sequence_length is None:
        new_state, output = call_cell(cell, state, inputs_t, masks)
        _check_state(state, new_state)
        return new_state, output
    # Once all rows have ended TensorFlow no longer runs the cell: a NaN in such padding reaches no gradient.
    going = t < jnp.max(sequence_length, initial=0)
    inputs_t = jnp.where(going, inputs_t, jnp.zeros_like(inputs_t))
    new_state, output = call_cell(cell, state, inputs_t, masks)
    _check_state(state, new_state)
    return hold_finished(t, sequence_length, new_state, state, output)


def _choose_masks(
    owner: str,
    cell: Any,
    masks: Any,
    key: Array | None,
    sizes: tuple[int, int, int],
    dtype: DTypeLike,
) -> Any:
    """The masks given, or those that the key draws."""
    time, batch, features = sizes
    if masks is not None and key is not None:
        raise ValueError(f"{owner}: both dropout_masks and key were given; expected one of them at most")
    check_key(f"{owner}: key", key)
    if key is not None:
        masks = draw_dropout_masks(cell, key, batch, features, dtype, time=time)
    for mask in jax.tree.leaves(masks, is_leaf=_is_per_step):
        if _is_per_step(mask) and mask.masks.shape[0] != time:
            raise ValueError(
                f"{owner}: dropout_masks has a PerStep of shape {list(mask.masks.shape)}; expected one "
                f"mask for each of {time} steps. Time is its first axis, whatever time_major says"
            )
    return masks


def _is_per_step(mask: Any) -> bool:
    return isinstance(mask, PerStep)


def _check_bound(owner: str, cell: Any) -> None:
    check_cell(f"{owner}: cell", cell)
    if isinstance(cell, nn.Module) and cell.scope is None:
        raise ValueError(
            f"{owner}: cell is a {type(cell).__name__} without parameters. Maybe the loop is to be called in "
            "a module's method, or with cell.bind(variables)"
        )


def _check_state(state: Any, new_state: Any) -> None:
    hint = "Maybe the inputs or the initial_state have another dtype than the parameters"
    check_same("rnn", "state", state, new_state, hint=hint)


def _check_inputs(owner: str, inputs: Any) -> Array:
    hint = "With time_major [time, batch, features]; maybe they are ids, of which an Embedding makes vectors"
    return check_array(f"{owner}: inputs", inputs, ("batch", "time", "features"), "float", hint=hint)


def _check_lengths(owner: str, lengths: Any, batch: int, *, at_most: int | None = None) -> Array | None:
    if lengths is None:
        return None
    hint = "One for each row of the batch. Maybe time_major does not say how the inputs lie"
    return check_lengths(f"{owner}: sequence_length", lengths, (batch,), at_most=at_most, hint=hint)
