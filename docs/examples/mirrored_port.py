"""A model with a cell of its own, mirrored live: `oracle compare docs/examples/mirrored_port.py:build`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf

from jax_models.cell_base import RNNCell
from oracle.bridge.mirror import mirrors
from oracle.bridge.mirror.pieces import Piece
from oracle.live_port import LivePort


class MinimalCell(tf.keras.layers.Layer):
    """A minimal gated unit (Zhou et al. 2016), which neither Keras nor the mirror knows."""

    def __init__(self, units):
        super().__init__()
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        """One kernel, rows [inputs; h], for the gate and the candidate."""
        self.kernel = self.add_weight("kernel", (shape[-1] + self.units, 2 * self.units))

    def call(self, inputs, states):
        """One step."""
        h = states[0]
        of_gate, of_candidate = tf.split(self.kernel, 2, axis=1)
        gate = tf.sigmoid(tf.concat([inputs, h], 1) @ of_gate)
        candidate = tf.tanh(tf.concat([inputs, gate * h], 1) @ of_candidate)
        h = (1 - gate) * h + gate * candidate
        return h, [h]


class FlaxMinimalCell(RNNCell):
    """The same, said again in Flax: `state, output = cell(state, inputs)`."""

    units: int

    state_size = output_size = property(lambda self: self.units)

    @nn.compact
    def __call__(self, h, inputs):
        """One step."""
        shape = (inputs.shape[-1] + self.units, 2 * self.units)
        of_gate, of_candidate = jnp.split(
            self.param("kernel", nn.initializers.lecun_normal(), shape), 2, axis=1
        )
        gate = jax.nn.sigmoid(jnp.concatenate([inputs, h], 1) @ of_gate)
        candidate = jnp.tanh(jnp.concatenate([inputs, gate * h], 1) @ of_candidate)
        h = (1 - gate) * h + gate * candidate
        return h, h


@mirrors(MinimalCell)
def mirror_minimal_cell(cell, context):
    """Each leaf is the variable of its name; a `layout` would say so if they were laid out differently."""
    return Piece(FlaxMinimalCell(cell.units), context.variables(cell, ("kernel",)))


class Forecaster(tf.keras.Model):
    """A model with a call of its own: an embedding of the day of the week, a loop, a projection."""

    def __init__(self):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(7, 3)
        self.rnn = tf.keras.layers.RNN(MinimalCell(5), return_sequences=True)
        self.projection = tf.keras.layers.Dense(2)

    def call(self, days, values):
        """Forecasts [batch, time, 2]."""
        return self.projection(self.rnn(tf.concat([self.embedding(days), values], -1)))


def build():
    """The live objects, a batch, the loss in TensorFlow, and the same composed of the mirror's pieces."""
    model = Forecaster()
    rng = np.random.default_rng(0)
    batch = {
        "days": rng.integers(0, 7, (4, 6)),
        "values": rng.normal(size=(4, 6, 1)),
        "targets": rng.normal(size=(4, 6, 2)),
    }

    def loss(batch):
        return tf.reduce_mean(tf.square(model(batch["days"], batch["values"]) - batch["targets"]))

    def reference(mirror, params, batch):
        model, params = mirror.model, params["model"]
        embedded = model.embedding.apply(batch["days"], params=params["embedding"])
        inputs = jnp.concatenate([embedded, batch["values"]], -1)
        outputs = model.rnn.apply(inputs, params=params["rnn"])
        outputs = model.projection.apply(outputs, params=params["projection"])
        return jnp.mean(jnp.square(outputs - batch["targets"]))

    return LivePort({"model": model}, batch, loss, reference, "forecaster")


if __name__ == "__main__":
    from oracle.live_port import compare_live
    from oracle.report import render_text

    print(render_text([compare_live(build)]))
