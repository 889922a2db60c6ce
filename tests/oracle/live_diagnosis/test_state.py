"""What is a lost state and what is not; what a port changes and a diagnosis puts back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from oracle.errors import CaseError
from oracle.live_diagnosis import diagnose_live
from oracle.live_port import LivePort

pytestmark = [pytest.mark.tf_any, pytest.mark.filterwarnings("ignore")]

UNITS, SOURCE, TARGET = 4, (3, 5, 2), (3, 4, 6)
"""The arrays are [batch, time, features]."""


@pytest.fixture
def tf() -> Any:
    from oracle.frameworks import import_tensorflow

    return import_tensorflow()


def make_port(models: Mapping[str, Any], loss: Callable[..., Any], **options: Any) -> LivePort:
    rng = np.random.default_rng(0)
    batch = {"source": rng.normal(size=SOURCE), "target": rng.normal(size=TARGET)}
    return LivePort(models, batch, loss, **options)


def make_lstm(tf: Any, **options: Any) -> Any:
    return tf.keras.layers.LSTM(UNITS, **options)


def test_two_encoders_side_by_side(tf: Any) -> None:
    """Both return their states, and the loss takes what is pooled of their results, or their last ones."""
    for options, pool in (
        ({"return_sequences": True}, lambda result: tf.reduce_max(result, 1)),
        ({}, lambda result: result),
    ):

        def build(options: Any = options, pool: Any = pool) -> LivePort:
            models = {name: make_lstm(tf, return_state=True, **options) for name in ("first", "second")}

            def loss(batch: Mapping[str, Any]) -> Any:
                first = pool(models["first"](batch["source"])[0])
                return tf.reduce_mean(tf.square(first - pool(models["second"](batch["target"])[0])))

            return make_port(models, loss)

        assert diagnose_live(build) == []


def test_a_batch_in_parts(tf: Any) -> None:
    """Gradients are summed over parts, and the loss that is returned is of the last part."""

    def build() -> LivePort:
        models = {
            "encoder": make_lstm(tf, return_state=True),
            "decoder": make_lstm(tf, return_sequences=True),
        }

        def gradients(batch: Mapping[str, Any]) -> Any:
            total, value, variables = None, None, []
            for part in range(2):
                with tf.GradientTape() as tape:
                    _, h, c = models["encoder"](batch["source"][part : part + 1])
                    decoded = models["decoder"](batch["target"][part : part + 1], initial_state=[h, c])
                    value = tf.reduce_mean(tf.square(decoded))
                variables = [v for model in models.values() for v in model.trainable_variables]
                found = tape.gradient(value, variables)
                total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
            return value, zip(total or [], variables, strict=True)

        return make_port(models, lambda batch: gradients(batch)[0], gradients=gradients)

    assert diagnose_live(build) == []


def test_all_that_is_lost_with_a_state_is_one_finding(tf: Any) -> None:
    """Both layers of the encoder and the bridge behind it."""

    def build() -> LivePort:
        models = {
            "lower": make_lstm(tf, return_sequences=True),
            "upper": make_lstm(tf, return_state=True),
            "bridge": tf.keras.layers.Dense(UNITS),
            "decoder": make_lstm(tf, return_sequences=True),
        }

        def loss(batch: Mapping[str, Any]) -> Any:
            _, h, _ = models["upper"](models["lower"](batch["source"]))
            models["bridge"](h)
            return tf.reduce_mean(tf.square(models["decoder"](batch["target"])))

        return make_port(models, loss)

    (finding,) = diagnose_live(build)
    assert finding.code == "G101"
    assert "lower, upper: nothing that they give reaches the loss; decoder starts" in finding.what


@pytest.mark.parametrize("name", ["round", "floor", "math.rint"])
def test_rounding_has_a_gradient_in_name_only(tf: Any, name: str) -> None:
    function = tf.math.rint if name == "math.rint" else getattr(tf, name)
    weight = tf.Variable(np.ones(2, np.float32))
    (finding,) = diagnose_live(
        lambda: make_port({"weight": weight}, lambda batch: tf.reduce_sum(function(batch["source"] * weight)))
    )
    assert finding.code == "G022"


def test_numpy_in_a_traced_function(tf: Any) -> None:
    weight = tf.Variable(np.ones(2, np.float32))
    loss = tf.function(lambda batch: tf.reduce_sum(batch["source"] * weight * weight.read_value().numpy()))
    (finding,) = diagnose_live(lambda: make_port({"weight": weight}, loss))
    assert finding.code == "G025"


def test_a_weight_that_was_read_when_the_port_was_made(tf: Any) -> None:
    def build() -> LivePort:
        weights = [tf.Variable(np.ones(2, np.float32)) for _ in range(2)]
        copied = weights[0].numpy()
        return make_port(
            {"first": weights[0], "second": weights[1]},
            lambda batch: tf.reduce_sum(batch["source"] * copied * weights[1]),
        )

    (finding,) = diagnose_live(build)
    assert finding.code == "G026"
    assert "first is None: the loss never reads it, but its value was taken as NumPy here" in finding.what
    assert "test_state.py" in finding.where


def test_the_zero_that_is_named_is_none_of_chance(tf: Any) -> None:
    """The bias is zero as it was made, so that the square's gradient is zero too: but only there."""

    def build() -> LivePort:
        kernel = tf.Variable(np.ones((2, 3), np.float32))
        bias = tf.Variable(np.zeros(3, np.float32))

        def loss(batch: Mapping[str, Any]) -> Any:
            return tf.reduce_sum(tf.square(tf.nn.relu(batch["source"] @ kernel - 99.0) + bias))

        return make_port({"kernel": kernel, "bias": bias}, loss)

    (finding,) = diagnose_live(build)
    assert finding.code == "G013"
    assert "of kernel is zero" in finding.what
    assert "in the backward pass of Relu" in finding.what


def test_what_a_step_changes_is_put_back(tf: Any) -> None:
    """The weights, of a step that goes on to train, and Keras' precision, which the port sets."""
    weight = tf.Variable(np.ones(2, np.float32))

    def build() -> LivePort:
        tf.keras.backend.set_floatx("float64")

        def gradients(batch: Mapping[str, Any]) -> Any:
            with tf.GradientTape() as tape:
                value = tf.reduce_sum(tf.square(batch["source"] * weight))
            found = tape.gradient(value, [weight])
            weight.assign_sub(0.1 * found[0])
            return value, [(found[0], weight)]

        return make_port({"weight": weight}, lambda batch: gradients(batch)[0], gradients=gradients)

    assert diagnose_live(build) == []
    np.testing.assert_array_equal(weight.numpy(), np.ones(2, np.float32))
    assert tf.keras.backend.floatx() == "float32"


def test_nothing_to_diagnose(tf: Any) -> None:
    weight = tf.Variable(2.0)
    with pytest.raises(CaseError, match=r"models \(empty\) hold no trainable variable"):
        diagnose_live(
            lambda: make_port({"empty": tf.Module()}, lambda b: weight * tf.reduce_sum(b["source"]))
        )
