"""Causes that lie deeper than the examples, and what must not be taken for a cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from oracle.errors import CaseError, UsageError
from oracle.live_diagnosis import diagnose_live
from oracle.live_port import LivePort

pytestmark = [pytest.mark.tf_any, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def tf() -> Any:
    from oracle.frameworks import import_tensorflow

    return import_tensorflow()


def make_port(tf: Any, loss_of: Callable[[Any, Any, Any], Any], **options: Any) -> Callable[[], LivePort]:
    """A port of two variables: `first` [3, 2] and `second` [2]. The loss gets both and x [4, 3]."""

    def build() -> LivePort:
        rng = np.random.default_rng(0)
        first = tf.Variable(rng.normal(size=(3, 2)).astype("float32"), name="first")
        second = tf.Variable(rng.normal(size=2).astype("float32"), name="second")

        def loss(batch: Mapping[str, Any]) -> Any:
            return tf.reduce_sum(loss_of(first, second, batch["x"]))

        return LivePort({"first": first, "second": second}, {"x": rng.normal(size=(4, 3))}, loss, **options)

    return build


def codes(build: Callable[[], LivePort]) -> list[str]:
    """The codes of what is found."""
    return [finding.code for finding in diagnose_live(build)]


def test_argmax_and_comparison(tf: Any) -> None:
    found = diagnose_live(
        make_port(tf, lambda a, b, x: tf.cast(tf.argmax(x @ a, -1), "float32") + tf.cast(b[0] > 0, "float32"))
    )
    assert [finding.code for finding in found] == ["G022", "G022"]
    assert "ArgMax" in found[0].what
    assert "Greater" in found[1].what


def test_only_the_part_that_stops(tf: Any) -> None:
    """A stop on one of two ways is no None, and so no finding."""
    assert codes(make_port(tf, lambda a, b, x: tf.stop_gradient(x @ a) * b + x @ a)) == []


def test_stop_recording(tf: Any) -> None:
    def build() -> LivePort:
        port = make_port(tf, lambda a, b, x: x @ a + b)()
        first, second = port.models["first"], port.models["second"]

        def gradients(batch: Mapping[str, Any]) -> Any:
            with tf.GradientTape() as tape:
                with tape.stop_recording():
                    hidden = batch["x"] @ first
                value = tf.reduce_sum(tf.square(hidden + second))
            variables = [first, second]
            return value, zip(tape.gradient(value, variables), variables, strict=True)

        return LivePort(port.models, port.batch, port.loss, gradients=gradients)

    (finding,) = diagnose_live(build)
    assert finding.code == "G021"
    assert "gradient of first is None: no tape records MatMul" in finding.what


def test_custom_gradient_is_no_gap(tf: Any) -> None:
    """What runs within it is not on the tape, and yet it has a gradient. The stop behind it is the cause."""

    @tf.custom_gradient
    def doubled(x: Any) -> Any:
        return 2.0 * x, lambda upstream: 2.0 * upstream

    assert codes(make_port(tf, lambda a, b, x: doubled(x @ a) + b)) == []
    (finding,) = diagnose_live(make_port(tf, lambda a, b, x: tf.stop_gradient(doubled(x @ a)) + b))
    assert finding.code == "G023"


def test_python_function(tf: Any) -> None:
    """`tf.py_function` has a gradient, unless its body leaves TensorFlow."""

    def call(function: Callable[[Any], Any]) -> Callable[[], LivePort]:
        return make_port(tf, lambda a, b, x: tf.py_function(function, [x @ a], "float32") + b)

    assert codes(call(tf.square)) == []
    assert codes(call(lambda h: np.square(h.numpy()))) == ["G024"]
    # Here TensorFlow gives a single zero for a gradient of four rows, and raises nothing.
    (finding,) = diagnose_live(
        make_port(tf, lambda a, b, x: tf.py_function(lambda h: h.numpy() ** 2, [b * 2.0], "float32") + x @ a)
    )
    assert finding.code == "G024"
    assert "second" in finding.what


def test_value_of_a_variable_read_as_numpy(tf: Any) -> None:
    assert codes(make_port(tf, lambda a, b, x: x @ a.numpy() + b)) == ["G025"]
    assert codes(make_port(tf, lambda a, b, x: x @ np.asarray(a) + b)) == ["G025"]
    assert codes(make_port(tf, lambda a, b, x: x @ a + float(b[0]))) == ["G025"]


def test_reading_for_a_log_is_no_finding(tf: Any) -> None:
    def loss(a: Any, b: Any, x: Any) -> Any:
        hidden = x @ a + b
        assert np.isfinite(hidden.numpy()).all()
        return hidden

    assert codes(make_port(tf, loss)) == []


def test_shape_of_a_weight_is_no_use_of_it(tf: Any) -> None:
    """Only zeros of its shape reach the loss."""
    assert codes(make_port(tf, lambda a, b, x: x @ a + tf.zeros_like(b))) == ["G026"]


def test_in_a_traced_function(tf: Any) -> None:
    """The line within a decorated function is found."""

    @tf.function
    def step(a: Any, b: Any, x: Any) -> Any:
        hidden = tf.stop_gradient(x @ a)
        return hidden + b

    (finding,) = diagnose_live(make_port(tf, step))
    assert finding.code == "G023"
    assert "test_causes.py" in finding.where


def test_constants_and_caches_of_shapes_are_no_findings(tf: Any) -> None:
    kept: dict[str, Any] = {"scale": tf.constant([2.0, 3.0])}

    def loss(a: Any, b: Any, x: Any) -> Any:
        if "steps" not in kept:
            kept["steps"] = tf.cast(tf.range(tf.shape(x @ a)[0]), "float32")[:, None]
        return (x @ a + b) * kept["scale"] + kept["steps"]

    assert codes(make_port(tf, loss)) == []


def test_a_batch_that_is_kept(tf: Any) -> None:
    kept: dict[str, Any] = {}

    def loss(a: Any, b: Any, x: Any) -> Any:
        kept.setdefault("mean", tf.reduce_mean(x))
        return (x @ a + b) * kept["mean"]

    (finding,) = diagnose_live(make_port(tf, loss))
    assert finding.code == "G105"
    assert "kept['mean']" in finding.what


def test_a_state_that_is_carried_on_purpose(tf: Any) -> None:
    def carry(stop: Callable[[Any], Any]) -> Callable[[], LivePort]:
        kept: dict[str, Any] = {}

        def loss(a: Any, b: Any, x: Any) -> Any:
            hidden = x @ a + b + kept.get("state", 0.0)
            kept["state"] = stop(tf.tanh(hidden))
            return hidden

        return make_port(tf, loss)

    assert codes(carry(tf.stop_gradient)) == []
    assert codes(carry(tf.identity)) == ["G105"]


def test_a_loss_that_is_not_finite(tf: Any) -> None:
    (finding,) = diagnose_live(make_port(tf, lambda a, b, x: tf.math.log((x @ a + b) * 0.0)))
    assert finding.code == "G014"
    assert "the loss is not finite, from Log on" in finding.what


def test_zero_at_its_own_weights_only(tf: Any) -> None:
    """A weight that starts at zero may give another a gradient of zero: that passes with training."""

    def build() -> LivePort:
        port = make_port(tf, lambda a, b, x: tf.square((x @ a) * b + 1.0))()
        port.models["second"].assign([0.0, 0.0])
        return port

    assert codes(build) == []


def test_weights_and_settings_are_put_back(tf: Any) -> None:
    ports = []

    def build() -> LivePort:
        ports.append(make_port(tf, lambda a, b, x: tf.minimum(x @ a + b, 1e3))())
        return ports[-1]

    call = tf.keras.layers.Layer.__call__
    assert codes(build) == []
    rng = np.random.default_rng(0)
    for port in ports:
        rng = np.random.default_rng(0)
        np.testing.assert_array_equal(port.models["first"], rng.normal(size=(3, 2)).astype("float32"))
    assert tf.keras.layers.Layer.__call__ is call
    assert not tf.config.functions_run_eagerly()


def test_what_it_raises(tf: Any) -> None:
    def loss(a: Any, b: Any, x: Any) -> Any:
        raise ValueError("no such thing")

    (finding,) = diagnose_live(make_port(tf, loss))
    assert finding.code == "G011"
    assert "ValueError: no such thing" in finding.what
    assert "test_causes.py" in finding.where


def test_operation_without_a_gradient(tf: Any) -> None:
    def loss(a: Any, b: Any, x: Any) -> Any:
        hidden = x @ a + b
        return tf.raw_ops.HSVToRGB(images=tf.concat([hidden, hidden[:, :1]], -1))

    (finding,) = diagnose_live(make_port(tf, loss))
    assert finding.code in ("G022", "G201")
    assert "HSVToRGB" in finding.what


def test_bad_ports(tf: Any) -> None:
    with pytest.raises(UsageError, match=r"gave a int; expected an oracle.LivePort"):
        diagnose_live(lambda: 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CaseError, match="gradients is a int"):
        make_port(tf, lambda a, b, x: x @ a, gradients=3)()
    for given, said in (
        (lambda batch: 3.0, "gives a float"),
        (lambda batch: (tf.constant(1.0), [(1, 2)]), "pairs a gradient with a int"),
        (lambda batch: (tf.constant([1.0, 2.0]), []), "has shape"),
    ):
        with pytest.raises(UsageError, match=said):
            diagnose_live(make_port(tf, lambda a, b, x: x @ a, gradients=given))
