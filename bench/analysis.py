"""What follows from the measurements: medians, quartiles, the floor, ratios, exponents. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.contestants import FLOORS, TENSORFLOW
from bench.results import CaseFacts, Measurement, Profile, Run


def median(measured: Measurement) -> float:
    """Seconds of a step: the median of the rounds."""
    return statistics.median(measured.seconds)


def quartiles(measured: Measurement) -> tuple[float, float]:
    """The first and the third quartile of the rounds, which a single round both is."""
    if len(measured.seconds) == 1:
        return measured.seconds[0], measured.seconds[0]
    first, _, third = statistics.quantiles(measured.seconds, n=4, method="inclusive")
    return first, third


def find_floor(run: Run, case: str) -> Measurement | None:
    """The faster of the two floors of a case; None if none was measured."""
    found = [each for each in run.of(case) if each.contestant in FLOORS]
    return min(found, key=median, default=None)


def find_fastest(run: Run, case: str, contestants: Sequence[str] = TENSORFLOW) -> Measurement | None:
    """The fastest of several contestants in a case; None if none has a speed."""
    found = [each for each in run.of(case) if each.contestant in contestants]
    return min(found, key=median, default=None)


def ratio(measured: Measurement | None, other: Measurement | None) -> float | None:
    """The median of one by that of the other."""
    return None if measured is None or other is None else median(measured) / median(other)


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The exponent of the power of size that seconds grow with: the slope through the logarithms.

    Ordinary least squares; None for fewer than two sizes.
    """
    if len(set(sizes)) < 2:
        return None
    slope, _ = statistics.linear_regression([math.log(s) for s in sizes], [math.log(s) for s in seconds])
    return slope


def share_out(profile: Profile) -> dict[str, float]:
    """The parts of a step, each as a share of the whole."""
    whole = sum(profile.parts.values())
    return {name: seconds / whole for name, seconds in profile.parts.items()}


def sweeps(run: Run) -> dict[str, list[CaseFacts]]:
    """The cases of each sweep, by group, from small to large."""
    groups: dict[str, list[CaseFacts]] = {}
    for case in run.cases:
        if case.axis:
            groups.setdefault(case.group, []).append(case)
    return {name: sorted(cases, key=lambda case: case.value) for name, cases in groups.items()}


def follow(run: Run, cases: Sequence[CaseFacts], contestant: str) -> tuple[list[int], list[float]]:
    """A contestant through a sweep: the sizes at which it has a speed, and its medians."""
    found = [(case.value, run.find(case.name, contestant)) for case in cases]
    points = [(value, median(measured)) for value, measured in found if measured is not None]
    return [value for value, _ in points], [seconds for _, seconds in points]


def find_exponent(run: Run, cases: Sequence[CaseFacts], contestant: str) -> float | None:
    """The exponent of a contestant through a sweep."""
    return fit_exponent(*follow(run, cases, contestant))
