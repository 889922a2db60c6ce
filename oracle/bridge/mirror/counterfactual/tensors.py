"""What the taps need of TensorFlow: tensors with the masks they carry, and functions replaced for a while."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow


def mask_of(tensor: Any) -> Any:
    """The mask that Keras carries with a tensor; None if there is none."""
    return getattr(tensor, "_keras_mask", None)


def flatten_tensors(structure: Any) -> list[Any]:
    """The tensors in a structure."""
    return import_tensorflow().nest.flatten(structure)


def is_copied(tensor: Any) -> bool:
    """Whether this is a tensor with floating-point numbers, and with no logits behind it.

    Keras' losses take the logits that a softmax keeps on its output, which a copy would not have.
    """
    tensorflow = import_tensorflow()
    if not tensorflow.is_tensor(tensor) or isinstance(tensor, tensorflow.Variable):
        return False
    return bool(tensor.dtype.is_floating) and not hasattr(tensor, "_keras_logits")


def find_signature(obj: Any) -> Any:
    """The function that has the parameters of an object's call, `self` first."""
    return getattr(type(obj), "call", None) or type(obj).__call__


def takes_mask(obj: Any) -> bool:
    """Whether Keras lets a mask that travels with an input have an effect: in a layer, or in a loss."""
    losses = import_tensorflow().keras.losses.Loss
    return isinstance(obj, losses) or "mask" in inspect.signature(find_signature(obj)).parameters


def as_array(adjoint: Any) -> np.ndarray | None:
    """An adjoint as NumPy, also if it is sparse."""
    return None if adjoint is None else np.asarray(import_tensorflow().convert_to_tensor(adjoint))


def to_numpy(structure: Any) -> Any:
    """The tensors in a structure as NumPy; a state of tfa's stays what it is."""
    if isinstance(structure, Mapping):
        return {name: to_numpy(value) for name, value in structure.items()}
    if hasattr(structure, "_fields"):
        return {name: to_numpy(getattr(structure, name)) for name in structure._fields}
    if isinstance(structure, (list, tuple)):
        return [to_numpy(item) for item in structure]
    if hasattr(structure, "numpy"):
        return structure.numpy()
    return structure


@contextlib.contextmanager
def replaced(owner: Any, name: str, wrap: Callable[..., Any]) -> Iterator[None]:
    """A function of a class or module replaced by `wrap` of it within the context."""
    before = getattr(owner, name)
    setattr(owner, name, wrap(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def replaced_in(obj: Any, name: str, wrap: Callable[..., Any]) -> Iterator[None]:
    """As `_replaced`, of one object, past what Keras does when attributes are set."""
    held = vars(obj)
    before = getattr(obj, name)
    held[name] = wrap(before, obj)
    try:
        yield
    finally:
        del held[name]
