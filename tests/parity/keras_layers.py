"""The layers of Keras: the recurrent ones with every option, `Bidirectional`, and those without time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import jax_models.keras_layers as ours
from jax_models.keras_activations import ACTIVATIONS
from oracle.bridge import keras_layouts
from oracle.bridge.keras_layouts import nest
from tests.parity.harness import Config, Pair, parity
from tests.parity.keras_cells import (
    FEATURES,
    OPTIONS,
    cell_layout,
    cell_variables,
    constructor_arguments,
)
from tests.parity.keras_side import (
    MASKS,
    compare,
    draw_mask,
    record_dropout,
    set_random,
    stack_masks,
)
from tests.parity.tensorflow_side import tf

LOOP = {
    "return_sequences": st.booleans(),
    "return_state": st.booleans(),
    "go_backwards": st.booleans(),
    "time_major": st.booleans(),
    "unroll": st.sampled_from([False, False, True]),
    "zero_output_for_mask": st.booleans(),
}
RUN = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 4]),
    "mask": st.sampled_from(MASKS),
    "initial_state": st.booleans(),
    "compiled": st.sampled_from([False] * 6 + [True]),
}


def allowed(config: Config) -> bool:
    """Unrolled, with zero outputs for masked steps, and returning the last only, Keras raises."""
    raises = config["unroll"] and config["zero_output_for_mask"] and config["mask"] != "none"
    return config["return_sequences"] or not raises


def layer_configurations(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({**OPTIONS[kind], **LOOP, **RUN}).filter(allowed)


def is_dropped(config: Config) -> bool:
    return bool(config["dropout"] or config["recurrent_dropout"])


def draw_arrays(config: Config, states: int, widths: list[int], rng: np.random.Generator) -> dict:
    """The inputs, the mask if there is one, and `states` initial states if the configuration wants them."""
    leading = (config["batch"], config["time"])
    mask = draw_mask(config["mask"], *leading, rng)
    arrays = {"inputs": rng.normal(size=(*leading, FEATURES))} | ({} if mask is None else {"mask": mask})
    if config.get("time_major"):
        arrays = {name: np.ascontiguousarray(array.swapaxes(0, 1)) for name, array in arrays.items()}
    if config["initial_state"]:
        for number in range(states):
            arrays[f"state {number}"] = rng.normal(size=(config["batch"], widths[number]))
    return arrays


def given_states(fed: Mapping[str, Any]) -> list[Any] | None:
    return [array for name, array in fed.items() if name.startswith("state")] or None


def name_results(outputs: list[Any], states: list[Any]) -> dict[str, Any]:
    """Keras' flat list as a dictionary."""
    return {
        **{f"output {number}": output for number, output in enumerate(outputs)},
        **{f"final state {number}": state for number, state in enumerate(states)},
    }


def run_layer(kind: str, config: Config, *, layers: Any = tf.keras.layers, v1: bool = False) -> Pair:
    """A recurrent layer of Keras around its own cell, and ours."""
    rng = np.random.default_rng(config["seed"])
    arguments = constructor_arguments(kind, config) | {name: config[name] for name in LOOP}
    layer = getattr(layers, kind)(**arguments, dtype="float64")
    mine = getattr(ours, kind)(**arguments, **({"dropout_every_step": False} if v1 else {}))
    states = 2 if kind == "LSTM" else 1
    arrays = draw_arrays(config, states, [config["units"]] * states, rng)
    layer.build(arrays["inputs"].shape)
    set_random(layer, rng)
    # The layer itself draws what it drops before the loop, its cell what it drops in it.
    recorded = record_dropout(layer.cell)
    before_loop = record_dropout(layer) if hasattr(layer, "get_dropout_mask_for_cell") else {}
    dropped = is_dropped(config)

    def tf_call(fed: Mapping[str, Any]) -> dict[str, Any]:
        results = layer(
            fed["inputs"], mask=fed.get("mask"), initial_state=given_states(fed), training=dropped
        )
        results = results if config["return_state"] else [results]
        return name_results(results[:1], results[1:])

    def jax_call(params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        like = make_cell(kind, config).zero_state(config["batch"], "float64")
        given = given_states(fed)
        masks = stack_masks(recorded)
        if before_loop:
            masks = ours.DropoutMasks(jnp.asarray(before_loop["inputs"][0].numpy()))
        result = mine.apply(
            {"params": params},
            fed["inputs"],
            mask=fed.get("mask"),
            initial_state=given and ours.unflatten_keras_states(given, like=like),
            training=dropped,
            dropout_masks=masks if dropped else None,
        )
        output, state = result if config["return_state"] else (result, ())
        return name_results([output], ours.flatten_keras_states(state))

    return compare(
        tf_call,
        jax_call,
        variables=cell_variables(layer.cell, "cell/"),
        layout=nest({"cell": cell_layout(kind, FEATURES, config)}),
        arrays=arrays,
        rng=rng,
        graph=config["compiled"] and not dropped,
        compiled=config["compiled"],
    )


def make_cell(kind: str, config: Config, *, source: Any = ours, **more: Any) -> Any:
    return getattr(source, f"{kind}Cell")(**constructor_arguments(kind, config), **more)


@parity("tf.keras.layers.SimpleRNN", configurations=layer_configurations("SimpleRNN"))
def simple_rnn(config: Config) -> Pair:
    return run_layer("SimpleRNN", config)


@parity("tf.keras.layers.LSTM", configurations=layer_configurations("LSTM"))
def lstm(config: Config) -> Pair:
    return run_layer("LSTM", config)


@parity("tf.keras.layers.GRU", configurations=layer_configurations("GRU"))
def gru(config: Config) -> Pair:
    return run_layer("GRU", config)


@parity("tf.compat.v1.keras.layers.LSTM", configurations=layer_configurations("LSTM"))
def lstm_v1(config: Config) -> Pair:
    return run_layer("LSTM", config, layers=tf.compat.v1.keras.layers, v1=True)


@parity("tf.compat.v1.keras.layers.GRU", configurations=layer_configurations("GRU"))
def gru_v1(config: Config) -> Pair:
    return run_layer("GRU", config, layers=tf.compat.v1.keras.layers, v1=True)


STACK = st.lists(
    st.sampled_from(["SimpleRNN", "LSTM", "GRU"]).flatmap(
        lambda kind: st.fixed_dictionaries({"kind": st.just(kind), **OPTIONS[kind]})
    ),
    min_size=1,
    max_size=3,
)


def run_cells(config: Config, *, time: bool) -> Pair:
    """`RNN` over a stack of cells, or over one; without `time`, one step of `StackedRNNCells`."""
    rng = np.random.default_rng(config["seed"])
    kinds = config["cells"]
    theirs = [make_cell(c["kind"], c, source=tf.keras.layers, dtype="float64") for c in kinds]
    mine = [make_cell(c["kind"], c) for c in kinds]
    widths = [c["units"] for c in kinds for _ in range(2 if c["kind"] == "LSTM" else 1)]
    single = time and len(kinds) == 1 and config["unwrapped"]
    sizes = [FEATURES, *(c["units"] for c in kinds)]
    layout = nest(
        {f"cells_{i}": cell_layout(c["kind"], sizes[i], c) for i, c in enumerate(kinds)}
        if not single
        else {"cell": cell_layout(kinds[0]["kind"], FEATURES, kinds[0])}
    )
    dropped = any(is_dropped(c) for c in kinds)
    arrays = draw_arrays(config, len(widths), widths, rng)
    stacked = ours.StackedRNNCells(tuple(mine))
    if time:
        loop = {name: config[name] for name in LOOP}
        # Given a list, RNN makes a float32 StackedRNNCells of it, which rounds float64 inputs.
        stack = theirs[0] if single else tf.keras.layers.StackedRNNCells(theirs, dtype="float64")
        object_ = tf.keras.layers.RNN(stack, **loop, dtype="float64")
        module = ours.RNN(mine[0] if single else mine, **loop)
        layout = layout if single else nest({"cell": layout})
        object_.build(arrays["inputs"].shape)
    else:
        object_ = tf.keras.layers.StackedRNNCells(theirs, dtype="float64")
        module = stacked
        arrays["inputs"] = arrays["inputs"][:, 0]
        object_.build(arrays["inputs"].shape)
    set_random(object_, rng)
    recorded = [record_dropout(cell) for cell in theirs]
    # Keras' StackedRNNCells called by itself takes the states of each cell as a list of its own.
    like = mine[0].zero_state(config["batch"], "float64") if single else stacked.zero_state(1, "float64")

    def nested(states: list[Any] | None) -> list[Any] | None:
        if states is None or single:
            return states
        rest = iter(states)
        return [[next(rest), next(rest)] if c["kind"] == "LSTM" else next(rest) for c in kinds]

    def tf_call(fed: Mapping[str, Any]) -> dict[str, Any]:
        states = nested(given_states(fed))
        if not time:
            output, new = object_(fed["inputs"], states, training=dropped)
            return name_results([output], tf.nest.flatten(new))
        results = object_(fed["inputs"], mask=fed.get("mask"), initial_state=states, training=dropped)
        results = results if config["return_state"] else [results]
        return name_results(results[:1], tf.nest.flatten(results[1:]))

    def jax_call(params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        given = given_states(fed)
        state = given and ours.unflatten_keras_states(given, like=like)
        masks = tuple(stack_masks(r) if is_dropped(c) else None for r, c in zip(recorded, kinds, strict=True))
        masks = (masks[0] if single else masks) if dropped else None
        if not time:
            new, output = module.apply({"params": params}, state, fed["inputs"], dropout_masks=masks)
            return name_results([output], ours.flatten_keras_states(new))
        result = module.apply(
            {"params": params},
            fed["inputs"],
            mask=fed.get("mask"),
            initial_state=state,
            training=dropped,
            dropout_masks=masks,
        )
        output, new = result if config["return_state"] else (result, ())
        return name_results([output], ours.flatten_keras_states(new))

    prefixes = [("cell/" if time else "") + ("" if single else f"cells_{i}/") for i in range(len(kinds))]
    variables = {}
    for cell, prefix in zip(theirs, prefixes, strict=True):
        variables |= cell_variables(cell, prefix)
    return compare(
        tf_call,
        jax_call,
        variables=variables,
        layout=layout,
        arrays=arrays,
        rng=rng,
        graph=config["compiled"] and not dropped,
        compiled=config["compiled"],
    )


@parity(
    "tf.keras.layers.RNN",
    configurations=st.fixed_dictionaries(
        {"seed": st.integers(0, 2**16), "cells": STACK, "unwrapped": st.booleans(), **LOOP, **RUN}
    ).filter(allowed),
)
def rnn(config: Config) -> Pair:
    return run_cells(config, time=True)


@parity(
    "tf.keras.layers.StackedRNNCells",
    configurations=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "cells": STACK,
            **RUN,
            "mask": st.just("none"),
            "initial_state": st.just(True),
        }
    ),
)
def stacked_rnn_cells(config: Config) -> Pair:
    return run_cells(config, time=False)


def directions() -> st.SearchStrategy[dict[str, Any]]:
    """A forward layer, and a backward one that may be of another kind, units and options."""
    one = st.sampled_from(["SimpleRNN", "LSTM", "GRU"]).flatmap(
        lambda kind: st.fixed_dictionaries({"kind": st.just(kind), **OPTIONS[kind]})
    )
    return st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "forward": one,
            "backward": st.none() | one,
            "merge_mode": st.sampled_from(["concat", "sum", "mul", "ave", None]),
            **LOOP,
            **RUN,
        }
    ).filter(lambda config: _can_merge(config) and _can_start(config))


def _can_start(config: Config) -> bool:
    """Keras halves the list of given states, so it refuses an odd number of them."""
    kinds = [config["forward"]["kind"], (config["backward"] or config["forward"])["kind"]]
    return not config["initial_state"] or kinds.count("LSTM") != 1


def _can_merge(config: Config) -> bool:
    same = config["backward"] is None or config["backward"]["units"] == config["forward"]["units"]
    return same or config["merge_mode"] in ("concat", None)


@parity("tf.keras.layers.Bidirectional", configurations=directions())
def bidirectional(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    options = [config["forward"], config["backward"] or config["forward"]]
    loop = {name: config[name] for name in LOOP}
    sides = []
    for source, dtype in ((tf.keras.layers, {"dtype": "float64"}), (ours, {})):
        pair = []
        for of_direction, backwards in zip(
            options, (config["go_backwards"], not config["go_backwards"]), strict=True
        ):
            arguments = constructor_arguments(of_direction["kind"], of_direction) | loop
            arguments["go_backwards"] = backwards
            pair.append(getattr(source, of_direction["kind"])(**arguments, **dtype))
        given = {"backward_layer": pair[1]} if config["backward"] else {}
        sides.append(source.Bidirectional(pair[0], merge_mode=config["merge_mode"], **given, **dtype))
    layer, mine = sides
    widths = [o["units"] for o in options for _ in range(2 if o["kind"] == "LSTM" else 1)]
    arrays = draw_arrays(config, len(widths), widths, rng)
    layer.build(arrays["inputs"].shape)
    set_random(layer, rng)
    parts = {"forward": layer.forward_layer, "backward": layer.backward_layer}
    in_loop = [record_dropout(part.cell) for part in parts.values()]
    before = [
        record_dropout(part) if hasattr(part, "get_dropout_mask_for_cell") else {} for part in parts.values()
    ]
    dropped = any(is_dropped(o) for o in options)
    like = tuple(make_cell(o["kind"], o).zero_state(1, "float64") for o in options)
    apart = 2 if config["merge_mode"] is None else 1

    def tf_call(fed: Mapping[str, Any]) -> dict[str, Any]:
        results = layer(
            fed["inputs"], mask=fed.get("mask"), initial_state=given_states(fed), training=dropped
        )
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        return name_results(results[:apart], results[apart:])

    def masks_of(direction: int) -> Any:
        if before[direction]:
            return ours.DropoutMasks(jnp.asarray(before[direction]["inputs"][0].numpy()))
        return stack_masks(in_loop[direction])

    def jax_call(params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        given = given_states(fed)
        result = mine.apply(
            {"params": params},
            fed["inputs"],
            mask=fed.get("mask"),
            initial_state=given and ours.unflatten_keras_states(given, like=like),
            training=dropped,
            dropout_masks=(masks_of(0), masks_of(1)) if dropped else None,
        )
        output, states = result if config["return_state"] else (result, ())
        outputs = list(output) if config["merge_mode"] is None else [output]
        return name_results(outputs, ours.flatten_keras_states(states))

    variables, layouts = {}, {}
    for (name, part), of_direction in zip(parts.items(), options, strict=True):
        variables |= cell_variables(part.cell, f"{name}/cell/")
        layouts[name] = nest({"cell": cell_layout(of_direction["kind"], FEATURES, of_direction)})
    return compare(
        tf_call,
        jax_call,
        variables=variables,
        layout=nest(layouts),
        arrays=arrays,
        rng=rng,
        graph=config["compiled"] and not dropped,
        compiled=config["compiled"],
    )


@parity(
    "tf.keras.layers.Dense",
    configurations=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "leading": st.sampled_from([(1,), (3,), (3, 4), (1, 1), (2, 1, 3)]),
            "units": st.sampled_from([2, 5]),
            "activation": st.sampled_from([*ACTIVATIONS, None]),
            "use_bias": st.booleans(),
            "compiled": st.booleans(),
        }
    ),
)
def dense(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    arguments = {name: config[name] for name in ("units", "activation", "use_bias")}
    layer, mine = tf.keras.layers.Dense(**arguments, dtype="float64"), ours.Dense(**arguments)
    inputs = rng.normal(size=(*config["leading"], FEATURES))
    layer.build(inputs.shape)
    set_random(layer, rng)
    names = ("kernel", "bias") if config["use_bias"] else ("kernel",)
    return compare(
        lambda fed: {"output": layer(fed["inputs"])},
        lambda params, fed: {"output": mine.apply({"params": params}, fed["inputs"])},
        variables={name: getattr(layer, name) for name in names},
        layout=keras_layouts.keras_dense(FEATURES, config["units"], use_bias=config["use_bias"]),
        arrays={"inputs": inputs},
        rng=rng,
        graph=config["compiled"],
        compiled=config["compiled"],
    )


@parity(
    "tf.keras.layers.Embedding",
    configurations=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "shape": st.sampled_from([(1,), (3,), (3, 4), (2, 1, 3)]),
            "output_dim": st.sampled_from([1, 3]),
            "mask_zero": st.booleans(),
            "fractions": st.booleans(),
            "compiled": st.booleans(),
        }
    ),
)
def embedding(config: Config) -> Pair:
    """The vectors, the mask, and the vectors multiplied by it: what a layer that reads it would do."""
    rng = np.random.default_rng(config["seed"])
    arguments = {"output_dim": config["output_dim"], "mask_zero": config["mask_zero"]}
    layer = tf.keras.layers.Embedding(5, **arguments, dtype="float64")
    layer.build(config["shape"])
    set_random(layer, rng)
    mine = ours.Embedding(5, **arguments)
    ids = rng.integers(0, 5, size=config["shape"]).astype(np.int32)
    if config["fractions"]:
        ids = (ids + rng.choice([0.0, 0.5], size=ids.shape)).astype(np.float32)

    def results(vectors: Any, mask: Any, cast: Any) -> dict[str, Any]:
        return {"output": vectors} | ({} if mask is None else {"mask": cast(mask)})

    return compare(
        lambda fed: results(
            layer(fed["ids"]), layer.compute_mask(fed["ids"]), lambda mask: tf.cast(mask, "float64")
        ),
        lambda params, fed: results(
            mine.apply({"params": params}, fed["ids"]),
            mine.compute_mask(fed["ids"]),
            lambda mask: mask.astype("float64"),
        ),
        variables={"embeddings": layer.embeddings},
        layout=keras_layouts.keras_embedding(5, config["output_dim"]),
        arrays={"ids": ids},
        rng=rng,
        graph=config["compiled"],
        compiled=config["compiled"],
    )


@parity(
    "tf.keras.layers.Masking",
    configurations=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "shape": st.sampled_from([(1, 1, 2), (3, 4, 2), (2, 3)]),
            "mask_value": st.sampled_from([0.0, -1.0, 0.1]),
            "compiled": st.booleans(),
        }
    ),
)
def masking(config: Config) -> Pair:
    """Steps that are all `mask_value`, and steps that are so in part."""
    rng = np.random.default_rng(config["seed"])
    layer = tf.keras.layers.Masking(config["mask_value"], dtype="float64")
    mine = ours.Masking(config["mask_value"])
    inputs = rng.normal(size=config["shape"])
    inputs[rng.random(config["shape"][:-1]) < 0.4] = config["mask_value"]
    inputs[rng.random(config["shape"]) < 0.2] = config["mask_value"]
    return compare(
        lambda fed: {
            "output": layer(fed["inputs"]),
            "mask": tf.cast(layer.compute_mask(fed["inputs"]), "float64"),
        },
        lambda _, fed: {
            "output": mine.apply({}, fed["inputs"]),
            "mask": mine.compute_mask(fed["inputs"]).astype("float64"),
        },
        variables={},
        layout=None,
        arrays={"inputs": inputs},
        rng=rng,
        graph=config["compiled"],
        compiled=config["compiled"],
    )
