"""What the command shows: progress while it runs, a table at the end, and each shortfall."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from oracle.selftest.fault import FAMILIES
from oracle.selftest.goals import (
    claims_nothing,
    count,
    count_alarms,
    has_cause,
    has_place,
    is_detected,
    is_detected_in_float32,
    list_shortfalls,
    meets_goals,
)
from oracle.selftest.results import SelfTest

SECONDS = {"correct": 6.0, "fault": 8.0, "baselines": 20.0}
"""What a right port in both precisions, a fault, and the checks beside it take one process, about."""


@contextlib.contextmanager
def show_requests(
    requests: Sequence[dict[str, Any]], *, processes: int, quiet: bool, start: float
) -> Iterator[Callable[[dict[str, Any], list[Any]], None]]:
    """Say how long it takes, and show a bar on a terminal; elsewhere a line for each tenth.

    Args:
        requests: what is to be done.
        processes: how many at a time.
        quiet: whether to say nothing.
        start: when it began, by `time.monotonic`.
    """
    console = Console(stderr=True)
    if quiet or not requests:
        yield lambda request, results: None
        return
    faults = [request for request in requests if request["do"] == "fault"]
    seconds = SECONDS["fault"] * len(faults) + SECONDS["correct"] * (len(requests) - len(faults))
    seconds += SECONDS["baselines"] * sum(request["baselines"] for request in faults)
    minutes = max(1, round(seconds / processes / 60))
    ports = len(requests) - len(faults)
    console.print(f"{len(faults)} trials of seeded faults, {ports} right ports: about {minutes} min")
    done = 0
    if not console.is_terminal:

        def tell(request: dict[str, Any], results: list[Any]) -> None:
            nonlocal done
            done += 1
            if done * 10 // len(requests) > (done - 1) * 10 // len(requests):
                console.print(f"{done} of {len(requests)} after {(time.monotonic() - start) / 60:.1f} min")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("self-test", total=len(requests))
        yield lambda request, results: progress.advance(task)


def print_summary(run: SelfTest, terminal: Console) -> None:
    """The table: a line a family, and one for the right ports in each precision."""
    table = Table(title=f"self-test, seed {run.seed}")
    for heading in ("", "trials", "detected", "cause first", "no cause claimed", "place right", "in float32"):
        table.add_column(heading, justify="left" if not heading else "right")
    for family, words in [*FAMILIES.items(), ("", "all")]:
        chosen = [result for result in run.faults if family in ("", result.family)]
        if chosen:
            asked = (is_detected, has_cause, claims_nothing, has_place, is_detected_in_float32)
            table.add_row(words, str(len(chosen)), *(str(count(chosen, ask)) for ask in asked))
    if run.faults:
        terminal.print(table)
    for dtype in ("float64", "float32"):
        alarms = count_alarms(run.correct, dtype)
        if alarms.total:
            terminal.print(f"right ports in {dtype}: {alarms.right} false alarms of {alarms.total}")


def print_shortfalls(run: SelfTest, terminal: Console) -> None:
    """Each shortfall, and whether the goals are met."""
    shortfalls = list_shortfalls(run)
    for line in shortfalls:
        terminal.print(f"- {line}", markup=False)
    verdict = "the goals are met" if meets_goals(run) else "the goals are missed"
    terminal.print(f"{len(shortfalls)} shortfalls; {verdict}")
