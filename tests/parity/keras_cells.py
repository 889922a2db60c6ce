"""The cells of Keras, called one step at a time, and its activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import jax_models.keras_layers as ours
from jax_models.keras_activations import ACTIVATIONS, get_activation
from oracle.bridge import keras_layouts
from oracle.bridge.layout import Layout
from tests.parity.harness import Config, Pair, parity
from tests.parity.keras_side import compare, record_dropout, set_random, stack_masks
from tests.parity.tensorflow_side import tf

FEATURES = 3

CELL = {
    "seed": st.integers(0, 2**16),
    "units": st.sampled_from([2, 5]),
    "activation": st.sampled_from(["tanh", "tanh", "hard_sigmoid", "softsign", "linear", None]),
    "use_bias": st.booleans(),
    "dropout": st.sampled_from([0.0, 0.5]),
    "recurrent_dropout": st.sampled_from([0.0, 0.3]),
}
GATED = {
    **CELL,
    "recurrent_activation": st.sampled_from(["sigmoid", "sigmoid", "hard_sigmoid", "relu"]),
    "implementation": st.sampled_from([1, 2]),
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "SimpleRNN": CELL,
    "LSTM": {**GATED, "unit_forget_bias": st.booleans()},
    "GRU": {**GATED, "reset_after": st.booleans()},
}
"""The constructor arguments, and the seed, of the cells and so of the layers around them."""

RUN = {
    "batch": st.sampled_from([1, 3]),
    "compiled": st.sampled_from([False, False, False, False, True]),
}


def constructor_arguments(kind: str, config: Config) -> dict[str, Any]:
    """The options of `config` that the cell of this kind is made with, on both sides."""
    return {name: config[name] for name in OPTIONS[kind] if name != "seed"}


def cell_layout(kind: str, features: int, config: Config) -> Layout:
    """The layout of a cell of this kind."""
    make = {
        "SimpleRNN": keras_layouts.keras_simple_rnn_cell,
        "LSTM": keras_layouts.keras_lstm_cell,
        "GRU": keras_layouts.keras_gru_cell,
    }[kind]
    reset_after = {"reset_after": config["reset_after"]} if kind == "GRU" else {}
    return make(features, config["units"], use_bias=config["use_bias"], **reset_after)


def cell_variables(cell: Any, prefix: str = "") -> dict[str, tf.Variable]:
    """The weights of a built Keras cell by attribute: their names repeat."""
    names = ("kernel", "recurrent_kernel", "bias")
    return {prefix + name: getattr(cell, name) for name in names if getattr(cell, name, None) is not None}


def run_cell(kind: str, config: Config) -> Pair:
    """One step of a cell of Keras and of ours."""
    rng = np.random.default_rng(config["seed"])
    batch, units = config["batch"], config["units"]
    arguments = constructor_arguments(kind, config)
    cell = getattr(tf.keras.layers, f"{kind}Cell")(**arguments, dtype="float64")
    cell.build((batch, FEATURES))
    set_random(cell, rng)
    recorded = record_dropout(cell)
    mine = getattr(ours, f"{kind}Cell")(**arguments)
    arrays = {"inputs": rng.normal(size=(batch, FEATURES))}
    for number in range(2 if kind == "LSTM" else 1):
        arrays[f"state {number}"] = rng.normal(size=(batch, units))
    states = [name for name in arrays if name != "inputs"]
    dropped = bool(config["dropout"] or config["recurrent_dropout"])

    def tf_call(fed: dict[str, Any]) -> dict[str, Any]:
        output, new = cell(fed["inputs"], [fed[name] for name in states], training=dropped)
        return {"output": output, **dict(zip(("new " + s for s in states), new, strict=True))}

    def jax_call(params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        state = ours.unflatten_keras_states(
            [fed[name] for name in states], like=mine.zero_state(batch, "float64")
        )
        masks = {"dropout_masks": stack_masks(recorded)} if dropped else {}
        new, output = mine.apply({"params": params}, state, fed["inputs"], **masks)
        new = ours.flatten_keras_states(new)
        return {"output": output, **dict(zip(("new " + s for s in states), new, strict=True))}

    return compare(
        tf_call,
        jax_call,
        variables=cell_variables(cell),
        layout=cell_layout(kind, FEATURES, config),
        arrays=arrays,
        rng=rng,
        graph=config["compiled"] and not dropped,
        compiled=config["compiled"],
    )


@parity("tf.keras.layers.SimpleRNNCell", configurations=st.fixed_dictionaries({**CELL, **RUN}))
def simple_rnn_cell(config: Config) -> Pair:
    return run_cell("SimpleRNN", config)


@parity("tf.keras.layers.LSTMCell", configurations=st.fixed_dictionaries({**OPTIONS["LSTM"], **RUN}))
def lstm_cell(config: Config) -> Pair:
    return run_cell("LSTM", config)


@parity("tf.keras.layers.GRUCell", configurations=st.fixed_dictionaries({**OPTIONS["GRU"], **RUN}))
def gru_cell(config: Config) -> Pair:
    return run_cell("GRU", config)


@parity(
    "tf.keras.activations.get",
    configurations=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "name": st.sampled_from([*ACTIVATIONS, None]),
            "compiled": st.booleans(),
        }
    ),
)
def activation(config: Config) -> Pair:
    """Random points, and those where a piecewise activation has a corner or a saturated tail."""
    rng = np.random.default_rng(config["seed"])
    special = [-40.0, -2.5, -1.0, 0.0, 1.0, 2.5, 40.0]
    x = np.concatenate([rng.normal(size=9) * 3, special]).reshape(2, 8)
    if config["name"] == "exponential":
        x = np.clip(x, -10, 10)
    theirs, mine = tf.keras.activations.get(config["name"]), get_activation(config["name"])
    return compare(
        lambda fed: {"output": theirs(fed["x"])},
        lambda _, fed: {"output": jnp.asarray(mine(fed["x"]))},
        variables={},
        layout=None,
        arrays={"x": x},
        rng=rng,
        graph=config["compiled"],
        compiled=config["compiled"],
    )
