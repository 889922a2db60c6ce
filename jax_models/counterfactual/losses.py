"""The losses of each step, with knobs: what a prediction is held to, how, and with what weight."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_models.counterfactual.blend import blend, mix


def weigh_features(
    knobs: Any,
    prediction: Float[Array, "batch tgt_time features"],
    target: Float[Array, "batch tgt_time features"],
) -> Float[Array, ""]:
    """The weighted sum of each step's mean over the features.

    What is averaged of an error e is e^2, |e|, or Huber's (1964) loss: e^2/2 within 1, and |e| - 1/2 beyond.
    """
    error = prediction - target
    size = jnp.abs(error)
    huber = jnp.where(size <= 1, error * error / 2, size - 0.5)
    each = mix(knobs.loss_form, [error * error, size, huber])
    return jnp.sum(knobs.loss_weights * jnp.mean(each, axis=-1))


def weigh_tokens(
    knobs: Any, logits: Float[Array, "batch tgt_time vocab"], target: Int[Array, "batch tgt_time"]
) -> Float[Array, ""]:
    """The weighted sum of each step's cross-entropy, its labels smoothed."""

    def cross_entropy(logits: Array) -> Array:
        surprise = -jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(surprise, target[..., None], axis=-1)[..., 0]
        return blend(knobs.label_smoothing, chosen, jnp.mean(surprise, axis=-1))

    each = mix(knobs.loss_form, [cross_entropy(logits), cross_entropy(jax.nn.softmax(logits))])
    return jnp.sum(knobs.loss_weights * each)
