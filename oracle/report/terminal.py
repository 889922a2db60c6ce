"""The terminal that reports are printed to."""

from __future__ import annotations

from rich.console import Console

PLAIN_WIDTH = 160
"""Wide enough that a table in a file is not cut."""


class _Terminal(Console):
    """A console that leaves a closed pipe to the caller, where rich would exit with 1, as for a finding."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def open_terminal() -> Console:
    """Standard output: as wide as the terminal, or wide enough where it is none."""
    console = _Terminal(highlight=False)
    if not console.is_terminal or console.width < PLAIN_WIDTH:
        console = _Terminal(highlight=False, width=max(console.width, PLAIN_WIDTH))
    return console
