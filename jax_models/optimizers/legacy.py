"""Legacy Keras' optimizers: `tf.keras.optimizers.legacy`, which were `tf.keras.optimizers` until 2.10.

Names, arguments and defaults are TensorFlow's. What happens to the rows that an `IndexedSlices` does not name
differs from one to the other, and is said of each. Every function takes `LegacyOptions` too.

Source: keras/src/optimizers/legacy/*.py of Keras 2.15, and tensorflow/core/kernels/training_ops.cc.
"""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import optax

from jax_models.optimizers import formulas
from jax_models.optimizers.keras import rms_pieces
from jax_models.optimizers.rules import Number, Rate, Rows, by_rule, on_rows
from jax_models.optimizers.wrappers import LegacyOptions, decay_rate, with_legacy_options


def sgd(
    learning_rate: Rate = 0.01,
    momentum: Number = 0.0,
    nesterov: bool = False,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """As `keras.sgd`; without momentum no slot: `optax.sgd`. With it, only the touched rows change."""
    rate = decay_rate(learning_rate, options.pop("decay", 0.0))
    if momentum > 0:
        rule = formulas.momentum(momentum, nesterov)
        inner = by_rule(rule, rate, slots={"momentum": 0.0}, rows="touched")
    else:
        inner = on_rows(optax.sgd(rate), "all")
    return with_legacy_options(inner, **options)


def adam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    amsgrad: bool = False,
    *,
    rows: Rows = "all",
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """As `keras.adam`. All rows decay and move, those without a gradient too."""
    inner = by_rule(
        formulas.adam(beta_1, beta_2, epsilon, amsgrad),
        decay_rate(learning_rate, options.pop("decay", 0.0)),
        slots={"m": 0.0, "v": 0.0, **({"vhat": 0.0} if amsgrad else {})},
        prepare=formulas.adam_rate(beta_1, beta_2),
        rows=rows,
    )
    return with_legacy_options(inner, **options)


def adagrad(
    learning_rate: Rate = 0.001,
    initial_accumulator_value: Number = 0.1,
    epsilon: Number = 1e-7,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """a += g^2; p -= lr g / (sqrt(a) + epsilon): unlike `keras.adagrad`, epsilon outside the root."""
    inner = by_rule(
        formulas.adagrad_outside(epsilon),
        decay_rate(learning_rate, options.pop("decay", 0.0)),
        slots={"accumulator": initial_accumulator_value},
    )
    return with_legacy_options(inner, **options)


def adadelta(
    learning_rate: Rate = 0.001, rho: Number = 0.95, epsilon: Number = 1e-7, **options: Unpack[LegacyOptions]
) -> optax.GradientTransformation:
    """As `keras.adadelta`, `optax.adadelta`; but only the touched rows change."""
    rate = decay_rate(learning_rate, options.pop("decay", 0.0))
    return with_legacy_options(on_rows(optax.adadelta(rate, rho, epsilon), "touched"), **options)


def adamax(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """As `keras.adamax`; but only the touched rows change. TensorFlow calls the slot `u` here `v`."""
    inner = by_rule(
        formulas.adamax(beta_1, beta_2, epsilon),
        decay_rate(learning_rate, options.pop("decay", 0.0)),
        slots={"m": 0.0, "u": 0.0},
        prepare=formulas.adamax_rate(beta_1),
        rows="touched",
    )
    return with_legacy_options(inner, **options)


def nadam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """As `keras.nadam`, with u_t = beta_1 (1 - 0.96^(decay t) / 2), `decay` being 0.004 by default.

    `decay` does not touch the rate here, as it does in every other one. The product is `momentum_cache`.
    Slots decay in all rows, but only the touched rows move.
    """
    decay = options.pop("decay", 0.004)
    inner = by_rule(
        formulas.nadam(beta_1, beta_2, epsilon),
        learning_rate,
        slots={"m": 0.0, "v": 0.0},
        scalars={"momentum_cache": jnp.ones([])},
        prepare=formulas.nadam_schedule(beta_1, beta_2, schedule_decay=decay, product="momentum_cache"),
        rows="update",
    )
    return with_legacy_options(inner, **options)


def ftrl(
    learning_rate: Rate = 0.001,
    learning_rate_power: Number = -0.5,
    initial_accumulator_value: Number = 0.1,
    l1_regularization_strength: Number = 0.0,
    l2_regularization_strength: Number = 0.0,
    l2_shrinkage_regularization_strength: Number = 0.0,
    beta: Number = 0.0,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """As `keras.ftrl`; but only the touched rows change."""
    inner = by_rule(
        formulas.ftrl(
            learning_rate_power,
            l1_regularization_strength,
            l2_regularization_strength,
            l2_shrinkage_regularization_strength,
            beta,
        ),
        decay_rate(learning_rate, options.pop("decay", 0.0)),
        slots={"accumulator": initial_accumulator_value, "linear": 0.0},
        rows="touched",
    )
    return with_legacy_options(inner, **options)


def rmsprop(
    learning_rate: Rate = 0.001,
    rho: Number = 0.9,
    momentum: Number = 0.0,
    epsilon: Number = 1e-7,
    centered: bool = False,
    **options: Unpack[LegacyOptions],
) -> optax.GradientTransformation:
    """Without momentum epsilon stands outside the root, and all rows decay; with momentum it stands inside,
    as in `keras.rmsprop`, and only the touched rows change.
    """
    rate = decay_rate(learning_rate, options.pop("decay", 0.0))
    if momentum > 0:
        pieces = rms_pieces(rate, rho, momentum, epsilon, centered, initial_scale=0.0)
        return with_legacy_options(on_rows(pieces, "touched"), **options)
    slots = {"rms": 0.0, **({"mg": 0.0} if centered else {})}
    inner = by_rule(formulas.rmsprop_outside(rho, epsilon, centered), rate, slots=slots)
    return with_legacy_options(inner, **options)
