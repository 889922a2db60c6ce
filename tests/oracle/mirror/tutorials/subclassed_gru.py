"""An encoder and a decoder, each a subclassed model with an embedding and a GRU, and a loss of one's own.

The decoder is stepped by hand, with the target's token before (teacher forcing), as tutorials on machine
translation write it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

VOCAB, EMBEDDING, UNITS = 11, 4, 6


class Encoder(tf.keras.Model):
    """Embeds and reads the source."""

    def __init__(self):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(VOCAB, EMBEDDING)
        self.gru = tf.keras.layers.GRU(UNITS, return_sequences=True, return_state=True)

    def call(self, tokens, hidden):
        """Returns the outputs and the final state."""
        return self.gru(self.embedding(tokens), initial_state=hidden)


class Decoder(tf.keras.Model):
    """One step: a token and a state to logits and a state."""

    def __init__(self, faulty):
        super().__init__()
        self.faulty = faulty
        self.embedding = tf.keras.layers.Embedding(VOCAB, EMBEDDING)
        self.gru = tf.keras.layers.GRU(UNITS, return_sequences=True, return_state=True)
        self.fc = tf.keras.layers.Dense(VOCAB)

    def call(self, token, hidden):
        """`token` is [batch, 1]."""
        output, state = self.gru(self.embedding(token), initial_state=hidden)
        if self.faulty:
            state = tf.stop_gradient(state)
        return self.fc(tf.reshape(output, (-1, UNITS))), state


def build(*, faulty: bool = False) -> LivePort:
    """The port. The fault: the gradient does not flow from step to step."""
    encoder, decoder = Encoder(), Decoder(faulty)
    generator = np.random.default_rng(0)
    batch = {
        "source": generator.integers(1, VOCAB, (3, 5)),
        "target": generator.integers(1, VOCAB, (3, 4)),
    }
    batch["target"][1, 3:] = 0
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def loss(batch):
        target, total = batch["target"], 0.0
        _, hidden = encoder(batch["source"], tf.zeros((3, UNITS), tf.keras.backend.floatx()))
        for t in range(1, 4):
            logits, hidden = decoder(target[:, t - 1 : t], hidden)
            losses = cross_entropy(target[:, t], logits)
            total += tf.reduce_mean(losses * tf.cast(target[:, t] != 0, losses.dtype))
        return total / 4

    def reference(mirror, params, batch):
        import jax
        import jax.numpy as jnp

        target, total = batch["target"], 0.0
        of_encoder, of_decoder = params["encoder"], params["decoder"]
        embedded = mirror.encoder.embedding.apply(batch["source"], params=of_encoder["embedding"])
        hidden = jnp.zeros((3, UNITS), embedded.dtype)
        _, hidden = mirror.encoder.gru.apply(embedded, initial_state=hidden, params=of_encoder["gru"])
        for t in range(1, 4):
            embedded = mirror.decoder.embedding.apply(target[:, t - 1 : t], params=of_decoder["embedding"])
            output, hidden = mirror.decoder.gru.apply(
                embedded, initial_state=hidden, params=of_decoder["gru"]
            )
            logits = mirror.decoder.fc.apply(output.reshape(-1, UNITS), params=of_decoder["fc"])
            chosen = jax.nn.log_softmax(logits)[jnp.arange(3), target[:, t]]
            total += jnp.mean(-chosen * (target[:, t] != 0))
        return total / 4

    return LivePort({"encoder": encoder, "decoder": decoder}, batch, loss, reference, "subclassed_gru")
