"""Weights that are named by their places in a Keras file, written into a live Keras model.

Only Keras knows which of a model's objects has which place, so Keras itself says it, by saving the model,
and loads. What it does not check is checked here: that each place is used once and fits, and that the
model holds what it was given.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oracle.bridge.formats.keras_writing import write_keras_weights
from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.formats.weight_file import WeightFile
from oracle.errors import BridgeError


def are_places(names: Iterable[str]) -> bool:
    """Whether all names are places in a Keras file, `layers/lstm/cell/vars/0`; none at all are none."""
    listed = list(names)
    return bool(listed) and all(re.search(r"(?:^|/)vars/\d+$", name) for name in listed)


def write_places(model: Any, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Give a Keras model's weights new values by their places.

    Args:
        model: a Keras model that is built.
        arrays: every weight of it, by the place that its `.weights.h5` has.

    Returns:
        The places, sorted.

    Raises:
        BridgeError: if a place, shape or dtype does not fit, or Keras cannot save or load the model; the
            model holds what it held then.
    """
    with tempfile.TemporaryDirectory(prefix="gradient-oracle-") as folder:
        own = _save(model, Path(folder) / "own.weights.h5")
        problems = []
        for name, array in sorted(arrays.items()):
            if name not in own.variables:
                near = difflib.get_close_matches(name, list(own.variables), n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                problems.append(f"{name!r} {list(array.shape)} has no variable{hint}")
                continue
            there = own.variables[name]
            if array.shape != there.shape:
                problems.append(f"{name!r} is {list(array.shape)}, the variable {list(there.shape)}")
            elif array.dtype != there.dtype:
                problems.append(f"{name!r} is {array.dtype}, the variable {there.dtype}")
        for name in sorted(own.variables.keys() - arrays.keys()):
            problems.append(f"the variable {name!r} {list(own.variables[name].shape)} has no weight")
        if problems:
            raise BridgeError(
                f"the weights do not fit the model, whose names are those of its .weights.h5 here: "
                f"{'; '.join(problems)}; Keras' own model.load_weights may know older names"
            )
        # An optimizer of the model is in its file too, and keeps its state.
        write_keras_weights({**own.everything(), **arrays}, Path(folder) / "new.weights.h5")
        before = [(variable, variable.numpy()) for variable in model.variables]
        try:
            _load(model, Path(folder) / "new.weights.h5")
            held = _save(model, Path(folder) / "held.weights.h5").variables
            for name, array in arrays.items():
                if held[name].tobytes() != np.ascontiguousarray(array).tobytes():
                    raise BridgeError(f"the variable {name!r} does not hold what it was given")
        except BaseException:
            for variable, array in before:
                variable.assign(array)
            raise
    return tuple(sorted(arrays))


def _save(model: Any, path: Path) -> WeightFile:
    try:
        model.save_weights(str(path))
    except Exception as error:  # Keras raises what its layers raise.
        raise BridgeError(
            f"Keras cannot save the model, which says its weights' places ({error}); build it first, or give "
            "its variables by name"
        ) from error
    return read_weight_file(path)


def _load(model: Any, path: Path) -> None:
    try:
        model.load_weights(str(path))
    except Exception as error:  # As above.
        raise BridgeError(f"Keras cannot load the weights: {error}") from error
