"""The optimizers of Keras 2.11 and later: `tf.keras.optimizers`.

Names, arguments and defaults are Keras'. A gradient of a few rows decays the slots of all rows, as if the
others' gradient were zero. Each function takes `KerasOptions` too: clipping, weight decay, averages.
`epsilon` is the paper's epsilon hat, and stands outside the root where Keras has it there.

`tf.cast(0.9, tf.float64)` is 0.8999999761581421: TensorFlow makes a float32 tensor of a Python number before
it casts it. Keras casts some of its hyperparameters so and uses others as they are, Adam the same beta both
ways; `cast` does what it does.

Source: keras/src/optimizers/*.py of Keras 2.15, `update_step` of each class.
"""

from __future__ import annotations

from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
import optax

from jax_models.optimizers import formulas
from jax_models.optimizers.rules import Number, Rate, by_rule, on_rows
from jax_models.optimizers.wrappers import KerasCommonOptions, KerasOptions, with_keras_options


def sgd(
    learning_rate: Rate = 0.01,
    momentum: Number = 0.0,
    nesterov: bool = False,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """m = momentum m - lr g; p += m, or with `nesterov` p += momentum m - lr g.

    The slot holds the rate: where the rate changes, `optax.sgd`, which scales the slot afterwards, differs.
    """
    rule = formulas.momentum(cast(momentum), nesterov)
    return with_keras_options(by_rule(rule, learning_rate, slots={"momentum": 0.0}), learning_rate, **options)


def adam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t); p -= alpha m / (sqrt(v) + epsilon).

    `optax.adam` adds epsilon to the root of v / (1 - beta_2^t), so that its epsilon is this one divided by
    sqrt(1 - beta_2^t): 32 times as large at the first step. With `amsgrad`, the largest v so far stands
    for v; `optax.amsgrad` takes the largest v / (1 - beta_2^t).
    """
    inner = by_rule(
        formulas.adam(beta_1, beta_2, epsilon, amsgrad),
        learning_rate,
        slots={"m": 0.0, "v": 0.0, **({"vhat": 0.0} if amsgrad else {})},
        prepare=formulas.adam_rate(cast(beta_1), cast(beta_2)),
    )
    return with_keras_options(inner, learning_rate, **options)


def adamw(
    learning_rate: Rate = 0.001,
    weight_decay: Number = 0.004,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[KerasCommonOptions],
) -> optax.GradientTransformation:
    """`adam` with `weight_decay`, which first takes lr weight_decay p from each parameter."""
    return adam(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)


def adagrad(
    learning_rate: Rate = 0.001,
    initial_accumulator_value: Number = 0.1,
    epsilon: Number = 1e-7,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """a += g^2; p -= lr g / sqrt(a + epsilon): `optax.adagrad`."""
    inner = optax.adagrad(learning_rate, initial_accumulator_value, epsilon)
    return with_keras_options(on_rows(inner, "all"), learning_rate, **options)


def adadelta(
    learning_rate: Rate = 0.001, rho: Number = 0.95, epsilon: Number = 1e-7, **options: Unpack[KerasOptions]
) -> optax.GradientTransformation:
    """Both means decay by rho; p -= lr sqrt(d + epsilon) / sqrt(a + epsilon) g: `optax.adadelta`."""
    inner = optax.adadelta(learning_rate, rho, epsilon)
    return with_keras_options(on_rows(inner, "all"), learning_rate, **options)


def adamax(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """u = max(beta_2 u, |g|); p -= lr m / ((1 - beta_1^t) (u + epsilon)).

    `optax.adamax` adds epsilon to |g| within the maximum, and not to u.
    """
    inner = by_rule(
        formulas.adamax(beta_1, beta_2, epsilon),
        learning_rate,
        slots={"m": 0.0, "u": 0.0},
        prepare=formulas.adamax_rate(cast(beta_1)),
    )
    return with_keras_options(inner, learning_rate, **options)


def nadam(
    learning_rate: Rate = 0.001,
    beta_1: Number = 0.9,
    beta_2: Number = 0.999,
    epsilon: Number = 1e-7,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """Nesterov's momentum with a schedule of its own: u_t = beta_1 (1 - 0.96^t / 2).

    m^ = u_{t+1} m / (1 - u_1 ... u_{t+1}) + (1 - u_t) g / (1 - u_1 ... u_t);
    p -= lr m^ / (sqrt(v / (1 - beta_2^t)) + epsilon). The product is kept in the scalar `u_product`.
    `optax.nadam` has no such schedule.
    """
    beta_1, beta_2 = cast(beta_1), cast(beta_2)
    inner = by_rule(
        formulas.nadam(beta_1, beta_2, epsilon),
        learning_rate,
        slots={"m": 0.0, "v": 0.0},
        scalars={"u_product": jnp.ones([])},
        prepare=formulas.nadam_schedule(beta_1, beta_2, schedule_decay=1.0, product="u_product"),
    )
    return with_keras_options(inner, learning_rate, **options)


def ftrl(
    learning_rate: Rate = 0.001,
    learning_rate_power: Number = -0.5,
    initial_accumulator_value: Number = 0.1,
    l1_regularization_strength: Number = 0.0,
    l2_regularization_strength: Number = 0.0,
    l2_shrinkage_regularization_strength: Number = 0.0,
    beta: Number = 0.0,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """Follow the regularized leader, McMahan et al. 2013; see `formulas.ftrl`. optax has none.

    The parameter is computed anew at each step, of the slots alone.
    """
    rule = formulas.ftrl(
        learning_rate_power,
        l1_regularization_strength,
        l2_regularization_strength,
        l2_shrinkage_regularization_strength,
        beta,
    )
    slots = {"accumulator": cast(initial_accumulator_value), "linear": 0.0}
    return with_keras_options(by_rule(rule, learning_rate, slots=slots), learning_rate, **options)


def rmsprop(
    learning_rate: Rate = 0.001,
    rho: Number = 0.9,
    momentum: Number = 0.0,
    epsilon: Number = 1e-7,
    centered: bool = False,
    **options: Unpack[KerasOptions],
) -> optax.GradientTransformation:
    """p -= lr g / sqrt(v + epsilon), `centered` of v - a^2 + epsilon; v starts at 0.

    `momentum` gathers what would be taken: `optax.rmsprop(..., eps_in_sqrt=True)`.
    """
    inner = rms_pieces(
        learning_rate, rho, momentum if momentum > 0 else None, epsilon, centered, initial_scale=0.0
    )
    return with_keras_options(on_rows(inner, "all"), learning_rate, **options)


def rms_pieces(
    learning_rate: Rate,
    rho: Number,
    momentum: Number | None,
    epsilon: Number,
    centered: bool,
    *,
    initial_scale: Number,
) -> optax.GradientTransformation:
    """optax's pieces of RMSProp, epsilon inside the root. Without a momentum there is no slot for it.

    The order is that of `optax.rmsprop`, but for the sign, which the slot does not have in TensorFlow.
    """
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    steps: list[Any] = [
        scale(rho, epsilon, initial_scale, eps_in_sqrt=True),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
    ]
    if momentum is not None:
        steps.append(optax.trace(momentum))
    return optax.chain(*steps, optax.scale(-1.0))


def cast(number: Number) -> float:
    """A Python number as `tf.cast` makes it a float64 tensor: rounded to float32."""
    return float(np.float32(number))
