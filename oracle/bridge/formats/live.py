"""Weights written straight into the variables of a live TensorFlow model: all of them, or none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from oracle.bridge.formats.live_keras import are_places, write_places
from oracle.bridge.formats.weight_file import WeightFile
from oracle.errors import BridgeError
from oracle.frameworks import import_tensorflow


def write_into(
    model: Any, weights: WeightFile | Mapping[str, np.ndarray], *, session: Any = None
) -> tuple[str, ...]:
    """Give the variables of a model new values.

    The weights' names must be those of the variables, each used once: of a model, the paths of its
    attributes as in a TF2 checkpoint of it (`encoder/cell/kernel`), or else the variables' own names
    without `:0`, or for a Keras model their places in its `.weights.h5` (`layers/lstm/cell/vars/0`); of
    a mapping, its keys; of a list of variables, their own names.

    Args:
        model: a `tf.Module`, Keras model or layer; a mapping of names to variables; or a list of variables.
        weights: a `WeightFile`, of which the variables are taken, or arrays by name.
        session: the session of variables in a TF1 graph.

    Returns:
        The names that were written, sorted.

    Raises:
        BridgeError: if a name, shape or dtype does not fit; the message has every problem. No variable is
            changed then, nor if an assignment fails.
    """
    tf = import_tensorflow()
    arrays = weights.variables if isinstance(weights, WeightFile) else weights
    if isinstance(model, tf.keras.Model) and session is None and are_places(arrays):
        return write_places(model, arrays)
    targets = _choose_names(tf, model, arrays)
    problems = []
    for name in sorted(arrays.keys() - targets.keys()):
        problems.append(f"{name!r} {list(arrays[name].shape)} has no variable{_suggest(name, targets)}")
    for name, variable in targets.items():
        if name not in arrays:
            problems.append(
                f"the variable {name!r} {list(variable.shape)} has no weight{_suggest(name, arrays)}"
            )
            continue
        shape, dtype = tuple(variable.shape.as_list()), variable.dtype.base_dtype.as_numpy_dtype
        if arrays[name].shape != shape:
            problems.append(f"{name!r} is {list(arrays[name].shape)}, the variable {list(shape)}")
        elif arrays[name].dtype != dtype:
            problems.append(f"{name!r} is {arrays[name].dtype}, the variable {np.dtype(dtype).name}")
    if problems:
        raise BridgeError(f"the weights do not fit the model: {'; '.join(problems)}")
    _assign_all(tf, {name: (targets[name], arrays[name]) for name in sorted(targets)}, session)
    return tuple(sorted(targets))


def name_variables(model: Any) -> dict[str, Any]:
    """The variables of a trackable object by the names that a TF2 checkpoint of it gives them."""
    tf = import_tensorflow()
    view = tf.train.TrackableView(model)
    paths, queue, found = {id(model): ""}, [model], {}
    while queue:
        owner = queue.pop(0)
        for name, child in view.children(owner).items():
            if id(child) in paths:
                continue
            escaped = name.replace(".", "..").replace("/", ".S")
            path = f"{paths[id(owner)]}/{escaped}".lstrip("/")
            paths[id(child)] = path
            queue.append(child)
            if isinstance(child, tf.Variable):
                found[path] = child
    return found


def _choose_names(tf: Any, model: Any, arrays: Iterable[str]) -> dict[str, Any]:
    """The variables by those names that fit the weights' best."""
    if isinstance(model, Mapping):
        return dict(model)
    if isinstance(model, list | tuple):
        return dict(_by_own_names(model))
    if not isinstance(model, tf.Module):
        raise BridgeError(
            f"{type(model).__name__} is no tf.Module or Keras model; give its variables, by name or as a list"
        )
    by_attribute = name_variables(model)
    if isinstance(model, tf.keras.layers.Layer):
        # An optimizer's and metrics' variables hang from a compiled model, and are no weights of it.
        own = {id(variable) for variable in model.weights}
        by_attribute = {
            name: variable
            for name, variable in by_attribute.items()
            if id(variable) in own or name in set(arrays)
        }
    if by_attribute.keys() == set(arrays):
        return by_attribute
    own = list(by_attribute.values())
    names = [_own_name(variable) for variable in own]
    if set(names) == set(arrays) and len(set(names)) == len(names):
        return dict(zip(names, own, strict=True))
    return by_attribute


def _by_own_names(variables: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    seen = set()
    for variable in variables:
        name = _own_name(variable)
        if name in seen:
            raise BridgeError(
                f"two variables are called {name!r}; give them in a mapping, by names of their own"
            )
        seen.add(name)
        yield name, variable


def _own_name(variable: Any) -> str:
    return variable.name.removesuffix(":0")


def _suggest(name: str, others: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(others), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _assign_all(tf: Any, pairs: Mapping[str, tuple[Any, np.ndarray]], session: Any) -> None:
    def assign(variable: Any, array: np.ndarray) -> None:
        if session is None:
            variable.assign(array)
        else:
            variable.load(array, session)

    def value(variable: Any) -> np.ndarray:
        return variable.numpy() if session is None else session.run(variable)

    before: list[tuple[Any, np.ndarray]] = []
    try:
        for name, (variable, array) in pairs.items():
            before.append((variable, np.array(value(variable))))
            assign(variable, array)
            written = np.asarray(value(variable))
            if written.tobytes() != np.ascontiguousarray(array).tobytes():
                raise BridgeError(f"the variable {name!r} does not hold what it was given")
    except BaseException:
        for variable, array in before:
            assign(variable, array)
        raise
