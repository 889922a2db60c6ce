"""The decoder's loop with knobs: cells on top of each other that are fed their attention, step by step.

Sources: Luong et al. (2015), section 3.3, for the attention that is fed to the next step;
`tfa.seq2seq.AttentionWrapper` and `BasicDecoder`, whose loop ends with its longest row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.counterfactual import attention as mechanisms
from jax_models.counterfactual.attention import Memory
from jax_models.counterfactual.blend import (
    blend,
    mix,
    pass_gradient,
    reorder,
    round_tensor,
    swap_time,
)
from jax_models.counterfactual.cells import (
    CellWeights,
    State,
    choose_rows,
    project_inputs,
    step_cell,
    turn_start,
)
from jax_models.counterfactual.loop import enter_step, hold_output, tap_state
from jax_models.counterfactual.taps import Taps

LAYER = "decoder/attention_layer"
OUTPUT = "decoder/output_layer"


class Decoded(NamedTuple):
    """What the decoder gives; `states` has a state for each layer."""

    logits: Float[Array, "batch tgt_time vocab"]
    alignments: Float[Array, "batch tgt_time src_time"]
    states: tuple[Any, ...]


class _Carry(NamedTuple):
    """What one step hands to the next."""

    states: tuple[State, ...]
    attention: Array
    alignments: Array


def decode(
    mechanism: str,
    weights: Mapping[str, Array],
    cells: Mapping[str, CellWeights],
    knobs: Any,
    embedded: Float[Array, "batch tgt_time embedding"],
    layers: list[Float[Array, "batch src_time memory"]],
    starts: list[State],
    taps: Taps,
) -> Decoded:
    """Run over the embedded target.

    Args:
        mechanism: the attention's.
        weights: every leaf, by path.
        cells: what the knobs made of each cell's, by the path of the cell's leaves.
        knobs: `Knobs` of `oracle.knobs`.
        embedded: what the steps read.
        layers: the outputs of each of the encoder's layers.
        starts: the state that each cell starts from.
        taps: what collects each step's values.
    """
    sites = [f"decoder/cells_{i}" for i in range(len(starts))]
    of_cells = [knobs.cells[site] for site in sites]
    values = mechanisms.choose_memory(knobs.attention, knobs.passes["memory"], layers)
    values = round_tensor(knobs.rounded["memory"], values)
    memory = mechanisms.make_memory(weights, knobs.attention, taps(f"step/{mechanisms.SITE}/memory", values))
    limit = jnp.max(knobs.steps_lengths)
    perturbations = taps.under(
        *(f"step/{site}/" for site in sites), f"step/{mechanisms.SITE}/alignments", f"step/{LAYER}/"
    )

    def step(carry: _Carry, now: Any) -> tuple[_Carry, Any]:
        t, read, throughs, keeps, perturbations_t = now
        own = Taps(perturbations_t)
        fed = pass_gradient(knobs.passes["feeding"], carry.attention) * knobs.attention.feeding
        inputs, outputs, states = jnp.concatenate([read, fed], axis=-1), [], []
        before = carry.states[-1]
        for i, site in enumerate(sites):
            inputs = own(f"step/{site}/input", inputs)
            before = enter_step(site, carry.states[i], throughs[i], own)
            projected = project_inputs(cells[site], inputs)
            new = tap_state(site, step_cell(cells[site], of_cells[i], projected, before), own)
            alive = t < of_cells[i].lengths
            states.append(choose_rows(alive & (t < limit), new, before))
            inputs = jnp.where(alive[:, None], new[-1], hold_output(of_cells[i], before)) * keeps[i]
            outputs.append(inputs)
        output = mix(knobs.decoder_layers, outputs)
        query = own(
            f"step/{mechanisms.SITE}/query", blend(knobs.attention.previous_query, output, before[-1])
        )
        alignments = mechanisms.align(mechanism, weights, knobs.attention, memory, query, carry.alignments)
        alignments = own(f"step/{mechanisms.SITE}/alignments", alignments)
        attention = _attend(weights, memory, alignments, output, own)
        # The last cell's lengths are those of the step as a whole.
        going = ((t < of_cells[-1].lengths) & (t < limit))[:, None]
        held = _Carry(
            tuple(states),
            jnp.where(going, attention, carry.attention),
            jnp.where(going, alignments, carry.alignments),
        )
        emitted = attention
        if output.shape == attention.shape:
            emitted = blend(knobs.attention.output_attention, output, attention)
        return held, (emitted, alignments, own.values)

    rows, time = embedded.shape[:2]
    width = memory.values.shape[-1]
    if f"{LAYER}/kernel" in weights:
        width = weights[f"{LAYER}/kernel"].shape[-1]
    start = _Carry(
        tuple(turn_start(cell, state) for cell, state in zip(of_cells, starts, strict=True)),
        jnp.zeros((rows, width), embedded.dtype),
        mechanisms.start_alignments(mechanism, memory),
    )
    each_step = (
        jnp.arange(time),
        swap_time(reorder(embedded, of_cells[0].order_in)),
        [cell.through_time for cell in of_cells],
        [swap_time(cell.keep) for cell in of_cells],
        None if perturbations is None else {name: swap_time(p) for name, p in perturbations.items()},
    )
    end, (outputs, alignments, values) = jax.lax.scan(step, start, each_step)
    taps.add({name: swap_time(value) for name, value in values.items()})

    outputs = round_tensor(knobs.rounded["decoded"], swap_time(outputs))
    outputs = taps(f"step/{OUTPUT}/input", outputs)
    logits = outputs @ weights[f"{OUTPUT}/kernel"] + weights[f"{OUTPUT}/bias"]
    logits = round_tensor(knobs.rounded["prediction"], taps(f"step/{OUTPUT}/output", logits))
    steps = jnp.arange(time)
    past = jnp.where(steps < of_cells[-1].lengths[:, None], 1, 1 - of_cells[-1].zero_past)
    emitted = (past * (steps < limit))[..., None]
    return Decoded(logits * emitted, swap_time(alignments) * emitted, end.states)


def _attend(
    weights: Mapping[str, Array], memory: Memory, alignments: Array, output: Array, taps: Taps
) -> Float[Array, "batch attention"]:
    """The memory under the alignments, through the attention layer if there is one."""
    context = jnp.einsum("bm,bmd->bd", alignments, memory.values)
    if f"{LAYER}/kernel" not in weights:
        return context
    joined = taps(f"step/{LAYER}/input", jnp.concatenate([output, context], axis=-1))
    return taps(f"step/{LAYER}/output", joined @ weights[f"{LAYER}/kernel"])
