"""What a run shows: counts, goals, and each shortfall with what was said instead. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from oracle.selftest.results import CorrectResult, FaultResult, SelfTest

CAUSE_GOAL = 0.95
"""The part of the seeded faults whose cause is to be named first."""


@dataclass(frozen=True)
class Count:
    """How many of how many."""

    right: int
    total: int

    def __str__(self) -> str:
        return f"{self.right} of {self.total}" if self.total else "-"

    @property
    def part(self) -> float:
        """The part that is right; 1 of nothing."""
        return self.right / self.total if self.total else 1.0


def count(results: Iterable[FaultResult], ask: Callable[[FaultResult], bool | None]) -> Count:
    """In how many results the answer is yes, of those that have one."""
    answers = [answer for result in results if (answer := ask(result)) is not None]
    return Count(sum(answers), len(answers))


def is_detected(result: FaultResult) -> bool:
    """Whether the comparison in float64 saw it."""
    return result.detected


def has_cause(result: FaultResult) -> bool | None:
    """Whether its cause was named first; None of a fault that no cause describes."""
    if not result.expected:
        return None
    return bool(result.cause_right)


def claims_nothing(result: FaultResult) -> bool | None:
    """Of a fault that no cause describes, whether none was claimed; None of the others."""
    return None if result.expected else bool(result.cause_right)


def has_place(result: FaultResult) -> bool | None:
    """Whether it was found where it is."""
    return result.place_right


def is_detected_in_float32(result: FaultResult) -> bool | None:
    """Whether the comparison in float32 saw it, if it should be seen there."""
    return None if result.hides_in_float32 else result.detected_float32


def count_alarms(results: Sequence[CorrectResult], dtype: str) -> Count:
    """False alarms, of the right ports that could be judged in a precision."""
    judged = [result for result in results if result.dtype == dtype and not result.refused]
    return Count(sum(bool(result.alarms) for result in judged), len(judged))


def list_shortfalls(run: SelfTest) -> list[str]:
    """Each thing that is not as it should be, with what was said instead."""
    lines = []
    for result in run.faults:
        name = f"{result.fault} in {result.subject}"
        if not result.detected:
            lines.append(f"{name}: not detected; every tensor agrees within {_show(result.largest)}")
            continue
        if result.raised:
            continue
        if not result.cause_right:
            expected = " and ".join(result.expected) if result.together else " or ".join(result.expected)
            named = ", ".join(result.codes) or (result.kind or "nothing asked")
            lines.append(
                f"{name}: expected {expected or 'no cause to be claimed'}, said {named}: {result.said}"
            )
        if result.place_right is False:
            why = f"; {result.hides_place}" if result.hides_place else ""
            lines.append(f"{name}: located at {', '.join(result.located) or 'nowhere'}{why}")
        if result.detected_float32 is False and not result.hides_in_float32:
            lines.append(f"{name}: not detected in float32")
    lines += [
        f"right port {result.number} ({result.port}, {result.spec}) in {result.dtype}: false alarm on "
        f"{', '.join(result.alarms)}"
        for result in run.correct
        if result.alarms
    ]
    return lines


def meets_goals(run: SelfTest) -> bool:
    """Whether all faults are detected, 95 % of causes named first, and no right port is called wrong.

    Of a run in which nothing was done it is not.
    """
    return (
        bool(run.faults or run.correct)
        and all(result.detected for result in run.faults)
        and count(run.faults, has_cause).part >= CAUSE_GOAL
        and not any(result.alarms for result in run.correct)
    )


def _show(value: float | None) -> str:
    return "no bound" if value is None else f"{value:.1e}"
