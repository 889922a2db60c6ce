"""A report as one HTML file, which loads nothing: styles, script and figures are in it.

`docs/report.md` describes it. The page is in `templates/`; what it says is in the words of the text report.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from oracle.compare import Comparison, Row
from oracle.explanation import Candidate, Explanation
from oracle.frameworks import installed_version
from oracle.localisation import HeatMap, Localisation
from oracle.record import Origin
from oracle.report.figures import describe_heat_map, draw_heat_map, draw_trajectory, is_framed
from oracle.report.junit import clean
from oracle.report.verdict import (
    describe_case,
    describe_sides,
    name_port,
    state_tolerance,
    state_verdict,
    summarise,
)
from oracle.tolerance import FLOAT32_FACTOR, FLOAT64_BOUND
from oracle.trajectory import TrajectoryComparison
from oracle.trajectory_report import explain_divergence
from oracle.trajectory_report import state_verdict as state_trajectory

WORST = 10
"""So many of the worst elements are shown by themselves."""

CAUSES = "docs/causes"
"""Where the pages of the causes are, one a code."""

_CODE = re.compile(r"`([^`]+)`")


def render_html(
    comparisons: Sequence[Comparison],
    *,
    command: str,
    trajectories: Sequence[tuple[str, TrajectoryComparison]] = (),
) -> str:
    """The report as one HTML page. The same arguments give the same text.

    Args:
        comparisons: of the ports, in the order in which they are shown.
        command: the command line that gives this report again.
        trajectories: of training, each with its title.

    Returns:
        The page, to be written as UTF-8.
    """
    template = _prepare_environment().get_template("report.html")
    style, script = _read("report.css"), _read("report.js")
    everything = [*comparisons, *(found for _, found in trajectories)]
    return template.render(
        comparisons=comparisons,
        trajectories=trajectories,
        command=command,
        matches=bool(everything) and all(found.matches for found in everything),
        summary=_summarise(comparisons, trajectories),
        accused=any(found.witness and found.witness.verdict == "oracle" for found in comparisons),
        style=Markup(style),  # noqa: S704 (our own files)
        script=Markup(script),  # noqa: S704
        digest=_digest(script),
        version=installed_version("gradient-oracle") or "?",
    )


def _summarise(
    comparisons: Sequence[Comparison], trajectories: Sequence[tuple[str, TrajectoryComparison]]
) -> str:
    said = [summarise(comparisons)] if comparisons or not trajectories else []
    if trajectories:
        matching = sum(found.matches for _, found in trajectories)
        said.append(f"{matching} of {len(trajectories)} trajectories agree")
    return "; ".join(said)


@cache
def _prepare_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("oracle.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "brackets": _brackets,
        "codes": _mark_code,
        "cosine": lambda value: "-" if value is None else f"{value:.9f}",
        "error": _error,
        "key": _key,
        "measure": lambda value: "-" if value is None else f"{value:.2g}",
        "value": lambda value: "-" if value is None else f"{value:.9g}",
    }
    environment.globals |= {
        "WORST": WORST,
        "allow": _allow,
        "choose_worst": _choose_worst,
        "count_elements": lambda row: math.prod(row.shape),
        "count_statuses": _count_statuses,
        "describe_case": describe_case,
        "describe_heat_map": describe_heat_map,
        "describe_sides": describe_sides,
        "draw_heat_map": _draw_heat_map,
        "draw_trajectory": _draw_trajectory,
        "explain_divergence": explain_divergence,
        "find_place": _find_place,
        "flatten_index": _flatten_index,
        "list_environment": _list_environment,
        "list_legend": _list_legend,
        "list_pages": _list_pages,
        "name_port": name_port,
        "shorten_lines": _shorten_lines,
        "state_tolerance": state_tolerance,
        "state_trajectory": state_trajectory,
        "state_verdict": state_verdict,
        "zip": zip,
    }
    return environment


def _read(name: str) -> str:
    return (resources.files("oracle.report") / "templates" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """By which the page's policy lets its own script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _finalize(value: Any) -> Any:
    # HTML holds no control characters, and UTF-8 no half of a surrogate pair.
    return clean(value) if type(value) is str else value


def _error(value: float | None) -> str:
    """As the text report has it: `1.23e-05`."""
    return "-" if value is None else f"{value:.2e}"


def _brackets(numbers: Sequence[int] | None) -> str:
    return "-" if numbers is None else f"[{', '.join(map(str, numbers))}]"


def _key(value: float | None) -> str:
    """What a number is sorted by, to the last digit; empty for none."""
    return "" if value is None else repr(float(value))


def _mark_code(text: str) -> Markup:
    """A sentence in which `this` is code."""
    parts = _CODE.split(clean(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def _allow(comparison: Comparison) -> str:
    """What `needed` is measured in, and how much of it is allowed."""
    if comparison.port.dtype == "float64":
        return f"a part of the tensor's largest element (allowed: {FLOAT64_BOUND:g})"
    return f"a multiple of the oracle's own float32 error (allowed: {FLOAT32_FACTOR:g})"


def _count_statuses(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return Counter(row.status for row in rows).most_common()


def _choose_worst(comparison: Comparison) -> list[Row]:
    """The findings that have an element to show, those that no tolerance would pass first."""
    shown = [row for row in comparison.findings if row.index is not None]
    return sorted(shown, key=lambda row: -math.inf if row.needed is None else -row.needed)[:WORST]


def _flatten_index(row: Row) -> float | None:
    """The place of an element in its tensor, by which a table sorts."""
    if row.index is None or len(row.index) != len(row.shape):
        return None
    return float(np.ravel_multi_index(row.index, row.shape)) if row.index else 0.0


def _list_pages(candidate: Candidate) -> list[tuple[str, str]]:
    """The codes, each with its page, once."""
    return [(code, f"{CAUSES}/{code}.md") for code in dict.fromkeys(candidate.codes)]


def _shorten_lines(explanation: Explanation) -> list[str]:
    """The sentences of an explanation, without the remedy and the pages, which are shown by themselves."""
    best = explanation.best
    if best is None:
        return list(explanation.lines)
    told = [page for _, page in _list_pages(best)] + ([best.remedy] if best.remedy else [])
    return [line for line in explanation.lines if not any(part in line for part in told)]


def _find_place(localisation: Localisation, found: HeatMap) -> Any:
    return localisation.forward if found.direction == "forward" else localisation.backward


def _draw_heat_map(found: HeatMap, *, name: str, localisation: Localisation) -> Markup:
    # matplotlib and ElementTree have escaped what is in it, here and below.
    return Markup(draw_heat_map(found, name=name, first=_find_place(localisation, found)))  # noqa: S704


def _draw_trajectory(found: TrajectoryComparison, *, name: str, title: str) -> Markup:
    return Markup(draw_trajectory(found, name=name, title=title))  # noqa: S704


def _list_legend(found: HeatMap, localisation: Localisation) -> list[str]:
    """What the marks in a heat map mean, of those that are in it."""
    said = ["The largest error as a part of the layer's largest element, by powers of ten"]
    longest = max(map(len, found.errors), default=0)
    errors = [error for line in found.errors for error in line]
    if None in errors or any(len(line) < longest for line in found.errors):
        said.append("hatched: the layer has no such step")
    if any(error is not None and not math.isfinite(error) for error in errors):
        said.append("crossed: the port has no number")
    if is_framed(found, _find_place(localisation, found)):
        said.append("framed: where it first differs")
    return said


def _list_environment(port: Origin, oracle: Origin) -> list[tuple[str, str, str]]:
    """What both sides ran in: a name, the port's and the oracle's."""
    return [
        ("model", port.model, oracle.model),
        ("run as", f"{port.mode}, {port.dtype}", f"{oracle.mode}, {oracle.dtype}"),
        ("framework", port.framework, oracle.framework),
        *_pair_up("", port.versions, oracle.versions),
        ("Python", port.python, oracle.python),
        ("device", port.device, oracle.device),
        *_pair_up("flag ", _leave_notes(port.flags), _leave_notes(oracle.flags)),
        ("digest of the case", port.case, oracle.case),
        ("seed", str(port.seed), str(oracle.seed)),
        ("weights", port.weights, oracle.weights),
        ("data", port.data, oracle.data),
    ]


def _leave_notes(flags: dict[str, str]) -> dict[str, str]:
    """Without what is told at the top."""
    return {name: value for name, value in flags.items() if name != "notes"}


def _pair_up(what: str, port: dict[str, str], oracle: dict[str, str]) -> list[tuple[str, str, str]]:
    names = list(dict.fromkeys((*port, *oracle)))
    return [(f"{what}{name}", port.get(name, "-"), oracle.get(name, "-")) for name in names]
