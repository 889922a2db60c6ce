"""Translation with Bahdanau's attention by Keras' own `AdditiveAttention` layer, and masks in use."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from oracle.live_port import LivePort

VOCAB, WIDTH, UNITS = 9, 4, 6


class BahdanauAttention(tf.keras.layers.Layer):
    """Projects query and keys, then `AdditiveAttention`, as the translation tutorial of TF 2.5 writes it."""

    def __init__(self, units):
        super().__init__()
        self.W1 = tf.keras.layers.Dense(units, use_bias=False)
        self.W2 = tf.keras.layers.Dense(units, use_bias=False)
        self.attention = tf.keras.layers.AdditiveAttention()

    def call(self, query, value, mask):
        """Returns the context vectors and the weights."""
        query_mask = tf.ones(tf.shape(query)[:-1], bool)
        return self.attention(
            inputs=[self.W1(query), value, self.W2(value)],
            mask=[query_mask, mask],
            return_attention_scores=True,
        )


class Translator(tf.keras.Model):
    """Encoder GRU, decoder GRU, attention, and two dense layers."""

    def __init__(self):
        super().__init__()
        self.embeddings = [tf.keras.layers.Embedding(VOCAB, WIDTH) for _ in range(2)]
        self.encoder = tf.keras.layers.GRU(UNITS, return_sequences=True, return_state=True)
        self.decoder = tf.keras.layers.GRU(UNITS, return_sequences=True)
        # Keras makes the scale as wide as the value, so that the keys must be, too.
        self.attention = BahdanauAttention(UNITS)
        self.Wc = tf.keras.layers.Dense(UNITS, activation=tf.math.tanh, use_bias=False)
        self.fc = tf.keras.layers.Dense(VOCAB)

    def call(self, source, target, faulty=False):
        """Returns the logits and the attention's weights."""
        mask = source != 0
        outputs, state = self.encoder(self.embeddings[0](source))
        decoded = self.decoder(self.embeddings[1](target), initial_state=state)
        context, weights = self.attention(decoded, outputs, tf.ones_like(mask) if faulty else mask)
        return self.fc(self.Wc(tf.concat([context, decoded], -1))), weights


def build(*, faulty: bool = False) -> LivePort:
    """The port. The fault: attention sees the padding."""
    model = Translator()
    generator = np.random.default_rng(0)
    batch = {
        "source": generator.integers(1, VOCAB, (3, 5)),
        "target": generator.integers(1, VOCAB, (3, 4)),
    }
    batch["source"][1, 3:] = 0

    def loss(batch):
        logits, weights = model(batch["source"], batch["target"][:, :-1], faulty=faulty)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["target"][:, 1:], logits)
        return tf.reduce_mean(losses), {"weights": weights}

    def reference(mirror, params, batch):
        import jax
        import jax.numpy as jnp

        model, own = mirror.model, params["model"]

        def call(name, *args, part=model, params=own, **options):
            return part.children[name].apply(*args, params=params[name], **options)

        outputs, state = call("encoder", call("embeddings_0", batch["source"]))
        decoded = call("decoder", call("embeddings_1", batch["target"][:, :-1]), initial_state=state)
        attention = {"part": model.attention, "params": own["attention"]}
        context, weights = call(
            "attention",
            [call("W1", decoded, **attention), outputs, call("W2", outputs, **attention)],
            mask=[None, batch["source"] != 0],
            return_attention_scores=True,
            **attention,
        )
        logits = call("fc", call("Wc", jnp.concatenate([context, decoded], -1)))
        real = batch["target"][:, 1:, None]
        loss = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), real, -1))
        return loss, {"weights": weights}

    return LivePort({"model": model}, batch, loss, reference, "additive_attention")
