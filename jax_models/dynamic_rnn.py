"""The TF1 original: two `dynamic_rnn` loops over `BasicLSTMCell`, the first state implicit zeros.

Read it beside `tf_models/dynamic_rnn.py`, which says the same in TensorFlow 1.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_models.cells import BasicLSTMCell, LSTMState
from jax_models.forward import Forward
from jax_models.rnn import dynamic_rnn


class Scope(nn.Module):
    """A variable scope of the original: one `dynamic_rnn` and the cell it runs over."""

    units: int
    forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.cell = BasicLSTMCell(self.units, self.forget_bias, self.param_dtype)

    def __call__(
        self,
        inputs: Float[Array, "batch time features"],
        *,
        sequence_length: Int[Array, " batch"] | None = None,
        initial_state: LSTMState | None = None,
    ) -> tuple[Float[Array, "batch time units"], LSTMState]:
        """Run over the inputs. Returns the outputs and the final state."""
        return dynamic_rnn(self.cell, inputs, sequence_length=sequence_length, initial_state=initial_state)


class DynamicRNN(nn.Module):
    """Encoder, decoder and projection.

    Args:
        units: units of both cells.
        target_features: what the projection gives; None for no projection.
        encoder_forget_bias: what the encoder's cell adds to its forget gate.
        decoder_forget_bias: what the decoder's cell adds to its forget gate.
        param_dtype: dtype of the parameters that `init` makes.
    """

    units: int
    target_features: int | None
    encoder_forget_bias: float = 1.0
    decoder_forget_bias: float = 1.0
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.encoder = Scope(self.units, self.encoder_forget_bias, self.param_dtype)
        self.decoder = Scope(self.units, self.decoder_forget_bias, self.param_dtype)
        if self.target_features is not None:
            self.projection = nn.Dense(self.target_features, param_dtype=self.param_dtype)

    def __call__(
        self,
        source: Float[Array, "batch src_time source_features"],
        target: Float[Array, "batch target_time target_features"],
        *,
        source_length: Int[Array, " batch"] | None = None,
        target_length: Int[Array, " batch"] | None = None,
    ) -> Forward:
        """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`."""
        encoded, encoder_state = self.encoder(source, sequence_length=source_length)
        handed_over = LSTMState(
            self.perturb("handoff_c", encoder_state.c), self.perturb("handoff_h", encoder_state.h)
        )
        decoded, decoder_state = self.decoder(
            target[:, :-1], sequence_length=target_length, initial_state=handed_over
        )
        prediction = decoded if self.target_features is None else self.projection(decoded)
        return Forward(encoded, encoder_state, decoded, decoder_state, prediction)
