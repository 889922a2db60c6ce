"""A run on the terminal: a bar while it is measured, and the tables when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.records import Change
from bench.results import Run
from bench.summary import (
    CHANGE_HEADER,
    EXPONENT_HEADER,
    PROFILE_HEADER,
    STEP_HEADER,
    TARGET_HEADER,
    describe_case,
    list_absences,
    list_changes,
    list_exponents,
    list_profiles,
    list_steps,
    list_targets,
    warn_of_load,
)
from bench.targets import Target


@contextlib.contextmanager
def show_bar(turns: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show a bar of so many turns on standard error; the function given takes a line for each one done."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda doing: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=turns)
        yield lambda doing: progress.update(task, advance=1, description=doing)


def print_run(run: Run, targets: Sequence[Target], console: Console) -> None:
    """Print every case, the exponents of the sweeps, and the targets."""
    for case in run.cases:
        rows = list_steps(run, case.name)
        # Columns that nothing is in are left out.
        filled = [n for n in range(len(STEP_HEADER)) if n == 0 or any(row[n] != "-" for row in rows)]
        _print(
            console,
            f"{case.name}: {describe_case(case)}",
            [STEP_HEADER[n] for n in filled],
            [[row[n] for n in filled] for row in rows],
        )
        for line in list_absences(run, case.name):
            console.print(f"  {line}", markup=False, highlight=False)
        console.print()
    if profiles := list_profiles(run):
        _print(console, "where the time goes, on one CPU", PROFILE_HEADER, profiles)
        console.print()
    if exponents := list_exponents(run):
        _print(console, "exponents", EXPONENT_HEADER, exponents)
    # What this run could not have measured is not worth a row.
    measured = [target for target in targets if target.state != "not measured"]
    if measured:
        _print(console, "targets", TARGET_HEADER, list_targets(measured))
    if warning := warn_of_load(run):
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    left = sum(target.bound is not None for target in targets) - sum(t.bound is not None for t in measured)
    if left:
        console.print(f"{left} targets were not measured: their cases or contestants are not in this run.")


def print_changes(changes: Sequence[Change], console: Console) -> None:
    """Print what became of a saved run."""
    _print(console, "against the saved run", CHANGE_HEADER, list_changes(changes))


def _print(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, highlight=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(table)
