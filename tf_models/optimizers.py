"""TensorFlow's optimizers: made from a description, described from a live object, their slots read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from oracle.errors import UsageError
from oracle.optimizer import DEFAULTS, SCHEDULES, Optimizer, Schedule

v1 = tf.compat.v1

_KERAS_SLOTS = {
    "SGD": {"momentums": "momentum"},
    "Adam": {"_momentums": "m", "_velocities": "v", "_velocity_hats": "vhat"},
    "AdamW": {"_momentums": "m", "_velocities": "v", "_velocity_hats": "vhat"},
    "Adagrad": {"_accumulators": "accumulator"},
    "Adadelta": {"_accumulated_grads": "accum_grad", "_accumulated_delta_vars": "accum_var"},
    "Adamax": {"_m": "m", "_u": "u"},
    "Nadam": {"_momentums": "m", "_velocities": "v"},
    "Ftrl": {"_accumulators": "accumulator", "_linears": "linear"},
    "RMSprop": {"_velocities": "rms", "_momentums": "momentum", "_average_gradients": "mg"},
}
"""In which attribute Keras 2.11 and later keeps a slot, and what legacy Keras calls it."""

_RENAMED = {
    "legacy.Adamax": {"v": "u"},
    "tf1.Adadelta": {"accum": "accum_grad", "accum_update": "accum_var"},
    "tf1.Ftrl": {"accum": "accumulator"},
}

_TF1_ATTRIBUTES: dict[str, dict[str, str]] = {
    "GradientDescent": {"learning_rate": "_learning_rate"},
    "Momentum": {
        "learning_rate": "_learning_rate",
        "momentum": "_momentum",
        "use_nesterov": "_use_nesterov",
    },
    "Adam": {"learning_rate": "_lr", "beta1": "_beta1", "beta2": "_beta2", "epsilon": "_epsilon"},
    "Adagrad": {
        "learning_rate": "_learning_rate",
        "initial_accumulator_value": "_initial_accumulator_value",
    },
    "Adadelta": {"learning_rate": "_lr", "rho": "_rho", "epsilon": "_epsilon"},
    "RMSProp": {
        "learning_rate": "_learning_rate",
        "decay": "_decay",
        "momentum": "_momentum",
        "epsilon": "_epsilon",
        "centered": "_centered",
    },
    "Ftrl": {
        "learning_rate": "_learning_rate",
        "learning_rate_power": "_learning_rate_power",
        "initial_accumulator_value": "_initial_accumulator_value",
        "l1_regularization_strength": "_l1_regularization_strength",
        "l2_regularization_strength": "_l2_regularization_strength",
        "l2_shrinkage_regularization_strength": "_l2_shrinkage_regularization_strength",
        "beta": "_beta",
    },
}
"""Where TensorFlow 1 keeps what an optimizer was made with."""


class LiveOptimizer:
    """An optimizer of TensorFlow's with the variables that it trains.

    Args:
        optimizer: of any of the four namespaces.
        variables: by name; every one gets its slots before the first step.
        spec: what the optimizer is, for the names of its slots.
        global_step: the counter of a TF1 optimizer whose rate follows a schedule.
    """

    def __init__(
        self,
        optimizer: Any,
        variables: Mapping[str, tf.Variable],
        spec: Optimizer,
        *,
        global_step: tf.Variable | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.variables = dict(variables)
        self.spec = spec
        self.global_step = global_step

    def apply(self, gradients: Mapping[str, tf.Tensor | tf.IndexedSlices | None]) -> None:
        """One step, eagerly. A gradient that is None leaves its variable as it is."""
        if self.spec.namespace == "keras":
            self.optimizer.build(list(self.variables.values()))
        pairs = [(gradients[name], variable) for name, variable in self.variables.items()]
        if self.spec.namespace == "tf1":
            self.optimizer.apply_gradients(pairs, global_step=self.global_step)
        else:
            self.optimizer.apply_gradients(pairs)

    def read_slots(self) -> dict[str, np.ndarray]:
        """The slots and scalars: `m/<variable>`, and `beta1_power`. They exist from the first step on."""
        if self.spec.namespace == "keras":
            return self._read_keras()
        slots = self._read_named(self.optimizer, self.spec)
        if self.spec.inner is not None:
            slots |= self._read_named(self.optimizer._optimizer, self.spec.inner)
        return slots

    def _read_keras(self) -> dict[str, np.ndarray]:
        optimizer, slots = self.optimizer, {}
        held = dict(_KERAS_SLOTS[self.spec.name.partition(".")[2]])
        if optimizer.use_ema:
            held["_model_variables_moving_average"] = "average"
        for attribute, slot in held.items():
            for variable, array in zip(self.variables, getattr(optimizer, attribute, ()), strict=False):
                slots[f"{slot}/{variable}"] = array.numpy()
        if self.spec.name == "keras.Nadam":
            slots["u_product"] = optimizer._u_product.numpy()
        return slots

    def _read_named(self, optimizer: Any, spec: Optimizer) -> dict[str, np.ndarray]:
        slots, renamed = {}, _RENAMED.get(spec.name, {})
        for name in optimizer.get_slot_names():
            for path, variable in self.variables.items():
                slot = optimizer.get_slot(variable, name)
                if slot is not None:
                    slots[f"{renamed.get(name, name)}/{path}"] = slot.numpy()
        if spec.name == "tf1.Adam":
            power1, power2 = optimizer._get_beta_accumulators()
            slots |= {"beta1_power": power1.numpy(), "beta2_power": power2.numpy()}
        if spec.name == "legacy.Nadam":
            slots["momentum_cache"] = optimizer._m_cache.numpy()
        return slots


def build_optimizer(spec: Optimizer, variables: Mapping[str, tf.Variable]) -> LiveOptimizer:
    """Make TensorFlow's object, of Python numbers, but for those of a schedule in float64."""
    with use_floatx(spec.floatx):
        step = tf.Variable(0, dtype=tf.int64, trainable=False) if spec.namespace == "tf1" else None
        return LiveOptimizer(_make(spec, step), variables, spec, global_step=step)


def _make(spec: Optimizer, step: tf.Variable | None) -> Any:
    arguments = spec.whole()
    if spec.schedule is not None:
        schedule = _make_schedule(spec.schedule)
        # As `tf.compat.v1.train.exponential_decay` gives it in eager mode: a function of no arguments.
        arguments["learning_rate"] = schedule if step is None else lambda: schedule(step)
    name = spec.name.partition(".")[2]
    if spec.namespace == "tf1":
        return getattr(v1.train, f"{name}Optimizer")(**arguments)
    if spec.namespace == "tfa":
        import tensorflow_addons as tfa

        # Lookahead passes on what it does not know, and has no rate that could decay.
        arguments = {key: value for key, value in arguments.items() if not _is_unset(key, value)}
        inner = () if spec.inner is None else (_make(spec.inner, None),)
        return getattr(tfa.optimizers, name)(*inner, **arguments)
    arguments = {key: value for key, value in arguments.items() if not _is_unset(key, value)}
    return getattr(_find_namespace(spec.namespace), name)(**arguments)


def _is_unset(name: str, value: Any) -> bool:
    """Legacy Keras takes no None, and warns of a decay."""
    return value is None or (name == "decay" and value == 0.0)


def _find_namespace(namespace: str) -> Any:
    return tf.keras.optimizers if namespace == "keras" else tf.keras.optimizers.legacy


def _make_schedule(schedule: Schedule) -> Any:
    """A schedule computes in the dtype of its rates: float32 for Python numbers."""
    arguments = schedule.whole()
    if schedule.dtype == "float64":
        for name, value in arguments.items():
            if name != "boundaries" and not isinstance(value, bool | None):
                arguments[name] = tf.nest.map_structure(np.float64, value)
    if "boundaries" in arguments:
        arguments |= {name: list(arguments[name]) for name in ("boundaries", "values")}
    return getattr(tf.keras.optimizers.schedules, schedule.name)(**arguments)


@contextlib.contextmanager
def use_floatx(floatx: str) -> Iterator[None]:
    """Set Keras' floatx within the context: the dtype in which it keeps hyperparameters."""
    before = tf.keras.backend.floatx()
    tf.keras.backend.set_floatx(floatx)
    try:
        yield
    finally:
        tf.keras.backend.set_floatx(before)


def describe_optimizer(optimizer: Any) -> Optimizer:
    """What a live optimizer is, read from its own configuration.

    Args:
        optimizer: of `tf.keras.optimizers`, `tf.keras.optimizers.legacy`, `tf.compat.v1.train` or
            `tfa.optimizers`. Its hyperparameters must be numbers, its rate a number or a known schedule.

    Raises:
        UsageError: if its class has no counterpart, or it is configured in a way that has none.
    """
    name, wanted = _find_class(optimizer)
    if name.startswith("tf1."):
        return _describe_tf1(optimizer, name)
    config = dict(optimizer.get_config())
    inner = describe_optimizer(optimizer._optimizer) if name == "tfa.Lookahead" else None
    for ignored in ("name", "optimizer", "jit_compile", "is_legacy_optimizer"):
        config.pop(ignored, None)
    excluded = [key for key in config if key.startswith("exclude_from") and config[key]]
    excluded += [
        key for key in vars(optimizer) if key.startswith("_exclude_from") and getattr(optimizer, key)
    ]
    if excluded:
        raise UsageError(
            f"{name}: {excluded[0]} names variables, which its counterpart cannot do; leave it out"
        )
    config = {key: value for key, value in config.items() if not key.startswith("exclude_from")}
    schedule = _read_schedule(name, config, getattr(optimizer, "_learning_rate", None) or _hyper(optimizer))
    floatx = _read_floatx(optimizer, name)
    arguments = {key: _read_number(name, key, value) for key, value in config.items()}
    if unknown := sorted(arguments.keys() - wanted.keys() - {"decay"}):
        raise UsageError(f"{name}: its counterpart has no {unknown[0]!r}, which is {arguments[unknown[0]]!r}")
    given = {
        key: type(wanted[key])(value) if isinstance(wanted[key], bool) else value
        for key, value in arguments.items()
        if key in wanted and value != wanted[key]
    }
    return Optimizer(name, given, schedule=schedule, inner=inner, floatx=floatx)


def _find_class(optimizer: Any) -> tuple[str, Mapping[str, Any]]:
    """Which of `DEFAULTS` an object is, by its very class: a subclass may do anything."""
    for whole, defaults in DEFAULTS.items():
        namespace, _, name = whole.partition(".")
        with contextlib.suppress(AttributeError, ImportError):
            if type(optimizer) is _find_type(namespace, name):
                return whole, defaults
    kind = type(optimizer)
    raise UsageError(
        f"{kind.__module__}.{kind.__qualname__} has no counterpart in optax here; there are those of "
        f"{', '.join(DEFAULTS)}"
    )


def _find_type(namespace: str, name: str) -> type:
    if namespace == "tf1":
        return getattr(v1.train, f"{name}Optimizer")
    if namespace == "tfa":
        import tensorflow_addons as tfa

        return getattr(tfa.optimizers, name)
    return getattr(_find_namespace(namespace), name)


def _describe_tf1(optimizer: Any, name: str) -> Optimizer:
    held = _TF1_ATTRIBUTES[name.partition(".")[2]]
    arguments = {key: getattr(optimizer, attribute) for key, attribute in held.items()}
    if callable(arguments["learning_rate"]):
        raise UsageError(f"{name}: its learning_rate is a function, which cannot be read; give a number")
    read = {key: _read_number(name, key, value) for key, value in arguments.items() if value is not None}
    return Optimizer(name, {key: value for key, value in read.items() if value != DEFAULTS[name][key]})


def _hyper(optimizer: Any) -> Any:
    """A legacy optimizer's rate, as it was given or as a variable."""
    return getattr(optimizer, "_hyper", {}).get("learning_rate")


def _read_schedule(name: str, config: dict[str, Any], live: Any) -> Schedule | None:
    if not isinstance(config.get("learning_rate"), Mapping):
        return None
    serialized = config.pop("learning_rate")
    kind = serialized["class_name"]
    if kind not in SCHEDULES:
        raise UsageError(f"{name}: the schedule {kind} has no counterpart; there are {', '.join(SCHEDULES)}")
    given = {key: value for key, value in serialized["config"].items() if key != "name" and value is not None}
    rates = tf.convert_to_tensor(tf.nest.flatten(live.get_config()[_rate_name(kind)])[0])
    arguments = {
        key: tuple(_read_number(name, key, one) for one in value)
        if isinstance(value, list | tuple)
        else _read_number(name, key, value)
        for key, value in given.items()
    }
    return Schedule(kind, arguments, "float64" if rates.dtype == tf.float64 else "float32")


def _rate_name(kind: str) -> str:
    return "values" if kind == "PiecewiseConstantDecay" else "initial_learning_rate"


def _read_floatx(optimizer: Any, name: str) -> Any:
    held = optimizer._learning_rate if name.startswith("keras.") else _hyper(optimizer)
    dtype = getattr(held, "dtype", None)
    if isinstance(held, tf.Variable):
        return tf.as_dtype(dtype).name
    return tf.keras.backend.floatx()


def _read_number(name: str, key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if callable(value):
        raise UsageError(f"{name}: {key} is a function, which cannot be read; give a number")
    try:
        return np.asarray(value).item()
    except (ValueError, TypeError):
        raise UsageError(f"{name}: {key} is a {type(value).__name__}; give a number") from None
