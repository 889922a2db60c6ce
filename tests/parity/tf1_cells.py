"""TF1's cells and their wrappers, called step by step."""

from __future__ import annotations

from typing import Any

import jax
from hypothesis import strategies as st

from jax_models.cell_base import PerStep
from jax_models.cell_wrappers import call_cell
from tests.parity.harness import Config, Pair, parity
from tests.parity.tf1_graph import compare, draw_arrays, draw_state, flatten_named, pick_state, tf
from tests.parity.tf1_pairs import (
    ACTIVATIONS,
    CELLS,
    CellPair,
    Noise,
    Recording,
    pair_device,
    pair_dropout,
    pair_multi,
    pair_residual,
    replay,
    step_draws,
)

FEATURES = 3

COMMON = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 3]),
    "units": st.sampled_from([2, 4]),
    "zero_state": st.booleans(),
    "seed": st.integers(0, 2**16),
}
ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))
KEEP_PROB = st.sampled_from([0.3, 0.6, 1.0])
CELL = st.sampled_from(sorted(CELLS))

LSTM_OPTIONS = {
    "use_peepholes": st.booleans(),
    "cell_clip": st.sampled_from([None, 0.05, 0.4]),
    "num_proj": st.sampled_from([None, 1, 3]),
    "proj_clip": st.sampled_from([None, 0.02, 0.2]),
    "forget_bias": st.sampled_from([1.0, 0.0, -0.7]),
}


def step_through(pair: CellPair, config: Config, features: int = FEATURES) -> Pair:
    """Call both sides' cell `time` times, from a random state or from zeros."""
    batch, time, seed = config["batch"], config["time"], config["seed"]
    shapes = {f"inputs/{t}": (batch, features) for t in range(time)}
    sources = draw_arrays(seed, shapes)
    if not config["zero_state"]:
        sources |= draw_state(pair.module, "state", batch, seed + 3)
    draws = step_draws(pair.module, features)

    def build(tensors: dict) -> tuple[dict, Any]:
        noise, steps, results = Noise(), [], {}
        cell = Recording(pair.build(noise), draws)
        state = cell.zero_state(batch, tf.float64)
        if not config["zero_state"]:
            state = pick_state(state, "state", tensors)
        for t in range(time):
            output, state = cell(tensors[f"inputs/{t}"], state)
            results[f"output/{t}"], drawn = cell.part(output)
            steps.append(drawn)
        noise.steps = [tf.stack(uniform) for uniform in zip(*steps, strict=True)]
        return results | flatten_named("final_state", state), vars(noise)

    def forward(cell: Any, arrays: dict, noise: dict) -> dict:
        masks, results = replay(cell, Noise(**noise)), {}
        state = cell.zero_state(batch, "float64")
        if not config["zero_state"]:
            state = pick_state(state, "state", arrays)
        for t in range(time):
            masks_t = jax.tree.map(
                lambda mask, t=t: mask.masks[t] if isinstance(mask, PerStep) else mask,
                masks,
                is_leaf=lambda mask: isinstance(mask, PerStep),
            )
            state, results[f"output/{t}"] = call_cell(cell, state, arrays[f"inputs/{t}"], masks_t)
        return results | flatten_named("final_state", state)

    return compare(build, sources, pair.layout, seed, pair.module, forward)


@parity(
    "tf.compat.v1.nn.rnn_cell.BasicRNNCell",
    configurations=st.fixed_dictionaries({**COMMON, "activation": ACTIVATION}),
)
def basic_rnn_cell(config: Config) -> Pair:
    pair = CELLS["basic_rnn"](FEATURES, config["units"], activation=config["activation"])
    return step_through(pair, config)


@parity(
    "tf.compat.v1.nn.rnn_cell.GRUCell",
    configurations=st.fixed_dictionaries({**COMMON, "activation": ACTIVATION}),
)
def gru_cell(config: Config) -> Pair:
    return step_through(CELLS["gru"](FEATURES, config["units"], activation=config["activation"]), config)


@parity(
    "tf.compat.v1.nn.rnn_cell.BasicLSTMCell",
    configurations=st.fixed_dictionaries(
        {**COMMON, "activation": ACTIVATION, "forget_bias": LSTM_OPTIONS["forget_bias"]}
    ),
)
def basic_lstm_cell(config: Config) -> Pair:
    options = {name: config[name] for name in ("activation", "forget_bias")}
    return step_through(CELLS["basic_lstm"](FEATURES, config["units"], **options), config)


@parity(
    "tf.compat.v1.nn.rnn_cell.LSTMCell",
    configurations=st.fixed_dictionaries({**COMMON, **LSTM_OPTIONS, "activation": ACTIVATION}),
)
def lstm_cell(config: Config) -> Pair:
    options = {name: config[name] for name in ("activation", *LSTM_OPTIONS)}
    return step_through(CELLS["lstm"](FEATURES, config["units"], **options), config)


@parity(
    "tf.compat.v1.nn.rnn_cell.LSTMStateTuple",
    configurations=st.fixed_dictionaries({**COMMON, "zero_state": st.just(False)}),
)
def lstm_state_tuple(config: Config) -> Pair:
    """The arrays of the state, told apart by their sizes: c has the units, h those projected."""
    pair = CELLS["lstm"](FEATURES, config["units"], num_proj=config["units"] + 1)
    return step_through(pair, {**config, "time": 1})


@parity(
    "tf.compat.v1.nn.rnn_cell.MultiRNNCell",
    configurations=st.fixed_dictionaries({**COMMON, "cells": st.lists(CELL, min_size=1, max_size=3)}),
)
def multi_rnn_cell(config: Config) -> Pair:
    pairs, features = [], FEATURES
    for i, name in enumerate(config["cells"]):
        pairs.append(CELLS[name](features, config["units"] + i))
        features = config["units"] + i
    return step_through(pair_multi(pairs), config)


DROPOUT = {
    "input_keep_prob": KEEP_PROB,
    "output_keep_prob": KEEP_PROB,
    "state_keep_prob": KEEP_PROB,
    "variational": st.booleans(),
}


def options_of(config: Config, names: Any) -> dict[str, Any]:
    return {name: config[name] for name in names}


@parity(
    "tf.compat.v1.nn.rnn_cell.DropoutWrapper",
    configurations=st.fixed_dictionaries({**COMMON, **DROPOUT, "cell": CELL, "stacked": st.booleans()}),
)
def dropout_wrapper(config: Config) -> Pair:
    pair = CELLS[config["cell"]](FEATURES, config["units"])
    if config["stacked"]:
        pair = pair_multi([pair, CELLS["lstm"](config["units"], 3)])
    return step_through(pair_dropout(pair, FEATURES, **options_of(config, DROPOUT)), config)


@parity(
    "tf.compat.v1.nn.rnn_cell.ResidualWrapper",
    configurations=st.fixed_dictionaries({**COMMON, "cell": CELL, "own_function": st.booleans()}),
)
def residual_wrapper(config: Config) -> Pair:
    pair = CELLS[config["cell"]](config["units"], config["units"])
    wrapped = pair_residual(pair, own_function=config["own_function"])
    return step_through(wrapped, config, features=config["units"])


@parity(
    "tf.compat.v1.nn.rnn_cell.DeviceWrapper",
    configurations=st.fixed_dictionaries({**COMMON, "cell": CELL}),
)
def device_wrapper(config: Config) -> Pair:
    return step_through(pair_device(CELLS[config["cell"]](FEATURES, config["units"])), config)


def stacked_pair(features: int, units: int, dropout: dict[str, Any]) -> CellPair:
    """Multi over LSTM and over Residual over Dropout over LSTM, the way translation models are built."""
    first = pair_dropout(CELLS["basic_lstm"](features, units), features, **dropout)
    second = pair_dropout(CELLS["lstm"](units, units, use_peepholes=True), units, **dropout)
    return pair_multi([first, pair_residual(second), pair_device(CELLS["gru"](units, 3))])
