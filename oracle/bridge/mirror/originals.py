"""Whether an object still is what its class says: no overridden, replaced or patched method.

A subclass that overrides a method computes something else than the class it derives from, and so does an
object whose `call` was replaced. Both are refused by name. Methods that decide no number may be overridden.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

from oracle.bridge.mirror.refusals import MirrorError

HARMLESS = {
    "__abstractmethods__",
    "__annotations__",
    "__dict__",
    "__doc__",
    "__init__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__repr__",
    "__slots__",
    "__str__",
    "__weakref__",
    "_abc_impl",
    "_keras_api_names",
    "_keras_api_names_v1",
    "_tf_api_names",
    "compile",
    "evaluate",
    "fit",
    "from_config",
    "get_config",
    "predict",
    "predict_step",
    "save",
    "save_weights",
    "summary",
    "test_step",
    "train_step",
}
"""What a subclass may define for itself: it has no part in the numbers that a call gives."""

DECISIVE = (
    "__call__",
    "call",
    "compute_mask",
    "initialize",
    "next_inputs",
    "sample",
    "setup_memory",
    "step",
    "_calculate_attention",
    "_call_wrapped_cell",
    "_merge_function",
)
"""The methods that make the numbers of a class that defines them."""

LIBRARIES = ("keras", "tf_keras", "tensorflow", "tensorflow_addons")

ACCEPTED = (*LIBRARIES, "builtins", "abc", "typing", "typeguard", "functools")
"""Where the methods of a library's class, and what is wrapped around them, may be from."""

PARTIAL = (functools.partial, functools.partialmethod, types.MethodType)
"""A function with arguments filled in: no class of the libraries has one for a method."""

SLOTS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)


def check_original(obj: Any, known: type, path: str, *, library: bool = True) -> None:
    """Check that `obj` computes what `known` does, and if that is a library's class, what the library says.

    Raises:
        MirrorError: if a subclass overrides a method of `known`, or a method was replaced in the object or
            in a class of the library. The message names the class, the path and the method.
    """
    for cls in type(obj).__mro__:
        if cls is known:
            break
        overridden = sorted(name for name in vars(cls) if name not in HARMLESS and hasattr(known, name))
        if overridden:
            raise MirrorError(
                f"mirror: {path} is a {cls.__name__}, which overrides {', '.join(overridden)} of "
                f"{known.__name__}, so it computes something else; say what in a function decorated with "
                f"@oracle.mirrors({cls.__name__})"
            )
    for name in vars(obj) if hasattr(obj, "__dict__") else ():
        if inspect.isfunction(getattr(known, name, None)) and callable(vars(obj)[name]):
            raise MirrorError(
                f"mirror: {path}: the object's own `{name}` stands in for {known.__name__}.{name}; mirror it "
                f"before it is replaced, or derive a class and register it with @oracle.mirrors"
            )
    for cls in known.__mro__[:-1] if library else ():
        for name, value in vars(cls).items():
            _check_unpatched(cls, name, value, path)


def _check_unpatched(cls: type, name: str, value: Any, path: str) -> None:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, functools.cached_property):
        value = value.func
    described = hasattr(type(value), "__get__") and not inspect.isdatadescriptor(value)
    if not (callable(value) or described) or inspect.isclass(value) or inspect.isbuiltin(value):
        return
    module = _find_origin(value)
    if not inspect.isfunction(value):
        # Operators of the interpreter, such as object's own slots, have no module of ours or theirs.
        if isinstance(value, SLOTS) or type(value).__module__.partition(".")[0] in LIBRARIES:
            return
        module = type(value).__module__
    owner = getattr(inspect.unwrap(value), "__qualname__", "").rpartition(".")[0]
    if name in DECISIVE and owner and owner != cls.__qualname__ and module.partition(".")[0] in LIBRARIES:
        raise MirrorError(
            f"mirror: {path}: {cls.__name__}.{name} was replaced by {owner}.{name}, so it computes something "
            "else; undo the patch, or register the class with @oracle.mirrors"
        )
    if module.partition(".")[0] in ACCEPTED and not isinstance(value, PARTIAL):
        return
    raise MirrorError(
        f"mirror: {path}: {cls.__name__}.{name} was replaced by a function of {module or 'unknown origin'}, "
        f"so what it computes is not known; undo the patch, or register the class with @oracle.mirrors"
    )


def _find_origin(value: Any) -> str:
    """The module of a function, and if one of those wrapped around it is not a library's, that one's.

    `functools.wraps` copies the name and `__module__` of what it wraps, but the globals stay the wrapper's.
    """
    while True:
        module = str(
            getattr(value, "__globals__", {}).get("__name__") or getattr(value, "__module__", "") or ""
        )
        inner = getattr(value, "__wrapped__", None)
        if inner is None or module.partition(".")[0] not in ACCEPTED:
            return module
        value = inner
