"""Objects of the user's own: models, layers and modules, mirrored by their attributes, piece by piece."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from jax_models.keras_wrappers import copy_apart
from oracle.bridge.mirror.originals import LIBRARIES
from oracle.bridge.mirror.pieces import Child, Piece
from oracle.bridge.mirror.refusals import refuse
from oracle.frameworks import import_tensorflow

if TYPE_CHECKING:
    from oracle.bridge.mirror.context import Context

PASSED_OVER = ("optimizer", "optimizers", "metrics", "losses", "compiled_loss", "compiled_metrics")
"""Attributes that hold no part of what a model computes."""


class Hidden:
    """A field's value that Flax is not to look into: it would adopt the modules it finds."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Composite(nn.Module):
    """Modules and weights side by side, each under its name. It has no call of its own.

    Attributes:
        modules: the modules by name.
        shapes: the shapes of its own leaves by name.
    """

    modules: Hidden
    shapes: Hidden

    def setup(self) -> None:
        """Declare the modules and the leaves."""
        for name, module in self.modules.value.items():
            # A module that stands in two places has its leaves in both.
            setattr(self, name, copy_apart(module))
        for name, shape in self.shapes.value.items():
            setattr(self, name, self.param(name, nn.initializers.zeros_init(), shape, jnp.float32))


def compose(children: tuple[Child, ...], variables: Mapping[str, Any]) -> Composite:
    """The module that has the children, and the weights of the variables."""
    modules = {child.leaves: child.piece.module for child in children}
    return Composite(Hidden(modules), Hidden({name: tuple(v.shape) for name, v in variables.items()}))


def mirror_container(obj: Any, context: Context) -> Piece:
    """The pieces that an object of the user's own has as attributes, and in lists, tuples and dictionaries.

    Raises:
        MirrorError: if it holds nothing that can be mirrored, or holds something that cannot.
    """
    from oracle.bridge.mirror.context import is_variable

    children: list[Child] = []
    variables: dict[str, Any] = {}
    for attribute, value in walk_attributes(obj):
        name = name_leaf(attribute)
        if is_variable(value):
            variables[name] = value
        elif id(value) not in context.ancestors and is_part(value, context.ancestors | {id(obj)}):
            children.append(Child(context.mirror(value, attribute), name, attribute))
    if not children and not variables and not is_tracked(obj):
        refuse(
            context.path,
            f"a {type(obj).__name__} holds no layer, cell or variable",
            "give a Keras layer or model, a tf.Module, a cell, or an object with such attributes",
        )
    kind = type(obj).__name__
    refusal = (
        f"{kind} has a call of its own, which cannot be read from the object; compose its pieces "
        f"({', '.join(child.leaves for child in children) or 'it has none'}) in JAX, or say what it computes "
        f"in a function decorated with @oracle.mirrors({kind})"
    )
    if not children and type(obj).__module__.partition(".")[0] in LIBRARIES:
        refusal = (
            f"{kind} is a class that the mirror does not know; say what it computes in a function decorated "
            f"with @oracle.mirrors({kind})"
        )
    composite = compose(tuple(children), variables)
    return Piece(composite, variables, children=tuple(children), kind=kind, refusal=refusal)


def walk_attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object that may hold parts, in order; items of collections as `layers/0`."""
    held, passed_over = vars(obj) if hasattr(obj, "__dict__") else {}, _baseline(_find_base(obj))
    for name, value in held.items():
        if (
            name in passed_over
            or name in PASSED_OVER
            or name.startswith(("_self_", "_tf_", "_tf1_", "_keras"))
        ):
            continue
        yield from _walk_value(name, value)


def _walk_value(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, (str, int)):
                yield from _walk_value(f"{name}/{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk_value(f"{name}/{index}", item)
    else:
        yield name, value


def name_leaf(attribute: str) -> str:
    """The name under which the leaves of an attribute lie: an identifier that Flax does not use itself."""
    name = "".join(letter if letter.isalnum() else "_" for letter in attribute)
    return f"{name}_" if hasattr(Composite, name) else name


def is_tracked(value: Any) -> bool:
    """Whether this is a Keras layer, a model or a `tf.Module`."""
    return isinstance(value, import_tensorflow().Module)


def is_part(value: Any, ancestors: frozenset[int]) -> bool:
    """Whether an attribute's value is a part of the model, or holds one."""
    from oracle.bridge.mirror.context import is_variable
    from oracle.bridge.mirror.registry import find_mirror

    if isinstance(value, type) or is_variable(value):
        return False
    tensorflow = import_tensorflow()
    ignored = (tensorflow.keras.metrics.Metric, *_optimizers())
    if isinstance(value, ignored):
        return False
    if is_tracked(value) or find_mirror(type(value)) is not None:
        return True
    library = type(value).__module__.partition(".")[0]
    if library in (
        "builtins",
        "numpy",
        "tensorflow",
        "keras",
        "jax",
        "jaxlib",
        "functools",
        "tensorflow_addons",
    ):
        return False
    inside = ancestors | {id(value)}
    return any(
        id(item) not in inside and (is_variable(item) or is_part(item, inside))
        for _, item in walk_attributes(value)
    )


@functools.cache
def _optimizers() -> tuple[type, ...]:
    keras = import_tensorflow().keras
    legacy = getattr(keras.optimizers, "legacy", None)
    return (keras.optimizers.Optimizer, *((legacy.Optimizer,) if legacy else ()))


def _find_base(obj: Any) -> str:
    keras = import_tensorflow().keras
    if isinstance(obj, keras.Model):
        return "model"
    return "layer" if isinstance(obj, keras.layers.Layer) else "module"


@functools.cache
def _baseline(base: str) -> frozenset[str]:
    """The attributes that every Keras model, layer or module has for itself."""
    tensorflow = import_tensorflow()
    if base == "module":
        return frozenset(vars(tensorflow.Module()))
    # Named, or the automatic names of the user's next models would count these.
    keras = tensorflow.keras
    bare = keras.Model(name="bare") if base == "model" else keras.layers.Layer(name="bare")
    # A model of the user's own may call its parts so; those of Keras have symbols there, which are no parts.
    return frozenset(vars(bare)) - {"inputs", "outputs"}
