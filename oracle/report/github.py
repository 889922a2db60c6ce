"""A report for GitHub Actions: an annotation for each port that fails, and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from oracle.compare import Comparison
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


def render_github(comparisons: Sequence[Comparison]) -> str:
    """The annotations, then the summary. `oracle compare` parts them if GitHub gives a place for each."""
    return render_annotations(comparisons) + render_summary(comparisons)


def render_annotations(comparisons: Sequence[Comparison]) -> str:
    """A workflow command for each port that does not match; nothing if all do."""
    lines = []
    for comparison in comparisons:
        if not comparison.matches:
            details = [state_verdict(comparison), *state_account(comparison)]
            details += map(explain_row, comparison.findings)
            title = escape_property(f"gradients of {name_port(comparison)}")
            lines.append(f"::error title={title}::{escape_data(chr(10).join(details))}\n")
    return "".join(lines)


def render_summary(comparisons: Sequence[Comparison]) -> str:
    """Markdown for the job's summary: the verdicts, and a table for each port that can be unfolded."""
    lines = ["## Gradients", "", summarise(comparisons), ""]
    for comparison in comparisons:
        mark = "✅" if comparison.matches else "❌"
        lines += [
            f"{mark} **{name_port(comparison)}**: {_escape_cell(state_verdict(comparison))}; "
            f"{state_tolerance(comparison)}",
            "",
            *[f"{_escape_cell(said)}  " for said in state_account(comparison)],
            "",
            "<details><summary>every tensor</summary>",
            "",
            f"{describe_sides(comparison)}; {describe_case(comparison)}",
            "",
            "| tensor | shape | max abs error | at | relative L2 | status |",
            "| --- | --- | ---: | --- | ---: | --- |",
        ]
        for row in comparison.rows:
            cells = [
                f"`{row.name}`",
                str(list(row.shape)),
                _number(row.max_abs),
                "-" if row.index is None else str(list(row.index)),
                _number(row.rel_l2),
                row.status if row.status == "match" else f"**{row.status}**",
            ]
            lines.append(f"| {' | '.join(map(_escape_cell, cells))} |")
        lines += ["", "</details>", ""]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def escape_data(text: str) -> str:
    """A workflow command's message, as the runner reads it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """A property of a workflow command, as the runner reads it."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")
