"""Live ports in which a gradient is None, each with what repairs it: `build = outside_tape(repaired=True)`.

The model is a small recurrent one: what is said of it holds of a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort

FEATURES, UNITS, TARGETS = 3, 6, 2


def make_batch() -> dict[str, np.ndarray]:
    """`source` [5, 4, 3] and `target` [5, 2]."""
    rng = np.random.default_rng(0)
    return {"source": rng.normal(size=(5, 4, FEATURES)), "target": rng.normal(size=(5, TARGETS))}


def make_models() -> dict[str, Any]:
    """An encoder, and a projection of its last output."""
    layers = import_tensorflow().keras.layers
    return {"encoder": layers.GRU(UNITS), "projection": layers.Dense(TARGETS)}


def square(outputs: Any, target: Any) -> Any:
    """The mean squared error."""
    tf = import_tensorflow()
    return tf.reduce_mean(tf.square(outputs - target))


def _make_port(name: str, between: Any) -> LivePort:
    """A port that does something to what the encoder gives."""
    models = make_models()

    def loss(batch: Mapping[str, Any]) -> Any:
        return square(models["projection"](between(models["encoder"](batch["source"]))), batch["target"])

    return LivePort(models, make_batch(), loss, name=name)


def outside_tape(*, repaired: bool = False) -> LivePort:
    """The encoder is called before the tape opens. Finding G021."""
    tf = import_tensorflow()
    models = make_models()
    encoder, projection = models["encoder"], models["projection"]

    def loss(batch: Mapping[str, Any]) -> Any:
        return square(projection(encoder(batch["source"])), batch["target"])

    def gradients(batch: Mapping[str, Any]) -> Any:
        encoded = encoder(batch["source"])
        with tf.GradientTape() as tape:
            if repaired:
                encoded = encoder(batch["source"])
            value = square(projection(encoded), batch["target"])
        variables = [*encoder.trainable_variables, *projection.trainable_variables]
        return value, zip(tape.gradient(value, variables), variables, strict=True)

    return LivePort(models, make_batch(), loss, name="outside_tape", gradients=gradients)


def rounded(*, repaired: bool = False) -> LivePort:
    """What the encoder gives is cast to integers and back. Finding G022."""
    tf = import_tensorflow()
    if repaired:
        return _make_port("rounded", lambda encoded: 9.0 * encoded)
    return _make_port("rounded", lambda encoded: tf.cast(tf.cast(9.0 * encoded, tf.int32), encoded.dtype))


def stopped(*, repaired: bool = False) -> LivePort:
    """`stop_gradient` lies behind the encoder. Finding G023."""
    tf = import_tensorflow()
    return _make_port("stopped", tf.identity if repaired else tf.stop_gradient)


def in_python(*, repaired: bool = False) -> LivePort:
    """What the encoder gives goes through a function of NumPy. Finding G024."""
    tf = import_tensorflow()
    if repaired:
        return _make_port("in_python", tf.tanh)

    def through_numpy(encoded: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(np.tanh, [encoded], encoded.dtype), encoded.shape)

    return _make_port("in_python", through_numpy)


def read_as_numpy(*, repaired: bool = False) -> LivePort:
    """NumPy computes on what the encoder gives. Finding G025."""
    tf = import_tensorflow()
    if repaired:
        return _make_port("read_as_numpy", tf.tanh)
    return _make_port("read_as_numpy", lambda encoded: tf.constant(np.tanh(encoded.numpy())))


def read_as_array(*, repaired: bool = False) -> LivePort:
    """A function of NumPy is called on what the encoder gives. Finding G025."""
    tf = import_tensorflow()
    return _make_port("read_as_array", tf.tanh if repaired else np.tanh)


def unused(*, repaired: bool = False) -> LivePort:
    """A bridge between encoder and projection is called, and what it gives is dropped. Finding G026."""
    tf = import_tensorflow()
    models = make_models() | {"bridge": tf.keras.layers.Dense(UNITS)}

    def loss(batch: Mapping[str, Any]) -> Any:
        encoded = models["encoder"](batch["source"])
        bridged = models["bridge"](encoded)
        outputs = models["projection"](bridged if repaired else encoded)
        return square(outputs, batch["target"])

    return LivePort(models, make_batch(), loss, name="unused")


def left_out(*, repaired: bool = False) -> LivePort:
    """The train step differentiates by the projection's variables only. Finding G027."""
    tf = import_tensorflow()
    models = make_models()
    encoder, projection = models["encoder"], models["projection"]

    def loss(batch: Mapping[str, Any]) -> Any:
        return square(projection(encoder(batch["source"])), batch["target"])

    @tf.function
    def gradients(batch: Mapping[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            value = loss(batch)
        variables = projection.trainable_variables
        if repaired:
            variables = encoder.trainable_variables + variables
        return value, tape.gradient(value, variables)

    def with_variables(batch: Mapping[str, Any]) -> Any:
        value, found = gradients(batch)
        variables = projection.trainable_variables
        if repaired:
            variables = encoder.trainable_variables + variables
        return value, zip(found, variables, strict=True)

    return LivePort(models, make_batch(), loss, name="left_out", gradients=with_variables)


def used_twice(*, repaired: bool = False) -> LivePort:
    """The train step asks a tape twice, once for each model's gradients. Finding G011."""
    tf = import_tensorflow()
    models = make_models()
    encoder, projection = models["encoder"], models["projection"]

    def loss(batch: Mapping[str, Any]) -> Any:
        return square(projection(encoder(batch["source"])), batch["target"])

    def gradients(batch: Mapping[str, Any]) -> Any:
        with tf.GradientTape(persistent=repaired) as tape:
            value = loss(batch)
        of_each = [
            (model, tape.gradient(value, model.trainable_variables)) for model in (encoder, projection)
        ]
        return value, [
            pair for model, found in of_each for pair in zip(found, model.trainable_variables, strict=True)
        ]

    return LivePort(models, make_batch(), loss, name="used_twice", gradients=gradients)


def saturated(*, repaired: bool = False) -> LivePort:
    """A clip that is saturated for every input. Finding G013."""
    tf = import_tensorflow()
    bound = 9.0 if repaired else -9.0
    return _make_port("saturated", lambda encoded: tf.minimum(encoded, bound))


def undefined(*, repaired: bool = False) -> LivePort:
    """The norm of a difference that is zero. Finding G014."""
    tf = import_tensorflow()
    spare = 1e-3 if repaired else 0.0
    return _make_port(
        "undefined",
        lambda encoded: (
            encoded + tf.sqrt(tf.reduce_sum(tf.square(encoded - encoded), -1, keepdims=True) + spare)
        ),
    )


def lost_context(path: str) -> LivePort:
    """A SavedModel of TF1 with a loop, at `path`, in a live port. Findings G002 and G001."""
    from tf_models.legacy.loops import save_loop

    tf = import_tensorflow()
    save_loop(path)
    model = tf.saved_model.load(path)
    step = model.signatures["serving_default"]
    scale = tf.Variable(np.ones(3, np.float32), name="scale")

    def loss(batch: Mapping[str, Any]) -> Any:
        state = step(source=batch["source"] * scale, steps=tf.constant(3))["state"]
        return tf.reduce_mean(tf.square(state))

    batch = {"source": make_batch()["source"][:, 0]}
    return LivePort({"model": model, "scale": scale}, batch, loss, name="lost_context")
