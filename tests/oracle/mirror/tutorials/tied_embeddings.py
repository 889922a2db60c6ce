"""A language model whose output projection is its embedding (Press & Wolf 2017), on two encoders that share it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

VOCAB, WIDTH = 9, 4


class Encoder(tf.keras.Model):
    """Reads the source with an embedding that it is given."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding
        self.gru = tf.keras.layers.GRU(WIDTH)

    def call(self, tokens):
        """Returns the last state."""
        return self.gru(self.embedding(tokens))


class Decoder(tf.keras.Model):
    """Predicts tokens by the inner products with the same embedding."""

    def __init__(self, embedding, faulty):
        super().__init__()
        self.embedding, self.faulty = embedding, faulty
        self.gru = tf.keras.layers.GRU(WIDTH, return_sequences=True)

    def call(self, tokens, state):
        """Returns logits."""
        outputs = self.gru(self.embedding(tokens), initial_state=state)
        table = tf.convert_to_tensor(self.embedding.embeddings)
        if self.faulty:
            table = tf.stop_gradient(table)
        return tf.einsum("btw,vw->btv", outputs, table)


def build(*, faulty: bool = False) -> LivePort:
    """The port. The fault: the embedding gets no gradient as a projection."""
    embedding = tf.keras.layers.Embedding(VOCAB, WIDTH)
    encoder, decoder = Encoder(embedding), Decoder(embedding, faulty)
    generator = np.random.default_rng(0)
    batch = {
        "source": generator.integers(0, VOCAB, (3, 5)),
        "target": generator.integers(0, VOCAB, (3, 4)),
    }

    def loss(batch):
        logits = decoder(batch["target"][:, :-1], encoder(batch["source"]))
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["target"][:, 1:], logits))

    def reference(mirror, params, batch):
        import jax
        import jax.numpy as jnp

        encoder, decoder = mirror.encoder, mirror.decoder
        embedded = encoder.embedding.apply(batch["source"], params=params["encoder"]["embedding"])
        state = encoder.gru.apply(embedded, params=params["encoder"]["gru"])
        own = params["decoder"]
        embedded = decoder.embedding.apply(batch["target"][:, :-1], params=own["embedding"])
        outputs = decoder.gru.apply(embedded, initial_state=state, params=own["gru"])
        logits = outputs @ own["embedding"]["embedding"].T
        real = batch["target"][:, 1:, None]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), real, -1))

    models = {"encoder": encoder, "decoder": decoder}
    return LivePort(models, batch, loss, reference, "tied_embeddings")
