"""What a run of the suite measured: all of it, and nothing that follows from it."""

from __future__ import annotations

from typing import Literal

import msgspec


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One contestant in one case. Its gradients agree with the oracle's, or it would have no speed.

    Args:
        case: the case's name.
        contestant: its name.
        seconds: of one step, a number a round, in the order of the rounds.
        iterations: how many steps a round was the mean of.
        first: seconds from nothing to the end of the first step, without imports and data.
        trace: the part of it that went to tracing.
        compile: the part that went to the compiler.
        peak: bytes at the peak of its process, without what it had before.
        agreed: what was compared.
    """

    case: str
    contestant: str
    seconds: tuple[float, ...]
    iterations: int = 1
    first: float | None = None
    trace: float | None = None
    compile: float | None = None
    peak: int | None = None
    agreed: str = ""


class Absence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One contestant that has no speed in one case.

    Args:
        case: the case's name.
        contestant: its name.
        kind: `absent` where it does not exist, `failed` where it raised, `disagrees` where it gave another
            result than the oracle.
        reason: why.
    """

    case: str
    contestant: str
    kind: Literal["absent", "failed", "disagrees"]
    reason: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one contestant's time goes in one case, on one CPU.

    Args:
        case: the case's name.
        contestant: its name.
        step: seconds of a step, the median of a few.
        floor: seconds of the same matrix products alone, by the same framework on the same CPU.
        parts: seconds in a step of each of `bench.profiling.KINDS`, as the profiler slows it down.
    """

    case: str
    contestant: str
    step: float
    floor: float
    parts: dict[str, float]


class CaseFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case, as far as a report needs it.

    Args:
        name: its name.
        job: what is done.
        what: the model, for people.
        batch, time: the sizes.
        axis: what a sweep varies; empty outside of sweeps.
        value: what it is here.
        flops: of the floor.
        took: seconds that the case took in all.
    """

    name: str
    job: str
    what: str
    batch: int = 0
    time: int = 0
    axis: str = ""
    value: int = 0
    flops: int | None = None
    took: float = 0.0

    @property
    def group(self) -> str:
        """The name without the sizes."""
        return self.name.rsplit("/", 1)[0]


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of the suite.

    Args:
        started: when, in UTC, as ISO 8601.
        took: seconds in all its cases.
        selection: what was asked for.
        seed: of weights, batches and the order in the rounds.
        rounds: how many were asked for.
        threads: CPUs that each process was held to.
        machine: by name.
        versions: by package.
        commit: of this project.
        cases, measurements, absences: what was measured.
        profiles: where the time goes, of some.
        budget: seconds that a contestant's rounds could take in a case; None in records without it.
        only: the contestants that were asked for; empty for all.
        compilations: how many programs a second `oracle compare` compiled; None if that was not looked at.
    """

    started: str
    took: float
    selection: str
    seed: int
    rounds: int
    threads: int
    machine: dict[str, str]
    versions: dict[str, str]
    commit: str
    cases: tuple[CaseFacts, ...]
    measurements: tuple[Measurement, ...]
    absences: tuple[Absence, ...]
    compilations: int | None = None
    profiles: tuple[Profile, ...] = ()
    budget: float | None = None
    only: tuple[str, ...] = ()

    def find(self, case: str, contestant: str) -> Measurement | None:
        """A measurement, if there is one."""
        found = (each for each in self.measurements if (each.case, each.contestant) == (case, contestant))
        return next(found, None)

    def of(self, case: str) -> list[Measurement]:
        """The measurements of a case."""
        return [each for each in self.measurements if each.case == case]
