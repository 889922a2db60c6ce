"""A port in every mode and precision, told to people and to programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.modes import COLUMNS, ROWS, ModeTable, Outcome
from oracle.report.terminal import PLAIN_WIDTH
from oracle.tolerance import FLOAT32_FACTOR, FLOAT64_BOUND

FORMAT = 1
"""The version of the JSON."""

STYLES = {"match": "green", "findings": "bold red", "raised": "bold red"}


def print_modes(tables: Sequence[ModeTable], console: Console, *, quiet: bool = False) -> None:
    """Print what repeating showed, a table for each port, why what did not run did not, and a verdict."""
    for found in tables:
        if not quiet:
            console.print(f"{found.model} in every mode and precision", style="bold", markup=False)
            console.print(found.case, style="dim", markup=False, soft_wrap=True)
            for line in state_repeats(found):
                console.print(line, markup=False, soft_wrap=True)
            console.print(_build_table(found))
            for line in state_reasons(found):
                console.print(line, markup=False, soft_wrap=True)
        word, style = ("PASS", "bold green") if found.matches else ("FAIL", "bold red")
        console.print(Text.assemble((word, style), " ", state_modes(found)), soft_wrap=True)
        console.print()


def state_modes(found: ModeTable) -> str:
    """One sentence: in how many modes and precisions the port matches."""
    held = [o for o in found.outcomes if o.status in ("match", "findings", "raised")]
    matching = sum(o.status == "match" for o in held)
    told = sum(o.status == "informational" for o in found.outcomes)
    also = f"; {told} in mixed precision are told and not judged" if told else ""
    return f"{found.model}: matches in {matching} of {len(held)} modes and precisions{also}"


def state_repeats(found: ModeTable) -> list[str]:
    """What running each several times showed; where all are the same, a line."""
    ran = [outcome for outcome in found.outcomes if outcome.repeats]
    varying = [outcome for outcome in ran if not outcome.is_repeatable]
    same = f"repeated first: {len(ran) - len(varying)} of {len(ran)} give the same bits in every run"
    return [same, *(f"  {o.mode}, {o.dtype}: {o.repeats}" for o in varying)]


def state_reasons(found: ModeTable) -> list[str]:
    """Why what did not run did not, and what was found: a line for each reason, with the modes it is of."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for outcome in found.outcomes:
        if outcome.reason:
            places = grouped.setdefault((outcome.status, outcome.reason), [])
            places.append(f"{outcome.mode} {outcome.dtype}")
    return [f"{status}: {', '.join(places)}: {reason}" for (status, reason), places in grouped.items()]


def render_modes_json(tables: Sequence[ModeTable]) -> str:
    """The tables as JSON."""
    whole = {
        "format": FORMAT,
        "matches": bool(tables) and all(found.matches for found in tables),
        "modes": [{"matches": found.matches, **msgspec.to_builtins(found)} for found in tables],
    }
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def render_modes_junit(tables: Sequence[ModeTable]) -> str:
    """The tables as JUnit XML: a suite for each port, a test for each mode and precision."""
    root = ElementTree.Element("testsuites", name="oracle compare")
    for found in tables:
        bad = [o for o in found.outcomes if o.status in ("findings", "raised")]
        skipped = [o for o in found.outcomes if o.status in ("cannot", "informational")]
        suite = ElementTree.SubElement(root, "testsuite", name=found.model)
        counts = {"tests": found.outcomes, "failures": bad, "errors": (), "skipped": skipped}
        for name, counted in counts.items():
            suite.set(name, str(len(counted)))
        for outcome in found.outcomes:
            name = f"{outcome.mode}, {outcome.dtype}"
            test = ElementTree.SubElement(suite, "testcase", classname=found.model, name=name)
            if outcome in bad:
                ElementTree.SubElement(test, "failure", type=outcome.status, message=_describe(outcome))
            elif outcome in skipped:
                ElementTree.SubElement(test, "skipped", message=_describe(outcome))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def render_modes_github(tables: Sequence[ModeTable]) -> str:
    """The tables in Markdown, for a job's summary."""
    lines = ["## Gradients in every mode", ""]
    for found in tables:
        mark = "✅" if found.matches else "❌"
        lines += [f"{mark} {state_modes(found)}", "", *(f"{line}  " for line in state_repeats(found)), ""]
        lines += [f"| mode | {' | '.join(COLUMNS)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
        for mode in ROWS:
            cells = [_describe(o).replace("|", "\\|") for o in found.outcomes if o.mode == mode]
            lines.append(f"| {mode} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def render_modes_text(tables: Sequence[ModeTable]) -> str:
    """The tables as plain text."""
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None, legacy_windows=False)
    print_modes(tables, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


RENDERERS: dict[str, Callable[[Sequence[ModeTable]], str]] = {
    "text": render_modes_text,
    "json": render_modes_json,
    "junit": render_modes_junit,
    "github": render_modes_github,
}
"""What each `--output-format` gives of `--mode all`."""


def _build_table(found: ModeTable) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("mode", no_wrap=True)
    for dtype in COLUMNS:
        table.add_column(dtype, overflow="fold")
    by_place = {(outcome.mode, outcome.dtype): outcome for outcome in found.outcomes}
    for mode in ROWS:
        cells = [_show(by_place[mode, dtype]) for dtype in COLUMNS]
        table.add_row(mode, *cells)
    return table


def _show(outcome: Outcome) -> Text:
    status = Text(outcome.status, style=STYLES.get(outcome.status, "dim"))
    figure = _measure(outcome)
    return Text("\n").join([status, *(Text(line) for line in (figure, outcome.worst) if line)])


def _measure(outcome: Outcome) -> str:
    """The figure of a cell, with its unit."""
    if outcome.status == "informational":
        return "" if outcome.error is None else f"relative error {outcome.error:.2g}"
    if outcome.status not in ("match", "findings"):
        return ""
    if outcome.needed is None:
        return "no tolerance would do"
    allowed = FLOAT64_BOUND if outcome.dtype == "float64" else FLOAT32_FACTOR
    return f"needs {outcome.needed:.2g} (of {allowed:g})"


def _describe(outcome: Outcome) -> str:
    """A cell in a line."""
    parts = [outcome.status, _measure(outcome), outcome.worst, outcome.reason]
    return ": ".join(part for part in parts if part)
