"""Parity of stateful Keras layers, which begin where the last batch ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

import jax_models.keras_layers as ours
from oracle.bridge.keras_layouts import nest
from tests.parity.harness import Config, Pair, parity
from tests.parity.keras_cells import cell_layout, cell_variables
from tests.parity.keras_layers import FEATURES, MASKS, draw_arrays, given_states, make_cell, name_results
from tests.parity.keras_side import compare
from tests.parity.tensorflow_side import tf

CELL_DEFAULTS: dict[str, Any] = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "unit_forget_bias": True,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "implementation": 2,
    "reset_after": True,
}
"""Those of Keras, of any kind of cell."""


def run_stateful(kind: str, config: Config) -> Pair:
    """Three batches one after the other, each with or without an initial state of its own, perhaps with
    a reset before the last. Keras ignores an initial state while it has a nonzero recorded one."""
    rng = np.random.default_rng(config["seed"])
    batch, units = config["batch"], config["units"]
    config = CELL_DEFAULTS | config
    layer = getattr(tf.keras.layers, kind)(units, stateful=True, return_state=True, dtype="float64")
    layer.build((batch, config["time"], FEATURES))
    # Not the recorded states, which Keras counts among the weights of some versions.
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    mine = getattr(ours, kind)(units, stateful=True, return_state=True)
    states = 2 if kind == "LSTM" else 1
    calls = [draw_arrays({**config, "initial_state": True}, states, [units] * states, rng) for _ in range(3)]
    arrays = {
        f"{call} {name}": array
        for call, of_call in enumerate(calls)
        for name, array in of_call.items()
        if config["states_given"][call] or not name.startswith("state")
    }

    def of_call(fed: Mapping[str, Any], call: int) -> dict[str, Any]:
        return {name[2:]: array for name, array in fed.items() if name.startswith(f"{call} ")}

    def tf_call(fed: Mapping[str, Any]) -> dict[str, Any]:
        layer.reset_states()
        results = {}
        for call in range(3):
            if call == 2 and config["reset"]:
                layer.reset_states()
            now = of_call(fed, call)
            output = layer(now["inputs"], mask=now.get("mask"), initial_state=given_states(now))
            results |= {f"{call} {n}": o for n, o in name_results(output[:1], output[1:]).items()}
        return results

    def jax_call(params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        recorded = zeros = make_cell(kind, config).zero_state(batch, "float64")
        results = {}
        for call in range(3):
            now = of_call(fed, call)
            given = given_states(now)
            output, recorded = mine.apply(
                {"params": params},
                now["inputs"],
                mask=now.get("mask"),
                initial_state=given and ours.unflatten_keras_states(given, like=zeros),
                recorded_state=zeros if call == 2 and config["reset"] else recorded,
            )
            named = name_results([output], ours.flatten_keras_states(recorded))
            results |= {f"{call} {name}": array for name, array in named.items()}
        return results

    return compare(
        tf_call,
        jax_call,
        variables=cell_variables(layer.cell, "cell/"),
        layout=nest({"cell": cell_layout(kind, FEATURES, config)}),
        arrays=arrays,
        rng=rng,
    )


STATEFUL = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "units": st.sampled_from([2, 5]),
        "batch": st.sampled_from([1, 3]),
        "time": st.sampled_from([1, 4]),
        "mask": st.sampled_from(MASKS),
        "states_given": st.lists(st.booleans(), min_size=3, max_size=3),
        "reset": st.booleans(),
    }
)


@parity("tf.keras.layers.SimpleRNN(stateful=True)", configurations=STATEFUL)
def simple_rnn_stateful(config: Config) -> Pair:
    return run_stateful("SimpleRNN", config)


@parity("tf.keras.layers.LSTM(stateful=True)", configurations=STATEFUL)
def lstm_stateful(config: Config) -> Pair:
    return run_stateful("LSTM", config)


@parity("tf.keras.layers.GRU(stateful=True)", configurations=STATEFUL)
def gru_stateful(config: Config) -> Pair:
    return run_stateful("GRU", config)
