"""A bidirectional encoder, and an `AttentionWrapper` over a stack of cells, as GNMT-like models have them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

from oracle.live_port import LivePort

VOCAB, EMBEDDING, UNITS, LAYERS = 9, 4, 3, 2
BATCH, SOURCE_TIME, TARGET_TIME = 3, 5, 4


class Translator(tf.keras.Model):
    """All in one model."""

    def __init__(self):
        super().__init__()
        layer = tf.keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
        self.source_embedding = tf.keras.layers.Embedding(VOCAB, EMBEDDING, mask_zero=True)
        self.encoder = tf.keras.layers.Bidirectional(layer)
        self.target_embedding = tf.keras.layers.Embedding(VOCAB, EMBEDDING)
        self.attention = tfa.seq2seq.BahdanauAttention(5, normalize=True)
        stack = tf.keras.layers.StackedRNNCells([tf.keras.layers.LSTMCell(2 * UNITS) for _ in range(LAYERS)])
        self.wrapper = tfa.seq2seq.AttentionWrapper(stack, self.attention, attention_layer_size=7)
        self.projection = tf.keras.layers.Dense(VOCAB)
        self.decoder = tfa.seq2seq.BasicDecoder(self.wrapper, tfa.seq2seq.TrainingSampler(), self.projection)

    def call(self, batch, faulty=False):
        """Logits of the target's tokens."""
        memory, h, c, h_back, c_back = self.encoder(self.source_embedding(batch["source"]))
        self.attention.setup_memory(memory, memory_sequence_length=batch["source_length"])
        h, c = tf.concat([h, h_back], -1), tf.concat([c, c_back], -1)
        state = self.wrapper.get_initial_state(batch_size=BATCH, dtype=memory.dtype)
        second = [h, c] if not faulty else [tf.zeros_like(h), tf.zeros_like(c)]
        state = state.clone(cell_state=([h, c], second))
        embedded = self.target_embedding(batch["target"][:, :-1])
        outputs, _, _ = self.decoder(embedded, initial_state=state, sequence_length=batch["target_length"])
        return outputs.rnn_output


def build(*, faulty: bool = False) -> LivePort:
    """The port. The fault: the upper cell starts from zeros."""
    model = Translator()
    generator = np.random.default_rng(0)
    batch = {
        "source": generator.integers(1, VOCAB, (BATCH, SOURCE_TIME)).astype(np.int32),
        "source_length": np.array([5, 2, 4], np.int32),
        "target": generator.integers(1, VOCAB, (BATCH, 1 + TARGET_TIME)).astype(np.int32),
        "target_length": np.array([2, 3, 1], np.int32),
    }
    batch["source"] *= np.arange(SOURCE_TIME) < batch["source_length"][:, None]

    def loss(batch):
        logits = model(batch, faulty=faulty)
        targets = batch["target"][:, 1 : 1 + tf.shape(logits)[1]]
        weights = tf.sequence_mask(batch["target_length"], tf.shape(logits)[1], logits.dtype)
        return tfa.seq2seq.sequence_loss(logits, targets, weights)

    def reference(mirror, params, batch):
        import jax.numpy as jnp

        from jax_models.seq2seq import sequence_loss

        model, own = mirror.model, params["model"]
        embedded = model.source_embedding.apply(batch["source"], params=own["source_embedding"])
        mask = model.source_embedding.compute_mask(batch["source"], params=own["source_embedding"])
        memory, h, c, h_back, c_back = model.encoder.apply(embedded, mask=mask, params=own["encoder"])
        memories = model.wrapper.setup_memory(
            memory, memory_sequence_length=batch["source_length"], params=own["wrapper"]
        )
        start = [jnp.concatenate(pair, -1) for pair in ((h, h_back), (c, c_back))]
        state = model.wrapper.initial_state(memories, cell_state=(start, start), params=own["wrapper"])
        embedded = model.target_embedding.apply(batch["target"][:, :-1], params=own["target_embedding"])
        lengths = batch["target_length"]
        outputs, _, _ = model.decoder.apply(
            embedded, initial_state=state, sequence_length=lengths, params=own["decoder"]
        )
        steps = outputs.rnn_output.shape[1]
        weights = (np.arange(steps) < lengths[:, None]).astype(memory.dtype)
        targets = jnp.asarray(batch["target"][:, 1 : 1 + steps])
        return sequence_loss(outputs.rnn_output, targets, jnp.asarray(weights))

    return LivePort({"model": model}, batch, loss, reference, "bidirectional_stack")
