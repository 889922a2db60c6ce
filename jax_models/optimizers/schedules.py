"""Schedules of the rate: `tf.keras.optimizers.schedules`; those of `tf.compat.v1.train` are the same.

Each gives a function of the number of steps that were done, as optax takes it. TensorFlow computes a schedule
in the dtype of its first rate, which is float32 if that is a Python number, whatever the variables are;
`dtype` says which. optax has some of them by other names; the differences are said.

Source: keras/src/optimizers/schedules/learning_rate_schedule.py of Keras 2.15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_models.optimizers.rules import Number

Schedule = Callable[[Any], Any]


def exponential_decay(
    initial_learning_rate: Number,
    decay_steps: Number,
    decay_rate: Number,
    staircase: bool = False,
    *,
    dtype: Any = np.float32,
) -> Schedule:
    """lr decay_rate^(step / decay_steps), the exponent rounded down with `staircase`.

    `optax.exponential_decay` without a bound on the rate.
    """

    def schedule(count: Any) -> Any:
        lr, rate, p = _cast(dtype, initial_learning_rate, decay_rate, count)
        p = p / jnp.asarray(decay_steps, dtype)
        return lr * jnp.power(rate, jnp.floor(p) if staircase else p)

    return schedule


def piecewise_constant_decay(
    boundaries: Sequence[Number], values: Sequence[Number], *, dtype: Any = np.float32
) -> Schedule:
    """values[i], i being the number of boundaries below the step.

    At a boundary the old value still holds; in `optax.piecewise_constant_schedule` the new one does.
    """

    def schedule(count: Any) -> Any:
        return jnp.asarray(values, dtype)[jnp.sum(jnp.asarray(count) > jnp.asarray(boundaries))]

    return schedule


def polynomial_decay(
    initial_learning_rate: Number,
    decay_steps: Number,
    end_learning_rate: Number = 0.0001,
    power: Number = 1.0,
    cycle: bool = False,
    *,
    dtype: Any = np.float32,
) -> Schedule:
    """(lr - end) (1 - step / decay_steps)^power + end; with `cycle` of as many periods as are begun.

    Without `cycle` it is `optax.polynomial_schedule`.
    """

    def schedule(count: Any) -> Any:
        lr, end, step, steps = _cast(dtype, initial_learning_rate, end_learning_rate, count, decay_steps)
        if cycle:
            steps = steps * jnp.where(step == 0, 1, jnp.ceil(step / steps))
        else:
            step = jnp.minimum(step, steps)
        return (lr - end) * jnp.power(1 - step / steps, jnp.asarray(power, dtype)) + end

    return schedule


def inverse_time_decay(
    initial_learning_rate: Number,
    decay_steps: Number,
    decay_rate: Number,
    staircase: bool = False,
    *,
    dtype: Any = np.float32,
) -> Schedule:
    """lr / (1 + decay_rate step / decay_steps), the quotient rounded down with `staircase`."""

    def schedule(count: Any) -> Any:
        lr, rate, step, steps = _cast(dtype, initial_learning_rate, decay_rate, count, decay_steps)
        p = step / steps
        return lr / (1 + rate * (jnp.floor(p) if staircase else p))

    return schedule


def cosine_decay(
    initial_learning_rate: Number,
    decay_steps: Number,
    alpha: Number = 0.0,
    warmup_target: Number | None = None,
    warmup_steps: Number = 0,
    *,
    dtype: Any = np.float32,
) -> Schedule:
    """lr ((1 - alpha) (1 + cos(pi step / decay_steps)) / 2 + alpha); before it a line to `warmup_target`.

    Without a warm-up it is `optax.cosine_decay_schedule`.
    """

    def schedule(count: Any) -> Any:
        lr, step, steps, warmup = _cast(dtype, initial_learning_rate, count, decay_steps, warmup_steps)

        def decay(step: Any, start: Any) -> Any:
            cosine = 0.5 * (1 + jnp.cos(jnp.asarray(np.pi, dtype) * (step / steps)))
            return start * ((1 - jnp.asarray(alpha, dtype)) * cosine + jnp.asarray(alpha, dtype))

        if warmup_target is None:
            return decay(jnp.minimum(step, steps), lr)
        target = jnp.asarray(warmup_target, dtype)
        step = jnp.minimum(step, steps + warmup)
        rising = (target - lr) * (step / jnp.maximum(warmup, 1)) + lr
        return jnp.where(step < warmup, rising, decay(step - warmup, target))

    return schedule


def cosine_decay_restarts(
    initial_learning_rate: Number,
    first_decay_steps: Number,
    t_mul: Number = 2.0,
    m_mul: Number = 1.0,
    alpha: Number = 0.0,
    *,
    dtype: Any = np.float32,
) -> Schedule:
    """Warm restarts, Loshchilov and Hutter 2017: each period `t_mul` times as long, `m_mul` times as high."""

    def schedule(count: Any) -> Any:
        lr, step, first, longer, lower, least = _cast(
            dtype, initial_learning_rate, count, first_decay_steps, t_mul, m_mul, alpha
        )
        done = step / first
        if t_mul == 1.0:
            restarts = jnp.floor(done)
            done = done - restarts
        else:
            restarts = jnp.floor(jnp.log(1 - done * (1 - longer)) / jnp.log(longer))
            done = (done - (1 - longer**restarts) / (1 - longer)) / longer**restarts
        cosine = 0.5 * lower**restarts * (1 + jnp.cos(jnp.asarray(np.pi, dtype) * done))
        return lr * ((1 - least) * cosine + least)

    return schedule


def _cast(dtype: Any, *values: Any) -> list[Any]:
    return [jnp.asarray(value).astype(dtype) for value in values]
