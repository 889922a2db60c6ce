"""What the forward pass of an encoder-decoder gives."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float

from jax_models.cells import LSTMState


class Forward(NamedTuple):
    """The outputs and final states of both loops, and the prediction that the loss is taken of."""

    encoded: Float[Array, "batch src_time units"]
    encoder_state: LSTMState
    decoded: Float[Array, "batch tgt_time units"]
    decoder_state: LSTMState
    prediction: Float[Array, "batch tgt_time target_features"]
