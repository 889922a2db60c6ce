"""Losses: those of Keras that train sequences, and `tfa.seq2seq.SequenceLoss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_models.losses import SequenceLoss
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_layers import Weightless
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known

EPSILON = 1e-7
"""Where Keras cuts probabilities off: `tf.keras.backend.epsilon()` as it comes."""

PointLoss = Callable[..., Any]


def mean_squared_error(targets: Any, outputs: Any) -> Any:
    """The mean over the last axis."""
    return jnp.mean(jnp.square(outputs - targets), axis=-1)


def mean_absolute_error(targets: Any, outputs: Any) -> Any:
    """The mean over the last axis."""
    return jnp.mean(jnp.abs(outputs - targets), axis=-1)


def categorical_crossentropy(
    targets: Any, outputs: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> Any:
    """Of distributions, and logits or probabilities, which are made to sum to one and cut at `EPSILON`."""
    targets = jnp.asarray(targets, outputs.dtype)
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]
    if from_logits:
        # TensorFlow's gradient takes for granted that the targets sum to one.
        normalizer = jax.nn.logsumexp(outputs, axis=-1)
        excess = (jnp.sum(targets, axis=-1) - 1) * jax.lax.stop_gradient(normalizer)
        return normalizer + excess - jnp.sum(targets * outputs, axis=-1)
    outputs = outputs / jnp.sum(outputs, axis=-1, keepdims=True)
    return -jnp.sum(targets * jnp.log(_cut(outputs)), axis=-1)


def sparse_categorical_crossentropy(targets: Any, outputs: Any, from_logits: bool = False) -> Any:
    """Of ids. Probabilities are cut at `EPSILON`, and their logarithms taken for logits."""
    logits = outputs if from_logits else jnp.log(_cut(outputs))
    ids = jnp.asarray(targets).astype(jnp.int32)
    ids = ids.reshape(logits.shape[:-1])
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1)
    return -chosen[..., 0]


def binary_crossentropy(
    targets: Any, outputs: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> Any:
    """Of numbers in [0, 1], and logits or probabilities; the mean over the last axis."""
    targets = jnp.asarray(targets, outputs.dtype)
    targets = targets * (1 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return jnp.mean(jnp.logaddexp(0.0, outputs) - targets * outputs, axis=-1)
    cut = _cut(outputs)
    yes, no = jnp.log(cut + EPSILON), jnp.log(1 - cut + EPSILON)
    return -jnp.mean(targets * yes + (1 - targets) * no, axis=-1)


LOSSES: dict[str, tuple[PointLoss, tuple[str, ...]]] = {
    "MeanSquaredError": (mean_squared_error, ()),
    "MeanAbsoluteError": (mean_absolute_error, ()),
    "CategoricalCrossentropy": (categorical_crossentropy, ("from_logits", "label_smoothing")),
    "SparseCategoricalCrossentropy": (sparse_categorical_crossentropy, ("from_logits",)),
    "BinaryCrossentropy": (binary_crossentropy, ("from_logits", "label_smoothing")),
}

LOGITS_AFTER = {
    "CategoricalCrossentropy": "softmax",
    "SparseCategoricalCrossentropy": "softmax",
    "BinaryCrossentropy": "sigmoid",
}
"""The activation whose logits a loss takes, if it is that of the layer before."""

IGNORED = {"axis": -1, "ignore_class": None}
"""Options of the losses that can only have this value."""


@known(*(f"keras.losses.{name}" for name in LOSSES))
def mirror_keras_loss(loss: Any, context: Context) -> Piece:
    """A loss of Keras: `loss(y_true, y_pred, sample_weight=None)`, and the mask of `y_pred` as `mask=`.

    In Keras the mask travels with `y_pred`, and it weighs the losses if there is one.
    """
    (name,) = {cls.__name__ for cls in type(loss).__mro__} & LOSSES.keys()
    function, takes = LOSSES[name]
    expected = function.__name__
    if getattr(loss.fn, "__name__", "") != expected or not loss.fn.__module__.startswith(
        ("keras.", "tf_keras.")
    ):
        refuse(context.path, f"its function is not Keras' {expected}", "leave `fn` as it is")
    given = dict(loss._fn_kwargs)
    options = {option: given.pop(option, False) for option in takes}
    for option, value in given.items():
        if value != IGNORED.get(option, ...):
            refuse(context.path, f"{name} with {option}={value!r} cannot be mirrored", "leave it out")
    for option, value in options.items():
        options[option] = bool(value) if option == "from_logits" else float(value)
    reduction = str(loss.reduction)
    if reduction not in ("auto", "sum_over_batch_size", "sum", "none"):
        refuse(context.path, f"its reduction {reduction!r} is not known", "use one of Keras' reductions")

    def call(
        bound: Any,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        mask: Any = None,
        after: str | None = None,
    ) -> Any:
        """`after`: the activation that gave `y_pred`; Keras takes the logits of a softmax or sigmoid layer.

        It does so whatever `from_logits` says, but not where it squeezes `y_pred`, which hides the layer.
        """
        del bound
        y_true, y_pred, squeezed = squeeze_ranks(jnp.asarray(y_true), jnp.asarray(y_pred))
        chosen = dict(options)
        if after is not None and not squeezed and after == LOGITS_AFTER.get(name):
            y_pred, chosen["from_logits"] = take_logits(y_pred, after), True
        losses = function(y_true, y_pred, **chosen)
        return reduce_losses(losses, reduction, sample_weight=sample_weight, mask=mask)

    return Piece(Weightless(), options=options | {"reduction": reduction}, call=call)


def squeeze_ranks(y_true: Any, y_pred: Any) -> tuple[Any, Any, bool]:
    """Drop the last axis of the one with an axis more, if it has size one, and say whether of `y_pred`.

    Source: `keras.utils.losses_utils.squeeze_or_expand_dimensions`.
    """
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        return y_true, y_pred[..., 0], True
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        return y_true[..., 0], y_pred, False
    return y_true, y_pred, False


def take_logits(probabilities: Any, activation: str) -> Any:
    """The logits of which `activation` made these; for "softmax" up to a constant."""
    if activation == "softmax":
        return jnp.log(probabilities)
    return jnp.log(probabilities) - jnp.log1p(-probabilities)


def reduce_losses(losses: Any, reduction: str, *, sample_weight: Any = None, mask: Any = None) -> Any:
    """Weigh and reduce the losses of the elements, as Keras does.

    A mask is a weight; for the averages one that is scaled so that the weights average one.
    """
    if mask is not None:
        mask = jnp.asarray(mask).astype(losses.dtype)
        if reduction in ("auto", "sum_over_batch_size"):
            mask = mask * (mask.size / jnp.sum(mask))
        losses = losses * _fit(mask, losses)
    if sample_weight is not None:
        losses = losses * _fit(jnp.asarray(sample_weight, losses.dtype), losses)
    if reduction == "none":
        return losses
    return jnp.sum(losses) if reduction == "sum" else jnp.sum(losses) / losses.size


@known("tfa.seq2seq.SequenceLoss")
def mirror_sequence_loss(loss: Any, context: Context) -> Piece:
    """`tfa.seq2seq.SequenceLoss`."""
    names = ("average_across_timesteps", "average_across_batch", "sum_over_timesteps", "sum_over_batch")
    options = {name: bool(getattr(loss, name)) for name in names}
    if loss.softmax_loss_function is not None:
        refuse(
            context.path,
            "its softmax_loss_function is a function of your own",
            "use jax_models.seq2seq.SequenceLoss with the same function in JAX",
        )
    ours = SequenceLoss(**options)

    def call(bound: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        del bound
        return ours(jnp.asarray(y_true), y_pred, sample_weight)

    return Piece(Weightless(), options=options, call=call)


def _fit(weight: Any, losses: Any) -> Any:
    """A weight with an axis for each of the losses'."""
    if weight.ndim == losses.ndim + 1 and weight.shape[-1] == 1:
        return weight[..., 0]
    return weight.reshape(weight.shape + (1,) * (losses.ndim - weight.ndim))


def _cut(probabilities: Any) -> Any:
    # As `tf.clip_by_value`, which passes the whole gradient at a bound.
    low = jnp.where(probabilities < EPSILON, EPSILON, probabilities)
    return jnp.where(low > 1 - EPSILON, 1 - EPSILON, low)
