"""The recorder in the TensorFlow that is here, of any version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from oracle import recorder
from oracle.record import read_record
from oracle.recorder import RecorderError, recording

pytestmark = pytest.mark.tf_any

IDS = np.array([1, 4, 1])


@pytest.fixture(scope="module")
def tf():
    from oracle.frameworks import import_tensorflow

    return import_tensorflow()


@pytest.fixture
def port(tf):
    """Two variables of one name, an embedding, one that is not used, and a counter."""
    generator = np.random.default_rng(0)

    def variable(name, *shape, **options):
        return tf.Variable(generator.standard_normal(shape), name=name, **options)

    held = SimpleNamespace(a=variable("kernel", 3, 4), b=variable("kernel", 4, 2), e=variable("emb", 5, 3))
    held.unused = variable("unused", 2)
    held.counter = tf.Variable(7, trainable=False, name="step")
    held.trained = [held.a, held.b, held.e, held.unused]

    def step(ids):
        with tf.GradientTape() as tape:
            hidden = tf.tanh(tf.matmul(tf.gather(held.e, ids), held.a))
            loss = tf.reduce_sum(tf.matmul(hidden, held.b) ** 2)
        return loss, tape.gradient(loss, held.trained), hidden

    held.step = step
    return held


def expected(port) -> dict[str, np.ndarray]:
    """By hand, in NumPy."""
    a, b, e = (variable.numpy() for variable in (port.a, port.b, port.e))
    rows = e[IDS]
    hidden = np.tanh(rows @ a)
    d_output = 2 * hidden @ b
    d_before = (d_output @ b.T) * (1 - hidden**2)
    d_e = np.zeros_like(e)
    np.add.at(d_e, IDS, d_before @ a.T)
    return {"kernel": rows.T @ d_before, "kernel#2": hidden.T @ d_output, "emb": d_e}


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_what_tensorflow_gave_is_kept(tf, port, tmp_path: Path, mode: str) -> None:
    step = port.step if mode == "eager" else tf.function(port.step)
    with recording(str(tmp_path / "r"), mode=mode) as r:
        r.weights(port.trained, port.counter)
        r.inputs(ids=IDS, rows=tf.ragged.constant([[1, 2], [3]]))
        loss, gradients, hidden = step(tf.constant(IDS))
        r.outputs({"hidden": hidden})
        r.loss(loss)
        r.gradients(gradients, port.trained)
    record = read_record(tmp_path / "r")
    for name, gradient in expected(port).items():
        np.testing.assert_allclose(record.tensors[f"gradient/{name}"], gradient, rtol=1e-12)
    assert record.tensors["gradient/unused"] is None
    slices = record.sparse["gradient/emb"]
    assert (slices.indices.tolist(), slices.values.shape, slices.shape) == ([1, 4, 1], (3, 3), (5, 3))
    assert (record.frozen, int(record.weights["step"])) == (("step",), 7)
    assert (record.batch["rows/values"].tolist(), record.batch["rows/row_splits"].tolist()) == (
        [1, 2, 3],
        [0, 2, 3],
    )
    assert record.origin.versions["tensorflow"] == tf.__version__
    assert {"floatx", "policy", "tf32", "xla", "eager"} <= record.origin.flags.keys()
    assert (record.origin.device, record.origin.dtype) == ("cpu", "float64")


def test_a_session_is_run_once_and_recorded(tf, tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, [None, 3], name="inputs/x")
        w = v1.get_variable("enc/w", initializer=np.arange(6.0).reshape(3, 2) / 9)
        unused = v1.get_variable("unused", initializer=np.ones(2))
        moving = v1.get_variable("moving", initializer=np.ones(2), trainable=False)
        loss = tf.reduce_sum(tf.tanh(tf.matmul(x, w) * moving))
        gradients = tf.gradients(loss, [w, unused])
        session.run(v1.global_variables_initializer())
        feed = {x: np.ones((4, 3))}
        with recording(str(tmp_path / "r")) as r:
            r.run(
                session, loss, gradients, [w, unused], outputs={"loss": loss}, inputs=feed, weights=[moving]
            )
        by_hand = session.run(gradients[0], feed)
        with (
            pytest.raises(RecorderError, match="in a v1 session use r.run"),
            recording(str(tmp_path / "s")) as r,
        ):
            r.weights(w)
    record = read_record(tmp_path / "r")
    np.testing.assert_array_equal(record.tensors["gradient/enc/w"], by_hand)
    assert record.tensors["gradient/unused"] is None
    assert (list(record.weights), record.frozen) == (["enc/w", "moving", "unused"], ("moving",))
    assert record.batch["inputs/x"].shape == (4, 3)
    assert (record.origin.mode, record.origin.flags["eager"]) == ("v1", "off")
    assert os.listdir(tmp_path) == ["r"]


def test_variables_that_were_not_named_before_are_recorded_with_their_gradients(
    tf, port, tmp_path: Path
) -> None:
    loss, gradients, _ = port.step(IDS)
    with recording(str(tmp_path / "r")) as r:
        r.weights({"mine/kernel": port.a})
        r.loss(loss)
        r.gradients(gradients, port.trained)
    record = read_record(tmp_path / "r")
    assert set(record.weights) == {"mine/kernel", "kernel", "emb", "unused"}
    np.testing.assert_allclose(record.tensors["gradient/mine/kernel"], expected(port)["kernel"], rtol=1e-12)
    np.testing.assert_allclose(record.tensors["gradient/kernel"], expected(port)["kernel#2"], rtol=1e-12)


def test_a_value_of_a_function_that_is_traced_is_refused(tf, port, tmp_path: Path) -> None:
    with (
        pytest.raises(RecorderError, match="return it from the tf.function"),
        recording(str(tmp_path / "r")) as r,
    ):
        tf.function(lambda: r.loss(tf.reduce_sum(port.a)))()
    with pytest.raises(RecorderError, match="input x is text"), recording(str(tmp_path / "r")) as r:
        r.inputs(x=tf.constant(["a"]))
    assert os.listdir(tmp_path) == []


PORT = """
import numpy as np
import tensorflow as tf

def build(units=2, how="loss", weights="own"):
    a = tf.Variable(np.full((3, units), 0.25), name="a")
    b = tf.Variable(np.full((units, 1), 0.5), name="b")
    def loss(batch):
        if how == "raise":
            raise ValueError("the port is broken")
        hidden = tf.tanh(tf.matmul(batch["x"], a))
        return tf.reduce_sum(tf.matmul(hidden, b) ** 2), {"hidden": hidden}
    def gradients(batch):
        with tf.GradientTape() as tape:
            value, outputs = loss(batch)
        return value, [2 * g for g in tape.gradient(value, [a, b])], outputs
    given = {"batch": {"x": np.arange(12.0).reshape(4, 3) / 12}, "variables": [a, b], "weights": weights}
    if how == "gradients":
        return dict(given, gradients=gradients)
    if how == "typo":
        return dict(given, los=loss)
    if how == "watched":
        given.pop("variables")
    return dict(given, loss=loss, name="small")

class Keras:
    def __init__(self):
        layer = tf.keras.layers.Dense(2, name="dense", dtype="float64")
        layer.build((None, 3))
        self.models = {"dense": layer}
        self.batch = {"x": np.ones((4, 3)), "y": np.zeros((4, 2))}
        self.loss = tf.keras.losses.MeanSquaredError()
        self.weights = "random"
"""


CASES = {
    "eager": ("port.py:build", ()),
    "function": ("port:build(units=3)", ("--mode", "function")),
    "xla": ("port:build", ("--mode", "xla")),
    "own": ('port:build(2, "gradients")', ()),
    "watched": ('port:build(how="watched")', ()),
    "random": ('port:build(weights="random")', ("--seed", "4", "--precision", "f64")),
    "keras": ("port:Keras", ()),
    "raises": ('port:build(how="raise")', ()),
    "typo": ('port:build(how="typo")', ()),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "port.py").write_text(PORT)
    calls = [[target, "-o", f"{name}.st", *options] for name, (target, options) in CASES.items()]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(recorder.__file__).parent)!r}); import recorder\n"
        f"print([recorder.main(arguments) for arguments in {calls!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    codes = dict(zip(CASES, eval(done.stdout.splitlines()[-1]), strict=True))
    return SimpleNamespace(folder=folder, codes=codes, stderr=done.stderr)


@pytest.mark.slow
class TestCommand:
    """All cases are made in one process, since importing TensorFlow takes seconds."""

    def read(self, made, name: str):
        return read_record(made.folder / f"{name}.st")

    def test_exit_codes(self, made) -> None:
        assert made.codes == {**dict.fromkeys(CASES, 0), "raises": 1, "typo": 2}
        assert "gives los; it may give batch, models" in made.stderr
        assert not (made.folder / "typo.st").exists()

    def test_modes_and_arguments(self, made) -> None:
        assert [self.read(made, name).origin.mode for name in ("eager", "function", "xla")] == [
            "eager",
            "function",
            "xla",
        ]
        assert self.read(made, "function").weights["a"].shape == (3, 3)
        assert self.read(made, "eager").origin.model == "small"
        for name in ("xla", "watched"):
            for tensor, array in self.read(made, "eager").tensors.items():
                np.testing.assert_allclose(self.read(made, name).tensors[tensor], array, rtol=1e-14)

    def test_gradients_of_its_own_are_taken(self, made) -> None:
        own, right = self.read(made, "own"), self.read(made, "eager")
        np.testing.assert_allclose(own.tensors["gradient/a"], 2 * right.tensors["gradient/a"], rtol=1e-14)

    def test_random_weights(self, made) -> None:
        record = self.read(made, "random")
        assert record.origin.weights == "random, seed 4"
        assert len(np.unique(record.weights["a"])) == 6

    def test_a_keras_loss(self, made) -> None:
        record = self.read(made, "keras")
        assert {name.rpartition("/")[2] for name in record.weights} == {"kernel", "bias"}
        assert record.tensors["loss"].shape == ()

    def test_a_port_that_raises_is_recorded(self, made) -> None:
        failure = self.read(made, "raises").failure
        assert failure is not None
        assert (failure.type, failure.message) == ("ValueError", "the port is broken")
