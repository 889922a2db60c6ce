"""What a weight file holds, whatever its format: variables, and set apart from them what training added."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Naming = Literal["tf1", "keras", "layers", "places", "leaves"]
"""How the variables are named: by TF1's scopes (`encoder/rnn/basic_lstm_cell/kernel`); by attributes of
objects (`encoder/cell/kernel`); by Keras layers (`lstm/lstm_cell/kernel`); by places in a Keras 3 file
(`layers/lstm/cell/vars/0`); or in some other way, as leaves of the oracle or of a Flax model."""

NAMINGS: tuple[Naming, ...] = ("tf1", "keras", "layers", "places", "leaves")

GROUPS = ("variables", "slots", "averages", "counters")
"""The fields of a `WeightFile` that hold arrays."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class WeightFile:
    """What is in a file.

    Args:
        path: the file, folder or checkpoint's prefix.
        format: the name of its format, one of `oracle.bridge.formats.FORMATS`.
        convention: how its variables are named.
        variables: the model's variables, in the file's own order where it has one that means something,
            else sorted by name.
        slots: the optimizer's slots.
        averages: shadows of the variables that an exponential moving average keeps.
        counters: steps, powers of beta, learning rates, metrics, states of generators.
        others: what is data but no numbers, by name: strings, assets, objects of Python's.
        notes: what the file says of itself, by name: configurations, metadata, a graph and its constants.
        full_names: the names that arrays had in the program, where the file says them and they differ.
        layers: of a legacy HDF5 file of Keras, each layer's variables, both in the model's own order. Keras
            loads such a file by that order; no other file says it.
    """

    path: str
    format: str
    convention: Naming
    variables: Arrays
    slots: Arrays = field(default_factory=dict)
    averages: Arrays = field(default_factory=dict)
    counters: Arrays = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    full_names: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def everything(self) -> dict[str, np.ndarray]:
        """All arrays, of every group."""
        return {**self.variables, **self.slots, **self.averages, **self.counters}


Sorted = dict[str, dict[str, np.ndarray]]
"""The arrays of each group."""

_OPTIMIZERS = (
    r"(?:Lazy|Proximal|Centered|Async)?(?:Adam\w*|AdaMax|Adadelta|Adagrad|AdagradDA|Momentum|RMSProp|Ftrl|"
    r"FtrlProximal|LARS\w*|AddSign|PowerSign|ShampooOptimizer|GradientDescent)"
)
_TF1_SLOT = re.compile(
    rf"/(?:{_OPTIMIZERS}|rms|momentum|accumulator|linear|gradient_accumulator|"
    r"gradient_squared_accumulator|adam_[mv]|[mv]|slot_v[cr]?)(?:_\d+)?$"
)
_TF1_AVERAGE = re.compile(r"/ExponentialMovingAverage(?:_\d+)?(?:/(?:biased|local_step))?$")
_TF1_COUNTER = re.compile(r"(?:global_step|beta[12]_power|local_step)(?:_\d+)?")

_KERAS_AVERAGE = re.compile(r"(?:^|[/_])(?:average|model_variable_moving_average)[/_]")
_OPTIMIZER_MARKS = {"iter", "_iterations", "iterations", "iteration"}
_HYPERPARAMETERS = _OPTIMIZER_MARKS | {
    "_learning_rate",
    "learning_rate",
    "_current_learning_rate",
    "beta_1",
    "beta_2",
    "decay",
    "momentum",
    "rho",
    "epsilon",
    "_iterations_seen",
}
_COUNTER_NAMES = {"save_counter", "step", "global_step", "epoch"}
_COUNTER_PARTS = {"metrics", "keras_api", "seed_generator", "compile_metrics", "_seed_generators", "_metrics"}
OPTIMIZER_SLOT = "/.OPTIMIZER_SLOT/"


def sort_tensors(tensors: Arrays, naming: Naming, *, full_names: Mapping[str, str] | None = None) -> Sorted:
    """Set slots, averages and counters apart from the variables, by their names.

    Every tensor is in exactly one group; each group keeps the order of `tensors`. `full_names` are those
    that the variables had in the program: Keras' optimizers number their variables, averages among them.
    """
    place = {"tf1": _place_tf1, "places": _place_place, "leaves": _place_leaf}.get(naming, _place_object)
    optimizers = {
        name.rpartition("/")[0]
        for name in tensors
        if name.rpartition("/")[2] in _OPTIMIZER_MARKS and "/" in name
    }
    groups: Sorted = {group: {} for group in GROUPS}
    for name, tensor in tensors.items():
        group = place(name, tensor, tensors, optimizers)
        if group == "slots" and _KERAS_AVERAGE.search((full_names or {}).get(name, "")):
            group = "averages"
        groups[group][name] = tensor
    return groups


def _place_tf1(name: str, tensor: np.ndarray, names: Collection[str], optimizers: Collection[str]) -> str:
    # An optimizer that was made inside a scope puts the scope before all of its names.
    if _TF1_COUNTER.fullmatch(name.rpartition("/")[2]):
        return "counters"
    for group, pattern in (("averages", _TF1_AVERAGE), ("slots", _TF1_SLOT)):
        # They are named after the variable that they belong to.
        if (match := pattern.search(name)) and _ends_with_any(name[: match.start()], names):
            return group
    return "variables"


def _ends_with_any(name: str, names: Collection[str]) -> bool:
    """Whether a name is one of the names, perhaps behind a scope."""
    parts = name.split("/")
    return any("/".join(parts[start:]) in names for start in range(len(parts)))


def _place_object(name: str, tensor: np.ndarray, names: Collection[str], optimizers: Collection[str]) -> str:
    parts = name.split("/")
    if OPTIMIZER_SLOT in name:
        return "averages" if parts[-1] in ("average", "ExponentialMovingAverage") else "slots"
    inside = [root for root in optimizers if name.startswith(f"{root}/")]
    if inside or parts[0] in ("optimizer", "opt_state"):
        root = max(inside, key=len, default=parts[0])
        inner = name.removeprefix(f"{root}/")
        if tensor.ndim == 0 and (inner in _HYPERPARAMETERS or inner.rpartition("/")[2] in ("0", "count")):
            return "counters"
        return "slots"
    if "_averages" in parts or parts[-1] == "ExponentialMovingAverage":
        return "averages"
    if name in _COUNTER_NAMES or _COUNTER_PARTS.intersection(parts):
        return "counters"
    return "variables"


def _place_leaf(name: str, tensor: np.ndarray, names: Collection[str], optimizers: Collection[str]) -> str:
    """Of a file that says nothing of its names, which may be those of TF1 too."""
    group = _place_object(name, tensor, names, optimizers)
    if group != "variables":
        return group
    group = _place_tf1(name, tensor, names, optimizers)
    return "variables" if group == "counters" and tensor.ndim else group


def _place_place(name: str, tensor: np.ndarray, names: Collection[str], optimizers: Collection[str]) -> str:
    parts = name.split("/")
    if parts[0] == "optimizer":
        return "counters" if tensor.ndim == 0 else "slots"
    return "counters" if _COUNTER_PARTS.intersection(parts) else "variables"
