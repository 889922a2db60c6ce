"""The layers of Keras that merge several inputs into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_layers import Weightless
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.registry import known

Merge = Callable[[Sequence[Any]], Any]

ELEMENTWISE: dict[str, Merge] = {
    "Add": lambda inputs: reduce(jnp.add, inputs),
    "Subtract": lambda inputs: inputs[0] - inputs[1],
    "Multiply": lambda inputs: reduce(jnp.multiply, inputs),
    "Average": lambda inputs: reduce(jnp.add, inputs) / len(inputs),
    # TensorFlow gives the whole gradient at a tie to the first, `jnp.maximum` half to each.
    "Maximum": lambda inputs: reduce(lambda a, b: jnp.where(a >= b, a, b), inputs),
    "Minimum": lambda inputs: reduce(lambda a, b: jnp.where(a <= b, a, b), inputs),
}


@known(*(f"keras.layers.{name}" for name in ELEMENTWISE))
def mirror_elementwise(layer: Any, context: Context) -> Piece:
    """`Add`, `Subtract`, `Multiply`, `Average`, `Maximum`, `Minimum`; lower ranks get axes of size 1."""
    del context
    names = {cls.__name__ for cls in type(layer).__mro__} & ELEMENTWISE.keys()
    merge = ELEMENTWISE[names.pop()]

    def call(bound: Any, inputs: Any) -> Any:
        del bound
        arrays = [jnp.asarray(array) for array in inputs]
        rank = max(array.ndim for array in arrays)
        return merge([a.reshape(a.shape[0], *(1,) * (rank - a.ndim), *a.shape[1:]) for a in arrays])

    return Piece(Weightless(), call=call, mask=_mask_all)


@known("keras.layers.Concatenate")
def mirror_concatenate(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Concatenate`."""
    del context
    axis = int(layer.axis)

    def mask(bound: Any, inputs: Any, masks: Any) -> Any:
        del bound
        if masks is None or all(mask is None for mask in masks):
            return None
        expanded = []
        for array, one in zip(inputs, masks, strict=True):
            if one is None:
                expanded.append(jnp.ones(array.shape, bool))
            else:
                expanded.append(one[..., None] if one.ndim < array.ndim else one)
        if axis in (-1, inputs[0].ndim - 1):
            # One column for each stands for all of its columns.
            expanded = [jnp.all(m, axis=-1, keepdims=True) for m in expanded]
        return jnp.all(jnp.concatenate(expanded, axis=axis), axis=-1)

    return Piece(
        Weightless(),
        options={"axis": axis},
        call=lambda bound, inputs: jnp.concatenate([jnp.asarray(a) for a in inputs], axis=axis),
        mask=mask,
    )


@known("keras.layers.Dot")
def mirror_dot(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Dot`, whose epsilon under `normalize` is 1e-12."""
    del context
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else [int(axis) for axis in layer.axes]
    normalize = bool(layer.normalize)

    def call(bound: Any, inputs: Any) -> Any:
        del bound
        one, other = (jnp.asarray(array) for array in inputs)
        first, second = axes[0] % one.ndim, axes[1] % other.ndim
        if normalize:
            one, other = _normalize(one, first), _normalize(other, second)
        product = jax.vmap(lambda a, b: jnp.tensordot(a, b, ((first - 1,), (second - 1,))))(one, other)
        return product if product.ndim > 1 else product[:, None]

    return Piece(Weightless(), options={"axes": axes, "normalize": normalize}, call=call)


def _normalize(array: Any, axis: int) -> Any:
    total = jnp.sum(jnp.square(array), axis=axis, keepdims=True)
    return array * jax.lax.rsqrt(jnp.where(total >= 1e-12, total, 1e-12))


def _mask_all(bound: Any, inputs: Any, masks: Any) -> Any:
    del bound, inputs
    given = [mask for mask in masks or () if mask is not None]
    return reduce(jnp.logical_and, given) if given else None
