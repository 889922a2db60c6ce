"""The report of a trajectory, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oracle.report.json import finite
from oracle.trajectory import Divergence, StepRow, TrajectoryComparison

FORMAT = 1
"""The version of the JSON report's format."""


def print_trajectory(
    comparison: TrajectoryComparison,
    console: Console,
    *,
    title: str,
    sides: str,
    case: str,
    quiet: bool = False,
) -> None:
    """Print a table of some steps and a verdict; with `quiet` the verdict alone."""
    if not quiet:
        console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
        console.print(escape(sides), style="dim", soft_wrap=True)
        console.print(escape(case), style="dim", soft_wrap=True)
        console.print(_build_table(comparison))
        if comparison.divergence is not None:
            console.print(escape(explain_divergence(comparison.divergence)), soft_wrap=True)
    word, style = ("PASS", "bold green") if comparison.matches else ("FAIL", "bold red")
    console.print(Text.assemble((word, style), " ", f"{title}: {state_verdict(comparison)}"), soft_wrap=True)
    if comparison.explanation is not None:
        for line in comparison.explanation.lines:
            console.print(escape(line), soft_wrap=True)


def state_verdict(comparison: TrajectoryComparison) -> str:
    """One sentence: whether the trajectories agree, where they part, and the bound that would have passed."""
    needed, worst = comparison.needed, comparison.worst
    if worst is None:
        return "nothing was compared"
    tolerance = "no tolerance would have passed"
    if needed is not None:
        tolerance = (
            f"tolerance that would have passed: {needed:.2g} of the largest element ({worst.worst} at step "
            f"{worst.step}; allowed: {comparison.bound:g})"
        )
    found = comparison.divergence
    if found is not None:
        return f"diverges at step {found.step} of {len(comparison.rows)}, first {found.name}; {tolerance}"
    growth = comparison.growth
    drift = f"{comparison.rows[0].drift:.1g} to {comparison.rows[-1].drift:.1g} of the largest weight"
    grows = "" if growth is None else f"; the weights drift apart as step^{growth:.1f}, {drift}"
    steps = len(comparison.rows)
    count = "1 step agrees" if steps == 1 else f"{steps} steps agree"
    return f"{count} in all {worst.tensors} numbers and tensors; {tolerance}{grows}"


def explain_divergence(found: Divergence) -> str:
    """The first divergence in a line: where, what, and the values."""
    what = {
        "mismatch": "",
        "missing": "the port has no such tensor",
        "unexpected": "the oracle has no such tensor",
        "nonfinite": "the port's is NaN or infinite",
        "shape": "the shapes differ",
    }[found.finding]
    parts = [what] if what else []
    if found.index is not None:
        place = f"at {list(found.index)} " if found.index else ""
        parts.append(f"{place}the port has {found.port_value:.12g}, the oracle {found.oracle_value:.12g}")
    if found.needed is not None:
        parts.append(f"a difference of {found.needed:.2g}")
    return f"step {found.step}: {found.name}: {found.finding}: {'; '.join(parts)}"


def render_trajectory_json(
    comparison: TrajectoryComparison, *, model: str, optimizer: Any, case: dict[str, Any]
) -> str:
    """The report as JSON. A number that is NaN or infinite is given as null."""
    report = {
        "format": FORMAT,
        "matches": comparison.matches,
        "verdict": state_verdict(comparison),
        "model": model,
        "optimizer": msgspec.to_builtins(optimizer),
        "case": case,
        "needed": comparison.needed,
        "growth": comparison.growth,
        **msgspec.to_builtins(comparison),
    }
    return json.dumps(finite(report), indent=2, allow_nan=False) + "\n"


def _build_table(comparison: TrajectoryComparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", justify="right", no_wrap=True)
    for name in ("loss, port", "loss, oracle", "gradient norm", "loss", "norm", "slots", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worst", no_wrap=True)
    for row in _choose_rows(comparison):
        agrees = row.needed is not None and row.needed <= comparison.bound
        table.add_row(
            str(row.step),
            "-" if row.port_loss is None else f"{row.port_loss:.9g}",
            "-" if row.oracle_loss is None else f"{row.oracle_loss:.9g}",
            f"{row.oracle_norm:.6g}",
            *(_difference(row, kind) for kind in ("loss", "gradient norm", "slot", "parameter")),
            Text(row.worst, style="" if agrees else "bold red"),
        )
    return table


def _choose_rows(comparison: TrajectoryComparison) -> list[StepRow]:
    """The steps 1, 2, 5, 10, 20, ... and the last, and where the trajectories part."""
    last = len(comparison.rows)
    chosen = {factor * 10**power for power in range(7) for factor in (1, 2, 5)} | {last}
    if comparison.divergence is not None:
        chosen |= {comparison.divergence.step - 1, comparison.divergence.step}
    return [row for row in comparison.rows if row.step in chosen]


def _difference(row: StepRow, kind: str) -> str:
    value = row.by_kind.get(kind)
    return "-" if value is None else f"{value:.1e}"
