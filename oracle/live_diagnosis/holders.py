"""What a port's objects are called: paths of attributes to variables and to tensors that an object keeps."""

from __future__ import annotations

import contextlib
import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oracle.live_diagnosis.places import is_own

LIMIT = 20_000
"""How many objects are looked at."""

LEAVES = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)


@dataclass(frozen=True)
class Held:
    """An object, how the port gets to it, and what it is an attribute of.

    Args:
        path: as `decoder.attention_mechanism.values`.
        value: the object.
        owner: the nearest object above it that is no container or function.
    """

    path: str
    value: Any
    owner: Any


def walk(roots: Mapping[str, Any]) -> Iterator[Held]:
    """Every object that is reached from `roots`, each once, by its shortest path."""
    pending = deque(Held(name, value, None) for name, value in roots.items())
    seen: set[int] = set()
    alive = []
    while pending and len(seen) < LIMIT:
        held = pending.popleft()
        if isinstance(held.value, LEAVES) or id(held.value) in seen:
            continue
        seen.add(id(held.value))
        alive.append(held.value)
        yield held
        pending.extend(_enter(held))


def _enter(held: Held) -> Iterator[Held]:
    value, path = held.value, held.path
    if _is_tensor(value):
        return
    if isinstance(value, Mapping):
        for key, item in list(value.items()):
            if isinstance(key, str | int):
                yield Held(f"{path}[{key!r}]", item, held.owner)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(list(value)):
            yield Held(f"{path}[{number}]", item, held.owner)
    elif isinstance(value, types.MethodType):
        yield Held(path, value.__self__, held.owner)
        yield Held(path, value.__func__, held.owner)
    elif isinstance(value, functools.partial):
        yield Held(path, value.func, held.owner)
        yield from _enter(Held(path, [*value.args, *value.keywords.values()], held.owner))
    elif isinstance(value, types.FunctionType):
        yield from _enter_function(value, held)
    else:
        # What tf.function and other decorators wrap.
        wrapped = getattr(type(value), "python_function", None) is not None
        if wrapped:
            yield Held(path, value.python_function, held.owner)
        own = getattr(value, "__dict__", None)
        if not isinstance(own, dict) or wrapped:
            return
        # Keras keeps a model's layers under a private name; public ones give the better paths.
        layers = None
        with contextlib.suppress(Exception):  # A property of anyone's, which may raise anything.
            layers = value.layers if "layers" not in own else None
        if isinstance(layers, list | tuple):
            yield from _enter(Held(f"{path}.layers", list(layers), value))
        for name in sorted(own, key=lambda name: str(name).startswith("_")):
            if not str(name).startswith("__"):
                yield Held(f"{path}.{name}", own[name], value)


def _enter_function(function: types.FunctionType, held: Held) -> Iterator[Held]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        # The cells of the port's own functions are variables of the code; of others, parts of the object.
        path = name if held.owner is None else f"{held.path}.{name}"
        yield Held(path, content, held.owner)
    if is_own(function.__code__.co_filename):
        for name in function.__code__.co_names:
            if name in function.__globals__:
                found = function.__globals__[name]
                if not isinstance(found, types.FunctionType) or is_own(found.__code__.co_filename):
                    yield Held(name, found, None)
    if held.owner is None:
        yield from (Held(held.path, wrapped, None) for wrapped in [getattr(function, "__wrapped__", None)])


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def is_mechanism(owner: Any) -> bool:
    """Whether an object keeps a memory that is set up by a call of its own, as tfa's attention mechanisms."""
    return callable(getattr(owner, "setup_memory", None))


def is_sampler(owner: Any) -> bool:
    """Whether an object chooses a decoder's next inputs, as tfa's samplers."""
    return all(callable(getattr(owner, name, None)) for name in ("initialize", "sample", "next_inputs"))
