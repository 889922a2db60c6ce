"""Lines of the person's own code: where in it an operation was made."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import FrameType, TracebackType

LIBRARIES = ("site-packages", "dist-packages", "lib/python")
"""Folders whose code is not the person's."""

_OURS = str(Path(__file__).parents[1]) + os.sep


def find_place() -> str:
    """The innermost line of the person's code that is running, as `file.py:12`, or an empty string."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_own(frame.f_code.co_filename):
            return describe_line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


def find_raise(traceback: TracebackType | None) -> str:
    """The innermost line of the person's code that a traceback passes, or an empty string."""
    found = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if is_own(file):
            found = describe_line(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


@functools.cache
def is_own(file: str) -> bool:
    """Whether a file is neither a library's, nor ours, nor made by a library at run time."""
    if not file or file.startswith(("<", _OURS)) or "__autograph_generated_file" in file:
        return False
    return not any(folder in file.replace(os.sep, "/") for folder in LIBRARIES)


def describe_line(file: str, line: int) -> str:
    """A line, its file relative to the current folder where it lies in it."""
    try:
        shown = Path(file).relative_to(Path.cwd())
    except ValueError:
        shown = Path(file)
    return f"{shown}:{line}"
