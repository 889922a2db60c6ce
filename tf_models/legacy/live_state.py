"""Live ports that lose or keep state, each with what repairs it: `build = dropped_state(repaired=True)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort
from tf_models.legacy.live_gradients import FEATURES, TARGETS, UNITS, make_batch, make_models, square


def dropped_state(*, repaired: bool = False) -> LivePort:
    """The encoder's state is returned and not handed over. Finding G101."""
    tf = import_tensorflow()
    layers = tf.keras.layers
    encoder = layers.LSTM(UNITS, return_state=True)
    decoder = layers.LSTM(UNITS, return_sequences=True)
    projection = layers.Dense(TARGETS)
    rng = np.random.default_rng(0)
    batch = {"source": rng.normal(size=(5, 4, FEATURES)), "target": rng.normal(size=(5, 4, TARGETS))}

    def loss(batch: Mapping[str, Any]) -> Any:
        _, h, c = encoder(batch["source"])
        decoded = decoder(batch["target"][:, :-1], initial_state=[h, c] if repaired else None)
        return square(projection(decoded), batch["target"][:, 1:])

    models = {"encoder": encoder, "decoder": decoder, "projection": projection}
    return LivePort(models, batch, loss, name="dropped_state")


def dropped_state_with_attention(*, repaired: bool = False) -> LivePort:
    """The same beside attention, by which the encoder is trained all the same. Finding G101."""
    tf = import_tensorflow()
    layers = tf.keras.layers
    encoder = layers.GRU(UNITS, return_sequences=True, return_state=True)
    decoder = layers.GRU(UNITS, return_sequences=True)
    attention, projection = layers.Attention(), layers.Dense(TARGETS)
    rng = np.random.default_rng(0)
    batch = {"source": rng.normal(size=(5, 4, FEATURES)), "target": rng.normal(size=(5, 4, TARGETS))}

    def loss(batch: Mapping[str, Any]) -> Any:
        outputs, state = encoder(batch["source"])
        decoded = decoder(batch["target"][:, :-1], initial_state=state if repaired else None)
        context = attention([decoded, outputs])
        return square(projection(tf.concat([decoded, context], -1)), batch["target"][:, 1:])

    models = {"encoder": encoder, "decoder": decoder, "attention": attention, "projection": projection}
    return LivePort(models, batch, loss, name="dropped_state_with_attention")


def kept_tensor(*, repaired: bool = False) -> LivePort:
    """Keys of a memory are computed once, when the port is made, and used in every call. Finding G105."""
    tf = import_tensorflow()
    models = make_models()
    table = tf.Variable(np.random.default_rng(1).normal(size=(7, UNITS)).astype("float32"), name="table")
    keys = tf.tanh(table)

    def loss(batch: Mapping[str, Any]) -> Any:
        encoded = models["encoder"](batch["source"])
        scores = tf.matmul(encoded, tf.tanh(table) if repaired else keys, transpose_b=True)
        return square(models["projection"](tf.nn.softmax(scores)), batch["target"])

    return LivePort(models | {"table": table}, make_batch(), loss, name="kept_tensor")


def new_variables(*, repaired: bool = False) -> LivePort:
    """Layers are made in a loop within the call. Finding G106."""
    tf = import_tensorflow()

    class Stack(tf.keras.layers.Layer):
        """Two dense layers."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = [tf.keras.layers.Dense(UNITS) for _ in range(2)] if repaired else []

        def call(self, inputs: Any) -> Any:
            """One after the other."""
            steps = self.steps or [tf.keras.layers.Dense(UNITS) for _ in range(2)]
            for step in steps:
                inputs = tf.tanh(step(inputs))
            return inputs

    models = make_models() | {"stack": Stack()}

    def loss(batch: Mapping[str, Any]) -> Any:
        encoded = models["stack"](models["encoder"](batch["source"]))
        return square(models["projection"](encoded), batch["target"])

    return LivePort(models, make_batch(), loss, name="new_variables")


def new_variables_in_function() -> LivePort:
    """The same in `tf.function`, where it raises. Finding G106."""
    tf = import_tensorflow()
    models = make_models()

    def loss(batch: Mapping[str, Any]) -> Any:
        scale = tf.Variable(2.0)
        return square(scale * models["projection"](models["encoder"](batch["source"])), batch["target"])

    traced = tf.function(loss)
    return LivePort(models, make_batch(), traced, name="new_variables_in_function")
