"""Keras' own attention layers: `Attention` (Luong's) and `AdditiveAttention` (Bahdanau's)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.refusals import MirrorError, refuse_options
from oracle.bridge.mirror.registry import known

MASKED = -1e9
"""What Keras adds to the score of a masked step: not the lowest number, so it still has a share."""


class DenseAttention(nn.Module):
    """`tf.keras.layers.Attention` and `AdditiveAttention`: softmax(score(query, key)) @ value.

    Attributes:
        score: "dot", <query, key>; "concat" or "additive", sum(scale * tanh(query + key)) over the last
            axis, where "concat" has its scale within the tanh and a `concat_score_weight` before the sum.
        scale_shape: of the leaf `scale`; None for no scale.
        causal: whether a query sees only the keys up to its own position.
    """

    score: str
    scale_shape: tuple[int, ...] | None = None
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "batch queries depth"],
        value: Float[Array, "batch keys width"],
        key: Float[Array, "batch keys depth"],
        *,
        query_mask: Bool[Array, "batch queries"] | None = None,
        value_mask: Bool[Array, "batch keys"] | None = None,
        causal: bool = False,
    ) -> tuple[Float[Array, "batch queries width"], Float[Array, "batch queries keys"]]:
        """Returns the averaged values, zero where `query_mask` is False, and the weights."""
        ones = nn.initializers.ones_init()
        scale = 1.0 if self.scale_shape is None else self.param("scale", ones, self.scale_shape)
        if self.score == "dot":
            scores = jnp.einsum("bqd,bkd->bqk", query, key) * scale
        else:
            total = query[:, :, None, :] + key[:, None, :, :]
            if self.score == "concat":
                weight = self.param("concat_score_weight", ones, ())
                scores = weight * jnp.sum(jnp.tanh(scale * total), axis=-1)
            else:
                scores = jnp.sum(scale * jnp.tanh(total), axis=-1)
        seen = None if value_mask is None else value_mask[:, None, :]
        if self.causal or causal:
            lower = jnp.tril(jnp.ones(scores.shape[1:], bool))
            seen = lower if seen is None else seen & lower
        if seen is not None:
            scores = scores + jnp.where(seen, 0.0, MASKED).astype(scores.dtype)
        weights = jax.nn.softmax(scores)
        result = jnp.einsum("bqk,bkw->bqw", weights, value)
        if query_mask is not None:
            result = result * query_mask[..., None].astype(result.dtype)
        return result, weights


@known("keras.layers.Attention")
def mirror_attention(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Attention`, with either score and with a scale or without."""
    names = ("scale",) if layer.use_scale else ()
    if layer.score_mode == "concat":
        names += ("concat_score_weight",)
    return _piece(layer, context, names, score=layer.score_mode)


@known("keras.layers.AdditiveAttention")
def mirror_additive_attention(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.AdditiveAttention`."""
    return _piece(layer, context, ("scale",) if layer.use_scale else (), score="additive")


def _piece(layer: Any, context: Context, names: tuple[str, ...], *, score: str) -> Piece:
    refuse_options(
        context.path,
        type(layer).__name__,
        {"dropout": (float(layer.dropout), 0.0, "its mask is drawn inside; set dropout=0")},
    )
    variables = context.variables(layer, names)
    shape = tuple(variables["scale"].shape) if "scale" in names else None
    options = {"score": score, "causal": bool(getattr(layer, "causal", False))}

    def call(
        bound: Any,
        inputs: Any,
        mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        del training
        query, value, *rest = inputs
        masks = list(mask) if mask is not None else [None, None]
        if any(mask is not None for mask in masks) and len(masks) < 2:
            raise MirrorError(f"mirror: {context.path}: mask is a list, [query_mask, value_mask]")
        result, weights = bound(
            query,
            value,
            rest[0] if rest else value,
            query_mask=masks[0],
            value_mask=masks[1],
            causal=use_causal_mask,
        )
        return (result, weights) if return_attention_scores else result

    return Piece(
        DenseAttention(score, shape, options["causal"]),
        variables,
        options=options | {"use_scale": shape is not None},
        call=call,
        takes_mask=True,
        mask=lambda bound, inputs, mask: mask[0] if mask else None,
    )
