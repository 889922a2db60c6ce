"""The right conversion: the encoder returns its state, and the decoder is given it, as a value.

Read it beside `tf_models/explicit_state.py`, which says the same with `tfa.seq2seq`.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_models.cells import BasicLSTMCell, LSTMState
from jax_models.forward import Forward
from jax_models.rnn import dynamic_rnn


class BasicRNNEncoder(nn.Module):
    """An LSTM over the source. `outputs, state = encoder(inputs)`."""

    units: int
    forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.cell = BasicLSTMCell(self.units, self.forget_bias, self.param_dtype)

    def __call__(
        self,
        inputs: Float[Array, "batch src_time features"],
        *,
        initial_state: LSTMState | None = None,
        sequence_length: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch src_time units"], LSTMState]:
        """Run over the inputs, from zeros if no state is given. Returns the outputs and the state."""
        return dynamic_rnn(self.cell, inputs, sequence_length=sequence_length, initial_state=initial_state)


class BasicRNNDecoder(nn.Module):
    """An LSTM that is fed the target. `outputs, state = decoder(targets, state)`.

    The state is an argument without a default: there is no way to forget it.
    """

    units: int
    forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.cell = BasicLSTMCell(self.units, self.forget_bias, self.param_dtype)

    def __call__(
        self,
        inputs: Float[Array, "batch tgt_time features"],
        initial_state: LSTMState,
        *,
        sequence_length: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch tgt_time units"], LSTMState]:
        """Run over the inputs from `initial_state`. Returns the outputs and the state."""
        return dynamic_rnn(self.cell, inputs, sequence_length=sequence_length, initial_state=initial_state)


def pass_state(state: LSTMState) -> LSTMState:
    """The right handoff: the encoder's state is the decoder's."""
    return state


class ExplicitState(nn.Module):
    """Encoder, handoff, decoder and projection.

    Args:
        units: units of both cells.
        target_features: what the projection gives; None for no projection.
        encoder_forget_bias: what the encoder's cell adds to its forget gate.
        decoder_forget_bias: what the decoder's cell adds to its forget gate.
        handoff: what becomes of the encoder's state on its way; `jax_models.implicit_state` holds the
            wrong ones.
        param_dtype: dtype of the parameters that `init` makes.
    """

    units: int
    target_features: int | None
    encoder_forget_bias: float = 1.0
    decoder_forget_bias: float = 1.0
    handoff: Callable[[LSTMState], LSTMState] = pass_state
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.encoder = BasicRNNEncoder(self.units, self.encoder_forget_bias, self.param_dtype)
        self.decoder = BasicRNNDecoder(self.units, self.decoder_forget_bias, self.param_dtype)
        if self.target_features is not None:
            self.projection = nn.Dense(self.target_features, param_dtype=self.param_dtype)

    def __call__(
        self,
        source: Float[Array, "batch src_time source_features"],
        target: Float[Array, "batch target_time target_features"],
        *,
        initial_state: LSTMState | None = None,
        source_length: Int[Array, " batch"] | None = None,
        target_length: Int[Array, " batch"] | None = None,
    ) -> Forward:
        """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`."""
        encoded, encoder_state = self.encoder(
            source, initial_state=initial_state, sequence_length=source_length
        )
        handed_over = LSTMState(
            self.perturb("handoff_c", encoder_state.c), self.perturb("handoff_h", encoder_state.h)
        )
        decoded, decoder_state = self.decoder(
            target[:, :-1], self.handoff(handed_over), sequence_length=target_length
        )
        prediction = decoded if self.target_features is None else self.projection(decoded)
        return Forward(encoded, encoder_state, decoded, decoder_state, prediction)
