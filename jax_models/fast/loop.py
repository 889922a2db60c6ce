"""The loop over a cell that reads a whole sequence: an encoder's, or a decoder's without attention.

`run_cell` computes the outputs; its derivative is one scan backward over what the forward scan kept, and then
one matrix product for each weight. What a mask or lengths mean for the outputs is left to
`zero_masked`, as TF1's loops and Keras' `Bidirectional` have it, and `repeat_last`, as Keras' layers do.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_models.fast.cell import Cell, Parts, Recurrent, State, transpose_blocks

Mask = Bool[Array, "time batch"] | None
"""Which steps of which rows count; None for all."""


class Run(NamedTuple):
    """What a loop gives: the h after each step, in the order of the inputs, and the state after the last."""

    outputs: Float[Array, "time batch units"]
    state: State


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run_cell(cell: Cell, reverse: bool, recurrent: Recurrent, parts: Parts, start: State, mask: Mask) -> Run:
    """Step a cell over all steps of `parts`.

    Args:
        cell: the kind of cell.
        reverse: whether the last step comes first.
        recurrent: the cell's recurrent leaves.
        parts: the inputs' part of the pre-activations, [time, batch, units] for each gate.
        start: the state before the first step.
        mask: at a step that does not count the row hands on its state as it is, and so gives its last h.
    """
    return _run(cell, reverse, recurrent, parts, start, mask)[0]


def _run(
    cell: Cell, reverse: bool, recurrent: Recurrent, parts: Parts, start: State, mask: Mask
) -> tuple[Run, Any]:
    def step(state: State, now: tuple[Parts, Any]) -> tuple[State, Any]:
        parts_t, counts = now
        new, kept = cell.advance(recurrent, parts_t, state)
        new = choose_rows(counts, new, state)
        return new, (new[-1], kept)

    state, (outputs, kept) = jax.lax.scan(step, start, (parts, mask), reverse=reverse)
    return Run(outputs, state), kept


def _run_and_keep(
    cell: Cell, reverse: bool, recurrent: Recurrent, parts: Parts, start: State, mask: Mask
) -> tuple[Run, Any]:
    run, kept = _run(cell, reverse, recurrent, parts, start, mask)
    return run, (recurrent, start, mask, run.outputs, kept)


def _pull_back(cell: Cell, reverse: bool, residuals: Any, adjoints: Run) -> tuple[Any, ...]:
    recurrent, start, mask, outputs, kept = residuals
    blocks = transpose_blocks(recurrent.kernel, cell.gates)

    def step(d_state: State, now: tuple[Any, Array, Any]) -> tuple[State, Parts]:
        kept_t, d_output, counts = now
        d_new = *d_state[:-1], d_state[-1] + d_output
        if counts is None:
            d_parts, d_before = cell.pull_back(blocks, kept_t, d_new)
            return d_before, d_parts
        zeros = tuple(jnp.zeros_like(d) for d in d_new)
        d_parts, d_before = cell.pull_back(blocks, kept_t, choose_rows(counts, d_new, zeros))
        held = choose_rows(counts, zeros, d_new)
        return tuple(a + b for a, b in zip(d_before, held, strict=True)), d_parts

    d_start, d_parts = jax.lax.scan(step, adjoints.state, (kept, adjoints.outputs, mask), reverse=not reverse)
    # The h that entered each step: the output of the step before.
    first = start[-1][None]
    entered = [outputs[1:], first] if reverse else [first, outputs[:-1]]
    d_recurrent = cell.gather(kept, jnp.concatenate(entered), d_parts)
    if recurrent.bias is None:
        d_recurrent = d_recurrent._replace(bias=None)
    return d_recurrent, d_parts, d_start, None


run_cell.defvjp(_run_and_keep, _pull_back)


def choose_rows(counts: Bool[Array, "*rows"] | None, new: State, old: State) -> State:
    """The new state of the rows at which the step counts, the old one of the others; a scalar is for all."""
    if counts is None:
        return new
    rows = counts.reshape(-1, 1) if counts.ndim else counts
    return tuple(jnp.where(rows, n, o) for n, o in zip(new, old, strict=True))


def mask_lengths(lengths: Int[Array, " batch"] | None, time: int) -> Mask:
    """The steps before each row's length."""
    return None if lengths is None else jnp.arange(time)[:, None] < lengths


def silence_unread(
    inputs: Float[Array, "time batch features"], mask: Mask
) -> Float[Array, "time batch features"]:
    """The inputs, zero at the steps that count in no row.

    TensorFlow's `dynamic_rnn` does not run those: a NaN there reaches no gradient.
    """
    if mask is None:
        return inputs
    return jnp.where(jnp.any(mask, axis=1)[:, None, None], inputs, jnp.zeros_like(inputs))


def zero_masked(outputs: Float[Array, "time batch units"], mask: Mask) -> Float[Array, "time batch units"]:
    """Outputs of zero where a step does not count: TF1's loops, and Keras' `zero_output_for_mask`."""
    return outputs if mask is None else jnp.where(mask[..., None], outputs, jnp.zeros_like(outputs))


def repeat_last(
    outputs: Float[Array, "time batch units"], mask: Mask, *, reverse: bool = False
) -> Float[Array, "time batch units"]:
    """Keras' outputs where a step does not count: the last one before, and zero before the first.

    The last h is what the loop gives there by itself, but before the first step it is the state's.
    """
    if mask is None:
        return outputs
    begun = jax.lax.cummax(mask.astype(jnp.int32), axis=0, reverse=reverse) > 0
    return jnp.where(begun[..., None], outputs, jnp.zeros_like(outputs))
