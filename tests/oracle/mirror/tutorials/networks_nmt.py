"""The structure of TensorFlow Addons' tutorial on translation with attention (networks_seq2seq_nmt).

Encoder: embedding and LSTM. Decoder: embedding, LSTM cell, attention mechanism, `AttentionWrapper`,
`TrainingSampler`, `BasicDecoder` with a dense output layer; a masked sparse cross-entropy.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

from oracle.live_port import LivePort

SOURCE_VOCAB, TARGET_VOCAB, EMBEDDING, UNITS = 9, 8, 4, 6
BATCH, SOURCE_TIME, TARGET_TIME = 3, 5, 4


class Encoder(tf.keras.Model):
    """Embeds and reads the source."""

    def __init__(self):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(SOURCE_VOCAB, EMBEDDING)
        self.lstm_layer = tf.keras.layers.LSTM(
            UNITS, return_sequences=True, return_state=True, recurrent_initializer="glorot_uniform"
        )

    def call(self, x, hidden):
        """Returns the outputs, h and c."""
        return self.lstm_layer(self.embedding(x), initial_state=hidden)


class Decoder(tf.keras.Model):
    """Decodes with attention to the encoder's outputs."""

    def __init__(self, attention_type):
        super().__init__()
        self.attention_type = attention_type
        self.embedding = tf.keras.layers.Embedding(TARGET_VOCAB, EMBEDDING)
        self.fc = tf.keras.layers.Dense(TARGET_VOCAB)
        self.decoder_rnn_cell = tf.keras.layers.LSTMCell(UNITS)
        self.sampler = tfa.seq2seq.TrainingSampler()
        make = {"luong": tfa.seq2seq.LuongAttention, "bahdanau": tfa.seq2seq.BahdanauAttention}
        self.attention_mechanism = make[attention_type](units=UNITS, memory=None)
        self.rnn_cell = tfa.seq2seq.AttentionWrapper(
            self.decoder_rnn_cell, self.attention_mechanism, attention_layer_size=UNITS
        )
        self.decoder = tfa.seq2seq.BasicDecoder(self.rnn_cell, sampler=self.sampler, output_layer=self.fc)

    def build_initial_state(self, batch_size, encoder_state, dtype):
        """The wrapper's state, its cell where the encoder ended."""
        state = self.rnn_cell.get_initial_state(batch_size=batch_size, dtype=dtype)
        return state.clone(cell_state=encoder_state)

    def call(self, inputs, initial_state):
        """Teacher forcing."""
        outputs, _, _ = self.decoder(
            self.embedding(inputs),
            initial_state=initial_state,
            sequence_length=BATCH * [TARGET_TIME - 1],
        )
        return outputs


def masked_loss(real, pred):
    """The sparse cross-entropy of all that is no padding, averaged over everything."""
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    loss = cross_entropy(y_true=real, y_pred=pred)
    mask = tf.cast(tf.logical_not(tf.math.equal(real, 0)), dtype=loss.dtype)
    return tf.reduce_mean(mask * loss)


def build(attention_type: str = "luong", *, faulty: bool = False) -> LivePort:
    """The port. The fault: the memory is set up from a copy that the gradient does not reach."""
    encoder, decoder = Encoder(), Decoder(attention_type)
    generator = np.random.default_rng(0)
    batch = {
        "source": generator.integers(1, SOURCE_VOCAB, (BATCH, SOURCE_TIME)).astype(np.int32),
        "target": generator.integers(1, TARGET_VOCAB, (BATCH, TARGET_TIME)).astype(np.int32),
    }
    batch["source"][1, 3:], batch["target"][1, 2:] = 0, 0

    def loss(batch):
        dtype = tf.keras.backend.floatx()
        zeros = [tf.zeros((BATCH, UNITS), dtype)] * 2
        outputs, state_h, state_c = encoder(batch["source"], zeros)
        memory = tf.stop_gradient(outputs) if faulty else outputs
        decoder.attention_mechanism.setup_memory(memory)
        state = decoder.build_initial_state(BATCH, [state_h, state_c], dtype)
        logits = decoder(batch["target"][:, :-1], state).rnn_output
        return masked_loss(batch["target"][:, 1:], logits), {"logits": logits}

    def reference(mirror, params, batch):
        import jax
        import jax.numpy as jnp

        encoder, decoder, of_decoder = mirror.encoder, mirror.decoder, params["decoder"]
        embedded = encoder.embedding.apply(batch["source"], params=params["encoder"]["embedding"])
        outputs, h, c = encoder.lstm_layer.apply(embedded, params=params["encoder"]["lstm_layer"])
        memory = decoder.rnn_cell.setup_memory(outputs, params=of_decoder["rnn_cell"])
        state = decoder.rnn_cell.initial_state(memory, cell_state=[h, c], params=of_decoder["rnn_cell"])
        embedded = decoder.embedding.apply(batch["target"][:, :-1], params=of_decoder["embedding"])
        lengths = np.full(BATCH, TARGET_TIME - 1)
        decoded, _, _ = decoder.decoder.apply(
            embedded, initial_state=state, sequence_length=lengths, params=of_decoder["decoder"]
        )
        real = batch["target"][:, 1:]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(decoded.rnn_output), real[..., None], -1)[..., 0]
        return jnp.mean(-chosen * (real != 0)), {"logits": decoded.rnn_output}

    name = f"networks_nmt/{attention_type}"
    return LivePort({"encoder": encoder, "decoder": decoder}, batch, loss, reference, name)
