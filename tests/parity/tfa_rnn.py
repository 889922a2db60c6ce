"""The recurrent cells of `tfa.rnn`, called step by step in eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.cell_base import LSTMState
from jax_models.keras_dropout import DropoutMasks
from jax_models.layer_norm_cells import LayerNormLSTMCell, LayerNormSimpleRNNCell
from jax_models.tfa_cells import ESNCell, NASCell, PeepholeLSTMCell
from oracle.bridge import cell_layouts
from oracle.bridge.layout import Layout
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa
from tests.parity.tf1_graph import draw_arrays, draw_targets, local_name, run_oracle

FEATURES = 3

# Two numbers normalised are +1 and -1 whatever they were, and the norm of x*w does not depend on the x of
# a single feature: where so little is left, gradients vanish by cancellation, and nothing can be compared.
NORMALISED = {
    "features": st.just(8),
    "units": st.sampled_from([6, 8]),
    "activation": st.sampled_from(["tanh", "softsign"]),
    "dropout": st.sampled_from([0.0, 0.2]),
    "recurrent_dropout": st.sampled_from([0.0, 0.2]),
}

COMMON = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 3]),
    "units": st.sampled_from([2, 5]),
    "zero_state": st.booleans(),
    "use_bias": st.booleans(),
    "seed": st.integers(0, 2**16),
}
RATE = st.sampled_from([0.0, 0.3, 0.6])
DROPOUT = {"dropout": RATE, "recurrent_dropout": RATE, "training": st.booleans()}
ACTIVATION = st.sampled_from(["tanh", "relu", "sigmoid"])
GATE = st.sampled_from(["sigmoid", "hard_sigmoid"])

H_FIRST = "hc"
C_FIRST = "ch"
"""The order of the arrays of an LSTM's state in Keras, and in `tfa.rnn.NASCell`."""


def step_through(
    cell: Any, module: nn.Module, layout: Layout, config: Config, *, order: str = "h", masks: int = 0
) -> Pair:
    """Call both sides' cell `time` times. `order` is that of TensorFlow's state."""
    batch, time, seed = config["batch"], config["time"], config["seed"]
    sizes = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
    sizes = dict(zip(order, sizes, strict=True))
    shapes: dict[str, tuple[int, ...]] = {"inputs": (batch, time, config.get("features", FEATURES))}
    if not config["zero_state"]:
        shapes |= {f"state/{name}": (batch, size) for name, size in sizes.items()}
    sources = draw_arrays(seed, shapes)

    def forward(module: Any, arrays: dict) -> dict:
        zeros = {name: jnp.zeros((batch, size)) for name, size in sizes.items()}
        parts = {name: arrays.get(f"state/{name}", zeros[name]) for name in order}
        state = LSTMState(**parts) if len(order) == 2 else parts["h"]
        dropped = {"dropout_masks": replayed} if replayed else {}
        results = {}
        for t in range(time):
            state, results[f"output/{t}"] = module(state, arrays["inputs"][:, t], **dropped)
        last = state._asdict() if isinstance(state, LSTMState) else {"h": state}
        return results | {f"final_state/{name}": array for name, array in last.items()}

    values, tf_side = _run_cell(cell, sources, layout, config, sizes)
    replayed = _masks_used(cell, config, masks) if masks else None
    return Pair(tf=tf_side, jax=run_oracle(module, forward, layout.to_leaves(values), sources, seed))


def _run_cell(
    cell: Any, sources: dict[str, np.ndarray], layout: Layout, config: Config, sizes: dict[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    batch, time, seed = config["batch"], config["time"], config["seed"]
    arguments = {"training": config["training"]} if "training" in config else {}
    tf.random.set_seed(seed)
    tensors = {name: tf.constant(values) for name, values in sources.items()}
    with tf.GradientTape() as tape:
        tape.watch(list(tensors.values()))
        zeros = {name: tf.zeros((batch, size), tf.float64) for name, size in sizes.items()}
        state = [tensors.get(f"state/{name}", zeros[name]) for name in sizes]
        cell.build((batch, tensors["inputs"].shape[-1]))
        variables = {
            local_name(weight.name.removesuffix(":0"), layout.variables): weight for weight in cell.weights
        }
        values = {
            name: array / np.sqrt(array.shape[0])
            for name, array in draw_arrays(seed + 2, layout.variables).items()
        }
        for name, variable in variables.items():
            variable.assign(values[name])
        results = {}
        for t in range(time):
            results[f"output/{t}"], state = cell(tensors["inputs"][:, t], state, **arguments)
            # ESNCell takes a list and returns a tensor.
            state = state if isinstance(state, (list, tuple)) else [state]
        results |= {f"final_state/{name}": array for name, array in zip(sizes, state, strict=True)}
        targets = draw_targets(seed, results)
        loss = tf.add_n([tf.nn.l2_loss(results[name] - targets[name]) for name in sorted(results)])
    found = tape.gradient(loss, {"variables": variables, "sources": tensors})
    of_variables = {k: None if g is None else g.numpy() for k, g in found["variables"].items()}
    gradients = {**layout.gradients_to_leaves(of_variables), **found["sources"]}
    named = {f"gradient/{name}": g if g is None else np.asarray(g) for name, g in gradients.items()}
    arrays = {name: tensor.numpy() for name, tensor in {**results, "loss": loss}.items()}
    return values, {**arrays, **named}


def _masks_used(cell: Any, config: Config, count: int) -> DropoutMasks:
    """The masks that the cell has drawn and cached in its first call, of which it uses `count`."""
    if not config["training"]:
        return DropoutMasks()
    batch = config["batch"]
    inputs = tf.ones((batch, config.get("features", FEATURES)), tf.float64)
    h = tf.ones((batch, config["units"]), tf.float64)
    one: dict[str, Any] = {"count": 4} if "LSTM" in cell.name else {}
    drawn = (
        cell.get_dropout_mask_for_cell(inputs, True, **one) if config["dropout"] else None,
        cell.get_recurrent_dropout_mask_for_cell(h, True, **one) if config["recurrent_dropout"] else None,
    )
    stacked = [None if d is None else np.reshape(np.stack(d), (-1, batch, d[0].shape[-1])) for d in drawn]
    return DropoutMasks(*(None if s is None else jnp.asarray(s[:count]) for s in stacked))


def _make(cell: Callable, units: int, **options: Any) -> Any:
    # The norms within LayerNormLSTMCell do not hear of its dtype, only of the default.
    before = tf.keras.backend.floatx()
    tf.keras.backend.set_floatx("float64")
    try:
        return cell(units, name=cell.__name__, **options)
    finally:
        tf.keras.backend.set_floatx(before)


def _pick(config: Config, *names: str) -> dict[str, Any]:
    return {name: config[name] for name in names}


@parity(
    "tfa.rnn.LayerNormLSTMCell",
    configurations=st.fixed_dictionaries(
        {
            **COMMON,
            **DROPOUT,
            **NORMALISED,
            "recurrent_activation": GATE,
            "norm_epsilon": st.sampled_from([1e-3, 0.1]),
        }
    ),
)
def layer_norm_lstm_cell(config: Config) -> Pair:
    names = ("activation", "recurrent_activation", "use_bias", "norm_epsilon", "dropout")
    options = _pick(config, *names, "recurrent_dropout")
    units = config["units"]
    return step_through(
        _make(tfa.rnn.LayerNormLSTMCell, units, **options),
        LayerNormLSTMCell(units, **options),
        cell_layouts.tfa_layer_norm_lstm(config["features"], units, use_bias=config["use_bias"]),
        config,
        order=H_FIRST,
        masks=1,
    )


@parity(
    "tfa.rnn.LayerNormSimpleRNNCell",
    configurations=st.fixed_dictionaries(
        {
            **COMMON,
            **DROPOUT,
            **NORMALISED,
            "layernorm_epsilon": st.sampled_from([1e-5, 0.1]),
        }
    ),
)
def layer_norm_simple_rnn_cell(config: Config) -> Pair:
    options = _pick(config, "activation", "use_bias", "layernorm_epsilon", "dropout", "recurrent_dropout")
    units = config["units"]
    return step_through(
        _make(tfa.rnn.LayerNormSimpleRNNCell, units, **options),
        LayerNormSimpleRNNCell(units, **options),
        cell_layouts.tfa_layer_norm_simple_rnn(config["features"], units, use_bias=config["use_bias"]),
        config,
        masks=1,
    )


@parity(
    "tfa.rnn.NASCell",
    configurations=st.fixed_dictionaries({**COMMON, "projection": st.sampled_from([None, 1, 4])}),
)
def nas_cell(config: Config) -> Pair:
    options, units = _pick(config, "projection", "use_bias"), config["units"]
    return step_through(
        _make(tfa.rnn.NASCell, units, **options),
        NASCell(units, **options),
        cell_layouts.tfa_nas(FEATURES, units, **options),
        config,
        order=C_FIRST,
    )


@parity(
    "tfa.rnn.ESNCell",
    configurations=st.fixed_dictionaries(
        {**COMMON, "activation": ACTIVATION, "leaky": st.sampled_from([1.0, 0.4])}
    ),
)
def esn_cell(config: Config) -> Pair:
    options, units = _pick(config, "activation", "leaky", "use_bias"), config["units"]
    return step_through(
        _make(tfa.rnn.ESNCell, units, connectivity=0.5, **options),
        ESNCell(units, connectivity=0.5, **options),
        cell_layouts.tfa_esn(FEATURES, units, use_bias=config["use_bias"]),
        config,
    )


@parity(
    "tfa.rnn.PeepholeLSTMCell",
    configurations=st.fixed_dictionaries(
        {
            **COMMON,
            **DROPOUT,
            "activation": ACTIVATION,
            "recurrent_activation": GATE,
            "implementation": st.sampled_from([1, 2]),
        }
    ),
)
def peephole_lstm_cell(config: Config) -> Pair:
    names = ("activation", "recurrent_activation", "use_bias", "dropout", "recurrent_dropout")
    options, units = _pick(config, *names, "implementation"), config["units"]
    apart = config["implementation"] == 1 or config["recurrent_dropout"] > 0
    return step_through(
        _make(tfa.rnn.PeepholeLSTMCell, units, **options),
        PeepholeLSTMCell(units, **options),
        cell_layouts.tfa_peephole_lstm(FEATURES, units, use_bias=config["use_bias"]),
        config,
        order=H_FIRST,
        masks=4 if apart else 1,
    )
