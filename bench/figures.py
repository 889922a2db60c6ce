"""The figures of a run, as SVG: bars with the floor for a case, curves on logarithmic axes for a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis import find_exponent, find_floor, follow, median, quartiles, sweeps
from bench.contestants import CONTESTANTS, FLOORS, TENSORFLOW
from bench.results import CaseFacts, Run
from bench.summary import show_seconds, sort_measurements
from oracle.report.svg import INK, render_svg, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TENSORFLOW, _OURS, _OTHER, _FLOOR = "#c98a1b", "#3f86c9", "#2e9a5e", "#e0218a"

_MARKERS = "osD^v<>PX*hd"
_DASHES = ("-", "--", "-.", ":")


def draw_figures(run: Run) -> dict[str, str]:
    """Every figure of a run by its name, as SVG elements that take the page's colours."""
    figures = {}
    for case in run.cases:
        if len(run.of(case.name)) > 1 and not case.axis:
            figures[name_figure(case.name)] = draw_case(run, case)
    for group, cases in sweeps(run).items():
        if any(run.of(case.name) for case in cases):
            figures[name_figure(group)] = draw_sweep(run, group, cases)
    return figures


def name_figure(case: str) -> str:
    """The name of a figure: letters, figures and `-` alone, whatever a live port is called."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in case).strip("-")


def draw_case(run: Run, case: CaseFacts) -> str:
    """The contestants of a case as bars to the median, with the quartiles; the floor as a line."""
    with styled():
        return render_svg(
            _draw_case(run, case),
            name=name_figure(case.name),
            title=f"Step times of {case.name}",
            description="; ".join(
                f"{each.contestant} {show_seconds(median(each))}"
                for each in sort_measurements(run, case.name)
            ),
        )


def draw_sweep(run: Run, group: str, cases: Sequence[CaseFacts]) -> str:
    """The contestants through a sweep, both axes logarithmic; the exponents in the legend."""
    with styled():
        return render_svg(
            _draw_sweep(run, cases),
            name=name_figure(group),
            title=f"Step times of {group} over {cases[0].axis}",
            description=f"{cases[0].axis} from {cases[0].value} to {cases[-1].value}, both axes logarithmic",
        )


def stand_alone(svg: str) -> str:
    """An SVG element as a file: what takes the page's colour gets one that shows on light and on dark."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" color="#768390" ', 1) + "\n"


def _draw_case(run: Run, case: CaseFacts) -> Figure:
    from matplotlib.figure import Figure

    shown = [each for each in sort_measurements(run, case.name) if each.contestant not in FLOORS]
    figure = Figure(figsize=(6.4, 0.7 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for number, each in enumerate(shown):
        middle, (low, high) = median(each), quartiles(each)
        axes.barh(
            number,
            middle,
            0.66,
            color=_choose_colour(each.contestant),
            xerr=[[middle - low], [high - middle]],
            error_kw={"ecolor": INK, "lw": 1, "capsize": 2.5},
        )
        axes.annotate(
            show_seconds(middle),
            (high, number),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    if (floor := find_floor(run, case.name)) is not None:
        axes.axvline(median(floor), color=_FLOOR, lw=1.4, ls="--")
        axes.annotate(
            f"floor {show_seconds(median(floor))}",
            (median(floor), -0.62),
            xytext=(4, 0),
            textcoords="offset points",
            color=_FLOOR,
            va="center",
        )
    axes.set_yticks(range(len(shown)), [each.contestant for each in shown])
    axes.set_ylim(len(shown) - 0.45, -0.95)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value == 0 else show_seconds(value))
    axes.set_xlabel("a step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    return figure


def _draw_sweep(run: Run, cases: Sequence[CaseFacts]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, contestant in enumerate(CONTESTANTS):
        sizes, seconds = follow(run, cases, contestant.name)
        if not sizes:
            continue
        exponent = find_exponent(run, cases, contestant.name)
        label = contestant.name if exponent is None else f"{contestant.name}, exponent {exponent:.2f}"
        axes.plot(
            sizes,
            seconds,
            color=_choose_colour(contestant.name),
            marker=_MARKERS[number % len(_MARKERS)],
            ms=4,
            lw=1.4,
            ls=_DASHES[number % len(_DASHES)],
            label=label,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([case.value for case in cases]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: show_seconds(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(cases[0].axis)
    axes.set_ylabel("a step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _choose_colour(contestant: str) -> str:
    if contestant in TENSORFLOW or contestant in ("tf-reader", "import tensorflow_addons"):
        return _TENSORFLOW
    if contestant in FLOORS:
        return _FLOOR
    ours = contestant.startswith(("fast", "plain", "oracle")) or contestant == "bridge"
    return _OURS if ours else _OTHER
