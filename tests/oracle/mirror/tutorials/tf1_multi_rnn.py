"""Code of TF1 carried over as it stands: `dynamic_rnn` over a `MultiRNNCell`, and `v1.layers.Dense`."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

v1 = tf.compat.v1

FEATURES, UNITS, OUTPUTS = 3, 4, 2


class Forecaster(tf.Module):
    """Two layers of cells, and a projection of the last one's outputs."""

    def __init__(self):
        super().__init__()
        lower = v1.nn.rnn_cell.LSTMCell(UNITS, use_peepholes=True, num_proj=UNITS + 1, cell_clip=3.0)
        upper = v1.nn.rnn_cell.ResidualWrapper(v1.nn.rnn_cell.GRUCell(UNITS + 1))
        self.cell = v1.nn.rnn_cell.MultiRNNCell([lower, upper])
        self.projection = v1.layers.Dense(OUTPUTS)

    @v1.keras.utils.track_tf1_style_variables
    def __call__(self, inputs, lengths):
        """Forecasts, zero inputs past the lengths."""
        outputs, _ = v1.nn.dynamic_rnn(self.cell, inputs, sequence_length=lengths, dtype=inputs.dtype)
        return self.projection(outputs)


def build(*, faulty: bool = False) -> LivePort:
    """The port. The fault: the lengths are not passed on."""
    model = Forecaster()
    generator = np.random.default_rng(0)
    batch = {
        "inputs": generator.normal(size=(3, 6, FEATURES)),
        "targets": generator.normal(size=(3, 6, OUTPUTS)),
        "lengths": np.array([6, 2, 0], np.int32),
    }

    def loss(batch):
        lengths = tf.fill([3], 6) if faulty else batch["lengths"]
        return tf.reduce_mean(tf.square(model(batch["inputs"], lengths) - batch["targets"]))

    def reference(mirror, params, batch):
        import jax.numpy as jnp

        model, own = mirror.model, params["model"]
        outputs, _ = model.cell.dynamic_rnn(
            batch["inputs"], sequence_length=batch["lengths"], params=own["cell"]
        )
        outputs = model.projection.apply(outputs, params=own["projection"])
        return jnp.mean(jnp.square(outputs - batch["targets"]))

    return LivePort({"model": model}, batch, loss, reference, "tf1_multi_rnn")
