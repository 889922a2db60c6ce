"""Whole commands, from start to end: how long they take, and what they compile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.cases import BenchCase
from bench.measuring import LEAST_ROUNDS, Found, OnDone, Settings
from bench.results import Absence, Measurement
from bench.workers import FailedError

LIMIT = 600.0
"""Seconds after which a command has failed."""

_COMPILED = "Finished XLA compilation"
_FETCHED = "Persistent compilation cache hit"
"""What JAX logs with `JAX_LOG_COMPILES`; a program that is fetched from the cache is logged as both."""


def measure_commands(
    case: BenchCase, folder: Path, settings: Settings, found: Found, on_done: OnDone
) -> None:
    """Whole commands in turns, after one round that is not counted."""
    try:
        commands = Commands(folder, case)
    except FailedError as error:
        for name, _ in case.commands:
            found.absences.append(Absence(case.name, name, "failed", f"the case could not be made: {error}"))
            on_done(case.name)
            on_done(case.name)
        return
    seconds: dict[str, list[float]] = {name: [] for name, _ in case.commands}
    rounds = max(LEAST_ROUNDS, min(settings.rounds, 7))
    for number in range(rounds + 1):
        for name in list(seconds):
            try:
                taken = commands.run(name)
            except FailedError as error:
                found.absences.append(Absence(case.name, name, "failed", str(error)))
                del seconds[name]
                continue
            if number > 0:
                seconds[name].append(taken)
        if number == 0:
            for _ in case.commands:
                on_done(f"{case.name}: warm")
    if case.name == "latency/compare":
        found.compilations = commands.count_compilations("oracle compare")
    for name, _ in case.commands:
        if seconds.get(name):
            found.measurements.append(Measurement(case.name, name, tuple(seconds[name])))
        on_done(f"{case.name}: {name} measured")


class Commands:
    """The commands of a case.

    Args:
        folder: for what they need.
        case: the case.
    """

    def __init__(self, folder: Path, case: BenchCase) -> None:
        record = folder / "record.safetensors"
        places = {"python": sys.executable, "record": str(record)}
        self._commands = {
            name: [part.format(**places) for part in command] for name, command in case.commands
        }
        if any("{record}" in part for _, command in case.commands for part in command):
            port = [sys.executable, "-m", "oracle", "record", "explicit_state/full", "--output", str(record)]
            _run([*port, "--quiet"], {})

    def run(self, name: str) -> float:
        """Seconds that one run takes.

        Raises:
            FailedError: if the command fails. A finding of it is a failure: what is wrong has no speed.
        """
        start = time.perf_counter()
        _run(self._commands[name], {})
        return time.perf_counter() - start

    def count_compilations(self, name: str) -> int | None:
        """How many programs JAX compiles in one more run; None if the command does not run.

        What JAX takes from its cache on disk is not compiled.
        """
        try:
            said = _run([*self._commands[name], "--verbose"], {"JAX_LOG_COMPILES": "1"})
        except FailedError:
            return None
        return count_compiled(said)


def count_compiled(said: str) -> int:
    """The programs that were compiled, in what JAX logged with `JAX_LOG_COMPILES`."""
    return max(0, said.count(_COMPILED) - said.count(_FETCHED))


def _run(command: Sequence[str], environment: dict[str, str]) -> str:
    """Run a command, and give what it said on standard error."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"it took longer than {LIMIT:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise FailedError(f"it ended with {done.returncode}: {said[-1].strip() if said else 'nothing said'}")
    return done.stderr
