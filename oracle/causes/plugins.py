"""Causes from outside: modules that register theirs when they are imported."""

from __future__ import annotations

import functools
import importlib.metadata

from oracle.errors import UsageError

GROUP = "gradient_oracle.causes"
"""The entry points' group: `my_causes = "my_package.causes"`."""


@functools.cache
def load_plugins() -> tuple[str, ...]:
    """Import every installed module that registers causes, once. Gives their names.

    Raises:
        UsageError: if one cannot be imported.
    """
    names = []
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise UsageError(
                f"{point.value}: its causes cannot be loaded: {type(error).__name__}: {error}; repair it or "
                "uninstall it"
            ) from error
        names.append(point.value)
    return tuple(names)
