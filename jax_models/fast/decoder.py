"""The decoder's loop: cells on top of each other that are fed their attention, step by step.

    x_t   = parts_t + attention_{t-1} @ attention_kernel      (input feeding, Luong et al. 2015, section 3.3)
    h_t   = the top cell's output, each cell's inputs being the output of the one below
    a_t   = alignments of h_t to the memory
    attention_t = [h_t; context_t] @ layer, or the context, where context_t = sum_m a_tm value_m

Of the first cell's kernel only the attention's rows are in the loop. Its derivative runs backward over what
the forward loop kept; every weight's gradient is a product over all steps after it. Source of the formulas:
`tfa.seq2seq.AttentionWrapper`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jax_models.fast import attention as mechanisms
from jax_models.fast.attention import Mechanism, Memory, Scoring
from jax_models.fast.cell import (
    Cell,
    Parts,
    Recurrent,
    State,
    correlate,
    correlate_with_bias,
    pull_through,
    transpose_blocks,
)
from jax_models.fast.loop import choose_rows


class Form(NamedTuple):
    """What of a decoder is fixed when it is compiled."""

    cell: Cell
    mechanism: Mechanism


class Upper(NamedTuple):
    """The input leaves of a cell above the first."""

    kernel: Float[Array, "units columns"]
    bias: Float[Array, " columns"] | None = None


class LoopWeights(NamedTuple):
    """The leaves that a step uses.

    Attributes:
        attention_kernel: the rows of the first cell's kernel by which the attention is multiplied.
        recurrents: of each cell.
        uppers: of each cell above the first.
        layer: the attention layer's kernel, or None.
        scoring: the mechanism's.
    """

    attention_kernel: Float[Array, "attention columns"]
    recurrents: tuple[Recurrent, ...]
    uppers: tuple[Upper, ...]
    layer: Float[Array, "joined attention"] | None
    scoring: Scoring


class Carry(NamedTuple):
    """What one step hands to the next; the alignments of a monotonic mechanism only, else None."""

    states: tuple[State, ...]
    attention: Float[Array, "batch attention"]
    alignments: Float[Array, "batch src_time"] | None


class Attended(NamedTuple):
    """What the loop gives at each step."""

    attentions: Float[Array, "time batch attention"]
    alignments: Float[Array, "time batch src_time"]


class _Kept(NamedTuple):
    """What the derivative needs of a step: what the cells and the mechanism keep, each h, and the context."""

    cells: tuple[Any, ...]
    outputs: tuple[Float[Array, "*time batch units"], ...]
    mechanism: mechanisms.Kept
    context: Float[Array, "*time batch memory"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run_decoder(
    form: Form,
    weights: LoopWeights,
    memory: Memory,
    parts: Parts,
    start: Carry,
    runs: Bool[Array, " time"],
) -> tuple[Carry, Attended]:
    """Step the decoder over all steps of `parts`.

    Args:
        form: what is fixed.
        weights: the leaves that a step uses.
        memory: what is attended to.
        parts: the inputs' part of the first cell's pre-activations, [time, batch, units] for each gate.
        start: what the first step is handed.
        runs: whether a step runs at all: else the cells' states stay, and what it gives means nothing.
    """
    return _run(form, weights, memory, parts, start, runs)[:2]


def _run(
    form: Form, weights: LoopWeights, memory: Memory, parts: Parts, start: Carry, runs: Array
) -> tuple[Carry, Attended, _Kept]:
    gates = form.cell.gates

    def step(carry: Carry, now: tuple[Parts, Array]) -> tuple[Carry, tuple[Attended, _Kept]]:
        parts_t, runs_t = now
        fed = jnp.split(carry.attention @ weights.attention_kernel, gates, axis=-1)
        inputs = tuple(x + y for x, y in zip(parts_t, fed, strict=True))
        states, kept, outputs = [], [], []
        for layer, (recurrent, before) in enumerate(zip(weights.recurrents, carry.states, strict=True)):
            if layer:
                upper = weights.uppers[layer - 1]
                projected = outputs[-1] @ upper.kernel
                projected = projected if upper.bias is None else projected + upper.bias
                inputs = tuple(jnp.split(projected, gates, axis=-1))
            new, kept_cell = form.cell.advance(recurrent, inputs, before)
            states.append(choose_rows(runs_t, new, before))
            kept.append(kept_cell)
            outputs.append(new[-1])
        alignments, kept_mechanism = mechanisms.attend(
            form.mechanism, memory, weights.scoring, outputs[-1], carry.alignments
        )
        context = mechanisms.average(memory, alignments)
        attention = context
        if weights.layer is not None:
            attention = jnp.concatenate([outputs[-1], context], axis=-1) @ weights.layer
        handed_on = Carry(tuple(states), attention, alignments if form.mechanism.monotonic else None)
        everything = _Kept(tuple(kept), tuple(outputs), kept_mechanism, context)
        return handed_on, (Attended(attention, alignments), everything)

    end, (attended, kept) = jax.lax.scan(step, start, (parts, runs))
    return end, attended, kept


def _run_and_keep(
    form: Form, weights: LoopWeights, memory: Memory, parts: Parts, start: Carry, runs: Array
) -> tuple[tuple[Carry, Attended], Any]:
    end, attended, kept = _run(form, weights, memory, parts, start, runs)
    return (end, attended), (weights, memory, start, runs, attended, kept)


def _pull_back(form: Form, residuals: Any, adjoints: tuple[Carry, Attended]) -> tuple[Any, ...]:
    weights, memory, start, runs, attended, kept = residuals
    d_end, d_attended = adjoints
    cell, mechanism = form.cell, form.mechanism
    blocks = [transpose_blocks(recurrent.kernel, cell.gates) for recurrent in weights.recurrents]
    of_uppers = [transpose_blocks(upper.kernel, cell.gates) for upper in weights.uppers]
    of_attention = transpose_blocks(weights.attention_kernel, cell.gates)
    units = start.states[-1][-1].shape[-1]
    layer = None if weights.layer is None else weights.layer.T

    def step(carry: tuple[Carry, Any], now: Any) -> tuple[tuple[Carry, Any], Any]:
        (d_states, d_attention, d_alignments), sums = carry
        attended_t, kept_t, d_attended_t, runs_t = now
        d_attention = d_attention + d_attended_t.attentions
        d_context = d_attention
        if layer is not None:
            d_output, d_context = jnp.split(d_attention @ layer, [units], axis=-1)
        d_aligned = d_attended_t.alignments + jnp.einsum("bd,bmd->bm", d_context, memory.values)
        if d_alignments is not None:
            d_aligned = d_aligned + d_alignments
        pulled, sums = mechanisms.pull_back(
            mechanism, memory, weights.scoring, attended_t.alignments, kept_t.mechanism, d_aligned, sums
        )
        d_above = pulled.query if layer is None else pulled.query + d_output
        d_before, d_parts = [], []
        for i in reversed(range(len(blocks))):
            zeros = tuple(jnp.zeros_like(d) for d in d_states[i])
            d_new = choose_rows(runs_t, d_states[i], zeros)
            held = choose_rows(runs_t, zeros, d_states[i])
            d_new = *d_new[:-1], d_new[-1] + d_above
            d_inputs, d_old = cell.pull_back(blocks[i], kept_t.cells[i], d_new)
            d_parts.append(d_inputs)
            d_before.append(tuple(a + b for a, b in zip(d_old, held, strict=True)))
            if i:
                d_above = pull_through(of_uppers[i - 1], d_inputs)
        d_fed = pull_through(of_attention, d_parts[-1])
        handed_on = Carry(tuple(reversed(d_before)), d_fed, pulled.before)
        # What remains of the query's adjoint is in the cells'.
        emitted = (d_attention, d_context, pulled._replace(query=None, before=None), tuple(reversed(d_parts)))
        return (handed_on, sums), emitted

    sums = mechanisms.start_sums(mechanism, memory, weights.scoring)
    (d_start, sums), (d_attentions, d_contexts, pulled, d_parts) = jax.lax.scan(
        step, (d_end, sums), (attended, kept, d_attended, runs), reverse=True
    )

    outputs = kept.outputs
    d_memory, d_scoring = mechanisms.gather(
        mechanism, memory, outputs[-1], attended.alignments, pulled, d_contexts, sums
    )
    d_layer = None
    if layer is not None:
        joined = [correlate(x, (d_attentions,)) for x in (outputs[-1], kept.context)]
        d_layer = jnp.concatenate(joined)
    d_recurrents = []
    for i, recurrent in enumerate(weights.recurrents):
        d_recurrent = cell.gather(kept.cells[i], _shift(start.states[i][-1], outputs[i]), d_parts[i])
        d_recurrents.append(d_recurrent if recurrent.bias is not None else d_recurrent._replace(bias=None))
    d_uppers = tuple(
        Upper(correlate(below, d)) if upper.bias is None else Upper(*correlate_with_bias(below, d))
        for upper, below, d in zip(weights.uppers, outputs, d_parts[1:], strict=False)
    )
    d_weights = LoopWeights(
        correlate(_shift(start.attention, attended.attentions), d_parts[0]),
        tuple(d_recurrents),
        d_uppers,
        d_layer,
        d_scoring,
    )
    return d_weights, d_memory, d_parts[0], d_start, None


run_decoder.defvjp(_run_and_keep, _pull_back)


def _shift(
    first: Float[Array, "batch width"], steps: Float[Array, "time batch width"]
) -> Float[Array, "time batch width"]:
    """What entered each step: the first, and then what left the step before."""
    return jnp.concatenate([first[None], steps[:-1]])
