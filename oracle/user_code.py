"""A person's own code, named on the command line: `my_port:build`, `pkg.mod:Class.make`, `port.py:build(3)`.

Modules are found as pytest and gunicorn find them: from the current folder, or beside a file that is named
by its path. Arguments are literals of Python; no other expression is evaluated.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from oracle.errors import UsageError


@dataclass(frozen=True)
class Target:
    """What a target names.

    Args:
        place: `package.module` or `path/to/file.py`.
        names: the attribute, part by part.
        arguments: what to call it with; None if it is not called.
        options: what to call it with by name.
    """

    place: str
    names: tuple[str, ...]
    arguments: tuple[Any, ...] | None
    options: Mapping[str, Any]


def is_target(text: str) -> bool:
    """Whether a name on the command line is a target: it has a colon, and an attribute behind it."""
    return _parse(text) is not None


def parse_target(text: str) -> Target:
    """Read a target.

    Raises:
        UsageError: if it is none.
    """
    target = _parse(text)
    if target is None:
        raise UsageError(
            f"{text!r} names no function; give package.module:function or path/to/file.py:function, perhaps "
            "dotted or with literal arguments, as in my_port:build('lstm', units=3)"
        )
    return target


def load_factory(text: str) -> Callable[..., Any]:
    """The function that a target names, with the target's arguments bound to it.

    Raises:
        UsageError: if there is no such module, file or function, or importing it raises.
    """
    target = parse_target(text)
    found = _find(target)
    if not callable(found):
        raise UsageError(f"{text}: is a {type(found).__name__}; give a function")
    return functools.partial(found, *(target.arguments or ()), **target.options)


def load_object(text: str) -> Any:
    """What a target names; with arguments, what calling it gives: `my_flax:make_loss("x", 3)`.

    Raises:
        UsageError: if there is no such module, file or attribute, or importing or calling it raises.
    """
    target = parse_target(text)
    if target.arguments is None:
        return _find(target)
    try:
        return load_factory(text)()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{text}: calling it raised {type(error).__name__}: {error}") from error


def _parse(text: str) -> Target | None:
    place, colon, expression = text.partition(":")
    try:
        node = ast.parse(expression.strip(), mode="eval").body if place and colon else None
        arguments, options = None, {}
        if isinstance(node, ast.Call):
            arguments = tuple(ast.literal_eval(argument) for argument in node.args)
            options = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            node = node.func
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return Target(place, (node.id, *names), arguments, options)


def _find(target: Target) -> Any:
    place = target.place
    try:
        found: Any = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place}: importing it raised {type(error).__name__}: {error}") from error
    for number, name in enumerate(target.names):
        if not hasattr(found, name):
            where = ":".join([place, ".".join(target.names[:number])]).rstrip(":")
            known = [known for known in dir(found) if not known.startswith("_")]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where} has no function {name!r}{hint}")
        found = getattr(found, name)
    return found


def _import_module(name: str) -> ModuleType:
    try:
        with _searching(os.getcwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"no module {name!r}; give a path to a .py file, or run where it can be imported"
            ) from error
        raise


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    name = f"user_code_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it runs.
    sys.modules[name] = module
    try:
        with _searching(str(path.parent.resolve())):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _searching(folder: str) -> Iterator[None]:
    """Let the module import what lies beside it."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
