"""The two ways in which the oracle computes the same numbers, and how they are chosen and said."""

from __future__ import annotations

from typing import Literal

from oracle.errors import UsageError

Path = Literal["fast", "plain"]
"""`plain`: the Flax modules, with the derivative left to JAX; the reference. `fast`: `jax_models.fast`."""

PATHS = ("fast", "plain")

DEFAULT_PATH: Path = "fast"
"""The oracle's own, unless a person asks for the plain one."""


def check_path(path: str) -> None:
    """Raise UsageError unless there is such a path."""
    if path not in PATHS:
        raise UsageError(f"the oracle has no path {path!r}; choose from {', '.join(PATHS)}")
