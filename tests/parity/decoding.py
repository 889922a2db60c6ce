"""The same small decoder on both sides: a Keras LSTM cell with a dense layer, and ours with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jax_models.attention import LuongAttention
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.cells import BasicLSTMCell
from oracle.bridge.attention_layouts import attention_layer, luong_attention
from oracle.bridge.layout import Layout
from oracle.bridge.layouts import dense, keras_lstm
from oracle.tolerance import FLOAT32_RUNS
from tests.parity.harness import Pair
from tests.parity.tensorflow_side import tf, tfa

LSTMState = type(BasicLSTMCell(1).zero_state(1, np.float32))

HUGE = 1e30
"""Beyond it are the log-probabilities -inf of beams that do not exist, and the lowest number, of
tokens that cannot follow; in sums they overflow."""

Tensors = Mapping[str, Any]


class Model:
    """A cell and an output layer with random weights, as Keras objects and as Flax leaves."""

    def __init__(
        self,
        rng: np.random.Generator,
        features: int,
        units: int,
        *,
        vocab: int | None,
        outputs: int | None = None,
        dtype: str = "float64",
        spread: float = 1.0,
    ) -> None:
        self.dtype = dtype
        self.tf_cell = tf.keras.layers.LSTMCell(units, dtype=dtype)
        self.tf_cell.build((None, features))
        self.layouts = {"cell": keras_lstm(features, units, forget_bias=0.0)}
        self.tf_layers: dict[str, Any] = {"cell": self.tf_cell}
        self.cell = BasicLSTMCell(units, forget_bias=0.0, param_dtype=dtype)
        self.tf_output_layer, self.output_layer = None, None
        if vocab is not None:
            self.tf_output_layer = tf.keras.layers.Dense(vocab, dtype=dtype)
            self.tf_output_layer.build((None, outputs or units))
            self.tf_layers["output_layer"] = self.tf_output_layer
            self.layouts["output_layer"] = dense(outputs or units, vocab)
            self.output_layer = nn.Dense(vocab, param_dtype=dtype)
        self.leaves = {}
        for name, layout in self.layouts.items():
            self.leaves[name] = draw_weights(rng, self.tf_layers[name], layout, dtype, spread)

    def variables(self) -> dict[str, Any]:
        """The TensorFlow variables by path."""
        return {
            f"{layer}/{name}": find_variable(self.tf_layers[layer], name)
            for layer, layout in self.layouts.items()
            for name in layout.variables
        }


class AttentionModel(Model):
    """A `Model` whose cell is an `AttentionWrapper` with Luong's attention and an attention layer."""

    def __init__(
        self,
        rng: np.random.Generator,
        features: int,
        units: int,
        *,
        vocab: int,
        depth: int,
        alignment_history: bool = False,
        dtype: str = "float64",
        spread: float = 1.0,
    ) -> None:
        attention = 3
        super().__init__(
            rng, features + attention, units, vocab=vocab, outputs=attention, dtype=dtype, spread=spread
        )
        self.tf_mechanism = tfa.seq2seq.LuongAttention(units, dtype=dtype)
        self.tf_mechanism.memory_layer.build((None, None, depth))
        self.tf_wrapper = tfa.seq2seq.AttentionWrapper(
            self.tf_cell,
            self.tf_mechanism,
            attention_layer_size=attention,
            alignment_history=alignment_history,
            dtype=dtype,
        )
        layer = self.tf_wrapper._attention_layers[0]
        layer.build((None, units + depth))
        more = {
            "attention_mechanism": (self.tf_mechanism, luong_attention(depth, units)),
            "attention_layer": (layer, attention_layer(units + depth, attention)),
        }
        for name, (holder, layout) in more.items():
            self.tf_layers[name], self.layouts[name] = holder, layout
            self.leaves[name] = draw_weights(rng, holder, layout, dtype, spread)
        self.wrapper = AttentionWrapper(
            self.cell,
            LuongAttention(units),
            attention_layer_size=attention,
            alignment_history=alignment_history,
        )


def draw_weights(
    rng: np.random.Generator, layer: Any, layout: Layout, dtype: str, spread: float
) -> dict[str, Any]:
    """Give the layer's variables random values, and return the leaves that hold the same."""
    values = {
        name: (spread * rng.normal(size=shape)).astype(dtype) for name, shape in layout.variables.items()
    }
    for name, value in values.items():
        find_variable(layer, name).assign(value)
    leaves = {name: jnp.asarray(leaf) for name, leaf in layout.to_leaves(values).items()}
    return unflatten_dict(leaves, sep="/")


def find_variable(layer: Any, path: str) -> Any:
    """The variable at a path of attributes."""
    for attribute in path.split("/"):
        layer = getattr(layer, attribute)
    return layer


def hold_together(
    seed: int,
    *,
    given: Mapping[str, np.ndarray],
    model: Model | None,
    run_tf: Callable[[Tensors], dict[str, Any]],
    run_jax: Callable[[Any, Tensors], dict[str, Any]],
    noise_from: Callable[[Any, Tensors], dict[str, Any]] | None = None,
    float32: bool = False,
) -> Pair:
    """Run both sides and differentiate a random weighting of all their floating-point results.

    `given` are the arrays that both get, and by which is differentiated besides the model's weights.
    `run_jax` takes the leaves and the arrays. Results beyond `HUGE` have no weight, and only
    their kind is compared.
    Where TensorFlow computes a part in float32 whatever its inputs are, `noise_from` runs the oracle with
    that part in another precision: what this changes is the noise. With `float32` TensorFlow computes in
    float32 altogether, the oracle in float64, and the noise is what float32 changes in the oracle.
    """
    variables = model.variables() if model else {}
    tensors = {name: tf.convert_to_tensor(array) for name, array in given.items()}
    weightings: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(seed + 1)
    with tf.GradientTape() as tape:
        tape.watch(list(tensors.values()))
        results = run_tf(tensors)
        loss = tf.zeros((), model.dtype if model else next(iter(given.values())).dtype)
        for name in sorted(results):
            result = results[name] = tf.convert_to_tensor(results[name])
            if result.dtype.is_floating:
                weightings[name] = rng.normal(size=result.shape)
                finite = tf.where(tf.abs(result) < HUGE, result, tf.zeros_like(result))
                loss += tf.reduce_sum(finite * weightings[name].astype(result.dtype.as_numpy_dtype))
    sources = {**variables, **tensors}
    gradients = tape.gradient(loss, sources)
    tf_side = {name: result.numpy() for name, result in results.items()} | {"loss": loss.numpy()}
    for name, gradient in gradients.items():
        dense_gradient = None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        if sources[name].dtype.is_floating:
            tf_side[f"gradient/{name}"] = dense_gradient
    if model:
        for layer, layout in model.layouts.items():
            of_layer = {name: tf_side.pop(f"gradient/{layer}/{name}") for name in layout.variables}
            for name, leaf in layout.gradients_to_leaves(of_layer).items():
                tf_side[f"gradient/{layer}/{name}"] = leaf

    def differentiate(
        run: Callable[[Any, Tensors], dict[str, Any]], move: Callable[[Any], Any] = jnp.float64
    ) -> dict[str, np.ndarray]:
        def weigh(floats: Any, others: Tensors) -> tuple[Any, Any]:
            leaves, arrays = floats
            results = run(leaves, {**arrays, **others})
            loss = 0.0
            for name, weighting in weightings.items():
                result = results[name]
                weighed = jnp.where(jnp.abs(result) < HUGE, result, 0) * weighting.astype(result.dtype)
                loss += jnp.sum(weighed)
            return loss, results

        floats = {k: v for k, v in given.items() if np.issubdtype(v.dtype, np.floating)}
        others = {k: jnp.asarray(v) for k, v in given.items() if k not in floats}
        moved = jax.tree.map(move, (model.leaves if model else {}, floats))
        with jax.disable_jit():
            value_and_grad = jax.value_and_grad(weigh, has_aux=True)
            (loss, results), (leaf_gradients, array_gradients) = value_and_grad(moved, others)
        side = {name: np.asarray(result) for name, result in results.items()} | {"loss": np.asarray(loss)}
        for path, gradient in flatten_dict(leaf_gradients, sep="/").items():
            side[f"gradient/{path}"] = np.asarray(gradient)
        for name, gradient in array_gradients.items():
            side[f"gradient/{name}"] = np.asarray(gradient)
        return side

    jax_side = differentiate(run_jax)
    noisy = [differentiate(noise_from)] if noise_from else []
    if float32:
        moves = [jnp.float32, *[lambda x: _jitter(rng, x)] * (FLOAT32_RUNS - 1)]
        noisy = [differentiate(run_jax, move) for move in moves]
    noise = {}
    for name, exact in jax_side.items():
        if noisy and np.issubdtype(exact.dtype, np.floating):
            with np.errstate(invalid="ignore"):
                errors = [np.nan_to_num(run[name].astype(np.float64) - exact) for run in noisy]
            largest = np.max([np.abs(error) for error in errors], axis=0)
            if float32 or largest.any():
                noise[name] = largest
    return Pair(tf=_split_huge(tf_side), jax=_split_huge(jax_side), noise=noise)


def _jitter(rng: np.random.Generator, x: Any) -> Any:
    """Move every number to a neighbouring float32 number, or leave it."""
    exact = np.asarray(x, np.float32)
    towards = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), size=exact.shape)
    return jnp.asarray(np.where(towards == 0, exact, np.nextafter(exact, towards)))


def _split_huge(side: Mapping[str, Any]) -> dict[str, Any]:
    """Compare as kinds what is -inf (2) or about the lowest number (1): the harness wants finite numbers."""
    split = {}
    for name, array in side.items():
        split[name] = array
        if array is not None and np.issubdtype(array.dtype, np.floating) and (array < -HUGE).any():
            split[f"{name}/kind"] = (array < -HUGE).astype(np.int32) + np.isneginf(array)
            split[name] = np.where(array < -HUGE, 0, array)
    return split


def states(prefix: str, c: Any, h: Any) -> dict[str, Any]:
    """Name the arrays of an LSTM's state."""
    return {f"{prefix}/c": c, f"{prefix}/h": h}
