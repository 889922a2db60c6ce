"""A run of the suite: its cases measured one after the other."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.cases import BenchCase
from bench.commands import measure_commands
from bench.contestants import SIDES
from bench.machine import describe_commit, describe_machine
from bench.measuring import Found, Measuring, OnDone, Settings, list_entries
from bench.results import CaseFacts, Run
from bench.workers import FailedError, Workers

__all__ = ["Settings", "count_turns", "run_suite"]


def run_suite(cases: Sequence[BenchCase], settings: Settings, *, on_done: OnDone = lambda doing: None) -> Run:
    """Measure the cases, one after the other.

    Args:
        cases: what to measure.
        settings: how.
        on_done: called with a line for people whenever a contestant has been checked or measured.

    Returns:
        What was measured. A contestant that fails, and a case that cannot be made, are results.
    """
    began, found = time.perf_counter(), Found()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine, versions = describe_machine(), {}
    with tempfile.TemporaryDirectory(prefix="gradient-oracle-") as name:
        folder = Path(name)
        ways = {"threads": settings.threads, "limit": settings.limit, "verbose": settings.verbose}
        with Workers(folder, **ways) as workers:
            for case in cases:
                before = time.perf_counter()
                if case.job == "command":
                    measure_commands(case, folder, settings, found, on_done)
                    facts = CaseFacts(case.name, case.job, "whole commands")
                else:
                    facts = Measuring(case, folder, workers, settings, found, on_done).run()
                took = round(time.perf_counter() - before, 1)
                found.cases.append(msgspec.structs.replace(facts, took=took))
            for side in SIDES:
                with contextlib.suppress(FailedError):
                    versions |= workers.ask(side, "versions") if workers.is_running(side) else {}
    return Run(
        started,
        round(time.perf_counter() - began, 1),
        settings.selection,
        settings.seed,
        settings.rounds,
        settings.threads,
        machine,
        versions,
        describe_commit(),
        tuple(found.cases),
        tuple(found.measurements),
        tuple(found.absences),
        found.compilations,
        tuple(found.profiles),
    )


def count_turns(cases: Sequence[BenchCase], settings: Settings) -> int:
    """How often `run_suite` calls its `on_done`: twice a contestant, checked and measured."""
    total = 0
    for case in cases:
        total += 2 * (len(case.commands) or len(list_entries(case, settings)))
    return total
