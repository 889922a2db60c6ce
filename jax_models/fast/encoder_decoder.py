"""The encoder-decoder of two LSTMs: what `jax_models.explicit_state` and `jax_models.dynamic_rnn` compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_models.cell_base import LSTMState
from jax_models.fast.cell import project
from jax_models.fast.loop import Mask, mask_lengths, run_cell, silence_unread, zero_masked
from jax_models.fast.lstm import LSTM, bake_forget_bias
from jax_models.fast.remat import estimate_loop, run_segments
from jax_models.forward import Forward


class Lengths(NamedTuple):
    """How many steps of each row count, None for all: TF1's `sequence_length`."""

    source: Int[Array, " batch"] | None = None
    target: Int[Array, " batch"] | None = None


ALL_STEPS = Lengths()


def predict(
    weights: Mapping[str, Any],
    source: Float[Array, "batch src_time source_features"],
    target: Float[Array, "batch target_time target_features"],
    *,
    perturbation: LSTMState,
    forget_biases: tuple[float, float] = (1.0, 1.0),
    handoff: Callable[[LSTMState], LSTMState] = lambda state: state,
    initial_state: LSTMState | None = None,
    lengths: Lengths = ALL_STEPS,
    segment: int | None = None,
) -> Forward:
    """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`.

    Args:
        weights: `encoder/cell`, `decoder/cell` and, if there is one, `projection`, nested.
        source: what the encoder reads.
        target: what the decoder is fed and held to.
        perturbation: added to the state that is handed over, zeros.
        forget_biases: what the encoder's and the decoder's cell add to their forget gates.
        handoff: what becomes of the encoder's state on its way.
        initial_state: the encoder's; zeros if None.
        lengths: of the rows.
        segment: the steps of a rematerialised segment, None for none.
    """
    units = weights["encoder"]["cell"]["recurrent_kernel"].shape[0]
    start = initial_state
    if start is None:
        zeros = jnp.zeros((len(source), units), source.dtype)
        start = LSTMState(zeros, zeros)
    encoded, encoder_state = read(
        weights["encoder"]["cell"], source, start, lengths.source, forget_biases[0], segment
    )
    handed_over = handoff(LSTMState(encoder_state.c + perturbation.c, encoder_state.h + perturbation.h))
    decoded, decoder_state = read(
        weights["decoder"]["cell"], target[:, :-1], handed_over, lengths.target, forget_biases[1], segment
    )
    prediction = decoded
    if "projection" in weights:
        prediction = decoded @ weights["projection"]["kernel"] + weights["projection"]["bias"]
    return Forward(encoded, encoder_state, decoded, decoder_state, prediction)


def read(
    leaves: Mapping[str, Array],
    inputs: Float[Array, "batch time features"],
    start: LSTMState,
    lengths: Int[Array, " batch"] | None,
    forget_bias: float,
    segment: int | None,
) -> tuple[Float[Array, "batch time units"], LSTMState]:
    """Run an LSTM over inputs as TF1's `dynamic_rnn` does. Returns the outputs and the final state."""
    bias, recurrent = LSTM.split_leaves(leaves)
    assert bias is not None
    bias = bake_forget_bias(bias, forget_bias)
    mask = mask_lengths(lengths, inputs.shape[1])
    steps = silence_unread(jnp.swapaxes(inputs, 0, 1), mask)

    def run(state: Any, sequences: tuple[Array, Mask]) -> tuple[Any, Array]:
        steps, mask = sequences
        parts = project(steps, leaves["kernel"], bias, LSTM.gates)
        outputs, state = run_cell(LSTM, False, recurrent, parts, state, mask)
        return state, zero_masked(outputs, mask)

    state, outputs = run_segments(run, (start.c, start.h), (steps, mask), segment=segment)
    return jnp.swapaxes(outputs, 0, 1), LSTMState(*state)


def estimate(batch: int, src_time: int, tgt_time: int, units: int, *, itemsize: int) -> int:
    """The bytes that both loops keep in one piece."""
    both = src_time + tgt_time
    return estimate_loop(LSTM.gates, both, batch, units, itemsize=itemsize)
