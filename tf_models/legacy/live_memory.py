"""Live ports whose attention memory or sampler keeps what is of another batch or call.

Each takes what repairs it: `stale(repaired=True)`. They need tfa.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow, import_tfa
from oracle.live_port import LivePort

VOCAB, WIDTH, UNITS, BATCH, TIME = 8, 3, 6, 5, 4


class Translator:
    """An encoder, a decoder with attention, and a projection, as the ports here put them together."""

    def __init__(self, sampler: Any = None) -> None:
        tf, tfa = import_tensorflow(), import_tfa()
        self.embedding = tf.keras.layers.Embedding(VOCAB, WIDTH)
        self.encoder = tf.keras.layers.GRU(UNITS, return_sequences=True, return_state=True)
        self.mechanism = tfa.seq2seq.LuongAttention(UNITS)
        self.wrapper = tfa.seq2seq.AttentionWrapper(
            tf.keras.layers.GRUCell(UNITS), self.mechanism, attention_layer_size=UNITS
        )
        self.decoder = tfa.seq2seq.BasicDecoder(
            self.wrapper, sampler or tfa.seq2seq.TrainingSampler(), tf.keras.layers.Dense(VOCAB)
        )

    def decode(self, target: Any, state: Any) -> Any:
        """The loss of the target by teacher forcing, from an encoder's state."""
        tf = import_tensorflow()
        start = self.wrapper.get_initial_state(batch_size=BATCH, dtype=state.dtype)
        outputs, _, _ = self.decoder(
            self.embedding(target[:, :-1]),
            initial_state=start.clone(cell_state=state),
            sequence_length=tf.fill([BATCH], TIME - 1),
        )
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target[:, 1:], outputs.rnn_output)
        return tf.reduce_mean(losses)

    @property
    def models(self) -> dict[str, Any]:
        """What holds the weights."""
        return {"embedding": self.embedding, "encoder": self.encoder, "decoder": self.decoder}


def make_batch() -> dict[str, np.ndarray]:
    """`source` [5, 2] and `target` [5, 4], ids."""
    rng = np.random.default_rng(0)
    return {"source": rng.integers(0, VOCAB, (BATCH, 2)), "target": rng.integers(0, VOCAB, (BATCH, TIME))}


def stale(*, repaired: bool = False) -> LivePort:
    """The memory is set up for the first batch only. Finding G103."""
    parts = Translator()

    def loss(batch: Mapping[str, Any]) -> Any:
        outputs, state = parts.encoder(parts.embedding(batch["source"]))
        if repaired or not parts.mechanism.memory_initialized:
            parts.mechanism.setup_memory(outputs)
        return parts.decode(batch["target"], state)

    return LivePort(parts.models, make_batch(), loss, name="stale")


def while_made(*, repaired: bool = False) -> LivePort:
    """The memory is set up when the port is made. Finding G102."""
    parts, batch = Translator(), make_batch()
    parts.mechanism.setup_memory(parts.encoder(parts.embedding(batch["source"]))[0])

    def loss(batch: Mapping[str, Any]) -> Any:
        outputs, state = parts.encoder(parts.embedding(batch["source"]))
        if repaired:
            parts.mechanism.setup_memory(outputs)
        return parts.decode(batch["target"], state)

    return LivePort(parts.models, batch, loss, name="while_made")


def before_tape(*, repaired: bool = False) -> LivePort:
    """The memory is set up in the train step, before the tape opens. Finding G102."""
    tf = import_tensorflow()
    parts = Translator()

    def gradients(batch: Mapping[str, Any]) -> Any:
        outputs, _ = parts.encoder(parts.embedding(batch["source"]))
        parts.mechanism.setup_memory(outputs)
        with tf.GradientTape() as tape:
            outputs, state = parts.encoder(parts.embedding(batch["source"]))
            if repaired:
                parts.mechanism.setup_memory(outputs)
            value = parts.decode(batch["target"], state)
        variables = [v for model in parts.models.values() for v in model.trainable_variables]
        return value, zip(tape.gradient(value, variables), variables, strict=True)

    return LivePort(
        parts.models, make_batch(), lambda b: gradients(b)[0], name="before_tape", gradients=gradients
    )


def other_function(*, repaired: bool = False) -> LivePort:
    """The memory is set up in one `tf.function` and queried in another. Finding G102."""
    tf = import_tensorflow()
    parts = Translator()

    @tf.function
    def encode(source: Any) -> Any:
        outputs, state = parts.encoder(parts.embedding(source))
        if not repaired:
            parts.mechanism.setup_memory(outputs)
        return outputs, state

    @tf.function
    def decode(target: Any, outputs: Any, state: Any) -> Any:
        if repaired:
            parts.mechanism.setup_memory(outputs)
        return parts.decode(target, state)

    def loss(batch: Mapping[str, Any]) -> Any:
        return decode(batch["target"], *encode(batch["source"]))

    return LivePort(parts.models, make_batch(), loss, name="other_function")


def constant_memory(*, repaired: bool = False) -> LivePort:
    """A traced decoder takes the memory of its first call for a constant. Finding G103."""
    tf = import_tensorflow()
    parts = Translator()

    @tf.function
    def decode(target: Any, outputs: Any, state: Any) -> Any:
        if repaired:
            parts.mechanism.setup_memory(outputs)
        return parts.decode(target, state)

    def loss(batch: Mapping[str, Any]) -> Any:
        outputs, state = parts.encoder(parts.embedding(batch["source"]))
        parts.mechanism.setup_memory(outputs)
        return decode(batch["target"], outputs, state)

    return LivePort(parts.models, make_batch(), loss, name="constant_memory")


def cached_embedding(*, repaired: bool = False) -> LivePort:
    """A greedy decoder's sampler keeps the first embeddings that it is given. Finding G104."""
    tf, tfa = import_tensorflow(), import_tfa()
    embedding = tf.keras.layers.Embedding(VOCAB, WIDTH)
    embedding.build(None)
    cell = tf.keras.layers.GRUCell(UNITS)
    decoder = tfa.seq2seq.BasicDecoder(
        cell,
        tfa.seq2seq.GreedyEmbeddingSampler(embedding if repaired else None),
        tf.keras.layers.Dense(VOCAB),
        maximum_iterations=TIME,
    )

    def loss(batch: Mapping[str, Any]) -> Any:
        outputs, _, _ = decoder(
            tf.convert_to_tensor(embedding.embeddings),
            start_tokens=batch["start"],
            end_token=-1,
            initial_state=cell.get_initial_state(batch_size=BATCH, dtype="float32"),
        )
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["target"], outputs.rnn_output)
        return tf.reduce_mean(losses)

    batch = {"start": np.arange(BATCH, dtype=np.int32), "target": make_batch()["target"]}
    return LivePort({"embedding": embedding, "decoder": decoder}, batch, loss, name="cached_embedding")
