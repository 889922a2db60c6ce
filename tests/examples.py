"""How many examples hypothesis draws where each compiles programs of its own."""

from __future__ import annotations

from hypothesis import settings

BRIEF = 20
"""The number of examples by which the profile `brief` is known."""


def few(count: int) -> int:
    """So many examples; a third of them in the profile `brief`."""
    return max(1, count // 3) if settings().max_examples == BRIEF else count
