"""A tagger: `Sequential` of an embedding with a mask, a bidirectional LSTM and a dense layer."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

VOCAB, TAGS = 9, 5


def make_batch() -> dict[str, np.ndarray]:
    """Ids, of which 0 is padding, and tags."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, VOCAB, (3, 6))
    x[1, 4:], x[2, 2:] = 0, 0
    return {"x": x, "y": generator.integers(0, TAGS, (3, 6))}


def make_model(*, mask_zero: bool = True) -> tf.keras.Sequential:
    """The model."""
    return tf.keras.Sequential(
        [
            tf.keras.layers.Embedding(VOCAB, 4, mask_zero=mask_zero),
            tf.keras.layers.Bidirectional(tf.keras.layers.LSTM(3, return_sequences=True)),
            tf.keras.layers.Dense(TAGS),
        ]
    )


def build() -> LivePort:
    """The port. Keras' loss weighs the tags by the mask that travels with the logits."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return LivePort({"model": make_model()}, make_batch(), loss, name="sequential_tagger")


def build_faulty() -> LivePort:
    """The mask is lost: the layers are called one by one on tensors that were sliced in between."""
    model = make_model()
    model.build((None, None))
    entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(batch):
        embedding, encoder, dense = model.layers
        return entropy(batch["y"], dense(encoder(embedding(batch["x"])[:, :, :])))

    def reference(mirror, params, batch):
        loss = mirror.entropy
        logits = mirror.model.apply(batch["x"], params=params["model"])
        mask = mirror.model.compute_mask(batch["x"], params=params["model"])
        return loss.apply(batch["y"], logits, mask=mask)

    models = {"model": model, "entropy": entropy}
    return LivePort(models, make_batch(), loss, reference, "sequential_tagger/faulty")
