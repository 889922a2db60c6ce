"""Losses over sequences.

Source: `tfa.seq2seq.sequence_loss` and `tfa.seq2seq.SequenceLoss` of TensorFlow Addons 0.23, whose
denominators are not what their documentation says: they are those that were measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jax_models.checks import check_array, check_callable, check_choice

UnnormalizedTargets = Literal["tensorflow", "exact"]
"""The gradient of target distributions that do not sum to 1: see `sequence_loss`."""


def mean_squared_error(outputs: Float[Array, "*shape"], targets: Float[Array, "*shape"]) -> Float[Array, ""]:
    """mean((outputs - targets)^2) over every element.

    Raises:
        ValueError: if the shapes differ; broadcasting would hide a forgotten axis.
    """
    outputs = check_array("mean_squared_error: outputs", outputs, (...,), "float")
    hint = f"The outputs have shape {list(outputs.shape)}"
    targets = check_array("mean_squared_error: targets", targets, outputs.shape, "float", hint=hint)
    return jnp.mean(jnp.square(outputs - targets))


def sequence_loss(
    logits: Float[Array, "batch time vocab"],
    targets: Shaped[Array, "batch time *vocab"],
    weights: Float[Array, "batch time"],
    *,
    average_across_timesteps: bool = True,
    average_across_batch: bool = True,
    sum_over_timesteps: bool = False,
    sum_over_batch: bool = False,
    softmax_loss_function: Callable[..., Any] | None = None,
    unnormalized_targets: UnnormalizedTargets = "tensorflow",
) -> Float[Array, "*loss"]:
    """Weighted cross-entropy of `targets` under softmax(logits), as `tfa.seq2seq.sequence_loss`.

    The cross-entropy [batch, time] times the weights is summed over each axis that an option names,
    and divided, together for both axes if both are named:

    * `average_*`: by the sum of the weights over those axes (not, as documented, by the batch size);
    * `sum_*`: by the number of nonzero weights over those axes (so it is an average too).

    Where the denominator is 0 the loss and its gradients are 0.

    Args:
        logits: [batch, time, vocab].
        targets: ids [batch, time], or distributions [batch, time, vocab]. An id outside the
            vocabulary gives nan (TensorFlow: an error on a CPU, nan on a GPU).
        weights: [batch, time]. TensorFlow fails without them, with an AttributeError.
        average_across_timesteps: average over time; not with a `sum_*`.
        average_across_batch: average over the batch; not with a `sum_*`.
        sum_over_timesteps: the same with the other denominator; not with an `average_*`.
        sum_over_batch: the same with the other denominator; not with an `average_*`.
        softmax_loss_function: called as f(labels=..., logits=...) with [batch*time] flattened ids and
            [batch*time, vocab] logits; returns [batch*time]. The cross-entropy if None.
        unnormalized_targets: the gradient of distributions t that do not sum to 1. "tensorflow":
            softmax(logits) - t, as of `tf.nn.softmax_cross_entropy_with_logits`, which takes for granted
            that they do; "exact": the true one, softmax(logits) * sum(t) - t.

    Returns:
        A scalar, or [batch] (an option over time only), [time] (over batch only), [batch, time] (none).

    Raises:
        ValueError: on wrong shapes, missing weights, or options that TensorFlow refuses together.
    """
    _check_options(average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch)
    check_choice("sequence_loss: unnormalized_targets", unnormalized_targets, ("tensorflow", "exact"))
    check_callable("sequence_loss: softmax_loss_function", softmax_loss_function)
    logits = check_array("sequence_loss: logits", logits, ("batch", "time", "vocab"), "float")
    targets = _check_targets(targets, logits, softmax_loss_function)
    if weights is None:
        raise ValueError("sequence_loss: weights are missing, expected [batch, time]; for none, pass ones")
    hint = "[batch, time] of the logits. Maybe mask.astype(logits.dtype)"
    weights = check_array("sequence_loss: weights", weights, logits.shape[:2], "float", hint=hint)

    flat_logits = logits.reshape(-1, logits.shape[-1])
    if softmax_loss_function is not None:
        losses = softmax_loss_function(labels=targets.reshape(-1), logits=flat_logits)
    elif targets.ndim == 3:
        flat_targets = targets.reshape(flat_logits.shape)
        losses = _soft_cross_entropy(flat_logits, flat_targets, unnormalized_targets)
    else:
        ids = targets.reshape(-1, 1)
        valid = (ids >= 0) & (ids < logits.shape[-1])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(flat_logits), jnp.where(valid, ids, 0), axis=-1)
        losses = jnp.where(valid, -chosen, jnp.nan)[:, 0]
    losses = losses.reshape(weights.shape) * weights

    over_batch = average_across_batch or sum_over_batch
    over_time = average_across_timesteps or sum_over_timesteps
    axes = (0,) * over_batch + (1,) * over_time
    if not axes:
        return losses
    averaged = average_across_batch or average_across_timesteps
    total = jnp.sum(weights if averaged else (weights != 0).astype(losses.dtype), axis=axes)
    return _divide_or_zero(jnp.sum(losses, axis=axes), total)


@dataclass(frozen=True)
class SequenceLoss:
    """`sequence_loss` with its options fixed, as `tfa.seq2seq.SequenceLoss`.

    Its defaults are TensorFlow's, and not those of the function: it sums where the function averages.
    It takes the targets before the logits.
    """

    average_across_timesteps: bool = False
    average_across_batch: bool = False
    sum_over_timesteps: bool = True
    sum_over_batch: bool = True
    softmax_loss_function: Callable[..., Any] | None = None
    unnormalized_targets: UnnormalizedTargets = "tensorflow"

    def __call__(
        self,
        y_true: Shaped[Array, "batch time *vocab"],
        y_pred: Float[Array, "batch time vocab"],
        sample_weight: Float[Array, "batch time"] | None = None,
    ) -> Float[Array, "*loss"]:
        """The loss of the logits `y_pred`. Without `sample_weight` a ValueError, as TF fails too."""
        if sample_weight is None:
            raise ValueError(
                "SequenceLoss: sample_weight is missing, expected [batch, time]. TensorFlow's own "
                "default, None, fails too: pass ones to weigh every step alike"
            )
        return sequence_loss(
            y_pred,
            y_true,
            sample_weight,
            average_across_timesteps=self.average_across_timesteps,
            average_across_batch=self.average_across_batch,
            sum_over_timesteps=self.sum_over_timesteps,
            sum_over_batch=self.sum_over_batch,
            softmax_loss_function=self.softmax_loss_function,
            unnormalized_targets=self.unnormalized_targets,
        )


def _check_options(
    average_across_timesteps: bool,
    average_across_batch: bool,
    sum_over_timesteps: bool,
    sum_over_batch: bool,
) -> None:
    averages = {
        "average_across_timesteps": average_across_timesteps,
        "average_across_batch": average_across_batch,
    }
    sums = {"sum_over_timesteps": sum_over_timesteps, "sum_over_batch": sum_over_batch}
    if any(averages.values()) and any(sums.values()):
        chosen = [name for name, value in (averages | sums).items() if value]
        raise ValueError(f"sequence_loss: {' and '.join(chosen)} cannot be combined: average or sum")


def _check_targets(targets: Any, logits: Array, own_loss: Any) -> Array:
    """Ids, or distributions; with a loss function of the caller's own, what that takes."""
    targets = check_array("sequence_loss: targets", targets, (...,))
    if targets.shape not in (logits.shape[:2], logits.shape):
        raise ValueError(
            f"sequence_loss: targets have shape {list(targets.shape)}, expected {list(logits.shape[:2])} "
            f"(ids) or {list(logits.shape)} (distributions). Maybe the decoder's outputs are shorter than "
            "the targets?"
        )
    if own_loss is not None:
        return targets
    hint = "Ids are integers [batch, time], distributions are floats [batch, time, vocab]"
    kind = "integer" if targets.ndim == 2 else "float"
    return check_array("sequence_loss: targets", targets, targets.shape, kind, hint=hint)


def _soft_cross_entropy(
    logits: Float[Array, "steps vocab"],
    targets: Float[Array, "steps vocab"],
    unnormalized_targets: UnnormalizedTargets,
) -> Float[Array, " steps"]:
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    excess = jnp.sum(targets, axis=-1) - 1
    held = normalizer if unnormalized_targets == "exact" else jax.lax.stop_gradient(normalizer)
    return normalizer + excess * held - jnp.sum(targets * shifted, axis=-1)


def _divide_or_zero(numerator: Array, denominator: Array) -> Array:
    """TensorFlow's `divide_no_nan`: 0 with zero gradients where the denominator is 0."""
    zero = denominator == 0
    quotient = jnp.where(zero, 0, numerator) / jnp.where(zero, 1, denominator)
    return jnp.where(zero, jnp.zeros_like(quotient), quotient)
