"""Which function mirrors which class: those of the library by public name, those of a user by class."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from oracle.errors import MissingPackageError
from oracle.frameworks import import_tensorflow, import_tfa

if TYPE_CHECKING:
    from oracle.bridge.mirror.context import Context
    from oracle.bridge.mirror.pieces import Piece

    MirrorFunction = Callable[[Any, Context], Piece]

Function = TypeVar("Function", bound=Callable[..., Any])

_KNOWN: dict[str, Any] = {}
_USERS: dict[type, Any] = {}

FUNCTIONAL = "keras.Model"

MODULES = (
    "keras_cells",
    "keras_rnn",
    "keras_layers",
    "keras_merging",
    "keras_attention",
    "keras_models",
    "losses",
    "tfa_cells",
    "tfa_attention",
    "tfa_decoder",
    "tfa_samplers",
    "tf1_cells",
)
"""The modules that register what they mirror when they are imported."""


def known(*names: str) -> Callable[[Function], Function]:
    """Register the decorated function for classes of TensorFlow or tfa, by public name: `keras.layers.GRU`,
    `compat.v1.nn.rnn_cell.GRUCell`, `tfa.seq2seq.BasicDecoder`.
    """

    def register(function: Function) -> Function:
        _KNOWN.update(dict.fromkeys(names, function))
        return function

    return register


def mirrors(cls: type) -> Callable[[Function], Function]:
    """Register the decorated function as the mirror of a class of your own.

        @oracle.mirrors(MyCell)
        def mirror_my_cell(cell, context):
            return oracle.Piece(MyFlaxCell(cell.units), {"kernel": cell.kernel, "bias": cell.bias})

    The function gets the live object and a `Context`, whose `mirror(part, "attribute")` mirrors a part of
    it, and returns a `Piece`. It also serves subclasses that override nothing. A class that is registered
    again takes the newer function; a class of the library can be registered, and then the function is used
    instead of ours.
    """
    if not isinstance(cls, type):
        raise TypeError(f"oracle.mirrors takes a class, as in @oracle.mirrors(MyCell); not {cls!r}")

    def register(function: Function) -> Function:
        _USERS[cls] = function
        return function

    return register


def find_mirror(cls: type) -> tuple[type, Any, str] | None:
    """The nearest class of `cls.__mro__` that can be mirrored, its function, and its public name."""
    library = known_classes()
    for base in cls.__mro__:
        if base in _USERS:
            return base, _USERS[base], base.__name__
        if base in library:
            name = library[base]
            return base, _KNOWN[name], name
    return None


@functools.cache
def known_classes() -> dict[type, str]:
    """The classes of the installed TensorFlow and tfa that can be mirrored, with their public names."""
    for module in MODULES:
        importlib.import_module(f"oracle.bridge.mirror.{module}")
    tensorflow = import_tensorflow()
    try:
        tfa = import_tfa()
    except MissingPackageError:
        tfa = None
    found: dict[type, str] = {}
    for name in _KNOWN:
        holder: Any = tfa if name.startswith("tfa.") else tensorflow
        for part in name.removeprefix("tfa.").split("."):
            holder = getattr(holder, part, None)
        if isinstance(holder, type):
            # Some classes have two public names; the first registered is the one to show.
            found.setdefault(holder, name)
    functional = _find_functional(tensorflow)
    if functional is not None:
        _KNOWN[FUNCTIONAL] = importlib.import_module("oracle.bridge.mirror.keras_models").mirror_functional
        found[functional] = FUNCTIONAL
    return found


def _find_functional(tensorflow: Any) -> type | None:
    """The class of what `tf.keras.Model(inputs, outputs)` makes, which has no public name."""
    package = tensorflow.keras.Model.__module__.rpartition(".")[0]
    return getattr(sys.modules.get(f"{package}.functional"), "Functional", None)
