"""The mirror of Keras' cells, layers and models: results and gradients against the live objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.jax]

tf = pytest.importorskip("tests.parity.tensorflow_side").tf
hold = pytest.importorskip("tests.oracle.mirror.compare").hold
L = tf.keras.layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]], bool)
H, C = RNG.normal(size=(2, 3, 6))

CELLS = {
    "simple": lambda: L.SimpleRNNCell(6, activation="relu"),
    "lstm": lambda: L.LSTMCell(6, recurrent_activation="hard_sigmoid"),
    "lstm no bias": lambda: L.LSTMCell(6, use_bias=False, activation=tf.nn.softsign),
    "gru": lambda: L.GRUCell(6),
    "gru reset before": lambda: L.GRUCell(6, reset_after=False),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cell(kind):
    """`output, states = cell(inputs, states)`."""
    states = ["h", "c"] if "lstm" in kind else ["h"]
    hold(
        CELLS[kind](),
        lambda cell, x: cell(x["x"], [x[name] for name in states]),
        lambda m, p, x: m.apply(x["x"], [x[name] for name in states], params=p),
        {"x": X[:, 0], "h": H, "c": C},
    )


LAYERS = {
    "simple": lambda **o: L.SimpleRNN(6, **o),
    "lstm": lambda **o: L.LSTM(6, **o),
    "lstm not fused": lambda **o: L.LSTM(6, recurrent_activation="hard_sigmoid", **o),
    "gru": lambda **o: L.GRU(6, **o),
    "gru reset before": lambda **o: L.GRU(6, reset_after=False, **o),
    "lstm of v1": lambda **o: tf.compat.v1.keras.layers.LSTM(6, **o),
    "gru of v1": lambda **o: tf.compat.v1.keras.layers.GRU(6, **o),
    "rnn": lambda **o: L.RNN(L.LSTMCell(6), **o),
}
OPTIONS = [
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True, "zero_output_for_mask": True},
    {"return_state": True},
]


RECURRENT = [(kind, OPTIONS[i % 3]) for i, kind in enumerate(LAYERS)] + [("lstm", o) for o in OPTIONS]


@pytest.mark.parametrize(("kind", "options"), RECURRENT, ids=str)
def test_recurrent_layer(kind, options):
    """The layer's own structure of results, with a mask and an initial state."""
    lstm = "lstm" in kind or kind == "rnn"
    states = ["h", "c"] if lstm else ["h"]
    hold(
        LAYERS[kind](**options),
        lambda layer, x: layer(x["x"], mask=x["mask"], initial_state=[x[name] for name in states]),
        lambda m, p, x: m.apply(x["x"], mask=x["mask"], initial_state=[x[n] for n in states], params=p),
        {"x": X, "mask": MASK, "h": H, "c": C},
    )


def test_stacked_cells_in_a_loop():
    """States in and out are nested as the stack's are."""
    stack = L.StackedRNNCells([L.LSTMCell(6), L.GRUCell(3), L.LSTMCell(2)])
    layer = L.RNN(stack, return_state=True, return_sequences=True)
    mirrored = hold(
        layer,
        lambda layer, x: layer(x["x"], initial_state=[[x["h"], x["c"]], x["g"], [x["a"], x["a"]]]),
        lambda m, p, x: m.apply(x["x"], initial_state=[[x["h"], x["c"]], x["g"], [x["a"], x["a"]]], params=p),
        {"x": X, "h": H, "c": C, "g": H[:, :3], "a": C[:, :2]},
    )
    assert "cell/cells_1/kernel" in mirrored.variables
    assert mirrored.variables["cell/cells_1/kernel"] == ("cell/cells/1/kernel",)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge_mode):
    """Outputs, and the states in one flat list."""
    layer = L.Bidirectional(L.LSTM(6, return_sequences=True, return_state=True), merge_mode=merge_mode)
    hold(
        layer,
        lambda layer, x: layer(x["x"], mask=x["mask"], initial_state=[x["h"], x["c"], x["c"], x["h"]]),
        lambda m, p, x: m.apply(
            x["x"], mask=x["mask"], initial_state=[x["h"], x["c"], x["c"], x["h"]], params=p
        ),
        {"x": X, "mask": MASK, "h": H, "c": C},
    )


def test_bidirectional_with_its_own_backward_layer():
    """Two kinds of layers."""
    layer = L.Bidirectional(L.LSTM(6), backward_layer=L.GRU(2, go_backwards=True))
    hold(
        layer,
        lambda layer, x: layer(x["x"], mask=x["mask"]),
        lambda m, p, x: m.apply(x["x"], mask=x["mask"], params=p),
        {"x": X, "mask": MASK},
    )


PLAIN = {
    "dense": lambda: L.Dense(3, activation="softmax"),
    "dense no bias": lambda: L.Dense(3, use_bias=False, activation=tf.nn.tanh),
    "time distributed": lambda: L.TimeDistributed(L.Dense(3, activation="gelu")),
    "masking": L.Masking,
    "activation": lambda: L.Activation("swish"),
    "softmax": lambda: L.Softmax(axis=1),
    "dropout at inference": lambda: L.Dropout(0.5),
    "flatten": L.Flatten,
    "reshape": lambda: L.Reshape((2, 10)),
    "permute": lambda: L.Permute((2, 1)),
    "layer normalization": L.LayerNormalization,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_layer_without_time(kind):
    """Layers of one input."""
    hold(PLAIN[kind](), lambda layer, x: layer(x["x"]), lambda m, p, x: m.apply(x["x"], params=p), {"x": X})


def test_repeat_vector():
    hold(
        L.RepeatVector(4),
        lambda layer, x: layer(x["x"]),
        lambda m, p, x: m.apply(x["x"], params=p),
        {"x": X[:, 0]},
    )


def test_embedding_and_its_mask():
    """Repeated ids: the rows of the sparse gradient are summed."""
    ids = np.array([[1, 2, 1], [0, 5, 1]])
    mirrored = hold(
        L.Embedding(7, 4, mask_zero=True),
        lambda layer, x: layer(x["ids"]),
        lambda m, p, x: m.apply(x["ids"], params=p),
        {"ids": ids},
    )
    np.testing.assert_array_equal(mirrored.compute_mask(ids), ids != 0)


MERGING: dict[str, Any] = {
    **{
        name: (lambda name=name: getattr(L, name)())
        for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    },
    "Concatenate over time": lambda: L.Concatenate(axis=1),
    "Dot": lambda: L.Dot(axes=2),
    "Dot normalized": lambda: L.Dot(axes=(1, 1), normalize=True),
}


@pytest.mark.parametrize("kind", MERGING)
def test_merging_layer(kind):
    """Two inputs, of which some elements are equal."""
    other = np.round(RNG.normal(size=X.shape), 1)
    hold(
        MERGING[kind](),
        lambda layer, x: layer([x["x"], x["y"]]),
        lambda m, p, x: m.apply([x["x"], x["y"]], params=p),
        {"x": np.round(X, 1), "y": other},
    )


ATTENTION = {
    "dot": L.Attention,
    "dot scaled": lambda: L.Attention(use_scale=True),
    "concat": lambda: L.Attention(score_mode="concat", use_scale=True),
    "additive": L.AdditiveAttention,
    "additive no scale": lambda: L.AdditiveAttention(use_scale=False),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_layer(kind, causal):
    """Query, value and key, both masks, and the scores."""
    options = {"return_attention_scores": True, "use_causal_mask": causal}
    query, value, key = X[:, :3], RNG.normal(size=(3, 5, 4)), RNG.normal(size=(3, 5, 4))
    masks = [MASK[:, 2:], MASK]
    hold(
        ATTENTION[kind](),
        lambda layer, x: layer([x["q"], x["v"], x["k"]], mask=[x["qm"], x["vm"]], **options),
        lambda m, p, x: m.apply([x["q"], x["v"], x["k"]], mask=[x["qm"], x["vm"]], params=p, **options),
        {"q": query, "v": value, "k": key, "qm": masks[0], "vm": masks[1]},
    )


def test_sequential_hands_the_mask_on():
    """Embedding's mask reaches both recurrent layers."""
    model = tf.keras.Sequential(
        [
            L.Embedding(9, 4, mask_zero=True),
            L.Dropout(0.3),
            L.Bidirectional(L.GRU(3, return_sequences=True)),
            L.LSTM(6, return_sequences=True),
            L.TimeDistributed(L.Dense(5)),
            L.LSTM(2),
        ]
    )
    ids = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 8, 0]])
    mirrored = hold(
        model, lambda m, x: m(x["ids"]), lambda m, p, x: m.apply(x["ids"], params=p), {"ids": ids}
    )
    assert list(mirrored.children) == [
        "embedding",
        "dropout",
        "bidirectional",
        "lstm",
        "time_distributed",
        "lstm_1",
    ]


def test_functional_model_with_a_constant_state():
    """A tensor that is no input of the model: it is a part of what the model computes."""
    inputs = tf.keras.Input((None, 4))
    outputs = L.GRU(6)(inputs, initial_state=tf.constant(H))
    hold(
        tf.keras.Model(inputs, outputs),
        lambda m, x: m(x["x"]),
        lambda m, p, x: m.apply(x["x"], params=p),
        {"x": X},
    )


def test_functional_model_with_a_shared_layer_and_a_nested_model():
    """The graph with several inputs and outputs, masks, states, and one layer called twice."""
    ids, queries = tf.keras.Input((None,), dtype="int32"), tf.keras.Input((None, 4))
    shared = L.Dense(6, activation="tanh")
    embedded = L.Embedding(9, 4, mask_zero=True)(ids)
    outputs, h, c = L.LSTM(6, return_sequences=True, return_state=True)(shared(embedded))
    decoded = L.LSTM(6, return_sequences=True)(shared(queries), initial_state=[h, c])
    attended = L.Attention()([decoded, outputs])
    inner_in = tf.keras.Input((None, 12))
    inner = tf.keras.Model(inner_in, L.Dense(3)(inner_in))
    merged = L.Concatenate()([decoded, attended])
    model = tf.keras.Model([ids, queries], {"tags": inner(merged), "state": h})
    mirrored = hold(
        model,
        lambda m, x: m([x["ids"], x["q"]]),
        lambda m, p, x: m.apply([x["ids"], x["q"]], params=p),
        {"ids": np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 8]], np.int32), "q": X[:, :2]},
    )
    assert mirrored.spec.ties == {}
    assert mirrored.spec.root.kind == "keras.Model"
