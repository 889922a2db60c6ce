"""The loop of `jax_models.decoder.dynamic_decode`: one step, and the two ways to repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jax_models.checks import check_array, check_same
from jax_models.sampler_base import Feed, expand_like

ImputeMask = Literal["tensorflow", "batch"]
"""How `impute_finished` lays [batch] flags on arrays of rank 3 and above: see `dynamic_decode`."""


class Carry(NamedTuple):
    """What one step hands to the next."""

    state: Any
    inputs: Any
    finished: Bool[Array, "*rows"]
    lengths: Int[Array, "*rows"]
    steps_run: Int[Array, ""]


def map_rows(function: Callable[..., Any], state: Any, *others: Any) -> Any:
    """Apply `function` to the arrays of a cell's state that have the batch in front.

    A part of the state that has a method `map_rows` (an `AttentionWrapperState`) says itself which of
    its arrays these are; of others it is every array.
    """

    def apply(part: Any, *rest: Any) -> Any:
        return part.map_rows(function, *rest) if _has_rows(part) else function(part, *rest)

    return jax.tree.map(apply, state, *others, is_leaf=_has_rows)


def _has_rows(part: Any) -> bool:
    return hasattr(part, "map_rows")


def advance(
    decoder: Any, carry: Carry, time: Any, feed: Feed, impute_mask: ImputeMask | None
) -> tuple[Carry, Any]:
    """One step, which changes nothing and emits zeros if all rows are finished before it."""
    state, inputs, finished, lengths, steps_run = carry
    outputs, new_state, new_inputs, step_finished = decoder.step(time, inputs, state, feed)
    hint = "Maybe the initial values have another dtype than the parameters?"
    check_same("decoder", "state", state, new_state, hint=hint)
    check_same("decoder", "inputs", inputs, new_inputs, hint=hint)
    step_finished = check_array("decoder: finished, of a step,", step_finished, finished.shape, "boolean")
    if decoder.tracks_own_finished:
        new_finished = step_finished
        new_lengths = getattr(new_state, "lengths", None)
    else:
        new_finished = step_finished | finished
        new_lengths = None
    if new_lengths is None:
        new_lengths = jnp.where(finished, lengths, time + 1)
    if impute_mask is not None:
        new_state = map_rows(
            lambda new, old: _keep_finished(finished, old, new, impute_mask), new_state, state
        )
        outputs = jax.tree.map(
            lambda x: _zero_finished(finished, x, impute_mask),
            outputs,
        )
    running = ~jnp.all(finished)

    def choose(new: Array, old: Array) -> Array:
        # What a step hands on as it is stays recognisable as such.
        return new if new is old else jnp.where(running, new, old)

    new_carry = Carry(
        new_state, new_inputs, new_finished, new_lengths.astype(jnp.int32), steps_run + jnp.int32(1)
    )
    emitted = jax.tree.map(lambda x: jnp.where(running, x, jnp.zeros_like(x)), outputs)
    return jax.tree.map(choose, new_carry, carry), emitted


def _keep_finished(finished: Array, old: Any, new: Any, impute_mask: ImputeMask) -> Any:
    if jnp.ndim(new) == 0:
        return new
    return jnp.where(_lay_mask(finished, new, impute_mask), old, new)


def _zero_finished(finished: Array, output: Array, impute_mask: ImputeMask) -> Array:
    mask = finished if output.ndim == 1 else _lay_mask(finished, output, impute_mask)
    return jnp.where(mask, jnp.zeros_like(output), output)


def _lay_mask(finished: Array, x: Array, impute_mask: ImputeMask) -> Array:
    if impute_mask == "batch":
        return expand_like(finished, x)
    try:
        return jnp.broadcast_to(finished[:, None], x.shape)
    except ValueError as error:
        raise ValueError(
            f"dynamic_decode: impute_finished: TensorFlow cannot lay its mask {finished[:, None].shape} on "
            f'an array of shape {x.shape}, and fails. impute_mask="batch" keeps to the first axis'
        ) from error


def run_scan(decoder: Any, advance: Any, carry: Carry, rows: Any, steps: int) -> tuple[Carry, Any]:
    """Take `steps` steps, with one row of `rows` each. Returns the last carry and all outputs."""
    scan = nn.scan(
        lambda decoder, carry, now: advance(decoder, carry, *now),
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=0,
        out_axes=0,
    )
    return scan(decoder, carry, (jnp.arange(steps, dtype=jnp.int32), rows))


def run_while(decoder: Any, advance: Any, carry: Carry, rows: Any, steps: int) -> tuple[Carry, Any]:
    """As `run_scan`, but stop when all rows are finished."""

    def unfinished(_: Any, loop: tuple[Carry, Any]) -> Array:
        return (loop[0].steps_run < steps) & ~jnp.all(loop[0].finished)

    def body(decoder: Any, loop: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, outputs = loop
        time = carry.steps_run
        carry, emitted = advance(decoder, carry, time, Feed(rows).at(time).rows)
        return carry, jax.tree.map(lambda all_steps, x: all_steps.at[time].set(x), outputs, emitted)

    _, emitted = advance(decoder, carry, jnp.int32(0), Feed(rows).at(0).rows)
    outputs = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), emitted)
    return nn.while_loop(
        unfinished,
        body,
        decoder,
        (carry, outputs),
        carry_variables=False,
        broadcast_variables="params",
        split_rngs={},
    )


def fit_steps(rows: Array, steps: int) -> Array:
    """Cut or pad rows to the loop's steps. Padded rows are of steps past the end of the data."""
    missing = max(0, steps - rows.shape[0])
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))[:steps]
