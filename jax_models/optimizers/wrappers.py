"""What is done around an optimizer: clipping, weight decay, averages of the weights."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_models.optimizers.rules import IndexedSlices, Number, OptimizerState, Rate, densify


class KerasCommonOptions(TypedDict, total=False):
    """What every optimizer of Keras 2.11 and later takes, but for the decay that AdamW has of its own."""

    clipnorm: Number | None
    clipvalue: Number | None
    global_clipnorm: Number | None
    use_ema: bool
    ema_momentum: Number
    ema_overwrite_frequency: int | None


class KerasOptions(KerasCommonOptions, total=False):
    """What every optimizer of Keras 2.11 and later takes; see `tf.keras.optimizers.Optimizer`."""

    weight_decay: Number | None


class LegacyOptions(TypedDict, total=False):
    """What every legacy optimizer takes; see `tf.keras.optimizers.legacy.Optimizer`."""

    decay: Number
    clipnorm: Number | None
    clipvalue: Number | None
    global_clipnorm: Number | None


def clip_by_norm(clipnorm: Number) -> optax.GradientTransformation:
    """Scale each tensor's gradient to a norm of at most `clipnorm`: g c / max(|g|, c), `tf.clip_by_norm`.

    Of an `IndexedSlices` the norm is that of its values: a row that is named twice counts as two, before
    they are summed.
    """

    def clip(gradient: Any) -> Any:
        values = _values(gradient)
        norm = jnp.sqrt(jnp.sum(jnp.square(values)))
        return _replace(gradient, values * clipnorm / jnp.maximum(norm, clipnorm))

    return _stateless(lambda gradients: _map(clip, gradients))


def clip_by_global_norm(clipnorm: Number) -> optax.GradientTransformation:
    """Scale all gradients so that their common norm is at most `clipnorm`: g c min(1/|g|, 1/c).

    `tf.clip_by_global_norm`; of dense gradients `optax.clip_by_global_norm` is the same. Slices as in
    `clip_by_norm`.
    """

    def clip_all(gradients: Any) -> Any:
        leaves = jax.tree.leaves(gradients, is_leaf=_is_slices)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(_values(leaf))) for leaf in leaves))
        scale = clipnorm * jnp.minimum(1 / norm, 1 / clipnorm)
        return _map(lambda gradient: _replace(gradient, _values(gradient) * scale), gradients)

    return _stateless(clip_all)


def clip_by_value(clipvalue: Number) -> optax.GradientTransformation:
    """Clip each element to [-clipvalue, clipvalue]: `tf.clip_by_value`; of dense ones `optax.clip`.

    Of an `IndexedSlices` each slice is clipped before the slices of one row are summed.
    """

    def clip(gradient: Any) -> Any:
        return _replace(gradient, jnp.clip(_values(gradient), -clipvalue, clipvalue))

    return _stateless(lambda gradients: _map(clip, gradients))


def coupled_l2(rate: Number) -> optax.GradientTransformation:
    """Add the gradient of `rate * tf.nn.l2_loss(p)`, which is `rate * p`: `optax.add_decayed_weights`.

    Put it before the optimizer, whose moments see it. A `tf.keras.regularizers.l2(x)` has twice the rate.
    """
    return optax.add_decayed_weights(rate)


def decoupled_weight_decay(
    inner: optax.GradientTransformation,
    weight_decay: Rate,
    *,
    rows: Literal["all", "touched", "none"] = "all",
) -> optax.GradientTransformation:
    """Take `weight_decay * p` from each parameter, then let the optimizer do its step on what is left.

    `tfa.optimizers.DecoupledWeightDecayExtension`: the rate of learning has no part in it. With the rate
    times a constant it is the `weight_decay` of Keras. It is not `optax.add_decayed_weights` where an
    optimizer reads the parameters, as Ftrl and LAMB do.

    Args:
        inner: the optimizer.
        weight_decay: which part is taken; or a function of the number of steps that were done.
        rows: which rows decay where the gradient is `IndexedSlices`: all, those that it names, or none.
    """

    def init(params: Any) -> _Counted:
        return _Counted(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates: Any, state: _Counted, params: Any = None) -> tuple[Any, _Counted]:
        part = weight_decay(state.count) if callable(weight_decay) else weight_decay

        def decay(parameter: Any, gradient: Any) -> Any:
            _, touched = densify(gradient, parameter)
            change = -jnp.asarray(part).astype(parameter.dtype) * parameter
            if touched is None or rows == "all":
                return change
            return jnp.where(touched & (rows == "touched"), change, 0)

        structure = jax.tree.structure(params)
        changes = structure.unflatten(
            [
                decay(parameter, gradient)
                for parameter, gradient in zip(
                    jax.tree.leaves(params), structure.flatten_up_to(updates), strict=True
                )
            ]
        )
        decayed = jax.tree.map(jnp.add, params, changes)
        steps, after = inner.update(updates, state.inner, decayed)
        return jax.tree.map(jnp.add, changes, steps), _Counted(state.count + 1, after)

    return optax.GradientTransformation(init, update)


class _Counted(NamedTuple):
    count: Any
    inner: Any


def keep_average(
    inner: optax.GradientTransformation, momentum: Number, *, overwrite_frequency: int | None = None
) -> optax.GradientTransformation:
    """Keep a moving average of the parameters, and put it in their place every so many steps.

    Keras' `use_ema`: average = momentum * average + (1 - momentum) * p after each step; the slot `average`
    starts as the parameters.
    """

    def init(params: Any) -> tuple[Any, OptimizerState]:
        own = OptimizerState(jnp.zeros([], jnp.int32), {"average": jax.tree.map(jnp.asarray, params)}, {})
        return inner.init(params), own

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        within, own = state
        changes, after = inner.update(updates, within, params)
        average = jax.tree.map(
            lambda a, p, c: momentum * a + (1 - momentum) * (p + c), own.slots["average"], params, changes
        )
        if overwrite_frequency:
            now = (own.count + 1) % overwrite_frequency == 0
            changes = jax.tree.map(lambda c, a, p: jnp.where(now, a - p, c), changes, average, params)
        return changes, (after, OptimizerState(own.count + 1, {"average": average}, {}))

    return optax.GradientTransformation(init, update)


def with_keras_options(
    inner: optax.GradientTransformation,
    learning_rate: Rate,
    *,
    weight_decay: Number | None = None,
    clipnorm: Number | None = None,
    clipvalue: Number | None = None,
    global_clipnorm: Number | None = None,
    use_ema: bool = False,
    ema_momentum: Number = 0.99,
    ema_overwrite_frequency: int | None = None,
) -> optax.GradientTransformation:
    """What Keras 2.11's base class does around its optimizers, in its order.

    One way of clipping at most: `clipnorm` goes before `global_clipnorm`, and that before `clipvalue`. Then
    each variable loses `weight_decay * learning_rate` of itself, then the optimizer's step is done.
    """
    steps = []
    if clipnorm:
        steps.append(clip_by_norm(clipnorm))
    elif global_clipnorm:
        steps.append(clip_by_global_norm(global_clipnorm))
    elif clipvalue:
        steps.append(clip_by_value(clipvalue))
    if weight_decay is not None:
        # Keras casts it, which rounds a Python number to float32; see `jax_models.optimizers.keras`.
        inner = decoupled_weight_decay(inner, scale_rate(learning_rate, float(np.float32(weight_decay))))
    if use_ema:
        inner = keep_average(inner, ema_momentum, overwrite_frequency=ema_overwrite_frequency)
    return optax.chain(*steps, inner) if steps else inner


def with_legacy_options(
    inner: optax.GradientTransformation,
    *,
    clipnorm: Number | None = None,
    clipvalue: Number | None = None,
    global_clipnorm: Number | None = None,
) -> optax.GradientTransformation:
    """What legacy Keras' base class does to the gradients: by value, then by norm or by global norm."""
    steps = []
    if clipvalue is not None:
        steps.append(clip_by_value(clipvalue))
    if clipnorm is not None:
        steps.append(clip_by_norm(clipnorm))
    if global_clipnorm is not None:
        steps.append(clip_by_global_norm(global_clipnorm))
    return optax.chain(*steps, inner) if steps else inner


def decay_rate(learning_rate: Rate, decay: Number) -> Rate:
    """Legacy Keras' `decay`: the rate by 1 + decay * steps."""
    if not decay:
        return learning_rate

    def schedule(count: Any) -> Any:
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        return rate / (1 + decay * count)

    return schedule


def scale_rate(learning_rate: Rate, factor: Number) -> Rate:
    """A rate times a constant."""
    if callable(learning_rate):
        return lambda count: learning_rate(count) * factor
    return learning_rate * factor


def _is_slices(node: Any) -> bool:
    return isinstance(node, IndexedSlices)


def _values(gradient: Any) -> Any:
    return gradient.values if _is_slices(gradient) else gradient


def _replace(gradient: Any, values: Any) -> Any:
    return IndexedSlices(values, gradient.indices) if _is_slices(gradient) else values


def _map(function: Any, gradients: Any) -> Any:
    return jax.tree.map(function, gradients, is_leaf=_is_slices)


def _stateless(function: Any) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return function(updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
