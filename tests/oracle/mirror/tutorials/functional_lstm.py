"""The functional model of the ten-minute introduction to sequence-to-sequence learning in Keras.

One-hot characters, an LSTM whose final [h, c] start another, and a softmax over the characters.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

SOURCE, TARGET, UNITS = 5, 7, 6


def make_model(*, faulty: bool = False) -> tf.keras.Model:
    """The model that is trained. The fault: h and c are exchanged on the way."""
    encoder_inputs = tf.keras.Input((None, SOURCE), name="encoder_inputs")
    _, state_h, state_c = tf.keras.layers.LSTM(UNITS, return_state=True, name="encoder_lstm")(encoder_inputs)
    states = [state_c, state_h] if faulty else [state_h, state_c]
    decoder_inputs = tf.keras.Input((None, TARGET), name="decoder_inputs")
    decoder = tf.keras.layers.LSTM(UNITS, return_sequences=True, return_state=True, name="decoder_lstm")
    outputs, _, _ = decoder(decoder_inputs, initial_state=states)
    outputs = tf.keras.layers.Dense(TARGET, activation="softmax", name="dense")(outputs)
    return tf.keras.Model([encoder_inputs, decoder_inputs], outputs)


def make_batch() -> dict[str, np.ndarray]:
    """One-hot characters."""
    generator = np.random.default_rng(0)
    target = np.eye(TARGET)[generator.integers(0, TARGET, (3, 5))]
    return {
        "encoder_inputs": np.eye(SOURCE)[generator.integers(0, SOURCE, (3, 4))],
        "decoder_inputs": target[:, :-1],
        "y": target[:, 1:],
    }


def build() -> LivePort:
    """The port: nothing but the model, the batch and Keras' loss."""
    loss = tf.keras.losses.CategoricalCrossentropy()
    return LivePort({"model": make_model()}, make_batch(), loss, name="functional_lstm")


def build_faulty() -> LivePort:
    """What was meant is mirrored; what is run has the fault, with the same weights."""
    meant, run = make_model(), make_model(faulty=True)
    run.set_weights(meant.get_weights())
    for layer in ("encoder_lstm", "decoder_lstm", "dense"):
        share_weights(run.get_layer(layer), meant.get_layer(layer))
    loss = tf.keras.losses.CategoricalCrossentropy()

    def compute(batch):
        return loss(batch["y"], run([batch["encoder_inputs"], batch["decoder_inputs"]]))

    def reference(mirror, params, batch):
        import jax.numpy as jnp

        inputs = [batch["encoder_inputs"], batch["decoder_inputs"]]
        outputs = mirror.model.apply(inputs, params=params["model"])
        return -jnp.mean(jnp.sum(batch["y"] * jnp.log(outputs), axis=-1))

    return LivePort({"model": meant}, make_batch(), compute, reference, "functional_lstm/faulty")


def share_weights(layer: tf.keras.layers.Layer, other: tf.keras.layers.Layer) -> None:
    """Let a layer use another's variables."""
    holder, source = (getattr(one, "cell", one) for one in (layer, other))
    for name in ("kernel", "recurrent_kernel", "bias"):
        if hasattr(source, name):
            setattr(holder, name, getattr(source, name))
