"""The translator: what `jax_models.attention_nmt` computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_models.attention_nmt import Cell as CellName
from jax_models.attention_nmt import Decoded, Translation, join_directions
from jax_models.attention_nmt import Mechanism as MechanismName
from jax_models.cell_base import LSTMState
from jax_models.fast.attention import choose_mechanism, prepare, start_alignments
from jax_models.fast.cell import Cell, State, project
from jax_models.fast.decoder import Carry, Form, LoopWeights, Upper, run_decoder
from jax_models.fast.gru import GRU_RESET_AFTER
from jax_models.fast.loop import run_cell, zero_masked
from jax_models.fast.lstm import LSTM
from jax_models.fast.remat import estimate_loop, run_segments

CELLS: dict[str, Cell] = {"lstm": LSTM, "gru": GRU_RESET_AFTER}


class Perturbations(NamedTuple):
    """Zeros whose adjoints are those of the vectors of the tokens and of the encoder's final states."""

    source: Float[Array, "batch src_time embedding"]
    target: Float[Array, "batch tgt_time embedding"]
    states: tuple[State, ...]


def translate(
    weights: Mapping[str, Any],
    source: Int[Array, "batch src_time"],
    target: Int[Array, "batch target_time"],
    *,
    source_length: Int[Array, " batch"],
    target_length: Int[Array, " batch"],
    cell: CellName,
    layers: int,
    mechanism: MechanismName,
    perturbations: Perturbations,
    longest: Int[Array, ""] | None = None,
    segment: int | None = None,
) -> Translation:
    """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`.

    Args:
        weights: the leaves of `jax_models.attention_nmt.AttentionNMT`, nested.
        source: tokens.
        target: tokens that the decoder is fed.
        source_length: how many tokens of a row are no padding.
        target_length: the same; the decoder's loop ends with the longest row.
        cell: the kind of every cell.
        layers: of the encoder and of the decoder.
        mechanism: the decoder's attention.
        perturbations: zeros.
        longest: the longest row's length, if these are not all rows of the batch.
        segment: the steps of a rematerialised segment, None for none.
    """
    kind = CELLS[cell]
    embedded = look_up(weights["encoder"]["embedding"]["embedding"], source) + perturbations.source
    read = look_up(weights["decoder"]["embedding"]["embedding"], target[:, :-1]) + perturbations.target
    mask = jnp.arange(source.shape[1])[:, None] < source_length

    steps, states = jnp.swapaxes(embedded, 0, 1), []
    for layer in range(layers):
        leaves = weights["encoder"][f"layers_{layer}"]
        steps, state = read_both_ways(kind, leaves, steps, mask, segment)
        states.append(state)
    memory = jnp.swapaxes(steps, 0, 1)

    if longest is None:
        longest = jnp.max(target_length, initial=0)
    handed_over = tuple(
        tuple(part + zeros for part, zeros in zip(state, perturbation, strict=True))
        for state, perturbation in zip(states, perturbations.states, strict=True)
    )
    decoded = decode(
        kind,
        choose_mechanism(mechanism),
        weights["decoder"],
        read,
        memory,
        handed_over,
        source_length=source_length,
        runs=jnp.arange(read.shape[1]) < longest,
        segment=segment,
    )
    return Translation(memory, tuple(map(_name_state, states)), decoded)


def look_up(
    table: Float[Array, "vocab embedding"], ids: Int[Array, "batch time"]
) -> Float[Array, "batch time embedding"]:
    """The vectors of the ids; of an id outside the vocabulary NaN."""
    rows = jnp.where(ids < 0, table.shape[0], ids)
    return jnp.take(table, rows, axis=0, mode="fill", fill_value=jnp.nan)


def read_both_ways(
    cell: Cell,
    leaves: Mapping[str, Any],
    steps: Float[Array, "src_time batch features"],
    mask: Bool[Array, "src_time batch"],
    segment: int | None,
) -> tuple[Float[Array, "src_time batch both"], State]:
    """A layer of Keras' `Bidirectional`: the outputs, zero past the lengths, and the states, joined."""
    zeros = jnp.zeros((steps.shape[1], leaves["forward"]["cell"]["recurrent_kernel"].shape[0]), steps.dtype)
    directions = []
    for name, reverse in (("forward", False), ("backward", True)):
        own = leaves[name]["cell"]
        bias, recurrent = cell.split_leaves(own)

        def run(
            state: Any,
            now: Any,
            own: Any = own,
            bias: Any = bias,
            recurrent: Any = recurrent,
            reverse: bool = reverse,
        ) -> tuple[Any, Array]:
            parts = project(now[0], own["kernel"], bias, cell.gates)
            outputs, state = run_cell(cell, reverse, recurrent, parts, state, now[1])
            return state, zero_masked(outputs, now[1])

        start = (zeros,) * (2 if cell is LSTM else 1)
        directions.append(run_segments(run, start, (steps, mask), segment=segment, reverse=reverse))
    (ahead_state, ahead), (behind_state, behind) = directions
    state = tuple(join_directions(a, b) for a, b in zip(ahead_state, behind_state, strict=True))
    return jnp.concatenate([ahead, behind], axis=-1), state


def decode(
    cell: Cell,
    mechanism: Any,
    leaves: Mapping[str, Any],
    embedded: Float[Array, "batch tgt_time embedding"],
    memory: Float[Array, "batch src_time memory"],
    states: tuple[State, ...],
    *,
    source_length: Int[Array, " batch"],
    runs: Bool[Array, " tgt_time"],
    segment: int | None,
) -> Decoded:
    """Run the decoder over the embedded target, each layer from its state in `states`."""
    of_cells = [leaves[f"cells_{layer}"] for layer in range(len(states))]
    biases, recurrents = zip(*(cell.split_leaves(own) for own in of_cells), strict=True)
    width = embedded.shape[-1]
    kernel = of_cells[0]["kernel"]
    attended, scoring = prepare(mechanism, leaves["attention_mechanism"], memory, source_length)
    weights = LoopWeights(
        kernel[width:],
        recurrents,
        tuple(Upper(own["kernel"], bias) for own, bias in zip(of_cells[1:], biases[1:], strict=True)),
        leaves["attention_layer"]["kernel"] if "attention_layer" in leaves else None,
        scoring,
    )
    form = Form(cell, mechanism)

    def run(carry: Carry, sequences: tuple[Array, Array]) -> tuple[Carry, Any]:
        steps, runs = sequences
        parts = project(steps, kernel[:width], biases[0], cell.gates)
        return run_decoder(form, weights, attended, parts, carry, runs)

    attention = jnp.zeros((len(memory), kernel.shape[0] - width), embedded.dtype)
    start = Carry(states, attention, start_alignments(mechanism, attended))
    end, outputs = run_segments(run, start, (jnp.swapaxes(embedded, 0, 1), runs), segment=segment)

    logits = outputs.attentions @ leaves["output_layer"]["kernel"] + leaves["output_layer"]["bias"]
    # TensorFlow's loop ends with its longest row, and leaves zeros.
    logits, alignments = (
        jnp.swapaxes(jnp.where(runs[:, None, None], steps, 0), 0, 1) for steps in (logits, outputs.alignments)
    )
    return Decoded(logits, alignments, tuple(map(_name_state, end.states)))


def estimate(
    cell: CellName,
    layers: int,
    batch: int,
    src_time: int,
    tgt_time: int,
    units: int,
    *,
    itemsize: int,
) -> int:
    """The bytes that all loops keep in one piece, `units` being those of one direction of the encoder."""
    gates = CELLS[cell].gates
    sizes = {"batch": batch, "units": 2 * units, "itemsize": itemsize}
    loops = layers * sum(estimate_loop(gates, time, **sizes) for time in (src_time, tgt_time))
    # The attention, its context and their adjoints; the alignments, the scores and theirs.
    attention = tgt_time * batch * 4 * (2 * units + src_time) * itemsize
    return loops + attention


def _name_state(state: State) -> Any:
    """An LSTM's state by name; a GRU's is its h."""
    return LSTMState(*state) if len(state) == 2 else state[0]
