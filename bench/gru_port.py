"""A GRU encoder-decoder without attention, as a live port: `bench.gru_port:build(32, 32, 256)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.cases import FEATURES
from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort


def build(batch: int = 32, time: int = 32, units: int = 256) -> LivePort:
    """Layers of Keras: the encoder's state goes to the decoder, which is fed the target.

    Args:
        batch: rows.
        time: steps of the source, and of the target that is predicted.
        units: units of both layers.
    """
    tf = import_tensorflow()
    options = {"return_sequences": True, "return_state": True}
    encoder = tf.keras.layers.GRU(units, **options)
    decoder = tf.keras.layers.GRU(units, **options)
    projection = tf.keras.layers.Dense(FEATURES)
    generator = np.random.default_rng(0)
    arrays = {
        "source": generator.standard_normal((batch, time, FEATURES)),
        "target": generator.standard_normal((batch, time + 1, FEATURES)),
    }

    def loss(batch: Mapping[str, Any]) -> Any:
        _, state = encoder(batch["source"])
        decoded, _ = decoder(batch["target"][:, :-1], initial_state=state)
        return tf.reduce_mean(tf.square(projection(decoded) - batch["target"][:, 1:]))

    def reference(mirror: Any, params: Any, batch: Mapping[str, Any]) -> Any:
        import jax.numpy as jnp

        _, state = mirror.encoder.apply(batch["source"], params=params["encoder"])
        decoded, _ = mirror.decoder.apply(
            batch["target"][:, :-1], params=params["decoder"], initial_state=state
        )
        prediction = mirror.projection.apply(decoded, params=params["projection"])
        return jnp.mean(jnp.square(prediction - batch["target"][:, 1:]))

    models = {"encoder": encoder, "decoder": decoder, "projection": projection}
    return LivePort(models, arrays, loss, reference, "gru")
