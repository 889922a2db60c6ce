"""The activation functions of live objects, by identity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jax_models.keras_activations import ACTIVATIONS, Activation, get_activation
from oracle.bridge.mirror.refusals import refuse
from oracle.frameworks import import_tensorflow


def read_activation(function: Any, path: str, *, name: str = "activation") -> str:
    """The name that Keras has for a live function.

    Raises:
        MirrorError: if it is a function of the user's own, or one that `jax_models` does not have.
    """
    if function is None:
        return "linear"
    for known, label in _known():
        if function is known:
            return label
    shown = getattr(function, "__qualname__", None) or type(function).__name__
    return refuse(
        path,
        f"the {name} is {shown} of {getattr(function, '__module__', '?')}, which is not one of Keras' own",
        f"give one of {', '.join(sorted(ACTIVATIONS))}, or register the layer's class with @oracle.mirrors",
    )


def activation_of(function: Any, path: str) -> Activation:
    """The function of `jax_models` for a live function, for the cells that take no names."""
    return get_activation(read_activation(function, path))


@functools.cache
def _known() -> list[tuple[Callable[..., Any], str]]:
    tensorflow = import_tensorflow()
    keras, found = tensorflow.keras.activations, []
    for name in ACTIVATIONS:
        candidates = [getattr(keras, name, None)]
        if name in ("relu", "elu", "selu", "softplus", "softsign", "softmax", "sigmoid", "tanh", "swish"):
            candidates += [getattr(tensorflow.nn, name, None), getattr(tensorflow.math, name, None)]
        if name == "swish":
            candidates += [getattr(tensorflow.nn, "silu", None)]
        if name in ("sigmoid", "tanh"):
            candidates += [getattr(tensorflow, name)]
        if name == "exponential":
            candidates += [tensorflow.exp]
        if name == "linear":
            candidates += [tensorflow.identity]
        found += [(function, name) for function in candidates if _is_theirs(function)]
    return found


def _is_theirs(function: Any) -> bool:
    """A function that was put in the library's place is not what its name says."""
    module = getattr(function, "__module__", None) or ""
    return callable(function) and module.partition(".")[0] in ("keras", "tf_keras", "tensorflow")
