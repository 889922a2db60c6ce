"""The optimizers of TensorFlow 1: `tf.compat.v1.train`.

Names, arguments and defaults are TensorFlow's, whose classes end in `Optimizer`. TensorFlow 1 rounds a rate
or a beta that is a Python number to float32, even where the variables are float64: give numbers that are
rounded so to get its trajectories. An `IndexedSlices` touches its rows alone, but for Adam.

Source: tensorflow/python/training/*.py of 2.15 and tensorflow/core/kernels/training_ops.cc.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jax_models.optimizers import formulas
from jax_models.optimizers.keras import rms_pieces
from jax_models.optimizers.rules import Coefficients, Number, Rate, by_rule, on_rows


def gradient_descent(learning_rate: Rate) -> optax.GradientTransformation:
    """p -= lr g: `optax.sgd`."""
    return on_rows(optax.sgd(learning_rate), "all")


def momentum(
    learning_rate: Rate, momentum: Number, use_nesterov: bool = False
) -> optax.GradientTransformation:
    """m = momentum m + g; p -= lr m, or with `use_nesterov` p -= lr (g + momentum m): `optax.sgd`.

    Unlike Keras', the slot is free of the rate, so that a new rate acts on the old momentum too.
    """
    return on_rows(
        optax.chain(
            optax.trace(momentum, nesterov=use_nesterov), optax.scale_by_learning_rate(learning_rate)
        ),
        "touched",
    )


def adam(
    learning_rate: Rate = 0.001,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    epsilon: Number = 1e-8,
    *,
    power_dtype: Any = np.float32,
) -> optax.GradientTransformation:
    """As `keras.adam`, whose epsilon it is; all rows decay and move.

    The powers of the betas are the scalars `beta1_power` and `beta2_power`: they start as the betas, and are
    multiplied by them after each step, in float32 whatever the variables' dtype (`power_dtype`).
    """

    def prepare(step: Any, c: Coefficients) -> tuple[Coefficients, dict[str, Any]]:
        power1, power2 = c["beta1_power"].astype(step.dtype), c["beta2_power"].astype(step.dtype)
        alpha = c["lr"] * jnp.sqrt(1 - power2) / (1 - power1)
        after = {
            name: c[name] * jnp.asarray(beta, power_dtype)
            for name, beta in (("beta1_power", beta1), ("beta2_power", beta2))
        }
        return {"alpha": alpha}, after

    return by_rule(
        formulas.adam(beta1, beta2, epsilon),
        learning_rate,
        slots={"m": 0.0, "v": 0.0},
        scalars={
            "beta1_power": np.asarray(beta1, power_dtype),
            "beta2_power": np.asarray(beta2, power_dtype),
        },
        prepare=prepare,
    )


def adagrad(learning_rate: Rate, initial_accumulator_value: Number = 0.1) -> optax.GradientTransformation:
    """a += g^2; p -= lr g / sqrt(a): `optax.adagrad` with an epsilon of 0."""
    return on_rows(optax.adagrad(learning_rate, initial_accumulator_value, eps=0.0), "all")


def adadelta(
    learning_rate: Rate = 0.001, rho: Number = 0.95, epsilon: Number = 1e-8
) -> optax.GradientTransformation:
    """As `keras.adadelta`: `optax.adadelta`."""
    return on_rows(optax.adadelta(learning_rate, rho, epsilon), "touched")


def rmsprop(
    learning_rate: Rate,
    decay: Number = 0.9,
    momentum: Number = 0.0,
    epsilon: Number = 1e-10,
    centered: bool = False,
) -> optax.GradientTransformation:
    """v = decay v + (1 - decay) g^2; m = momentum m + lr g / sqrt(v + epsilon); p -= m.

    v starts at one, not at zero; `centered`, v - a^2 + epsilon is under the root. There is a slot for the
    momentum even where it is 0. `optax.rmsprop(..., initial_scale=1.0, eps_in_sqrt=True)`.
    """
    inner = rms_pieces(learning_rate, decay, momentum, epsilon, centered, initial_scale=1.0)
    return on_rows(inner, "touched")


def ftrl(
    learning_rate: Rate,
    learning_rate_power: Number = -0.5,
    initial_accumulator_value: Number = 0.1,
    l1_regularization_strength: Number = 0.0,
    l2_regularization_strength: Number = 0.0,
    l2_shrinkage_regularization_strength: Number = 0.0,
    beta: Number = 0.0,
) -> optax.GradientTransformation:
    """As `keras.ftrl`."""
    return by_rule(
        formulas.ftrl(
            learning_rate_power,
            l1_regularization_strength,
            l2_regularization_strength,
            l2_shrinkage_regularization_strength,
            beta,
        ),
        learning_rate,
        slots={"accumulator": initial_accumulator_value, "linear": 0.0},
        rows="touched",
    )
