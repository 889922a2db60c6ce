"""The loop of Keras' recurrent layers, time first, and what a mask does to its states and outputs."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from jax_models.cell_base import LSTMState, PerStep
from jax_models.cell_calls import call_cell
from jax_models.checks import check_array, check_same


def run_over_time(
    cell: nn.Module,
    inputs: Any,
    state: Any,
    *,
    mask: Bool[Array, "time batch"] | None = None,
    dropout_masks: Any = None,
    unroll: bool = False,
) -> tuple[Any, Any]:
    """Call `cell` on every step of `inputs`, arrays [time, batch, ...], from `state` on.

    Where `mask` is False the state is handed on as it was. The outputs are the cell's own, of masked
    steps too: `repeat_last_output` and `zero_masked_outputs` are for them. All steps share the dropout
    masks, but for those marked as `PerStep`. Returns the outputs [time, batch, ...] and the final state.
    """
    masks, tree = jax.tree.flatten(dropout_masks, is_leaf=_is_per_step)

    def step(cell: nn.Module, state: Any, now: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        inputs_t, counts, of_this_step = now
        own = iter(of_this_step)
        masks_t = jax.tree.unflatten(tree, [next(own) if _is_per_step(m) else m for m in masks])
        new_state, output = call_cell(cell, state, inputs_t, masks_t)
        hint = "Maybe the inputs or the initial_state have another dtype than the parameters"
        check_same(type(cell).__name__, "state", state, new_state, hint=hint)
        if counts is not None:
            new_state = jax.tree.map(lambda new, old: select_rows(counts, new, old), new_state, state)
        return new_state, output

    time = jax.tree.leaves(inputs)[0].shape[0]
    scan = nn.scan(
        step, variable_broadcast="params", split_rngs={"params": False}, unroll=time if unroll else 1
    )
    each_step = (inputs, mask, [m.masks for m in masks if _is_per_step(m)])
    state, outputs = scan(cell, state, each_step)
    return outputs, state


def repeat_last_output(outputs: Any, mask: Bool[Array, "time batch"]) -> Any:
    """`outputs`, arrays [time, batch, ...], with those of the steps where `mask` is False replaced by
    the last output before them, and by zero before the first step that counts.
    """
    steps = jnp.arange(mask.shape[0])[:, None]
    last = jax.lax.cummax(jnp.where(mask, steps, -1), axis=0)

    def repeat(output: Array) -> Array:
        index = last.reshape(last.shape + (1,) * (output.ndim - 2))
        repeated = jnp.take_along_axis(output, jnp.maximum(index, 0), axis=0)
        return jnp.where(index >= 0, repeated, jnp.zeros_like(repeated))

    return jax.tree.map(repeat, outputs)


def zero_masked_outputs(outputs: Any, mask: Bool[Array, "time batch"]) -> Any:
    """`outputs`, arrays [time, batch, ...], with zeros at the steps where `mask` is False."""
    return jax.tree.map(lambda o: select_rows(mask, o, jnp.zeros_like(o)), outputs)


def choose_recorded_state(recorded_state: Any, initial_state: Any) -> Any:
    """The state that a stateful layer of Keras starts from.

    Keras keeps the recorded state in variables, so no gradient passes through it to the call that
    recorded it. If an `initial_state` is given too, it is used only while all of the recorded state
    is zero, as it is after `reset_states`; otherwise it is silently ignored.
    """
    recorded_state = jax.lax.stop_gradient(recorded_state)
    if initial_state is None:
        return recorded_state
    nonzero = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(recorded_state)]))
    return jax.tree.map(lambda old, new: jnp.where(nonzero, old, new), recorded_state, initial_state)


def check_sequence(
    inputs: Any, mask: Shaped[Array, "rows columns"] | None
) -> Bool[Array, "rows columns"] | None:
    """The mask as booleans, after a look at the first two axes of all arrays.

    Raises:
        TypeError: if the mask is neither boolean nor of integers.
        ValueError: if the arrays disagree on them, or there is no step.
    """
    shapes = {leaf.shape[:2] for leaf in jax.tree.leaves(inputs)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"inputs has the leading axes {sorted(shapes)}; expected one [batch, time]")
    (shape,) = shapes
    if 0 in shape:
        raise ValueError(f"inputs has the leading axes {list(shape)}; Keras needs one step at least")
    if mask is None:
        return None
    hint = (
        "It has the inputs' first two axes. Maybe you passed a [batch, time] mask to a layer with "
        "time_major=True, or mean mask != 0"
    )
    return check_array("mask", mask, shape, "mask", hint=hint).astype(bool)


def check_state(name: str, state: Any, zeros: Any) -> None:
    """Raise unless `state` is None or has the structure and the shapes of `zeros`."""
    if state is None:
        return
    expected, given = jax.tree.structure(zeros), jax.tree.structure(state)
    if expected != given:
        hint = ""
        if any(isinstance(n, LSTMState) for n in jax.tree.leaves(zeros, is_leaf=_is_lstm_state)):
            hint = " Maybe you passed Keras' [h, c] instead of unflatten_keras_states([h, c], like=...)."
        raise TypeError(f"{name} has the structure {given}; expected {expected}.{hint}")
    for given_leaf, zero in zip(jax.tree.leaves(state), jax.tree.leaves(zeros), strict=True):
        check_array(f"{name}: an array of it", given_leaf, zero.shape)
        if jnp.issubdtype(zero.dtype, jnp.floating):
            check_array(f"{name}: an array of it", given_leaf, zero.shape, "float")


def swap_time_and_batch(array: Array) -> Array:
    """Exchange the first two axes."""
    return jnp.swapaxes(array, 0, 1)


def select_rows(rows: Bool[Array, "*leading"], chosen: Array, other: Array) -> Array:
    """`chosen` where `rows` is True and `other` elsewhere; `rows` has their leading axes."""
    return jnp.where(rows.reshape(rows.shape + (1,) * (chosen.ndim - rows.ndim)), chosen, other)


def _is_lstm_state(node: Any) -> bool:
    return isinstance(node, LSTMState)


def _is_per_step(node: Any) -> bool:
    return isinstance(node, PerStep)
