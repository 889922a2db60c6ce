"""Where Keras or tfa does more than the layer in hand says: the mirror does the same, or refuses by name."""

from __future__ import annotations

import functools
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from oracle.bridge.mirror import MirrorError, mirror
from oracle.errors import UsageError
from oracle.live_port import LivePort, compare_live, record_live

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

side = pytest.importorskip("tests.parity.tensorflow_side")
tf, tfa = side.tf, side.tfa
hold = pytest.importorskip("tests.oracle.mirror.compare").hold
keras, L = tf.keras, tf.keras.layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4))


def call_both(live, *arrays, **options):
    """What the live object and its mirror give."""
    theirs = live(*(tf.constant(a) for a in arrays), **options)
    return np.asarray(theirs), np.asarray(mirror(live).apply(*arrays, **options))


@pytest.mark.parametrize("make", [tfa.seq2seq.LuongAttention, tfa.seq2seq.BahdanauMonotonicAttention])
@pytest.mark.parametrize("compiled", [None, True])
def test_lengths_given_within_a_function(make, compiled):
    """AutoGraph runs a copy of `setup_memory`, and its own copy of the function that masks."""
    mechanism = make(4)
    lengths = np.array([1, 3, 5], np.int32)

    @tf.function(jit_compile=compiled)
    def run(memory, lengths):
        mechanism.setup_memory(memory, memory_sequence_length=lengths)
        return mechanism([memory[:, 0], tf.one_hot([0, 0, 0], 5, dtype=memory.dtype)])[0]

    theirs = run(tf.constant(X), tf.constant(lengths))
    mirrored = mirror(mechanism)
    memory = mirrored.setup_memory(X, memory_sequence_length=lengths)
    ours = mirrored.apply([X[:, 0], np.eye(5)[[0, 0, 0]]], memory)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_mask_function_that_looks_like_autographs():
    mechanism = tfa.seq2seq.LuongAttention(4)
    mechanism.setup_memory(tf.constant(X))
    unwrapped_probability_fn, ag__ = mechanism.default_probability_fn, 1

    def own(score, state):
        return unwrapped_probability_fn(2 * score * ag__, state)

    own.__qualname__ = "outer_factory.<locals>.tf__setup_memory.<locals>._mask_probability_fn"
    mechanism.probability_fn = own
    with pytest.raises(MirrorError, match="probability_fn is not one of tfa's"):
        mirror(mechanism)


def test_attention_with_lengths_in_function_mode():
    path = Path(__file__).parent / "tutorials" / "bidirectional_stack.py"
    comparison = compare_live(f"{path}:build", mode="function")
    assert comparison.matches, comparison.findings


def test_layer_that_stands_twice_in_a_sequential():
    dense = L.Dense(4, bias_initializer="normal")
    model = keras.Sequential([keras.Input((4,)), dense, L.Activation("tanh"), dense])
    theirs, ours = call_both(model, X[:, 0])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    part = mirror(model).spec.root
    assert part.options["layers"] == ["dense", "activation", "dense"]


def test_layer_that_stands_twice_in_a_sequential_without_a_shape():
    dense = L.Dense(4, bias_initializer="normal")
    model = keras.Sequential([dense, L.Activation("tanh"), dense])
    theirs, ours = call_both(model, X[:, 0])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_inputs_by_name():
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    model = keras.Model([z, a], L.Subtract()([z, a]))
    arrays = {"a": X[:, 0], "z": X[:, 1]}
    mirrored = mirror(model)
    np.testing.assert_allclose(mirrored.apply(arrays), model(arrays), atol=1e-6)
    np.testing.assert_allclose(mirrored.apply(arrays), X[:, 1] - X[:, 0], atol=1e-6)
    with pytest.raises(MirrorError, match="by the names a, b, but the model's inputs are z, a"):
        mirrored.apply({"a": X[:, 0], "b": X[:, 1]})


ORIGINAL = L.Dense.call


@functools.wraps(ORIGINAL)
def doubled(self, inputs):
    return 2 * ORIGINAL(self, inputs)


class Descriptor:
    def __get__(self, obj, owner):
        return lambda inputs: inputs


class Elsewhere:
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "replacement",
    [
        doubled,
        functools.partialmethod(ORIGINAL),
        functools.partial(ORIGINAL),
        Descriptor(),
        Elsewhere().call,
    ],
)
def test_call_replaced_by_what_wraps_the_original(replacement):
    layer = L.Dense(6)
    layer(tf.constant(X))
    mirror(layer)
    with (
        mock.patch.object(L.Dense, "call", replacement),
        pytest.raises(MirrorError, match="Dense.call was replaced"),
    ):
        mirror(layer)


@pytest.mark.parametrize("shapes", [((6,), (6, 1)), ((6, 1), (6,)), ((6, 2), (6, 2, 1)), ((6, 1), (6, 1))])
@pytest.mark.parametrize("name", ["MeanSquaredError", "MeanAbsoluteError", "BinaryCrossentropy"])
def test_axis_of_one_is_squeezed(name, shapes):
    y_true = (RNG.random(shapes[0]) < 0.5).astype(float)
    y_pred = RNG.uniform(0.1, 0.9, size=shapes[1])
    theirs, ours = call_both(getattr(keras.losses, name)(), y_true, y_pred)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_before_a_binary_crossentropy(mode, squeezed, smoothing):
    y = np.array([0.0, 1.0, 1.0])

    def build():
        model = keras.Sequential([L.Dense(3), L.Dense(1, activation="sigmoid")])
        batch = {"x": X[:, 0], "y": y if squeezed else y[:, None]}
        return LivePort({"model": model}, batch, keras.losses.BinaryCrossentropy(label_smoothing=smoothing))

    comparison = compare_live(build, mode=mode)
    assert comparison.matches, comparison.findings


def test_bidirectional_changed_after_it_was_made():
    layer = L.Bidirectional(L.LSTM(3, return_sequences=True))
    layer(tf.constant(X))
    layer.return_sequences = False
    with pytest.raises(MirrorError, match="its return_sequences is True, but that of the Bidirectional"):
        mirror(layer)
    layer.return_sequences = True
    layer.backward_layer.go_backwards = False
    with pytest.raises(MirrorError, match="both of its layers have go_backwards=False"):
        mirror(layer)


def test_scores_of_attention_have_no_mask():
    """The mask of the queries goes with the first output alone, so the loop over the scores has none."""
    ids = keras.Input((5,), dtype="int32")
    embedded = L.Embedding(9, 4, mask_zero=True)(ids)
    context, scores = L.Attention()([embedded, embedded], return_attention_scores=True)
    model = keras.Model(ids, [L.SimpleRNN(3)(context), L.SimpleRNN(2)(scores)])
    batch = {"ids": np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7], [8, 0, 0, 0, 0]])}
    hold(
        model, lambda live, t: live(t["ids"]), lambda m, p, a: m.apply(a["ids"], params=p), batch, redraw=True
    )


def test_embedding_by_multiplication():
    layer = L.Embedding(9, 4, use_one_hot_matmul=True)
    layer(tf.constant([1]))
    with pytest.raises(MirrorError, match="Embedding with use_one_hot_matmul=True"):
        mirror(layer)


def test_time_distributed_in_training():
    model = keras.Sequential([L.TimeDistributed(L.Dense(3))])
    theirs, ours = call_both(model, X, training=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda layer: layer, L.Bidirectional])
def test_dropout_in_training_without_masks(wrap):
    layer = wrap(L.LSTM(3, dropout=0.5))
    layer(tf.constant(X))
    with pytest.raises(MirrorError, match=r"(LSTM|Bidirectional): .*dropout"):
        mirror(layer).apply(X, training=True)


def test_frozen_weights_are_named_in_the_records():
    def build():
        dense = L.Dense(2)
        scale = tf.Module()
        scale.scale = tf.Variable(np.ones(2), trainable=False)

        def loss(batch):
            return tf.reduce_mean(tf.square(dense(batch["x"]) * scale.scale))

        def reference(mirrored, params, batch):
            outputs = mirrored.dense.apply(batch["x"], params=params["dense"])
            return ((outputs * params["scale"]["scale"]) ** 2).mean()

        return LivePort({"dense": dense, "scale": scale}, {"x": X}, loss, reference)

    records = record_live(build)
    assert records.port.origin.flags["frozen"] == "scale/scale"
    assert records.oracle.origin.flags["frozen"] == "scale/scale"
    assert records.compare().matches


class Named(tf.Module):
    """Parts under names that a Keras model has for itself."""

    def __init__(self):
        super().__init__()
        self.inputs = L.Dense(3)
        self.outputs = L.Dense(2)


class NamedModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.inputs = L.Dense(3)
        self.outputs = L.Dense(2)

    def call(self, x):
        return self.outputs(self.inputs(x))


@pytest.mark.parametrize("make", [Named, NamedModel])
def test_parts_called_inputs_and_outputs(make):
    module = make()
    module.outputs(module.inputs(tf.constant(X)))
    assert list(mirror(module).children) == ["inputs", "outputs"]


def test_layer_that_is_not_known():
    model = keras.Sequential([L.BatchNormalization()])
    model(tf.constant(X))
    with pytest.raises(MirrorError, match="BatchNormalization is a class that the mirror does not know"):
        mirror(model).apply(X)


def test_key_that_the_reference_does_not_find():
    dense = L.Dense(2)

    def build():
        return LivePort(
            {"dense": dense},
            {"x": X},
            lambda batch: tf.reduce_sum(dense(batch["x"])),
            lambda mirrored, params, batch: mirrored.dense.apply(batch["y"], params=params["dense"]).sum(),
        )

    with pytest.raises(
        UsageError,
        match=r"raised KeyError: 'y' \(.*test_faithfulness.py, line \d+\); params has dense; batch has x$",
    ):
        compare_live(build)


def test_loss_that_raises_before_there_are_weights():
    def loss(batch):
        raise ValueError("a fault of the port")

    def build():
        return LivePort({"dense": L.Dense(2)}, {"x": X}, loss, lambda mirrored, params, batch: 0.0)

    with pytest.raises(
        UsageError, match="raised ValueError: a fault of the port, before the model had made its weights$"
    ):
        compare_live(build)
