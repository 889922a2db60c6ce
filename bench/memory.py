"""The peak of a process' memory, where Linux tells it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def trim() -> int | None:
    """Give back what is not used, and say how many bytes the process has; None where no one tells."""
    gc.collect()
    # Another C library has nothing to give back.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return _read("VmRSS")


def forget_peak() -> bool:
    """Let the peak begin anew from what the process has now. Says whether it could."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def read_peak() -> int | None:
    """The largest number of bytes that the process had, since the peak was forgotten."""
    return _read("VmHWM")


def _read(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None
