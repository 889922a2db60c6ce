"""What an optimizer is, with no framework in it: its class, its arguments, and how TensorFlow rounds them.

`tf_models/optimizers.py` makes TensorFlow's object of it, or reads it from one; `oracle/steps/optimizers.py`
makes its counterpart in optax. Names, arguments and defaults are TensorFlow's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from oracle.errors import UsageError
from oracle.optimizer_defaults import DEFAULTS, SCHEDULES

__all__ = [
    "DEFAULTS",
    "SCHEDULES",
    "Optimizer",
    "Schedule",
    "find_optimizer",
    "find_schedule",
    "parse_arguments",
]

Floatx = Literal["float64", "float32"]

_LEGACY_HYPERS = frozenset(
    {
        "learning_rate",
        "beta_1",
        "beta_2",
        "rho",
        "momentum",
        "weight_decay",
        "sma_threshold",
        "total_steps",
        "warmup_proportion",
        "min_lr",
        "learning_rate_power",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "beta",
        "slow_step_size",
        "l2_shrinkage_regularization_strength",
    }
)
"""What legacy Keras keeps in a float32 variable, whatever floatx is, or casts from float32."""

_TF1_EXACT = frozenset({"initial_accumulator_value"})
"""What TensorFlow 1 makes in the variables' own dtype."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule of the rate.

    Args:
        name: the class, one of `SCHEDULES`.
        arguments: what it is made with, as far as it is not the default.
        dtype: what TensorFlow computes it in: float32 if its rates are Python numbers.
    """

    name: str
    arguments: dict[str, Any] = {}
    dtype: Floatx = "float64"

    def __post_init__(self) -> None:
        _check_arguments("schedule", self.name, self.arguments, SCHEDULES)

    def whole(self) -> dict[str, Any]:
        """All arguments, the defaults among them."""
        return {**SCHEDULES[self.name], **self.arguments}


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An optimizer.

    Args:
        name: the class with its namespace, one of `DEFAULTS`: `keras.Adam`, `tf1.RMSProp`.
        arguments: what it is made with, as far as it is not the default, numbers but for schedules.
        schedule: in the place of a `learning_rate`.
        inner: the optimizer that `tfa.Lookahead` wraps.
        floatx: Keras' floatx when it was made, the dtype that Keras 2.11 and later rounds the rate to. The
            others round to float32 whatever it is.

    Raises:
        UsageError: if there is no such class, it takes no such argument, or not a value of that type.
    """

    name: str
    arguments: dict[str, Any] = {}
    schedule: Schedule | None = None
    inner: Optimizer | None = None
    floatx: Floatx = "float64"

    def __post_init__(self) -> None:
        _check_arguments("optimizer", self.name, self.arguments, DEFAULTS)
        if self.schedule is not None and "learning_rate" in self.arguments:
            raise UsageError(f"{self.name}: a learning_rate and a schedule are given; leave one out")
        if (self.name == "tfa.Lookahead") != (self.inner is not None):
            raise UsageError(f"{self.name}: an inner optimizer is what tfa.Lookahead wraps, and it alone")
        if self.inner is not None and self.inner.namespace not in ("legacy", "tfa"):
            raise UsageError(f"tfa.Lookahead wraps legacy Keras optimizers; {self.inner.name} is none")
        if self.inner is not None and self.schedule is not None:
            raise UsageError("tfa.Lookahead has no rate of its own; give the schedule to what it wraps")
        if self.name == "legacy.Nadam" and self.schedule is not None:
            raise UsageError("legacy.Nadam takes no schedule: TensorFlow refuses it")
        whole = self.whole()
        if self.namespace == "keras" and whole["clipnorm"] and whole["global_clipnorm"]:
            raise UsageError(f"{self.name}: clipnorm and global_clipnorm are given; Keras takes one")

    @property
    def namespace(self) -> str:
        """`keras`, `legacy`, `tf1` or `tfa`."""
        return self.name.partition(".")[0]

    def whole(self) -> dict[str, Any]:
        """All arguments, the defaults among them, as they are given to TensorFlow."""
        return {**DEFAULTS[self.name], **self.arguments}

    def rounded(self) -> dict[str, Any]:
        """All arguments as TensorFlow computes with them: those that it keeps in a variable are rounded.

        Keras keeps the rate in a variable of the dtype floatx. Legacy Keras and tfa keep every hyperparameter
        that can be a tensor, and TensorFlow 1 all, in float32, though the variables be float64.
        """
        arguments = self.whole()
        if self.name == "tf1.Ftrl" and arguments["beta"] and self.schedule is None:
            # TensorFlow 1 puts beta into the other number before it rounds the two together.
            arguments["l2_regularization_strength"] += arguments["beta"] / (2 * arguments["learning_rate"])
            arguments["beta"] = 0.0
        for name, value in arguments.items():
            if isinstance(value, bool) or not isinstance(value, float):
                continue
            if self.namespace == "tf1":
                dtype = "float64" if name in _TF1_EXACT else "float32"
            elif self.namespace == "keras":
                dtype = self.floatx if name == "learning_rate" else "float64"
            else:
                cast = name in _LEGACY_HYPERS or (name == "decay" and self.name != "legacy.Nadam")
                dtype = "float32" if cast else "float64"
            arguments[name] = float(np.dtype(dtype).type(value))
        return arguments

    def describe(self) -> str:
        """In a line: the class and what is not its default."""
        parts = [f"{name}={value!r}" for name, value in self.arguments.items()]
        if self.schedule is not None:
            given = ", ".join(f"{name}={value!r}" for name, value in self.schedule.arguments.items())
            parts.append(f"{self.schedule.name}({given}) in {self.schedule.dtype}")
        if self.inner is not None:
            parts.insert(0, self.inner.describe())
        if self.floatx == "float32":
            parts.append("floatx float32")
        return f"{self.name}({', '.join(parts)})"


def find_optimizer(name: str) -> str:
    """The whole name of an optimizer: `adam` is `keras.Adam`, `tf1.AdamOptimizer` is `tf1.Adam`.

    A name without a namespace is looked for in `keras`, `tfa`, `legacy`, `tf1`, in this order.

    Raises:
        UsageError: if there is none of that name; the message suggests the nearest.
    """
    meant = name.lower().removesuffix("optimizer")
    order = ("keras", "tfa", "legacy", "tf1")
    for whole in sorted(DEFAULTS, key=lambda whole: order.index(whole.partition(".")[0])):
        if meant in (whole.lower(), whole.partition(".")[2].lower()):
            return whole
    raise UsageError(f"no optimizer {name!r}; {_suggest(name, DEFAULTS)}")


def find_schedule(name: str) -> str:
    """The whole name of a schedule: `cosine` and `cosine_decay` are `CosineDecay`.

    Raises:
        UsageError: if there is none of that name; the message suggests the nearest.
    """
    meant = name.lower().replace("_", "").replace("-", "")
    for whole in SCHEDULES:
        if meant in (whole.lower(), whole.lower().removesuffix("decay")):
            return whole
    raise UsageError(f"no schedule {name!r}; {_suggest(name, SCHEDULES)}")


def parse_arguments(
    whole: str, texts: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The values of arguments that are given as texts, by the types of their defaults.

    Args:
        whole: the optimizer's or the schedule's whole name.
        texts: the texts, `{"momentum": "0.9", "nesterov": "true"}`.
        known: `DEFAULTS` or `SCHEDULES`.

    Raises:
        UsageError: if there is no such argument, or a text is none of its type.
    """
    values = {}
    for name, text in texts.items():
        if name not in known[whole]:
            raise UsageError(f"{whole} takes no {name!r}; {_suggest(name, known[whole])}")
        values[name] = _parse(whole, name, text, known[whole][name])
    return values


def _parse(whole: str, name: str, text: str, default: Any) -> Any:
    lowered = text.strip().lower()
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[lowered]
        if isinstance(default, tuple):
            kind = type(default[0])
            return tuple(kind(part) for part in lowered.split(","))
        if default is None and lowered == "none":
            return None
        if name in ("ema_overwrite_frequency", "warmup_steps") or (
            isinstance(default, int) and not isinstance(default, bool)
        ):
            return int(lowered)
        return float(lowered)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", tuple: "numbers with commas"}
        wanted = kind.get(type(default), "a number")
        raise UsageError(f"{whole}: {name} is {text!r}; give {wanted}") from None


def _check_arguments(
    kind: str, name: str, arguments: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]
) -> None:
    if name not in known:
        raise UsageError(f"no {kind} {name!r}; {_suggest(name, known)}")
    for argument, value in arguments.items():
        if argument not in known[name]:
            raise UsageError(f"{name} takes no {argument!r}; {_suggest(argument, known[name])}")
        default = known[name][argument]
        numbers = value if isinstance(default, tuple) and isinstance(value, tuple | list) else (value,)
        for number in numbers:
            if number is None and default is None:
                continue
            if isinstance(default, bool) != isinstance(number, bool) or not isinstance(number, int | float):
                raise UsageError(f"{name}: {argument} is {value!r}; expected something like {default!r}")
            if not np.isfinite(number):
                raise UsageError(f"{name}: {argument} is {value!r}; give a finite number")


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in known], n=1, cutoff=0.4)
    whole = next((one for one in known if near and one.lower() == near[0]), None)
    return f"did you mean {whole!r}?" if whole else f"choose from {', '.join(known)}"
