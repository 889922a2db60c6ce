"""The wrong conversions: the encoder's state does not reach the decoder as it should.

Each class is a way in which people port the TF1 original and get gradients that are `None`, zero, or
wrong. `jax_models/implicit_state.py` says what each of them computes.
"""

from __future__ import annotations

import tensorflow as tf

from oracle.spec import EncoderDecoder
from tf_models.explicit_state import (
    BasicRNNDecoder,
    BasicRNNEncoder,
    State,
    differentiate,
    name_forward,
    name_variables,
    swap_batch_and_time,
)
from tf_models.port import Batch, Step


class ImplicitState(tf.Module):
    """Encoder, decoder and projection; a variant says what the decoder starts from."""

    convention = "keras"
    unconnected_gradients = tf.UnconnectedGradients.NONE

    def __init__(self, spec: EncoderDecoder, dtype: tf.DType, *, unrolled: bool = False) -> None:
        super().__init__()
        self.encoder = BasicRNNEncoder(spec.encoder.units, unrolled=unrolled, dtype=dtype)
        self.decoder = BasicRNNDecoder(spec.decoder.units, unrolled=unrolled, dtype=dtype)
        self.projection = (
            tf.keras.layers.Dense(spec.target_features, dtype=dtype) if spec.projection else None
        )

    def hand_over(self, state: State | None) -> State | None:
        """What the decoder is called with as its `initial_state`."""
        raise NotImplementedError

    def encode(self, inputs: tf.Tensor) -> tuple[tf.Tensor, State | None]:
        """The encoder's outputs, and its state if it returns one."""
        return self.encoder(inputs)

    def decode(
        self, batch: Batch, encoded: tf.Tensor, state: State | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Decode from what is handed over. Gives the named outputs and the loss."""
        targets = swap_batch_and_time(batch["target"])
        given = tf.cast(targets[:-1], self.decoder.compute_dtype)
        decoded, final_state = self.decoder(given, initial_state=self.hand_over(state))
        outputs = decoded if self.projection is None else self.projection(decoded)
        loss = tf.reduce_mean(tf.square(tf.cast(outputs, targets.dtype) - targets[1:]))
        return name_forward(encoded, state, decoded, final_state, outputs), loss

    def step(self, batch: Batch) -> Step:
        """Compute the outputs, the loss and its gradients under a `tf.GradientTape`."""
        inputs = swap_batch_and_time(batch["source"])
        with tf.GradientTape() as tape:
            tape.watch([inputs, batch["target"]])
            encoded, state = self.encode(inputs)
            forward, loss = self.decode(batch, encoded, state)
        return self.differentiate(tape, batch, inputs, state, forward, loss)

    def differentiate(
        self,
        tape: tf.GradientTape,
        batch: Batch,
        inputs: tf.Tensor,
        state: State | None,
        forward: dict[str, tf.Tensor],
        loss: tf.Tensor,
    ) -> Step:
        """Take every gradient from the tape."""
        return differentiate(
            tape,
            forward,
            loss,
            inputs=inputs,
            target=batch["target"],
            encoder_state=state,
            variables=self.variables_by_name(),
            unconnected_gradients=self.unconnected_gradients,
        )

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """The trainable variables by attribute, as a TF2 checkpoint names them."""
        return name_variables(self.encoder.cell, self.decoder.cell, self.projection)


class OutsideTape(ImplicitState):
    """The encoder is called before the tape is opened: the state is a constant to the tape."""

    def step(self, batch: Batch) -> Step:
        """As `ImplicitState.step`, the encoder one line too early."""
        inputs = swap_batch_and_time(batch["source"])
        encoded, state = self.encode(inputs)
        with tf.GradientTape() as tape:
            tape.watch([inputs, batch["target"]])
            forward, loss = self.decode(batch, encoded, state)
        return self.differentiate(tape, batch, inputs, state, forward, loss)

    def hand_over(self, state: State | None) -> State | None:
        """The state as it is."""
        return state


class StateDiscarded(ImplicitState):
    """The encoder is built with `return_state=False`: there is no state to hand over."""

    def __init__(self, spec: EncoderDecoder, dtype: tf.DType, *, unrolled: bool = False) -> None:
        super().__init__(spec, dtype, unrolled=unrolled)
        self.rnn = tf.keras.layers.RNN(
            self.encoder.cell,
            return_sequences=True,
            return_state=False,
            time_major=True,
            unroll=unrolled,
            dtype=dtype,
        )

    def encode(self, inputs: tf.Tensor) -> tuple[tf.Tensor, None]:
        """The encoder's outputs alone."""
        return self.rnn(inputs), None

    def hand_over(self, state: State | None) -> None:
        """Nothing."""
        del state


class InitialStateNone(ImplicitState):
    """The state is returned and not passed: `decoder(targets, initial_state=None)`."""

    def hand_over(self, state: State | None) -> None:
        """Nothing."""
        del state


class InitialStateZeros(ImplicitState):
    """Zeros are passed in the state's place, as `cell.zero_state` was used in TF1."""

    def hand_over(self, state: State | None) -> State:
        """Zeros of the state's shape."""
        assert state is not None
        return [tf.zeros_like(part) for part in state]


class ZerosSilenced(InitialStateZeros):
    """The same, with the warning about `None` gradients silenced: they come back as zeros."""

    unconnected_gradients = tf.UnconnectedGradients.ZERO


class Exchanged(ImplicitState):
    """TF1's state is (c, h) and Keras' is [h, c]: it is unpacked in TF1's order."""

    def hand_over(self, state: State | None) -> State:
        """h in c's place and c in h's."""
        assert state is not None
        c, h = state
        return [h, c]


VARIANTS = {
    "outside_tape": OutsideTape,
    "state_discarded": StateDiscarded,
    "initial_state_none": InitialStateNone,
    "initial_state_zeros": InitialStateZeros,
    "zeros_silenced": ZerosSilenced,
    "exchanged": Exchanged,
}


def build(spec: EncoderDecoder, *, variant: str, dtype: tf.DType, unrolled: bool = False) -> ImplicitState:
    """Make the variant of that name. The dtype may be a policy of Keras'."""
    return VARIANTS[variant](spec, dtype, unrolled=unrolled)
