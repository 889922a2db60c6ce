"""What the mirror does not know, it refuses by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from oracle.errors import BridgeError


class MirrorError(BridgeError):
    """An object, or an option of one, that has no counterpart, or whose weights are not there yet."""


def refuse(path: str, what: str, instead: str) -> NoReturn:
    """Raise a `MirrorError`: what cannot be mirrored, where, and what to do instead."""
    raise MirrorError(f"mirror: {path}: {what}; {instead}")


def refuse_options(path: str, owner: str, options: Mapping[str, tuple[Any, Any, str]]) -> None:
    """Refuse every option that does not have the one value which can be mirrored.

    Args:
        path: the object's attribute path.
        owner: the name of its class.
        options: for each option its value, the value that can be mirrored, and what to do instead.

    Raises:
        MirrorError: for the first that differs.
    """
    for name, (value, wanted, instead) in options.items():
        if value != wanted:
            refuse(path, f"{owner} with {name}={value!r} cannot be mirrored", instead)
