"""Taps: what the recorder sees of each layer at each step, in the TensorFlow that is here, of any version."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oracle import recorder
from oracle.record import read_record
from oracle.recorder import RecorderError, Taps, recording

pytestmark = pytest.mark.tf_any

IDS = np.array([[1, 2, 3, 4, 5, 6], [3, 4, 0, 0, 0, 0], [5, 6, 1, 2, 0, 0]])
LENGTHS = np.array([6, 2, 4])


@pytest.fixture(scope="module")
def tf() -> Any:
    from oracle.frameworks import import_tensorflow

    tensorflow = import_tensorflow()
    before = tensorflow.keras.backend.floatx()
    tensorflow.keras.backend.set_floatx("float64")
    yield tensorflow
    tensorflow.keras.backend.set_floatx(before)


@pytest.fixture(scope="module", params=["LSTM", "GRU"])
def port(tf: Any, request: pytest.FixtureRequest) -> SimpleNamespace:
    """Embedding with a mask, a bidirectional layer, one on top of it, and a dense layer."""
    layer = getattr(tf.keras.layers, request.param)
    tf.keras.utils.set_random_seed(0) if hasattr(tf.keras.utils, "set_random_seed") else tf.random.set_seed(0)
    held = SimpleNamespace(kind=request.param)
    held.embedding = tf.keras.layers.Embedding(7, 3, mask_zero=True)
    held.both = tf.keras.layers.Bidirectional(layer(4, return_sequences=True))
    held.top = layer(5, return_sequences=True)
    held.dropout, held.dense = tf.keras.layers.Dropout(0.0), tf.keras.layers.Dense(2)

    def step() -> Any:
        with tf.GradientTape() as tape:
            output = held.dense(held.top(held.dropout(held.both(held.embedding(tf.constant(IDS))))))
            loss = tf.reduce_mean(output**2)
        return loss, tape.gradient(loss, held.variables), output

    held.variables = []
    step()
    held.layers = {"emb": held.embedding, "both": held.both, "top": held.top, "out": held.dense}
    held.variables = [one for layer in held.layers.values() for one in layer.trainable_variables]
    held.names = {}
    cells = itertools.chain([held.both.forward_layer.cell, held.both.backward_layer.cell, held.top.cell])
    for path, layer in zip(("emb", "ahead", "behind", "top", "out"), (held.embedding, *cells, held.dense)):
        held.names.update({f"{path}/{i}": one for i, one in enumerate(layer.trainable_variables)})
    held.step = step
    return held


@pytest.fixture(scope="module")
def recorded(port: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("taps") / "r"
    plain = port.step()
    with recording(str(path)) as r:
        r.weights(port.names)
        with r.taps():
            loss, gradients, output = port.step()
        r.loss(loss)
        r.outputs(output=output)
        r.gradients(gradients, port.variables)
    return SimpleNamespace(record=read_record(path), plain=plain, tapped=(loss, gradients, output))


def test_taps_change_no_number(tf: Any, recorded: Any) -> None:
    """Not a bit, though LSTM and GRU layers compute all steps in one function without taps."""
    for one, other in zip(tf.nest.flatten(recorded.plain), tf.nest.flatten(recorded.tapped)):
        np.testing.assert_array_equal(*(tf.convert_to_tensor(side).numpy() for side in (one, other)))


def test_what_a_layer_gives_is_what_the_next_one_reads(port: SimpleNamespace, recorded: Any) -> None:
    tensors = recorded.record.tensors
    real = (np.arange(6) < LENGTHS[:, None])[..., None]
    embedded, ahead, behind = (tensors[f"step/{name}"] for name in ("emb/output", "ahead/h", "behind/h"))
    np.testing.assert_array_equal(embedded * real, tensors["step/ahead/input"] * real)
    back = np.array([[*range(n)][::-1] + [*range(n, 6)] for n in LENGTHS])[..., None]
    np.testing.assert_array_equal(
        np.take_along_axis(embedded, back, 1) * real, tensors["step/behind/input"] * real
    )
    joined = np.concatenate([ahead, np.take_along_axis(behind, back, 1)], axis=-1) * real
    np.testing.assert_array_equal(joined * real, tensors["step/top/input"] * real)
    np.testing.assert_array_equal(tensors["step/out/output"], tensors["output/output"])
    for part in ("h", "c") if port.kind == "LSTM" else ("h",):
        for layer in ("ahead", "behind", "top"):
            given, state = tensors[f"step/{layer}/{part}"], tensors[f"step/{layer}/state_{part}"]
            assert not state[:, 0].any()
            np.testing.assert_array_equal((given[:, :-1] * real[:, 1:]), state[:, 1:] * real[:, 1:])
            assert tensors[f"gradient/step/{layer}/{part}"].shape == given.shape


def test_adjoints_are_those_of_the_weights_gradients(recorded: Any) -> None:
    """A dense layer's kernel has the gradient x' dL/dy, its bias the sum of dL/dy, and dL/dx is dL/dy W'."""
    tensors, weights = recorded.record.tensors, recorded.record.weights
    slope, read = tensors["gradient/step/out/output"], tensors["step/out/input"]
    np.testing.assert_allclose(slope, 2 * tensors["output/output"] / slope.size, rtol=1e-13)
    np.testing.assert_allclose(np.einsum("bti,bto->io", read, slope), tensors["gradient/out/0"], rtol=1e-12)
    np.testing.assert_allclose(slope @ weights["out/0"].T, tensors["gradient/step/out/input"], rtol=1e-12)
    table = np.zeros_like(weights["emb/0"])
    np.add.at(table, IDS, tensors["gradient/step/emb/output"])
    np.testing.assert_allclose(table, tensors["gradient/emb/0"], atol=1e-15)
    # Past a row's end nothing comes back.
    assert not tensors["gradient/step/behind/h"][1, 2:].any()
    assert tensors["gradient/step/behind/h"][1, :2].all()


def test_all_is_as_before_on_leaving_also_after_an_exception(tf: Any, port: SimpleNamespace) -> None:
    before = vars(tf.keras.layers.Layer)["__call__"], vars(tf.GradientTape)["gradient"]
    eager, fused = tf.config.functions_run_eagerly(), getattr(port.top, "_could_use_gpu_kernel", None)
    for fails in (False, True):
        try:
            with Taps(lambda layer: layer.name):
                assert (vars(tf.keras.layers.Layer)["__call__"], vars(tf.GradientTape)["gradient"]) != before
                port.top(tf.zeros([2, 3, 8], tf.float64))
                if fails:
                    port.top(tf.zeros([2, 3, 9], tf.float64))
        except Exception:
            assert fails
    assert (vars(tf.keras.layers.Layer)["__call__"], vars(tf.GradientTape)["gradient"]) == before
    assert tf.config.functions_run_eagerly() == eager
    assert getattr(port.top, "_could_use_gpu_kernel", None) == fused


def test_a_tf_function_is_seen_too_and_the_sources_keep_their_structure(
    tf: Any, port: SimpleNamespace
) -> None:
    kernel = port.names["out/0"]

    @tf.function
    def step(read: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(read)
            loss = tf.reduce_sum(port.dense(read) ** 2)
        return tape.gradient(loss, {"kernel": kernel, "more": [read, (read,)]})

    read = tf.constant(np.random.default_rng(0).standard_normal((2, 3, 5)))
    plain = step(read)
    with Taps(lambda layer: "dense" if layer is port.dense else None) as taps:
        seen = step(read)
    tf.nest.assert_same_structure(plain, seen)
    np.testing.assert_allclose(seen["more"][0], plain["more"][0], rtol=1e-13)
    values, adjoints = taps.collect()
    assert values.keys() == {"step/dense/input", "step/dense/output"}
    np.testing.assert_allclose(adjoints["gradient/step/dense/input"], plain["more"][0], rtol=1e-13)


def test_what_is_computed_outside_of_the_tape_has_no_gradient(tf: Any, port: SimpleNamespace) -> None:
    with Taps(lambda layer: layer.name) as taps:
        read = port.top(tf.ones([2, 3, 8], tf.float64))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(port.dense(read))
        tape.gradient(loss, port.variables)
    _, adjoints = taps.collect()
    assert adjoints[f"gradient/step/{port.top.cell.name}/h"] is None
    assert adjoints[f"gradient/step/{port.dense.name}/input"].all()


def test_a_layer_that_runs_twice_has_two_runs(tf: Any, port: SimpleNamespace) -> None:
    names = {id(port.top.cell): "top", id(port.dense): "dense"}
    with Taps(lambda layer: names.get(id(layer))) as taps:
        port.top(tf.ones([2, 3, 8], tf.float64))
        port.top(tf.zeros([2, 5, 8], tf.float64))
        port.dense(tf.ones([3, 5], tf.float64))
        port.dense(tf.ones([4, 5], tf.float64))
    values, _ = taps.collect()
    assert (values["step/dense/input"].shape, values["step/dense#2/input"].shape) == ((3, 1, 5), (4, 1, 5))
    assert (values["step/top/input"].shape, values["step/top#2/input"].shape) == ((2, 3, 8), (2, 5, 8))


def test_a_softmax_keeps_its_logits_for_the_loss(tf: Any) -> None:
    """Keras' cross-entropy takes them from the output, which is another path of the gradient."""
    dense = tf.keras.layers.Dense(4, activation="softmax", dtype="float64")
    read = 30.0 * tf.constant(np.random.default_rng(0).standard_normal((5, 3)))
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy()

    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(np.array([0, 1, 2, 3, 0]), dense(read))
        return loss, *tape.gradient(loss, dense.trainable_variables)

    step()
    plain = step()
    with Taps(lambda layer: layer.name):
        tapped = step()
    for one, other in zip(plain, tapped):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_model_can_be_made_while_it_is_tapped(tf: Any) -> None:
    layers = tf.keras.layers

    class Outer(layers.Layer):
        def build(self, shape: Any) -> None:
            self.dense = layers.Dense(2, name="inner")
            self.built = True

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    with Taps(lambda layer: layer.name) as taps:
        ids = tf.keras.Input((6,), dtype="int32")
        rnn = layers.LSTM(3, return_sequences=True)
        outer = Outer(name="outer")
        model = tf.keras.Model(ids, outer(rnn(layers.Embedding(7, 2, mask_zero=True)(ids))))
        output = model(tf.constant(IDS))
    values, _ = taps.collect()
    np.testing.assert_array_equal(values["step/inner/output"], output.numpy())
    assert values[f"step/{rnn.cell.name}/h"].shape == (3, 6, 3)
    assert "step/outer/output" not in values


def test_a_port_without_layers_is_told_what_to_do(tf: Any, tmp_path: Path) -> None:
    variable = tf.Variable(1.0, name="alone")
    with (
        pytest.raises(RecorderError, match="no layer was called"),
        recording(str(tmp_path / "r")) as r,
        r.taps(variable),
    ):
        pass
    assert not (tmp_path / "r").exists()


def test_an_older_tensorflow_is_told_so(monkeypatch: pytest.MonkeyPatch, tf: Any) -> None:
    monkeypatch.setattr(tf, "__version__", "2.3.1")
    with pytest.raises(RecorderError, match=r"TensorFlow 2\.3\.1, and layers can be tapped from 2\.4 on"):
        Taps(lambda layer: None).__enter__()


def test_a_session_is_tapped_by_names_of_tensors(tf: Any, tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, [4, 3], name="x")
        w = v1.get_variable("w", initializer=np.arange(6.0).reshape(3, 2) / 9)
        hidden = tf.tanh(tf.matmul(x, w), name="hidden")
        loss = tf.reduce_sum(hidden**2)
        session.run(v1.global_variables_initializer())
        feed = {x: np.ones((4, 3))}
        with recording(str(tmp_path / "r")) as r:
            taps = {"layer/output": "hidden:0", "copy": tf.identity(hidden), "named": "hidden"}
            r.run(session, loss, tf.gradients(loss, [w]), [w], inputs=feed, taps=taps)
        with pytest.raises(RecorderError, match="no tensor 'hiden'"), recording(str(tmp_path / "s")) as r:
            r.run(session, loss, tf.gradients(loss, [w]), [w], inputs=feed, taps={"layer": "hiden"})
    tensors = read_record(tmp_path / "r").tensors
    given = np.tanh(np.ones((4, 3)) @ (np.arange(6.0).reshape(3, 2) / 9))
    np.testing.assert_allclose(tensors["step/layer/output"], given, rtol=1e-14)
    np.testing.assert_allclose(tensors["gradient/step/layer/output"], 2 * given, rtol=1e-14)
    assert tensors["gradient/step/copy"] is None
    assert recorder.FORMAT == 2
