"""The arguments of TensorFlow's optimizers and schedules, with their defaults. A table, no framework."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_KERAS = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
}
_LEGACY = {"decay": 0.0, "clipnorm": None, "clipvalue": None, "global_clipnorm": None}
_ADAM = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
_FTRL = {
    "learning_rate_power": -0.5,
    "initial_accumulator_value": 0.1,
    "l1_regularization_strength": 0.0,
    "l2_regularization_strength": 0.0,
    "l2_shrinkage_regularization_strength": 0.0,
    "beta": 0.0,
}
_SHARED: dict[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
    "Adam": {**_ADAM, "amsgrad": False},
    "Adagrad": {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "Adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7},
    "Adamax": _ADAM,
    "Nadam": _ADAM,
    "Ftrl": {"learning_rate": 0.001, **_FTRL},
    "RMSprop": {
        "learning_rate": 0.001,
        "rho": 0.9,
        "momentum": 0.0,
        "epsilon": 1e-7,
        "centered": False,
    },
}

DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{f"keras.{name}": {**own, **_KERAS} for name, own in _SHARED.items()},
        "keras.AdamW": {**_ADAM, "amsgrad": False, **_KERAS, "weight_decay": 0.004},
        "keras.RMSprop": {**_SHARED["RMSprop"], **_KERAS, "ema_overwrite_frequency": 100},
        **{f"legacy.{name}": {**own, **_LEGACY} for name, own in _SHARED.items()},
        "legacy.Nadam": {**_ADAM, **_LEGACY, "decay": 0.004},
        "tf1.GradientDescent": {"learning_rate": 0.01},
        "tf1.Momentum": {"learning_rate": 0.01, "momentum": 0.9, "use_nesterov": False},
        "tf1.Adam": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "tf1.Adagrad": {"learning_rate": 0.01, "initial_accumulator_value": 0.1},
        "tf1.Adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-8},
        "tf1.RMSProp": {
            "learning_rate": 0.001,
            "decay": 0.9,
            "momentum": 0.0,
            "epsilon": 1e-10,
            "centered": False,
        },
        "tf1.Ftrl": {"learning_rate": 0.01, **_FTRL},
        "tfa.LAMB": {**_ADAM, "epsilon": 1e-6, "weight_decay": 0.0, **_LEGACY},
        "tfa.RectifiedAdam": {
            **_ADAM,
            "weight_decay": 0.0,
            "amsgrad": False,
            "sma_threshold": 5.0,
            "total_steps": 0,
            "warmup_proportion": 0.1,
            "min_lr": 0.0,
            **_LEGACY,
        },
        "tfa.LazyAdam": {**_ADAM, "amsgrad": False, **_LEGACY},
        "tfa.AdamW": {"weight_decay": 0.0001, **_ADAM, "amsgrad": False, **_LEGACY},
        "tfa.SGDW": {
            "weight_decay": 0.0001,
            "learning_rate": 0.001,
            "momentum": 0.0,
            "nesterov": False,
            **_LEGACY,
        },
        "tfa.Lookahead": {
            "sync_period": 6,
            "slow_step_size": 0.5,
            "clipnorm": None,
            "clipvalue": None,
            "global_clipnorm": None,
        },
    }
)
"""Every optimizer that there is a counterpart of, with the arguments that its class takes and their defaults.
Where TensorFlow has no default (the rate of TF1's classes, the decay of tfa's), there is one of ours."""

SCHEDULES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ExponentialDecay": {
            "initial_learning_rate": 0.001,
            "decay_steps": 20,
            "decay_rate": 0.9,
            "staircase": False,
        },
        "PiecewiseConstantDecay": {"boundaries": (30, 60), "values": (0.001, 0.0005, 0.0001)},
        "PolynomialDecay": {
            "initial_learning_rate": 0.001,
            "decay_steps": 20,
            "end_learning_rate": 0.0001,
            "power": 1.0,
            "cycle": False,
        },
        "InverseTimeDecay": {
            "initial_learning_rate": 0.001,
            "decay_steps": 20,
            "decay_rate": 0.9,
            "staircase": False,
        },
        "CosineDecay": {
            "initial_learning_rate": 0.001,
            "decay_steps": 50,
            "alpha": 0.0,
            "warmup_target": None,
            "warmup_steps": 0,
        },
        "CosineDecayRestarts": {
            "initial_learning_rate": 0.001,
            "first_decay_steps": 20,
            "t_mul": 2.0,
            "m_mul": 1.0,
            "alpha": 0.0,
        },
    }
)
"""Every schedule of the rate. Rates and numbers of steps have defaults of ours, the others TensorFlow's."""
