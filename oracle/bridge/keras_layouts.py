"""The layouts of Keras' recurrent layers, dense layers and embeddings.

On the oracle's side the leaves are those of `jax_models.keras_cells` and `jax_models.keras_layers`,
which keep Keras' own order of gates (an LSTM's i, f, c, o, a GRU's z, r, h) and store an LSTM's
forget bias in its bias, so that most blocks join a whole array to a whole array. Sources: the Keras
2.15 documentation, each measured by comparing outputs and gradients in float64.

For an LSTM whose oracle adds its forget bias at run time see `oracle.bridge.layouts.keras_lstm`.
"""

from __future__ import annotations

from collections.abc import Mapping

from oracle.bridge.layout import Layout, join, whole


def keras_dense(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tf.keras.layers.Dense`."""
    return _named_alike({"kernel": (features, units)} | ({"bias": (units,)} if use_bias else {}))


def keras_embedding(input_dim: int, output_dim: int) -> Layout:
    """`tf.keras.layers.Embedding`: `embeddings` becomes `embedding`."""
    shape = (input_dim, output_dim)
    block = whole("embedding", "embeddings", shape)
    return Layout({"embedding": shape}, {"embeddings": shape}, (block,))


def keras_simple_rnn_cell(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tf.keras.layers.SimpleRNNCell`."""
    return _recurrent(features, units, 1, {"bias": (units,)} if use_bias else {})


def keras_lstm_cell(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tf.keras.layers.LSTMCell`, to a cell that adds no forget bias at run time."""
    return _recurrent(features, units, 4, {"bias": (4 * units,)} if use_bias else {})


def keras_gru_cell(features: int, units: int, *, reset_after: bool = True, use_bias: bool = True) -> Layout:
    """`tf.keras.layers.GRUCell`: the bias is [2, 3*units] with `reset_after`, else [3*units]."""
    bias = (2, 3 * units) if reset_after else (3 * units,)
    return _recurrent(features, units, 3, {"bias": bias} if use_bias else {})


def nest(layouts: Mapping[str, Layout]) -> Layout:
    """One layout of several, the names of each, on both sides, put under its key.

    `nest({"cell": ...})` is a layer around a cell, `nest({"cells_0": ..., "cells_1": ...})` a
    `StackedRNNCells`, `nest({"forward": ..., "backward": ...})` a `Bidirectional`.
    """
    return join({(prefix, prefix): layout for prefix, layout in layouts.items()})


def _recurrent(features: int, units: int, gates: int, bias: Mapping[str, tuple[int, ...]]) -> Layout:
    kernels = {"kernel": (features, gates * units), "recurrent_kernel": (units, gates * units)}
    return _named_alike({**kernels, **bias})


def _named_alike(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    return Layout(shapes, shapes, tuple(whole(name, name, shape) for name, shape in shapes.items()))
