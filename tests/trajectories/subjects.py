"""Which optimizers are driven, by which gradients. No framework is imported here."""

from __future__ import annotations

import numpy as np

from oracle.optimizer import DEFAULTS, Optimizer, Schedule
from oracle.trajectory import Slices

STEPS = 100

_FTRL = {
    "l1_regularization_strength": 0.01,
    "l2_regularization_strength": 0.02,
    "l2_shrinkage_regularization_strength": 0.03,
    "beta": 0.1,
}

SUBJECTS = (
    *(Optimizer(name) for name in DEFAULTS if name != "tfa.Lookahead"),
    Optimizer("keras.SGD", {"momentum": 0.9}),
    Optimizer("keras.SGD", {"momentum": 0.9, "nesterov": True}),
    Optimizer("keras.Adam", {"amsgrad": True}),
    Optimizer("keras.Adam", floatx="float32"),
    Optimizer("keras.RMSprop", {"momentum": 0.5}),
    Optimizer("keras.RMSprop", {"momentum": 0.5, "centered": True}),
    Optimizer("keras.RMSprop", {"centered": True}),
    Optimizer("keras.Ftrl", _FTRL),
    Optimizer("keras.Ftrl", {"learning_rate_power": -0.3, "weight_decay": 0.01}),
    Optimizer("keras.Adam", {"weight_decay": 0.01}),
    Optimizer("keras.SGD", {"weight_decay": 0.01, "momentum": 0.9}),
    Optimizer("keras.SGD", {"clipnorm": 0.3}),
    Optimizer("keras.SGD", {"global_clipnorm": 0.3}),
    Optimizer("keras.SGD", {"clipvalue": 0.1}),
    Optimizer("keras.SGD", {"use_ema": True, "ema_overwrite_frequency": 7}),
    Optimizer("legacy.SGD", {"momentum": 0.9}),
    Optimizer("legacy.SGD", {"momentum": 0.9, "nesterov": True}),
    Optimizer("legacy.Adam", {"amsgrad": True}),
    Optimizer("legacy.RMSprop", {"momentum": 0.5}),
    Optimizer("legacy.RMSprop", {"momentum": 0.5, "centered": True}),
    Optimizer("legacy.RMSprop", {"centered": True}),
    Optimizer("legacy.Ftrl", _FTRL),
    Optimizer("legacy.Adam", {"clipnorm": 0.3, "clipvalue": 0.2}),
    Optimizer("legacy.SGD", {"global_clipnorm": 0.3, "decay": 0.1}),
    Optimizer("tf1.Momentum", {"use_nesterov": True}),
    Optimizer("tf1.RMSProp", {"momentum": 0.5}),
    Optimizer("tf1.RMSProp", {"momentum": 0.5, "centered": True}),
    Optimizer("tf1.RMSProp", {"centered": True}),
    Optimizer("tf1.Ftrl", _FTRL),
    Optimizer("tfa.LAMB", {"weight_decay": 0.01}),
    Optimizer("tfa.RectifiedAdam", {"weight_decay": 0.01, "amsgrad": True}),
    Optimizer("tfa.RectifiedAdam", {"total_steps": 50, "min_lr": 1e-5}),
    Optimizer("tfa.SGDW", {"momentum": 0.9}),
    Optimizer("tfa.AdamW", {"amsgrad": True, "clipnorm": 0.3}),
    Optimizer("tfa.Lookahead", inner=Optimizer("legacy.Adam")),
    Optimizer(
        "tfa.Lookahead",
        {"sync_period": 5, "slow_step_size": 0.3},
        inner=Optimizer("legacy.SGD", {"momentum": 0.9}),
    ),
    *(
        Optimizer(name, schedule=schedule)
        for schedule, name in (
            (Schedule("ExponentialDecay"), "keras.SGD"),
            (Schedule("ExponentialDecay", {"staircase": True}), "tf1.Momentum"),
            (Schedule("PiecewiseConstantDecay"), "keras.Adam"),
            (Schedule("PiecewiseConstantDecay", dtype="float32"), "legacy.SGD"),
            (Schedule("PolynomialDecay", {"power": 2.0}), "keras.SGD"),
            (Schedule("PolynomialDecay", {"cycle": True}), "legacy.Adam"),
            (Schedule("InverseTimeDecay"), "tf1.Adam"),
            (Schedule("InverseTimeDecay", {"staircase": True}), "keras.SGD"),
            (Schedule("CosineDecay"), "tfa.LAMB"),
            (Schedule("CosineDecay", {"warmup_target": 0.01, "warmup_steps": 10}), "keras.SGD"),
            (Schedule("CosineDecayRestarts", {"m_mul": 0.9}), "keras.SGD"),
            (Schedule("CosineDecayRestarts", {"t_mul": 1.0}), "legacy.SGD"),
        )
    ),
)
"""Every optimizer as it is by default, and with every option that changes its formula."""

FLOAT32_SCHEDULES = tuple(
    Optimizer("keras.SGD", schedule=Schedule(name, dtype="float32"))
    for name in ("ExponentialDecay", "PolynomialDecay", "InverseTimeDecay", "CosineDecay")
)
"""Schedules whose rates are Python numbers, so that TensorFlow computes them in float32."""


def draw_initial(seed: int = 0) -> dict[str, np.ndarray]:
    """Two matrices and a vector, every size another number."""
    generator = np.random.default_rng([seed, 0])
    return {
        "kernel": generator.standard_normal((5, 6)),
        "embedding": generator.standard_normal((7, 3)),
        "bias": 0.1 * generator.standard_normal(4),
    }


def draw_gradients(*, steps: int = STEPS, seed: int = 0) -> list[dict[str, np.ndarray | Slices]]:
    """Gradients of very different sizes; of the embedding slices, one row twice, and others not at all."""
    generator = np.random.default_rng([seed, 1])
    gradients: list[dict[str, np.ndarray | Slices]] = []
    for _ in range(steps):
        indices = generator.integers(0, 6, 4).astype(np.int32)
        indices[1] = indices[0]
        spread = 0.1 * np.exp(2 * generator.standard_normal((5, 6)))
        gradients.append(
            {
                "kernel": generator.standard_normal((5, 6)) * spread,
                "embedding": Slices(generator.standard_normal((4, 3)), indices),
                "bias": 1e-3 * generator.standard_normal(4),
            }
        )
    return gradients
