"""The faults that are seeded, a module for each part of the models; and their list."""

from __future__ import annotations

from oracle.errors import UsageError
from oracle.selftest.fault import Fault
from oracle.selftest.faults import (
    attention,
    cells,
    gradient,
    handoff,
    lengths,
    loss,
    others,
    precision,
    small,
    stack,
)

FAULTS: tuple[Fault, ...] = (
    *handoff.FAULTS,
    *cells.FAULTS,
    *lengths.FAULTS,
    *loss.FAULTS,
    *attention.FAULTS,
    *stack.FAULTS,
    *gradient.FAULTS,
    *precision.FAULTS,
    *others.FAULTS,
    *small.FAULTS,
)
"""Every fault."""


def choose_faults(pattern: str) -> tuple[Fault, ...]:
    """The faults whose name or family holds the pattern; all of an empty one.

    Raises:
        UsageError: if there is none.
    """
    chosen = tuple(fault for fault in FAULTS if pattern in fault.name or pattern == fault.family)
    if not chosen:
        raise UsageError(f"no seeded fault has {pattern!r} in its name; give a part of one, or a family")
    return chosen


def find_fault(name: str) -> Fault:
    """The fault of that name.

    Raises:
        UsageError: if there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise UsageError(f"no seeded fault {name!r}")
