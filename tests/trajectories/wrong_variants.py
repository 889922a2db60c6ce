"""optax's own optimizers, and other formulas that are easily taken for TensorFlow's. Needs JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from jax_models.optimizers import keras, legacy, schedules, tf1, tfa, wrappers
from oracle.optimizer import Optimizer, Schedule
from tests.trajectories.subjects import _FTRL

RATE, PIECES = 0.001, ((30, 60), (0.001, 0.0005, 0.0001))

Variant = tuple[Optimizer, str, Callable[[], optax.GradientTransformation]]


def _adam_exact() -> optax.GradientTransformation:
    from jax_models.optimizers import formulas
    from jax_models.optimizers.rules import by_rule

    return by_rule(
        formulas.adam(0.9, 0.999, 1e-7),
        RATE,
        slots={"m": 0.0, "v": 0.0},
        prepare=formulas.adam_rate(0.9, 0.999),
    )


def _scaled_decay() -> optax.GradientTransformation:
    arguments: dict[str, Any] = Optimizer("tfa.AdamW").rounded()
    decay, rate = arguments.pop("weight_decay"), arguments["learning_rate"]
    return wrappers.decoupled_weight_decay(legacy.adam(**arguments), decay * rate)


def _sgdw_of_rows() -> optax.GradientTransformation:
    arguments: dict[str, Any] = Optimizer("tfa.SGDW").rounded()
    decay = arguments.pop("weight_decay")
    return wrappers.decoupled_weight_decay(legacy.sgd(**arguments), decay, rows="touched")


WRONG: tuple[Variant, ...] = (
    (Optimizer("keras.Adam"), "optax.adam", lambda: optax.adam(RATE, eps=1e-7)),
    (Optimizer("keras.Adam"), "betas that are not cast", _adam_exact),
    (Optimizer("keras.Adam", {"amsgrad": True}), "optax.amsgrad", lambda: optax.amsgrad(RATE, eps=1e-7)),
    (Optimizer("keras.Adamax"), "optax.adamax", lambda: optax.adamax(RATE, eps=1e-7)),
    (Optimizer("keras.Nadam"), "optax.nadam", lambda: optax.nadam(RATE, eps=1e-7)),
    (Optimizer("keras.AdamW"), "optax.adamw", lambda: optax.adamw(RATE, eps=1e-7, weight_decay=0.004)),
    (Optimizer("keras.Adagrad"), "the legacy formula", lambda: legacy.adagrad(RATE)),
    (Optimizer("keras.Adadelta"), "an epsilon of 1e-6", lambda: optax.adadelta(RATE, 0.95, 1e-6)),
    (Optimizer("keras.RMSprop"), "the legacy formula", lambda: legacy.rmsprop(RATE)),
    (Optimizer("keras.RMSprop"), "optax.rmsprop", lambda: optax.rmsprop(RATE, eps=1e-7, eps_in_sqrt=False)),
    (
        Optimizer("keras.Ftrl", _FTRL),
        "no shrinkage",
        lambda: keras.ftrl(**{**_FTRL, "l2_shrinkage_regularization_strength": 0.0}),
    ),
    (
        Optimizer("keras.SGD", {"momentum": 0.9}, schedule=Schedule("PiecewiseConstantDecay")),
        "optax.sgd",
        lambda: optax.sgd(schedules.piecewise_constant_decay(*PIECES, dtype="float64"), 0.8999999761581421),
    ),
    (
        Optimizer("keras.SGD", {"momentum": 0.9, "nesterov": True}),
        "no Nesterov",
        lambda: keras.sgd(0.01, 0.9),
    ),
    (
        Optimizer("keras.SGD", schedule=Schedule("PiecewiseConstantDecay")),
        "optax.piecewise_constant_schedule",
        lambda: keras.sgd(optax.piecewise_constant_schedule(0.001, {30: 0.5, 60: 0.2})),
    ),
    (
        Optimizer("keras.SGD", {"clipnorm": 0.3}),
        "optax.clip_by_global_norm",
        lambda: optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(0.01)),
    ),
    (Optimizer("legacy.Adam"), "optax.adam", lambda: optax.adam(RATE, eps=1e-7)),
    (Optimizer("legacy.Nadam"), "Keras' 2.11 schedule", keras.nadam),
    (Optimizer("legacy.RMSprop"), "Keras' 2.11 formula", lambda: keras.rmsprop(RATE)),
    (Optimizer("legacy.Adagrad"), "optax.adagrad", lambda: optax.adagrad(RATE, eps=1e-7)),
    (Optimizer("tf1.RMSProp"), "v that starts at 0", lambda: optax.rmsprop(RATE, eps=1e-10)),
    (
        Optimizer("tf1.Adam"),
        "powers in float64",
        lambda: tf1.adam(**Optimizer("tf1.Adam").rounded(), power_dtype=jnp.float64),
    ),
    (Optimizer("tf1.Momentum"), "numbers that are not rounded", lambda: tf1.momentum(0.01, 0.9)),
    (Optimizer("tf1.Adagrad"), "Keras' epsilon", lambda: keras.adagrad(0.01)),
    (Optimizer("tfa.LAMB"), "numbers that are not rounded", tfa.lamb),
    (Optimizer("tfa.RectifiedAdam"), "optax.adam", lambda: optax.adam(RATE, eps=1e-7)),
    (Optimizer("tfa.AdamW"), "decay scaled by the rate", _scaled_decay),
    (
        Optimizer("tfa.Lookahead", inner=Optimizer("legacy.Adam")),
        "no synchronisation",
        lambda: legacy.adam(**Optimizer("legacy.Adam").rounded()),
    ),
    (Optimizer("tfa.LazyAdam"), "legacy.Adam", lambda: legacy.adam(**Optimizer("legacy.Adam").rounded())),
    (Optimizer("legacy.Adam"), "LazyAdam", lambda: tfa.lazy_adam(**Optimizer("legacy.Adam").rounded())),
    (Optimizer("legacy.Adamax"), "all rows", keras.adamax),
    (Optimizer("tf1.Momentum"), "all rows", lambda: optax.sgd(0.009999999776482582, 0.8999999761581421)),
    (Optimizer("tfa.SGDW"), "decay of the rows named", _sgdw_of_rows),
)
"""The optimizer, what is wrong, and the wrong one."""
