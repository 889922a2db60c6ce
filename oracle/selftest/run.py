"""A run of the self-test: which faults and which right ports, what is done already, and how it goes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oracle.errors import RecordError
from oracle.frameworks import installed_version
from oracle.selftest.fault import Fault
from oracle.selftest.faults import FAULTS
from oracle.selftest.judging import digest_fault, judge_anew
from oracle.selftest.pool import run_all
from oracle.selftest.results import CorrectResult, FaultResult, SelfTest, read_results, write_results

KEEP_EVERY = 60.0
"""After how many seconds what was found so far is written."""

PACKAGES = ("tensorflow", "tensorflow-addons", "keras", "jax", "flax", "numpy", "chex")


def start_run(seed: int) -> SelfTest:
    """A run in which nothing was done yet."""
    versions = {name: version for name in PACKAGES if (version := installed_version(name))}
    return SelfTest(seed, versions, f"{platform.machine()}, Python {platform.python_version()}")


def resume_run(path: Path, seed: int) -> SelfTest:
    """The run that a file holds, if it is of this seed; a new one if there is no file.

    A result of a fault whose source has changed since is left out, and the others are judged by what is
    expected now.

    Raises:
        RecordError: if the file holds no run, or one of another seed.
    """
    if not path.exists():
        return start_run(seed)
    found = read_results(path)
    if found.seed != seed:
        raise RecordError(f"{path} is of seed {found.seed}, not {seed}; give the same --seed or another file")
    known = {fault.name: fault for fault in FAULTS}
    kept = [
        judge_anew(result, known[result.fault])
        for result in found.faults
        if result.fault in known and digest_fault(known[result.fault]) == result.digest
    ]
    return msgspec.structs.replace(found, faults=tuple(kept))


def list_requests(
    run: SelfTest, faults: Sequence[Fault], *, correct: int, baselines: bool
) -> list[dict[str, Any]]:
    """What is left to do, the right ports last.

    Args:
        run: what was done.
        faults: which faults.
        correct: how many right ports, each in float64 and in float32.
        baselines: whether the commonly used checks are asked of each fault, in the first of its subjects.
    """
    requests: list[dict[str, Any]] = []
    done = {(result.fault, result.subject): bool(result.baselines or result.raised) for result in run.faults}
    for fault in faults:
        for place, subject in enumerate(fault.subjects):
            asks = baselines and place == 0
            if (fault.name, subject) in done and (done[fault.name, subject] or not asks):
                continue
            request = {"do": "fault", "fault": fault.name, "subject": subject, "seed": run.seed}
            requests.append({**request, "baselines": asks})
    # Those of one subject together: its oracle is compiled once.
    requests.sort(key=lambda request: request["subject"])
    judged = {result.number for result in run.correct}
    left = correct - len({result.number for result in run.correct if not result.refused})
    number = 0
    while left > 0:
        if number not in judged:
            requests.append({"do": "correct", "seed": run.seed, "number": number})
            left -= 1
        number += 1
    return requests


def run_requests(
    run: SelfTest,
    requests: Sequence[dict[str, Any]],
    *,
    processes: int,
    path: Path | None,
    on_done: Callable[[dict[str, Any], list[Any]], None],
) -> SelfTest:
    """Do what is left, and keep it in the file as it comes.

    Args:
        run: what was done before.
        requests: what is left.
        processes: how many at a time.
        path: where the run is written; None for nowhere.
        on_done: called with each request and its results.

    Raises:
        WorkerError: if a process ended before its time, or what it was asked failed.
        RecordError: if the file cannot be written.
    """
    last = time.monotonic()
    try:
        for request, values in run_all(requests, processes=processes):
            run, results = _add(run, request, values)
            on_done(request, results)
            if path is not None and time.monotonic() - last > KEEP_EVERY:
                write_results(run, path)
                last = time.monotonic()
    finally:
        if path is not None:
            write_results(run, path)
    return run


def _add(run: SelfTest, request: dict[str, Any], values: list[Any]) -> tuple[SelfTest, list[Any]]:
    if request["do"] == "correct":
        results: list[Any] = msgspec.convert(values, list[CorrectResult])
        correct = sorted([*run.correct, *results], key=lambda result: (result.number, result.dtype))
        return msgspec.structs.replace(run, correct=tuple(correct)), results
    results = msgspec.convert(values, list[FaultResult])
    again = {(result.fault, result.subject) for result in results}
    faults = [result for result in run.faults if (result.fault, result.subject) not in again]
    faults = sorted([*faults, *results], key=lambda result: (result.fault, result.subject))
    return msgspec.structs.replace(run, faults=tuple(faults)), results
