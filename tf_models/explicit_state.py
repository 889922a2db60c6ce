"""The right conversion: the encoder returns its state, and the decoder is given it.

Read it beside `jax_models/explicit_state.py`, which says the same in Flax. `BasicRNNEncoder` and
`BasicRNNDecoder` are names that code in the wild uses as if tfa had them; here they are, so that

    outputs, state = encoder(inputs)
    outputs, _ = decoder(targets[:-1], initial_state=state)
    loss = tf.reduce_mean(tf.square(outputs - targets[1:]))

runs as it stands. `targets[:-1]` drops the last step because the tensors are time-major.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_addons as tfa

from oracle.spec import EncoderDecoder
from tf_models.port import Batch, Step, dense_gradient

State = list[tf.Tensor]
"""A Keras LSTM's state: [h, c], in this order."""


class BasicRNNEncoder(tf.keras.layers.Layer):
    """An LSTM over the source. `outputs, state = encoder(inputs)`.

    Args:
        units: units of the cell.
        time_major: whether tensors are [time, batch, features], as `targets[:-1]` presumes, or
            [batch, time, features].
        unrolled: whether every step has operations of its own, in place of a loop.
    """

    def __init__(
        self, units: int, *, time_major: bool = True, unrolled: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)
        self.rnn = tf.keras.layers.RNN(
            self.cell,
            return_sequences=True,
            return_state=True,
            time_major=time_major,
            unroll=unrolled,
            dtype=self.dtype_policy,
        )

    def call(self, inputs: tf.Tensor, initial_state: State | None = None) -> tuple[tf.Tensor, State]:
        """Run over the inputs, from zeros if no state is given. Returns the outputs and [h, c]."""
        outputs, *state = self.rnn(inputs, initial_state=initial_state)
        # In eager mode the returned h was computed from the very tensor c. A copy of each keeps the
        # gradient with respect to c from including the way through h, as inside a graph's loop.
        return outputs, [tf.identity(part) for part in state]


class BasicRNNDecoder(tf.keras.layers.Layer):
    """An LSTM that is fed the target, on `tfa.seq2seq.BasicDecoder` with a `TrainingSampler`.

    Args:
        units: units of the cell.
        time_major: whether tensors are [time, batch, features] or [batch, time, features].
        unrolled: whether every step has operations of its own, in place of a loop.
    """

    def __init__(
        self, units: int, *, time_major: bool = True, unrolled: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.time_major = time_major
        self.unrolled = unrolled
        self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)
        self.decoder = tfa.seq2seq.BasicDecoder(
            self.cell,
            tfa.seq2seq.TrainingSampler(time_major=time_major),
            output_time_major=time_major,
            dtype=self.compute_dtype,
        )

    def call(self, inputs: tf.Tensor, initial_state: State | None = None) -> tuple[tf.Tensor, State]:
        """Run over the inputs from `initial_state`. Returns the outputs and [h, c].

        Without an `initial_state` the decoder starts from zeros, as TF1's did, and the encoder gets no
        gradient: see `tf_models/implicit_state.py`.
        """
        time_axis, batch_axis = (0, 1) if self.time_major else (1, 0)
        batch, time = tf.shape(inputs)[batch_axis], tf.shape(inputs)[time_axis]
        if initial_state is None:
            initial_state = self.cell.get_initial_state(batch_size=batch, dtype=inputs.dtype)
        # XLA must know how many steps there are at most.
        self.decoder.maximum_iterations = inputs.shape[time_axis]
        options = {"initial_state": initial_state, "sequence_length": tf.fill([batch], time)}
        if self.unrolled:
            return self.unroll(inputs, **options)
        outputs, state, _ = self.decoder(inputs, **options)
        return outputs.rnn_output, state

    def unroll(self, inputs: tf.Tensor, **options: Any) -> tuple[tf.Tensor, State]:
        """The decoder's steps one by one, in Python."""
        time_axis = 0 if self.time_major else 1
        _, step_inputs, state = self.decoder.initialize(inputs, **options)
        collected = []
        for time in range(inputs.shape[time_axis]):
            outputs, state, step_inputs, _ = self.decoder.step(tf.constant(time), step_inputs, state)
            collected.append(outputs.rnn_output)
        return tf.stack(collected, axis=time_axis), state


class ExplicitState(tf.Module):
    """Encoder, decoder and projection, with Adam at a learning rate of 1e-3."""

    convention = "keras"

    def __init__(self, spec: EncoderDecoder, dtype: tf.DType, *, unrolled: bool = False) -> None:
        super().__init__()
        self.encoder = BasicRNNEncoder(spec.encoder.units, unrolled=unrolled, dtype=dtype)
        self.decoder = BasicRNNDecoder(spec.decoder.units, unrolled=unrolled, dtype=dtype)
        self.projection = (
            tf.keras.layers.Dense(spec.target_features, dtype=dtype) if spec.projection else None
        )
        self.optimizer = tf.keras.optimizers.Adam(1e-3)

    def step(self, batch: Batch) -> Step:
        """Compute the outputs, the loss and its gradients under a `tf.GradientTape`."""
        inputs = swap_batch_and_time(batch["source"])
        initial_state = (
            [batch["initial_state/h"], batch["initial_state/c"]] if "initial_state/h" in batch else None
        )
        with tf.GradientTape() as tape:
            tape.watch([inputs, batch["target"], *(initial_state or [])])
            targets = swap_batch_and_time(batch["target"])
            # With a policy of mixed precision the cells compute in half precision, and the loss does not.
            given, first_state = tf.nest.map_structure(self.cast, (targets[:-1], initial_state))
            encoded, state = self.encoder(self.cast(inputs), initial_state=first_state)
            decoded, final_state = self.decoder(given, initial_state=state)
            outputs = decoded if self.projection is None else self.projection(decoded)
            loss = tf.reduce_mean(tf.square(tf.cast(outputs, targets.dtype) - targets[1:]))
        return differentiate(
            tape,
            name_forward(encoded, state, decoded, final_state, outputs),
            loss,
            inputs=inputs,
            target=batch["target"],
            encoder_state=state,
            initial_state=initial_state,
            variables=self.variables_by_name(),
        )

    def cast(self, tensor: tf.Tensor | None) -> tf.Tensor | None:
        """A tensor in the dtype that the cells compute in, itself if that is its own."""
        return None if tensor is None else tf.cast(tensor, self.encoder.compute_dtype)

    def train_step(self, batch: Batch) -> tf.Tensor:
        """One step of the optimizer. Gives the loss before it."""
        step, variables = self.step(batch), self.variables_by_name()
        self.optimizer.apply_gradients(
            (step.variable_gradients[name], variable) for name, variable in variables.items()
        )
        return step.loss

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """The trainable variables by attribute, as a TF2 checkpoint names them."""
        return name_variables(self.encoder.cell, self.decoder.cell, self.projection)


def build(spec: EncoderDecoder, *, variant: str, dtype: tf.DType, unrolled: bool = False) -> ExplicitState:
    """Make the port. There is one variant. The dtype may be a policy of Keras'."""
    del variant
    return ExplicitState(spec, dtype, unrolled=unrolled)


def name_variables(
    encoder_cell: tf.keras.layers.Layer,
    decoder_cell: tf.keras.layers.Layer,
    projection: tf.keras.layers.Layer | None,
) -> dict[str, tf.Variable]:
    """Name the weights of built layers by attribute. Keras' own names are no help: several are equal."""
    named = {}
    for path, layer in (
        ("encoder/cell", encoder_cell),
        ("decoder/cell", decoder_cell),
        ("projection", projection),
    ):
        for attribute in ("kernel", "recurrent_kernel", "bias"):
            if layer is not None and layer.built and hasattr(layer, attribute):
                named[f"{path}/{attribute}"] = getattr(layer, attribute)
    return named


def name_forward(
    encoded: tf.Tensor,
    encoder_state: State | None,
    decoded: tf.Tensor,
    decoder_state: State,
    outputs: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Name time-major outputs and [h, c] states as a record does, batch-major."""
    forward = {"output/encoder": swap_batch_and_time(encoded)}
    if encoder_state is not None:
        forward |= {"state/encoder/c": encoder_state[1], "state/encoder/h": encoder_state[0]}
    return forward | {
        "output/decoder": swap_batch_and_time(decoded),
        "state/decoder/c": decoder_state[1],
        "state/decoder/h": decoder_state[0],
        "output/prediction": swap_batch_and_time(outputs),
    }


def differentiate(
    tape: tf.GradientTape,
    forward: dict[str, tf.Tensor],
    loss: tf.Tensor,
    *,
    inputs: tf.Tensor,
    target: tf.Tensor,
    encoder_state: State | None,
    variables: dict[str, tf.Variable],
    initial_state: State | None = None,
    unconnected_gradients: tf.UnconnectedGradients = tf.UnconnectedGradients.NONE,
) -> Step:
    """Take every gradient that a record holds from a tape that watched time-major `inputs`."""
    others = {"batch/target": target, "batch/source": inputs}
    if encoder_state is not None:
        others |= {"state/encoder/c": encoder_state[1], "state/encoder/h": encoder_state[0]}
    if initial_state is not None:
        others |= {
            "batch/initial_state/c": initial_state[1],
            "batch/initial_state/h": initial_state[0],
        }
    gradients: Any = tape.gradient(loss, (variables, others), unconnected_gradients=unconnected_gradients)
    by_variable, by_other = gradients
    if by_other["batch/source"] is not None:
        by_other["batch/source"] = swap_batch_and_time(by_other["batch/source"])
    return Step(
        forward,
        loss,
        {name: dense_gradient(gradient) for name, gradient in by_other.items()},
        {name: dense_gradient(gradient) for name, gradient in by_variable.items()},
    )


def swap_batch_and_time(tensor: tf.Tensor) -> tf.Tensor:
    """Batch-major to time-major, or back."""
    return tf.transpose(tensor, [1, 0, 2])
