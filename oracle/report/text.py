"""A report for a terminal, or for a file that is read like one."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oracle.compare import Comparison, Row
from oracle.report.heat import print_heat
from oracle.report.terminal import PLAIN_WIDTH
from oracle.report.verdict import (
    describe_case,
    describe_sides,
    explain_row,
    name_port,
    state_account,
    state_tolerance,
    state_verdict,
    summarise,
)


def render_text(comparisons: Sequence[Comparison], *, verbose: bool = False, quiet: bool = False) -> str:
    """The report as plain text: a table and a verdict for each port. See `print_text`."""
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None, legacy_windows=False)
    print_text(comparisons, console, verbose=verbose, quiet=quiet)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def print_text(
    comparisons: Sequence[Comparison],
    console: Console,
    *,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Print the report: with `verbose` the port's traceback too, with `quiet` the verdicts alone."""
    for comparison in comparisons:
        if not quiet:
            _print_tables(comparison, console, verbose=verbose)
        _print_verdict(comparison, console, quiet=quiet)
    if len(comparisons) > 1:
        console.print(summarise(comparisons))


def _print_tables(comparison: Comparison, console: Console, *, verbose: bool) -> None:
    console.print(f"[bold]{escape(name_port(comparison))}[/bold]")
    console.print(escape(describe_sides(comparison)), style="dim", soft_wrap=True)
    console.print(escape(describe_case(comparison)), style="dim", soft_wrap=True)
    if comparison.rows:
        console.print(_build_table(comparison.rows))
    for row in comparison.findings:
        console.print(escape(explain_row(row)), soft_wrap=True)
    if verbose and comparison.failure is not None:
        console.print(escape(comparison.failure.traceback), soft_wrap=True)


def _print_verdict(comparison: Comparison, console: Console, *, quiet: bool) -> None:
    word, style = ("PASS", "bold green") if comparison.matches else ("FAIL", "bold red")
    line = f"{name_port(comparison)}: {state_verdict(comparison)}; {state_tolerance(comparison)}"
    console.print(Text.assemble((word, style), " ", line), soft_wrap=True)
    ours = comparison.witness is not None and comparison.witness.verdict == "oracle"
    if not quiet or ours:
        for said in state_account(comparison):
            console.print(f"     {said}", style="bold red" if ours else "", markup=False, soft_wrap=True)
    if not quiet and comparison.localisation is not None:
        for heat in comparison.localisation.maps:
            console.print()
            print_heat(heat, console)
    console.print()


def _build_table(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("max abs error", justify="right", no_wrap=True)
    table.add_column("at", no_wrap=True)
    table.add_column("relative L2", justify="right", no_wrap=True)
    table.add_column("cosine", justify="right", no_wrap=True)
    table.add_column("noise", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.name),
            _brackets(row.shape),
            _number(row.max_abs),
            "-" if row.index is None else _brackets(row.index),
            _number(row.rel_l2),
            "-" if row.cosine is None else f"{row.cosine:.9f}",
            _number(row.noise),
            Text(row.status, style="green" if row.status == "match" else "bold red"),
        )
    return table


def _brackets(numbers: Sequence[int]) -> str:
    return escape(f"[{', '.join(str(number) for number in numbers)}]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
