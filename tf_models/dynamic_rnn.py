"""The TF1 original: two `dynamic_rnn` loops over `BasicLSTMCell`, the first state implicit zeros.

Read it beside `jax_models/dynamic_rnn.py`, which says the same in Flax. It runs in a v1 graph and
session, and inside `tf.function`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from oracle.spec import EncoderDecoder
from tf_models.port import Batch, Step, dense_gradient

v1 = tf.compat.v1


class DynamicRNN(tf.Module):
    """Encoder, decoder and projection, with Adam at a learning rate of 1e-3."""

    convention = "tf1"

    def __init__(self, spec: EncoderDecoder, *, unrolled: bool = False) -> None:
        super().__init__()
        self.unrolled = unrolled
        self.encoder_cell = v1.nn.rnn_cell.BasicLSTMCell(
            spec.encoder.units, forget_bias=spec.encoder.forget_bias
        )
        self.decoder_cell = v1.nn.rnn_cell.BasicLSTMCell(
            spec.decoder.units, forget_bias=spec.decoder.forget_bias
        )
        self.projection = v1.layers.Dense(spec.target_features) if spec.projection else None

    # Outside a v1 graph, TF1's variables live in one store for the whole process; this gives each
    # model a store of its own.
    @v1.keras.utils.track_tf1_style_variables
    def forward(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`. Gives the loss too."""
        source, target = batch["source"], batch["target"]
        with v1_loops():
            with v1.variable_scope("encoder"):
                encoded, encoder_state = self.run_cell(
                    self.encoder_cell,
                    source,
                    sequence_length=batch.get("source_length"),
                    dtype=source.dtype,
                )
            with v1.variable_scope("decoder"):
                decoded, decoder_state = self.run_cell(
                    self.decoder_cell,
                    target[:, :-1],
                    sequence_length=batch.get("target_length"),
                    initial_state=encoder_state,
                )
        # The scope is given by name, or a second model in the process would be called `projection_1`.
        outputs = decoded if self.projection is None else self.projection(decoded, scope="projection")
        loss = tf.reduce_mean(tf.square(outputs - target[:, 1:]))
        forward = {
            "output/encoder": encoded,
            "state/encoder/c": encoder_state.c,
            "state/encoder/h": encoder_state.h,
            "output/decoder": decoded,
            "state/decoder/c": decoder_state.c,
            "state/decoder/h": decoder_state.h,
            "output/prediction": outputs,
        }
        return forward, loss

    def run_cell(self, cell: Any, inputs: tf.Tensor, **options: Any) -> tuple[tf.Tensor, Any]:
        """Run a cell over batch-major inputs, in a loop or unrolled. Gives the outputs and the state."""
        if not self.unrolled:
            return v1.nn.dynamic_rnn(cell, inputs, **options)
        outputs, state = v1.nn.static_rnn(cell, tf.unstack(inputs, axis=1), **options)
        return tf.stack(outputs, axis=1), state

    def step(self, batch: Batch) -> Step:
        """Compute the outputs, the loss and its gradients by `tf.gradients`, as TF1 code does."""
        forward, loss = self.forward(batch)
        variables = self.variables_by_name()
        others = {
            "batch/source": batch["source"],
            "batch/target": batch["target"],
            "state/encoder/c": forward["state/encoder/c"],
            "state/encoder/h": forward["state/encoder/h"],
        }
        with v1_loops():
            gradients = v1.gradients(loss, [*variables.values(), *others.values()])
        dense = [dense_gradient(gradient) for gradient in gradients]
        return Step(
            forward,
            loss,
            dict(zip(others, dense[len(variables) :], strict=True)),
            dict(zip(variables, dense, strict=False)),
        )

    def train_op(self, batch: Batch) -> tuple[tf.Operation, tf.Tensor]:
        """One step of the optimizer, in a v1 graph. Gives the operation and the loss before it."""
        _, loss = self.forward(batch)
        optimizer = v1.train.AdamOptimizer(0.001)
        with v1_loops():
            return optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step()), loss

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """The trainable variables by their checkpoint names, `encoder/rnn/basic_lstm_cell/kernel`."""
        layers = [self.encoder_cell, self.decoder_cell]
        if self.projection is not None:
            layers.append(self.projection)
        return {
            variable.name.removesuffix(":0"): variable
            for layer in layers
            for variable in layer.trainable_variables
        }


def build(spec: EncoderDecoder, *, variant: str, dtype: tf.DType, unrolled: bool = False) -> DynamicRNN:
    """Make the port. Its variants differ in the spec alone; it takes the batch's dtype.

    Raises:
        NotImplementedError: if the dtype is a policy of Keras', which TF1's cells do not know.
    """
    del variant
    if isinstance(dtype, tf.keras.mixed_precision.Policy):
        raise NotImplementedError("cells of TF1 know no policy of mixed precision")
    return DynamicRNN(spec, unrolled=unrolled)


@contextlib.contextmanager
def v1_loops() -> Iterator[None]:
    """Build loops as TF1 built them, of `Enter`, `Merge`, `Switch`, `NextIteration` and `Exit`.

    Only in a v1 graph: inside `tf.function`, TensorFlow cannot run them and builds `While` instead.
    """
    in_function = tf.compat.v1.get_default_graph().building_function
    if in_function or not v1.control_flow_v2_enabled():
        yield
        return
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()
