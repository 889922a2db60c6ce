"""The optimizers of TensorFlow Addons: `tfa.optimizers`, which are legacy Keras optimizers.

Names, arguments and defaults are tfa's. Every function takes `LegacyOptions` too.

Source: tensorflow_addons/optimizers/*.py of tfa 0.23.
"""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax

from jax_models.optimizers import legacy
from jax_models.optimizers.rules import Coefficients, Number, OptimizerState, Rate, by_rule, on_rows
from jax_models.optimizers.wrappers import (
    LegacyOptions,
    decay_rate,
    decoupled_weight_decay,
    with_legacy_options,
)


def lamb(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-6,
    weight_decay: Number = 0.0,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """p -= lr |p| / |u| u, where u = m^ / (sqrt(v^) + epsilon) + weight_decay p, for each tensor.

    Here epsilon is added to the corrected root, as in the paper: `optax.lamb`. All rows decay and move.
    """
    rate = decay_rate(learning_rate, options.pop("decay", 0.0))
    inner = optax.lamb(rate, beta_1, beta_2, epsilon, weight_decay=weight_decay)
    return with_legacy_options(on_rows(inner, "all"), **options)


def rectified_adam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    weight_decay: Number = 0.0,
    amsgrad: bool = False,
    sma_threshold: Number = 5.0,
    total_steps: int = 0,
    warmup_proportion: Number = 0.1,
    min_lr: Number = 0.0,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """RAdam, Liu et al. 2019: while the variance cannot be told, a step of the corrected momentum alone.

    `optax.radam` where `weight_decay`, `amsgrad` and `total_steps` are off. The decay is added to the
    update and so scaled by the rate. With `total_steps` the rate rises, then falls to `min_lr`. Slots decay
    in all rows, but only the touched rows move.
    """

    def prepare(step: Any, c: Coefficients) -> tuple[Coefficients, dict[str, Any]]:
        power = jnp.power(beta_2, step)
        most = 2 / (1 - beta_2) - 1
        length = most - 2 * step * power / (1 - power)
        ratio = (length - 4) / (most - 4) * (length - 2) / (most - 2) * most / length
        lr = c["lr"]
        if total_steps > 0:
            warmup = total_steps * warmup_proportion
            fall = max(total_steps - warmup, 1)
            lr = jnp.where(
                step <= warmup,
                lr * (step / warmup) if warmup else lr,
                lr + (min_lr - lr) / fall * jnp.minimum(step - warmup, fall),
            )
        more = {
            "lr": lr,
            "long": length >= sma_threshold,
            "r": jnp.sqrt(jnp.maximum(ratio, 0)),
            "m_scale": 1 / (1 - jnp.power(beta_1, step)),
            "v_scale": 1 / (1 - power),
        }
        return more, {}

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        m = beta_1 * slots["m"] + (1 - beta_1) * g
        v = beta_2 * slots["v"] + (1 - beta_2) * jnp.square(g)
        after, scale = {"m": m, "v": v}, v
        if amsgrad:
            scale = after["vhat"] = jnp.maximum(slots["vhat"], v)
        corrected = m * c["m_scale"]
        adapted = c["r"] * corrected / (jnp.sqrt(scale * c["v_scale"]) + epsilon)
        step = jnp.where(c["long"], adapted, corrected) + weight_decay * p
        return -c["lr"] * step, after

    inner = by_rule(
        rule,
        decay_rate(learning_rate, options.pop("decay", 0.0)),
        slots={"m": 0.0, "v": 0.0, **({"vhat": 0.0} if amsgrad else {})},
        prepare=prepare,
        rows="update",
    )
    return with_legacy_options(inner, **options)


def lazy_adam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """`legacy.adam`, but an `IndexedSlices` changes the rows alone that it names.

    Their moments are stale: they decay by the number of their own gradients, and are corrected by the
    number of all steps. With slices, `amsgrad` is ignored.
    """
    return legacy.adam(learning_rate, beta_1, beta_2, epsilon, amsgrad, rows="touched", **options)


def adamw(
    weight_decay: Rate,
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """`legacy.adam` after p -= weight_decay p, which the rate does not scale: Loshchilov and Hutter 2019.

    `optax.adamw` and Keras' own scale it. Of an `IndexedSlices`, only the rows named decay by it.
    """
    inner = legacy.adam(learning_rate, beta_1, beta_2, epsilon, amsgrad, **options)
    return decoupled_weight_decay(inner, weight_decay, rows="touched")


def sgdw(
    weight_decay: Rate,
    learning_rate: Rate = 0.001,
    momentum: Number = 0.0,
    nesterov: bool = False,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """`legacy.sgd` after p -= weight_decay p; see `adamw`.

    Without momentum no row decays that has its gradient as `IndexedSlices`: legacy SGD has a way of its own
    for them, which tfa's does not reach.
    """
    inner = legacy.sgd(learning_rate, momentum, nesterov, **options)
    return decoupled_weight_decay(inner, weight_decay, rows="touched" if momentum > 0 else "none")


def lookahead(
    optimizer: optax.GradientTransformation,
    sync_period: int = 6,
    slow_step_size: Number = 0.5,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """Zhang et al. 2019: every `sync_period` steps, slow += slow_step_size (p - slow), and p = slow.

    The slot `slow` starts as the parameters. `optax.lookahead` keeps two sets of parameters outside of its
    state, and is no `GradientTransformation` of one.
    """

    def init(params: Any) -> tuple[Any, OptimizerState]:
        own = OptimizerState(jnp.zeros([], jnp.int32), {"slow": jax.tree.map(jnp.asarray, params)}, {})
        return optimizer.init(params), own

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        within, own = state
        changes, after = optimizer.update(updates, within, params)
        now = (own.count + 1) % sync_period == 0
        slow = jax.tree.map(
            lambda s, p, c: jnp.where(now, s + slow_step_size * (p + c - s), s),
            own.slots["slow"],
            params,
            changes,
        )
        changes = jax.tree.map(lambda s, p, c: jnp.where(now, s - p, c), slow, params, changes)
        return changes, (after, OptimizerState(own.count + 1, {"slow": slow}, {}))

    options.pop("decay", None)
    return with_legacy_options(optax.GradientTransformation(init, update), **options)
