"""Two live ports of ours: one whose own gradients are right, and one whose are not."""

from __future__ import annotations

import numpy as np

from bench.gru_port import build
from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort


def right() -> LivePort:
    """The GRU encoder-decoder, small."""
    return build(3, 4, 5)


def wrong() -> LivePort:
    """A dense layer whose kernel's gradient is a hundredth too large."""
    tf = import_tensorflow()
    layer = tf.keras.layers.Dense(3)
    generator = np.random.default_rng(0)
    arrays = {"x": generator.standard_normal((4, 5)), "y": generator.standard_normal((4, 3))}

    def loss(batch):
        return tf.reduce_mean(tf.square(layer(batch["x"]) - batch["y"]))

    def gradients(batch):
        with tf.GradientTape() as tape:
            value = loss(batch)
        kernel, bias = tape.gradient(value, layer.trainable_variables)
        return value, zip([1.01 * kernel, bias], layer.trainable_variables, strict=True)

    def reference(mirror, params, batch):
        import jax.numpy as jnp

        outputs = mirror.layer.apply(batch["x"], params=params["layer"])
        return jnp.mean(jnp.square(outputs - batch["y"]))

    return LivePort({"layer": layer}, arrays, loss, reference, "wrong", gradients=gradients)
