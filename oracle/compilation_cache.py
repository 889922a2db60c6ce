"""Programs that JAX compiled, kept in the user's cache directory: a second run of a model compiles nothing.

JAX keeps them itself (https://docs.jax.dev/en/latest/persistent_compilation_cache.html); this says where, and
that small ones count, too. It is said in the environment, so that the processes of a command share them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from collections.abc import MutableMapping
from pathlib import Path

import platformdirs

PLACE = "ORACLE_CACHE_DIR"
"""The variable of the environment that says where; empty for no cache."""

LARGEST = 2**29
"""The bytes that the cache may take before what was not used for longest goes."""

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_OFF = ("false", "f", "0", "no", "n", "off")
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(LARGEST),
}


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> Path | None:
    """Have JAX keep what it compiles, in this process if it has not imported JAX yet, and in its children.

    A cache that the person has set up for JAX is left as it is, and so are JAX's own switches. Where nothing
    can be written there is no cache, nor where others could write: what is kept are programs, which we run.
    Several hosts that compute together keep none, since JAX writes from the first alone.

    Args:
        environment: the variables to read and to set.

    Returns:
        Where the programs are kept; None if they are not.
    """
    if environment.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in _OFF:
        return None
    if _DIRECTORY in environment:
        return Path(environment[_DIRECTORY]) if environment[_DIRECTORY] else None
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        return None
    place = environment.get(PLACE, platformdirs.user_cache_dir("gradient-oracle", appauthor=False))
    if not place.strip():
        return None
    folder = Path(place).expanduser().absolute() / f"jax-{_name_machine()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK) or not all(map(_is_ours_alone, (folder, folder.parent))):
            return None
        _drop_halves(folder)
    except OSError:
        return None
    environment[_DIRECTORY] = str(folder)
    for name, value in _SETTINGS.items():
        environment.setdefault(name, value)
    return folder


def _is_ours_alone(folder: Path) -> bool:
    """Whether nobody else can put a program there."""
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _drop_halves(folder: Path) -> None:
    """Take out what a process left that was killed while it wrote: JAX would stumble over it ever after."""
    for entry in folder.glob("*-cache"):
        if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
            entry.unlink(missing_ok=True)


def _name_machine() -> str:
    """A short name of the processor: a home directory may be shared, and a program is of one processor."""
    said = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for wanted in ("model name", "flags", "Features"):
        said += [line for line in lines if line.startswith(wanted)][:1]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]
