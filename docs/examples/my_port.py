"""A translator as tutorials write it: embedding and LSTM, then LSTM cell with attention on `tfa.seq2seq`."""

import jax.numpy as jnp
import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

import oracle
from jax_models.seq2seq import sequence_loss


class Encoder(tf.keras.Model):
    """Your encoder."""

    def __init__(self, vocab, units):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(vocab, 6)
        self.lstm = tf.keras.layers.LSTM(units, return_sequences=True, return_state=True)

    def call(self, source):
        """Outputs, h and c."""
        return self.lstm(self.embedding(source))


class Decoder(tf.keras.Model):
    """Your decoder."""

    def __init__(self, vocab, units):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(vocab, 5)
        self.attention = tfa.seq2seq.LuongAttention(units)
        self.wrapper = tfa.seq2seq.AttentionWrapper(
            tf.keras.layers.LSTMCell(units), self.attention, attention_layer_size=units
        )
        self.decoder = tfa.seq2seq.BasicDecoder(
            self.wrapper, tfa.seq2seq.TrainingSampler(), output_layer=tf.keras.layers.Dense(vocab)
        )

    def call(self, target, memory, state, lengths):
        """Logits [batch, time, vocab]."""
        inputs = self.embedding(target)
        self.attention.setup_memory(memory)
        start = self.wrapper.get_initial_state(batch_size=tf.shape(target)[0], dtype=inputs.dtype)
        start = start.clone(cell_state=state)
        outputs, _, _ = self.decoder(inputs, initial_state=start, sequence_length=lengths)
        return outputs.rnn_output


def build():
    """Your model, a batch, the loss by your code, and the same loss by the mirror's pieces."""
    encoder, decoder = Encoder(11, 4), Decoder(13, 4)
    rng = np.random.default_rng(0)
    batch = {
        "source": rng.integers(0, 11, (3, 7)),
        "target": rng.integers(0, 13, (3, 6)),
        "lengths": np.full(3, 5, np.int32),
    }

    def loss(batch):
        memory, h, c = encoder(batch["source"])
        logits = decoder(batch["target"][:, :-1], memory, [h, c], batch["lengths"])
        return tfa.seq2seq.sequence_loss(logits, batch["target"][:, 1:], tf.ones([3, 5], logits.dtype))

    def reference(mirror, params, batch):
        embedded = mirror.encoder.embedding.apply(batch["source"], params=params["encoder"]["embedding"])
        memory, h, c = mirror.encoder.lstm.apply(embedded, params=params["encoder"]["lstm"])
        inputs = mirror.decoder.embedding.apply(
            batch["target"][:, :-1], params=params["decoder"]["embedding"]
        )
        wrapper, weights = mirror.decoder.wrapper, params["decoder"]
        memories = wrapper.setup_memory(memory, params=weights["wrapper"])
        start = wrapper.initial_state(memories, cell_state=[h, c])
        outputs, _, _ = mirror.decoder.decoder.apply(
            inputs, initial_state=start, sequence_length=batch["lengths"], params=weights["decoder"]
        )
        logits = outputs.rnn_output
        return sequence_loss(logits, batch["target"][:, 1:], jnp.ones((3, 5), logits.dtype))

    return oracle.LivePort({"encoder": encoder, "decoder": decoder}, batch, loss, reference)
