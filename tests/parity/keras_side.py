"""Running one Keras object and its counterpart on the same arrays, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from jax_models.keras_layers import DropoutMasks
from oracle.bridge.layout import Layout
from tests.parity.harness import Pair
from tests.parity.tensorflow_side import tf

Named = dict[str, Any]


def compare(
    tf_call: Callable[[Named], Named],
    jax_call: Callable[[Any, Named], Named],
    *,
    variables: Mapping[str, tf.Variable],
    layout: Layout | None,
    arrays: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    graph: bool = False,
    compiled: bool = False,
) -> Pair:
    """Both sides' named outputs, a random weighted square loss of all of them, and all gradients.

    Args:
        tf_call: named float64 tensors from the named `arrays`.
        jax_call: the same from a params dict and the same arrays.
        variables: the weights of the Keras object, under the names of `layout`.
        arrays: what both are fed; the float ones are differentiated.
        graph: run TensorFlow's side inside a tf.function.
        compiled: run the other under jax.jit; otherwise step by step, which is faster for one run.
    """
    drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    names = [name for name, array in arrays.items() if array.dtype == np.float64]

    def term(name: str, output: Any) -> Any:
        weights, targets = drawn[name]
        # A sum of squares: signed terms could cancel, and leave a loss that is all rounding.
        return weights * (output - targets) ** 2

    def tf_side(fed: Named) -> tuple[Named, Any, list[Any]]:
        with tf.GradientTape() as tape:
            tape.watch([fed[name] for name in names])
            outputs = tf_call(fed)
            for name, output in outputs.items():
                drawn.setdefault(name, (rng.random(output.shape), rng.normal(size=output.shape)))
            loss = tf.add_n([tf.reduce_sum(term(*item)) for item in outputs.items()])
        sources = list(variables.values()) + [fed[name] for name in names]
        return outputs, loss, [_dense(gradient) for gradient in tape.gradient(loss, sources)]

    if graph:
        tf_side = tf.function(tf_side)
    fed = {name: tf.constant(array) for name, array in arrays.items()}
    tf_outputs, tf_loss, gradients = tf_side(fed)
    gradients = [None if gradient is None else gradient.numpy() for gradient in gradients]
    of_variables = dict(zip(variables, gradients, strict=False))
    of_arrays = dict(zip(names, gradients[len(variables) :], strict=True))

    def jax_loss(params: Any, differentiated: Named) -> tuple[Any, Named]:
        outputs = jax_call(params, {**fixed, **differentiated})
        assert outputs.keys() == drawn.keys(), (outputs.keys(), drawn.keys())
        return sum(term(*item).sum() for item in outputs.items()), outputs

    values = {name: variable.numpy() for name, variable in variables.items()}
    leaves = layout.to_leaves(values) if layout else {}
    fixed = {name: jax.numpy.asarray(a) for name, a in arrays.items() if name not in names}
    differentiated = {name: jax.numpy.asarray(arrays[name]) for name in names}
    params = flax.traverse_util.unflatten_dict(leaves, sep="/")
    run = jax.jit(jax.value_and_grad(jax_loss, argnums=(0, 1), has_aux=True))
    with jax.disable_jit(not compiled):
        (loss, outputs), (of_params, of_differentiated) = run(
            jax.tree.map(jax.numpy.asarray, params), differentiated
        )

    carried = layout.gradients_to_leaves(of_variables) if layout else {}
    flat = flax.traverse_util.flatten_dict(of_params, sep="/")
    return Pair(
        tf={
            "loss": np.asarray(tf_loss),
            **{name: np.asarray(output) for name, output in tf_outputs.items()},
            **{f"gradient/{name}": gradient for name, gradient in carried.items()},
            **{f"gradient/{name}": gradient for name, gradient in of_arrays.items()},
        },
        jax={
            "loss": np.asarray(loss),
            **{name: np.asarray(output) for name, output in outputs.items()},
            **{f"gradient/{name}": np.asarray(gradient) for name, gradient in flat.items()},
            **{f"gradient/{name}": np.asarray(gradient) for name, gradient in of_differentiated.items()},
        },
    )


def set_random(layer: Any, rng: np.random.Generator) -> None:
    """Replace every weight of a built Keras object, forget biases included, by a normal draw."""
    layer.set_weights([rng.normal(size=weight.shape) * 0.7 for weight in layer.get_weights()])


MASKS = ("none", "right", "left", "interior", "one row empty")


def draw_mask(kind: str, batch: int, time: int, rng: np.random.Generator) -> np.ndarray | None:
    """A boolean mask [batch, time] of one of the MASKS: padding on one side, of lengths from 0 to
    `time`, holes anywhere, or holes and nothing at all in the first row."""
    if kind == "none":
        return None
    if kind in ("right", "left"):
        mask = np.arange(time) < rng.integers(0, time + 1, size=(batch, 1))
        return mask if kind == "right" else mask[:, ::-1].copy()
    mask = rng.random((batch, time)) < 0.6
    if kind == "one row empty":
        mask[0] = False
    return mask


def stack_masks(recorded: Mapping[str, list[Any]]) -> DropoutMasks:
    """The masks that a Keras cell drew, one for each gate, as its counterpart takes them."""
    return DropoutMasks(
        **{kind: jax.numpy.stack([m.numpy() for m in masks]) for kind, masks in recorded.items()}
    )


def record_dropout(cell: Any) -> dict[str, list[Any]]:
    """Make a Keras cell, or layer, note the masks that it draws. Filled in when it runs, and kept
    outside its own cache, which it clears."""
    recorded: dict[str, list[Any]] = {}
    for kind, name in (
        ("inputs", "get_dropout_mask_for_cell"),
        ("recurrent", "get_recurrent_dropout_mask_for_cell"),
    ):
        original = getattr(cell, name)

        def get(inputs: Any, training: Any, count: int = 1, *, kind=kind, original=original) -> Any:
            masks = original(inputs, training, count=count)
            if masks is not None:
                recorded[kind] = list(masks) if isinstance(masks, (list, tuple)) else [masks]
            return masks

        setattr(cell, name, get)
    return recorded


def _dense(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient
