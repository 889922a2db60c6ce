"""Parity of `jax_models.attention_wrapper`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.attention import BahdanauAttention, LuongAttention
from jax_models.attention_state import AttentionWrapperState
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.cells import BasicLSTMCell, LSTMState
from jax_models.keras_cells import GRUCell
from jax_models.monotonic import BahdanauMonotonicAttention, LuongMonotonicAttention
from oracle.bridge.attention_layouts import (
    attention_layer,
    attention_wrapper,
    bahdanau_attention,
    luong_attention,
)
from oracle.bridge.layout import Layout, whole
from oracle.bridge.layouts import dense, keras_lstm
from tests.parity.attention import named_gradients, numpy_or_none, to_params, variable_at
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

KINDS = st.sampled_from(
    [
        "luong",
        "luong scaled",
        "bahdanau",
        "bahdanau normalized",
        "luong monotonic",
        "bahdanau monotonic",
        "luong monotonic noisy",
        "bahdanau monotonic noisy",
    ]
)

SIZES = {
    "mechanisms": st.one_of(KINDS, st.lists(KINDS, min_size=1, max_size=2).map(tuple)),
    "cell": st.sampled_from(["lstm", "gru"]),
    "cell_state": st.sampled_from(["zeros", "initial_cell_state", "clone"]),
    "batch": st.sampled_from([1, 3]),
    "memory": st.sampled_from([2, 4]),
    "depth": st.sampled_from([3, 4]),
    "units": st.sampled_from([2, 5]),
    "cell_units": st.sampled_from([2, 5]),
    "attention": st.sampled_from(["context", "layer size", "layer"]),
    "alignment_history": st.booleans(),
    "seed": st.integers(0, 2**16),
}

OPTIONS = {
    "features": st.sampled_from([1, 3]),
    "steps": st.sampled_from([1, 3]),
    "lengths": st.booleans(),
    "cell_input_fn": st.sampled_from(["default", "attention first"]),
    "attention_fn": st.sampled_from(["default", "negated"]),
    "output_attention": st.booleans(),
}


class _Scene:
    """One configuration: its arrays, and the wrapper and its parts on either side."""

    def __init__(self, config: Config) -> None:
        self.config = c = config
        self.rng = np.random.default_rng(c["seed"])
        self.many = isinstance(c["mechanisms"], tuple)
        self.kinds = c["mechanisms"] if self.many else (c["mechanisms"],)
        self.noisy = [kind.endswith("noisy") for kind in self.kinds]
        self.steps, self.features = c.get("steps", 1), c.get("features", 1)
        self.states = 2 if c["cell"] == "lstm" else 1
        widths = [c["depth"] if c["attention"] == "context" else 2 + i for i in range(len(self.kinds))]
        self.width = sum(widths)
        self._make_parts(widths)

        batch, memory, units = c["batch"], c["memory"], c["cell_units"]
        self.lengths = self.rng.integers(1, memory + 1, batch) if c.get("lengths") else None
        self.memory = self.rng.normal(size=(batch, memory, c["depth"]))
        self.inputs = self.rng.normal(size=(self.steps, batch, self.features))
        self.cell_state = self.rng.normal(size=(self.states, batch, units))
        self.cell_state *= c["cell_state"] != "zeros"
        self.noise = self.rng.normal(size=(len(self.kinds), self.steps, batch, memory))

    def listed(self, entries: Iterable[Any]) -> Any:
        """An entry a mechanism, in the form in which the wrapper is given its mechanisms."""
        return list(entries) if self.many else next(iter(entries))

    def each(self, entries: Any) -> tuple:
        """The inverse of `listed`."""
        return tuple(entries) if self.many else (entries,)

    def _make_parts(self, widths: list[int]) -> None:
        c, units = self.config, self.config["cell_units"]
        mechanisms = [
            _mechanism(kind, depth=c["depth"], units=c["units"], query=units) for kind in self.kinds
        ]
        self.mechanisms_tf = [mechanism for mechanism, _, _ in mechanisms]
        self.options_tf: dict[str, Any] = {"alignment_history": c["alignment_history"]}
        options: dict[str, Any] = {"alignment_history": c["alignment_history"]}
        joined = units + c["depth"]
        layers = None
        if c["attention"] == "layer size":
            self.options_tf["attention_layer_size"] = options["attention_layer_size"] = self.listed(widths)
            layers = self.listed(attention_layer(joined, width) for width in widths)
        if c["attention"] == "layer":
            self.options_tf["attention_layer"] = self.listed(
                tf.keras.layers.Dense(width, dtype=tf.float64) for width in widths
            )
            options["attention_layer"] = self.listed(nn.Dense(width) for width in widths)
            layers = self.listed(dense(joined, width) for width in widths)
        if c.get("cell_input_fn") == "attention first":
            self.options_tf["cell_input_fn"] = lambda x, attention: tf.concat([attention, 2 * x], -1)
            options["cell_input_fn"] = lambda x, attention: jnp.concatenate([attention, 2 * x], -1)
        if c.get("attention_fn") == "negated":
            self.options_tf["attention_fn"], options["attention_fn"] = _negated_tf, _negated
        if "output_attention" in c:
            self.options_tf["output_attention"] = options["output_attention"] = c["output_attention"]

        features = self.features + self.width
        if c["cell"] == "lstm":
            self.cell_tf = tf.keras.layers.LSTMCell(units, dtype=tf.float64)
            cell, cell_layout = (
                BasicLSTMCell(units, forget_bias=0.0),
                keras_lstm(features, units, forget_bias=0.0),
            )
        else:
            self.cell_tf = tf.keras.layers.GRUCell(units, dtype=tf.float64)
            cell, cell_layout = GRUCell(units), _keras_gru(features, units)
        self.layout = attention_wrapper(
            cell_layout, self.listed(layout for _, _, layout in mechanisms), attention_layer=layers
        )
        self.wrapper = AttentionWrapper(cell, self.listed(ours for _, ours, _ in mechanisms), **options)

    def draws(self) -> Iterator[np.ndarray]:
        """What TensorFlow draws: the call that builds everything, then step by step."""
        for t in (0, *range(self.steps)):
            yield from (noise[t] for noise, noisy in zip(self.noise, self.noisy, strict=True) if noisy)

    def make_tf(self, cell_state: Any) -> tuple[Any, dict[str, Any]]:
        """TensorFlow's wrapper and its variables by the layout's names, with random values."""
        options = dict(self.options_tf)
        if self.config["cell_state"] == "initial_cell_state":
            options["initial_cell_state"] = self.packed_tf(cell_state)
        for mechanism in self.mechanisms_tf:
            mechanism.setup_memory(tf.constant(self.memory))
        wrapper = tfa.seq2seq.AttentionWrapper(
            self.cell_tf, self.listed(self.mechanisms_tf), dtype=tf.float64, **options
        )
        _, state = wrapper(tf.constant(self.inputs[0]), self.first_state_tf(wrapper, cell_state))
        self.histories_tf(state)
        holders = {"cell": self.cell_tf}
        for name, parts in (
            ("attention_mechanism", self.mechanisms_tf),
            ("attention_layer", wrapper._attention_layers or []),
        ):
            holders |= {f"{name}_{i}" if self.many else name: part for i, part in enumerate(parts)}
        variables = {}
        for name in self.layout.variables:
            part, path = name.split("/", 1)
            variables[name] = variable_at(holders[part], path)
            shape = variables[name].shape
            fan_in = shape[0] if len(shape) == 2 else 1  # so that no softmax saturates
            variables[name].assign(self.rng.normal(size=shape) / np.sqrt(fan_in))
        return wrapper, variables

    def packed_tf(self, cell_state: Any) -> Any:
        parts = tf.unstack(cell_state)
        return parts if self.config["cell"] == "lstm" else parts[0]

    def first_state_tf(self, wrapper: Any, cell_state: Any) -> Any:
        state = wrapper.get_initial_state(batch_size=self.config["batch"], dtype=tf.float64)
        if self.config["cell_state"] == "clone":
            return state.clone(cell_state=self.packed_tf(cell_state))
        return state

    def first_state(self, wrapper: AttentionWrapper, memories: Any, cell_state: Any) -> Any:
        c = self.config
        options: dict[str, Any] = {"maximum_steps": self.steps if c["alignment_history"] else None}
        options["noise"] = self.listed(
            jnp.asarray(noise) if noisy else None for noise, noisy in zip(self.noise, self.noisy, strict=True)
        )
        if c["cell_state"] == "zeros":
            return wrapper.zero_state(c["batch"], jnp.float64, memories=memories, **options)
        cell_state = LSTMState(h=cell_state[0], c=cell_state[1]) if self.states == 2 else cell_state[0]
        if c["cell_state"] == "clone":
            state = wrapper.zero_state(c["batch"], jnp.float64, memories=memories, **options)
            return state.clone(cell_state=cell_state)
        return wrapper.initial_state(cell_state, memories, **options)

    def histories_tf(self, state: Any) -> list[Any]:
        if not self.config["alignment_history"]:
            return []
        return [history.stack() for history in self.each(state.alignment_history)]

    def name_parts(self, state: Any, cell_state: Iterable[Any], histories: Iterable[Any]) -> dict[str, Any]:
        """The arrays of either side's state."""
        named = {"attention": state.attention}
        for label, parts in (
            ("cell_state", cell_state),
            ("alignments", self.each(state.alignments)),
            ("attention_state", self.each(state.attention_state)),
            ("alignment_history", histories),
        ):
            named |= {f"{label}/{i}": part for i, part in enumerate(parts)}
        return named

    def name_parts_tf(self, state: Any) -> dict[str, Any]:
        cell_state = state.cell_state if self.config["cell"] == "lstm" else [state.cell_state]
        return self.name_parts(state, cell_state, self.histories_tf(state))

    def name_our_parts(self, state: AttentionWrapperState) -> dict[str, Any]:
        cell_state = state.cell_state
        cell_state = (cell_state.h, cell_state.c) if self.states == 2 else (cell_state,)
        histories = self.each(state.alignment_history) if self.config["alignment_history"] else ()
        return self.name_parts(state, cell_state, histories)


def _mechanism(kind: str, *, depth: int, units: int, query: int) -> tuple[Any, Any, Layout]:
    """TensorFlow's mechanism, ours, and the layout between them."""
    monotonic = "monotonic" in kind
    options: dict[str, Any] = {"sigmoid_noise": 0.7} if "noisy" in kind else {}
    if kind.startswith("luong"):
        scale = "scaled" in kind
        tf_class = tfa.seq2seq.LuongMonotonicAttention if monotonic else tfa.seq2seq.LuongAttention
        our_class = LuongMonotonicAttention if monotonic else LuongAttention
        return (
            tf_class(query, scale=scale, dtype=tf.float64, **options),
            our_class(query, scale=scale, **options),
            luong_attention(depth, query, scale=scale, monotonic=monotonic),
        )
    normalize = "normalized" in kind
    tf_class = tfa.seq2seq.BahdanauMonotonicAttention if monotonic else tfa.seq2seq.BahdanauAttention
    our_class = BahdanauMonotonicAttention if monotonic else BahdanauAttention
    return (
        tf_class(units, normalize=normalize, dtype=tf.float64, **options),
        our_class(units, normalize=normalize, **options),
        bahdanau_attention(query, depth, units, normalize=normalize, monotonic=monotonic),
    )


def _keras_gru(features: int, units: int) -> Layout:
    shapes = {
        "kernel": (features, 3 * units),
        "recurrent_kernel": (units, 3 * units),
        "bias": (2, 3 * units),
    }
    return Layout(shapes, shapes, tuple(whole(name, name, shape) for name, shape in shapes.items()))


def _negated_tf(mechanism: Any, cell_output: Any, state: Any, layer: Any) -> Any:
    """An attention function of one's own for TensorFlow: it asks with the negated output."""
    alignments, next_state = mechanism([-cell_output, state])
    context = tf.einsum("bm,bmd->bd", alignments, mechanism.values)
    attention = context if layer is None else layer(tf.concat([context, cell_output], 1))
    return attention, alignments, next_state


def _negated(mechanism, memory, cell_output, state, layer, **noise):
    """The same for ours."""
    alignments, next_state = mechanism(memory, -cell_output, state, **noise)
    context = jnp.einsum("bm,bmd->bd", alignments, memory.values)
    attention = context if layer is None else layer(jnp.concatenate([context, cell_output], 1))
    return attention, alignments, next_state


@parity("tfa.seq2seq.AttentionWrapper", configurations=st.fixed_dictionaries({**SIZES, **OPTIONS}))
def attention_wrapper_parity(config: Config) -> Pair:
    """Some steps with input feeding, over every kind of mechanism, and two at once."""
    scene = _Scene(config)
    draws = map(tf.constant, scene.draws())
    memory, inputs, cell_state = (
        tf.constant(array) for array in (scene.memory, scene.inputs, scene.cell_state)
    )
    with tf.GradientTape() as tape, mock.patch.object(tf.random, "normal", side_effect=draws):
        tape.watch([memory, inputs, cell_state])
        wrapper, variables = scene.make_tf(cell_state)
        for mechanism in scene.mechanisms_tf:
            mechanism.setup_memory(memory, memory_sequence_length=scene.lengths)
        state, outputs = scene.first_state_tf(wrapper, cell_state), []
        for now in tf.unstack(inputs):
            output, state = wrapper(now, state)
            outputs.append(output)
        by_tf = {"outputs": tf.stack(outputs), **scene.name_parts_tf(state)}
        weights = {name: scene.rng.normal(size=tensor.shape) for name, tensor in by_tf.items()}
        loss = tf.add_n([tf.reduce_sum(by_tf[name] * weights[name]) for name in weights])
    assert next(draws, None) is None
    sources = {"memory": memory, "inputs": inputs, "cell_state": cell_state}
    gradients = tape.gradient(loss, {**variables, **sources})
    gradients = {name: numpy_or_none(gradient) for name, gradient in gradients.items()}
    named_tf = {name: tensor.numpy() for name, tensor in by_tf.items()} | {"loss": loss.numpy()}
    named_tf |= {f"gradient/{name}": gradients.pop(name) for name in sources}
    by_leaf = scene.layout.gradients_to_leaves(gradients)
    named_tf |= {f"gradient/{name}": gradient for name, gradient in by_leaf.items()}

    def decode(wrapper, memory, inputs, cell_state):
        lengths = None if scene.lengths is None else jnp.asarray(scene.lengths)
        memories = wrapper.setup_memory(memory, memory_sequence_length=lengths)
        state, outputs = scene.first_state(wrapper, memories, cell_state), []
        for now in inputs:
            state, output = wrapper(state, now)
            outputs.append(output)
        return jnp.stack(outputs), state

    def run(params, inputs):
        outputs, state = scene.wrapper.apply({"params": params}, **inputs, method=decode)
        named = {"outputs": outputs, **scene.name_our_parts(state)}
        return sum(jnp.sum(named[name] * weights[name]) for name in weights), named

    params = to_params(scene.layout.to_leaves({name: v.numpy() for name, v in variables.items()}))
    (our_loss, named), (of_params, of_inputs) = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(
        params, {name: jnp.asarray(tensor.numpy()) for name, tensor in sources.items()}
    )
    named |= {"loss": our_loss} | named_gradients(of_params)
    named |= {f"gradient/{name}": gradient for name, gradient in of_inputs.items()}
    return Pair(tf=named_tf, jax={name: np.asarray(array) for name, array in named.items()})


@parity("tfa.seq2seq.AttentionWrapperState", configurations=st.fixed_dictionaries(SIZES))
def attention_wrapper_state_parity(config: Config) -> Pair:
    """The state before the first step."""
    scene = _Scene({**config, "alignment_history": False})
    with mock.patch.object(tf.random, "normal", side_effect=map(tf.constant, scene.draws())):
        cell_state = tf.constant(scene.cell_state)
        wrapper, _ = scene.make_tf(cell_state)
    by_tf = scene.name_parts_tf(scene.first_state_tf(wrapper, cell_state))
    lengths = jnp.full(config["batch"], config["memory"])

    def first(wrapper, memory):
        memories = wrapper.setup_memory(memory, memory_sequence_length=lengths)
        return scene.first_state(wrapper, memories, jnp.asarray(scene.cell_state))

    params = to_params(scene.layout.to_leaves({n: np.zeros(s) for n, s in scene.layout.variables.items()}))
    state = scene.wrapper.apply({"params": params}, jnp.asarray(scene.memory), method=first)
    return Pair(
        tf={name: tensor.numpy() for name, tensor in by_tf.items()},
        jax={name: np.asarray(array) for name, array in scene.name_our_parts(state).items()},
    )
