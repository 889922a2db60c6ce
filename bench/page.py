"""The page `docs/benchmarks.md`, and the report in HTML: both are made of a run's record alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import summary
from bench.contestants import CONTESTANTS
from bench.figures import draw_figures, name_figure, stand_alone
from bench.records import Change
from bench.results import CaseFacts, Run
from bench.targets import check_targets
from oracle.storage import write_bytes

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(run: Run, path: Path) -> list[Path]:
    """Write the page, and its figures into a folder of its name beside it. Gives what was written.

    Figures of an older run that this one has not are removed: the page would not show them.

    Raises:
        RecordError: if a place cannot be written.
    """
    folder = path.with_suffix("")
    figures = draw_figures(run)
    folder.mkdir(exist_ok=True)
    written = []
    for name, svg in figures.items():
        write_bytes(folder / f"{name}.svg", stand_alone(svg).encode())
        written.append(folder / f"{name}.svg")
    for old in set(folder.glob("*.svg")) - set(written):
        os.remove(old)
    write_bytes(path, render_page(run, folder.name).encode())
    return [path, *written]


def render_page(run: Run, folder: str) -> str:
    """The page in Markdown. The same run gives the same text.

    Args:
        run: the run.
        folder: where the figures are, beside the page.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Markdown)
    )
    figures = set(draw_figures(run))
    return environment.get_template("benchmarks.md").render(
        **_content(run), table=_table, folder=folder, figures=figures
    )


def render_report(run: Run, *, command: str, changes: Sequence[Change] = ()) -> str:
    """The report as one HTML page, which loads nothing. The same arguments give the same text.

    Args:
        run: the run.
        command: what was typed.
        changes: against a saved run.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    style = resources.files("oracle.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    figures = {name: Markup(svg) for name, svg in draw_figures(run).items()}  # noqa: S704 (drawn here)
    # What this run could not have measured is not worth a row.
    measured = [target for target in check_targets(run) if target.state != "not measured"]
    return environment.get_template("bench.html").render(
        **{**_content(run), "targets": summary.list_targets(measured)},
        style=Markup(style),  # noqa: S704 (a file of ours)
        figures=figures,
        command=command,
        changes=summary.list_changes(changes),
        change_header=summary.CHANGE_HEADER,
    )


def _content(run: Run) -> dict[str, object]:
    targets = check_targets(run)
    return {
        "run": run,
        "facts": summary.describe_run(run),
        "warning": summary.warn_of_load(run),
        "groups": _group(run),
        "sweeps": [group for group, cases in _group(run).items() if cases[0].axis],
        "targets": summary.list_targets(targets),
        "target_header": summary.TARGET_HEADER,
        "profiles": summary.list_profiles(run),
        "profile_header": summary.PROFILE_HEADER,
        "shortfalls": summary.explain_unmet(run, targets),
        "exponents": summary.list_exponents(run),
        "exponent_header": summary.EXPONENT_HEADER,
        "contestants": CONTESTANTS,
        "step_header": summary.STEP_HEADER,
        "list_steps": lambda case: summary.list_steps(run, case.name),
        "list_absences": lambda case: summary.list_absences(run, case.name),
        "describe_case": summary.describe_case,
        "name_figure": name_figure,
    }


def _group(run: Run) -> dict[str, list[CaseFacts]]:
    groups: dict[str, list[CaseFacts]] = {}
    for case in run.cases:
        groups.setdefault(case.group, []).append(case)
    return groups


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first column to the left and the others to the right; a bar is escaped."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
