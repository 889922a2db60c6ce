"""A run of the suite: its cases measured one after the other."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.cases import BenchCase
from bench.commands import measure_commands
from bench.contestants import SIDES
from bench.machine import LOAD, describe_commit, describe_machine
from bench.measuring import Found, Measuring, OnDone, Settings, list_entries
from bench.results import CaseFacts, Run
from bench.workers import FailedError, Workers
from oracle.errors import UsageError
from oracle.frameworks import installed_version

__all__ = ["Settings", "count_turns", "leave_out_measured", "run_suite"]


def run_suite(
    cases: Sequence[BenchCase],
    settings: Settings,
    *,
    on_done: OnDone = lambda doing: None,
    on_case: Callable[[Run], None] = lambda run: None,
    begun: Run | None = None,
) -> Run:
    """Measure the cases, one after the other.

    Args:
        cases: what to measure.
        settings: how.
        on_done: called with a line for people whenever a contestant has been checked or measured.
        on_case: called after every case with all that was measured so far, `begun` included.
        begun: a run to go on with, of these settings, this machine and this commit: see `leave_out_measured`.

    Returns:
        What was measured. A contestant that fails, and a case that cannot be made, are results.
    """
    run = begun or Run(
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        0.0,
        settings.selection,
        settings.seed,
        settings.rounds,
        settings.threads,
        describe_machine(),
        {},
        describe_commit(),
        (),
        (),
        (),
        budget=settings.budget,
        only=settings.only,
    )
    with tempfile.TemporaryDirectory(prefix="gradient-oracle-") as name:
        folder = Path(name)
        ways = {"threads": settings.threads, "limit": settings.limit, "verbose": settings.verbose}
        with Workers(folder, **ways) as workers:
            for case in cases:
                found, before = Found(), time.perf_counter()
                if case.job == "command":
                    measure_commands(case, folder, settings, found, on_done)
                    facts = CaseFacts(case.name, case.job, "whole commands")
                else:
                    facts = Measuring(case, folder, workers, settings, found, on_done).run()
                versions: dict[str, str] = {}
                for side in SIDES:
                    with contextlib.suppress(FailedError):
                        versions |= workers.ask(side, "versions") if workers.is_running(side) else {}
                took = round(time.perf_counter() - before, 1)
                run = _add_case(run, msgspec.structs.replace(facts, took=took), found, versions)
                on_case(run)
    return run


def leave_out_measured(cases: Sequence[BenchCase], settings: Settings, begun: Run) -> list[BenchCase]:
    """The cases that a run that was begun has not measured yet.

    Raises:
        UsageError: if it was begun by other settings, on another machine or another commit, so that the two
            would be no one run.
    """
    machine = describe_machine()
    now = {
        "selection": settings.selection,
        "seed": settings.seed,
        "rounds": settings.rounds,
        "threads": settings.threads,
        "budget": settings.budget,
        "only": settings.only,
        "commit": describe_commit(),
        **{name: value for name, value in machine.items() if name != LOAD},
    }
    then = {**msgspec.structs.asdict(begun), **begun.machine}
    other = [
        f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value
    ]
    other += [
        f"{name} was {version}, is {installed}"
        for name, version in begun.versions.items()
        if (installed := installed_version(name)) not in (None, version)
    ]
    if begun.commit.endswith("+"):
        other.append("its source was changed and not committed")
    if other:
        raise UsageError(f"the run to go on with is another one ({'; '.join(other)}); begin anew")
    measured = {case.name for case in begun.cases}
    return [case for case in cases if case.name not in measured]


def _add_case(run: Run, facts: CaseFacts, found: Found, versions: dict[str, str]) -> Run:
    return msgspec.structs.replace(
        run,
        took=round(run.took + facts.took, 1),
        versions=run.versions | versions,
        cases=(*run.cases, facts),
        measurements=(*run.measurements, *found.measurements),
        absences=(*run.absences, *found.absences),
        compilations=run.compilations if found.compilations is None else found.compilations,
        profiles=(*run.profiles, *found.profiles),
    )


def count_turns(cases: Sequence[BenchCase], settings: Settings) -> int:
    """How often `run_suite` calls its `on_done`: twice a contestant, checked and measured."""
    total = 0
    for case in cases:
        total += 2 * (len(case.commands) or len(list_entries(case, settings)))
    return total
