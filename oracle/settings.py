"""Settings from `[tool.oracle]` of the nearest pyproject.toml. Flags and `ORACLE_*` go before them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from oracle.errors import UsageError

PATHS = {"weights", "data", "output"}
"""Settings that are paths, taken from the folder that pyproject.toml is in. `random` weights are no path."""


def find_pyproject(start: Path) -> Path | None:
    """The nearest pyproject.toml at or above `start`."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return folder / "pyproject.toml"
    return None


def read_settings(path: Path, *, known: Collection[str]) -> dict[str, Any]:
    """The table `[tool.oracle]`, empty if there is none.

    Raises:
        UsageError: if the file is not TOML, or the table has a key that is not known.
    """
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        for key in ("tool", "oracle"):
            table = table.get(key, {}) if isinstance(table, dict) else None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{path}: [tool.oracle] is not a table of settings")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise UsageError(f"{path}: [tool.oracle] has no setting {key!r}; {hint}")
    for key in PATHS & table.keys():
        if isinstance(table[key], str) and table[key] != "random":
            table[key] = str(path.parent / table[key])
    return table
