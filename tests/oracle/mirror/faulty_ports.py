"""One small port, an encoder and a decoder with embeddings and a mask, right and with one fault each."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCAB, WIDTH, UNITS = 7, 3, 4

FAULTS = (
    "right",
    "zeros",
    "exchanged",
    "state-stopped",
    "outside-tape",
    "mask-forgotten",
    "clipped",
    "accumulated",
    "constant-embedding",
    "exchanged-and-stopped",
    "unknown",
)


def make_batch() -> dict[str, np.ndarray]:
    """Ids, of which 0 is padding."""
    generator = np.random.default_rng(0)
    source = generator.integers(1, VOCAB, (3, 5))
    source[1, 3:], source[2, 4:] = 0, 0
    return {"source": source, "target": generator.integers(1, VOCAB, (3, 4))}


def build(fault: str = "right") -> Any:
    """The port with a train step of its own, whose tape is the person's."""
    import tensorflow as tf

    from oracle.live_port import LivePort

    layers = tf.keras.layers

    class Encoder(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.Embedding(VOCAB, WIDTH, mask_zero=True)
            self.lstm = layers.LSTM(UNITS, return_state=True)

        def call(self, tokens: Any) -> Any:
            embedded = self.embedding(tokens)
            if fault == "mask-forgotten":
                embedded = embedded[:, :, :]
            return self.lstm(embedded)

    class Decoder(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.Embedding(VOCAB, WIDTH)
            self.lstm = layers.LSTM(UNITS, return_sequences=True)
            self.dense = layers.Dense(VOCAB)

        def call(self, tokens: Any, state: Any) -> Any:
            embedded = self.embedding(tokens)
            if fault == "constant-embedding":
                embedded = tf.stop_gradient(embedded)
            outputs = self.lstm(embedded, initial_state=state)
            return self.dense(2 * outputs - outputs**3 if fault == "unknown" else outputs)

    encoder, decoder = Encoder(), Decoder()

    def decode(batch: Any, state: Any) -> Any:
        if fault.startswith("exchanged"):
            state = state[::-1]
        if fault.endswith("stopped"):
            state = [tf.stop_gradient(part) for part in state]
        logits = decoder(batch["target"][:, :-1], None if fault == "zeros" else state)
        labels = batch["target"][:, 1:]
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    def loss(batch: Any) -> Any:
        _, *state = encoder(batch["source"])
        return decode(batch, state)

    def gradients(batch: Any) -> Any:
        if fault == "outside-tape":
            _, *state = encoder(batch["source"])
            with tf.GradientTape() as tape:
                value = decode(batch, state)
        else:
            with tf.GradientTape() as tape:
                value = loss(batch)
        variables = encoder.trainable_variables + decoder.trainable_variables
        found = tape.gradient(value, variables)
        if fault == "clipped":
            found, _ = tf.clip_by_global_norm(found, 0.25)
        if fault == "accumulated":
            found = [None if g is None else 2 * tf.convert_to_tensor(g) for g in found]
        return value, list(zip(found, variables, strict=True))

    return LivePort(
        {"encoder": encoder, "decoder": decoder}, make_batch(), loss, reference, fault, gradients=gradients
    )


def reference(mirror: Any, params: Any, batch: Any) -> Any:
    """The same, composed of the mirror's pieces."""
    import jax
    import jax.numpy as jnp

    encoder, own = mirror.encoder, params["encoder"]
    embedded = encoder.embedding.apply(batch["source"], params=own["embedding"])
    mask = encoder.embedding.compute_mask(batch["source"], params=own["embedding"])
    _, *state = encoder.lstm.apply(embedded, mask=mask, params=own["lstm"])
    decoder, own = mirror.decoder, params["decoder"]
    embedded = decoder.embedding.apply(batch["target"][:, :-1], params=own["embedding"])
    outputs = decoder.lstm.apply(embedded, initial_state=state, params=own["lstm"])
    logits = decoder.dense.apply(outputs, params=own["dense"])
    labels = batch["target"][:, 1:, None]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels, -1))


def build_cell(forget_bias: float) -> Any:
    """A cell of one's own that adds to its forget gate what its mirror does not know of, if it is not 0."""
    import tensorflow as tf

    import jax_models.keras_layers as ours
    from oracle.bridge import keras_layouts
    from oracle.bridge.mirror import mirrors
    from oracle.bridge.mirror.pieces import Piece, lstm_state
    from oracle.live_port import LivePort

    class ForgetfulCell(tf.keras.layers.LSTMCell):
        def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
            del training
            h, c = states
            gates = inputs @ self.kernel + h @ self.recurrent_kernel + self.bias
            i, f, g, o = tf.split(gates, 4, axis=1)
            c = tf.sigmoid(f + forget_bias) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return h, [h, c]

    @mirrors(ForgetfulCell)
    def mirror_cell(cell: Any, context: Any) -> Any:
        names = ("kernel", "recurrent_kernel", "bias")
        variables = context.variables(cell, names)
        layout = keras_layouts.keras_lstm_cell(int(variables["kernel"].shape[0]), UNITS, use_bias=True)
        return Piece(ours.LSTMCell(UNITS), variables, layout, state=lstm_state("hc"))

    rnn = tf.keras.layers.RNN(ForgetfulCell(UNITS), return_sequences=True)
    generator = np.random.default_rng(1)
    batch = {"x": generator.standard_normal((3, 5, 2)), "y": generator.standard_normal((3, 5, UNITS))}

    def loss(batch: Any) -> Any:
        return tf.reduce_mean((rnn(batch["x"]) - batch["y"]) ** 2)

    def reference(mirror: Any, params: Any, batch: Any) -> Any:
        import jax.numpy as jnp

        return jnp.mean((mirror.rnn.apply(batch["x"], params=params["rnn"]) - batch["y"]) ** 2)

    return LivePort({"rnn": rnn}, batch, loss, reference, "forgetful")
