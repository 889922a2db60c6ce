"""The figures of the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isfinite, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from oracle.localisation import HeatMap, Place
from oracle.report.svg import INK, render_svg, styled
from oracle.trajectory import TrajectoryComparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = 16
"""A heat map's colours run from 10 to the power of minus this up to 1, in every map alike."""

LEAST = 1e-17
"""Where a difference of nothing at all is drawn in a trajectory, as in `oracle.trajectory_plot`."""

LABEL = 34
"""A longer name is cut in its middle; the table beside the figure has it whole."""

_MARK = "#e0218a"
_NOTHING = "#c62828"

_KINDS = {
    "loss": ("loss", "#3f86c9", "-"),
    "gradient norm": ("gradient norm", "#2e9a5e", "--"),
    "slot": ("slots", "#c98a1b", "-."),
    "parameter": ("parameters, of their move", "#b05fd0", ":"),
}


def draw_heat_map(found: HeatMap, *, name: str, first: Place | None = None) -> str:
    """A heat map as an SVG element: a row a layer, a column a time step, colours by powers of ten.

    A layer without such a step is hatched there, a cell without a number is crossed, and the cell of
    `first` is framed.

    Args:
        found: the errors.
        name: begins the ids in the SVG, so that a page can hold several.
        first: where this pass first differs.
    """
    with styled():
        return render_svg(
            _draw_heat_map(found, first),
            name=name,
            title=f"Heat map of the {found.direction} pass",
            description=describe_heat_map(found),
        )


def describe_heat_map(found: HeatMap) -> str:
    """What a heat map shows, in a sentence or two, for those who do not see it."""
    errors = [(error, found.layers[line], step) for line, step, error in _cells(found) if error is not None]
    steps = max(map(len, found.errors), default=0)
    size = f"{len(found.layers)} layers by {steps} time steps"
    if not errors:
        return f"{size}; no layer has a time step."
    without = sum(not isfinite(error) for error, _, _ in errors)
    numbers = [each for each in errors if isfinite(each[0])]
    said = [size]
    if numbers:
        error, layer, step = max(numbers, key=lambda each: each[0])
        said.append(f"the largest relative error is {error:.2g}, in {layer} at step {step}")
    if without:
        said.append(f"the port has no number in {without} {'cell' if without == 1 else 'cells'}")
    return "; ".join(said) + "."


def is_framed(found: HeatMap, first: Place | None) -> bool:
    """Whether the place is one of the heat map's cells."""
    if first is None or first.step is None or first.layer not in found.layers:
        return False
    return first.step < len(found.errors[found.layers.index(first.layer)])


def draw_trajectory(comparison: TrajectoryComparison, *, name: str, title: str) -> str:
    """Both loss curves, and below them every kind of difference, as an SVG element.

    Args:
        comparison: the two trajectories.
        name: begins the ids in the SVG.
        title: what was trained, for those who do not see it.
    """
    with styled():
        description = f"The losses of both sides over {len(comparison.rows)} steps, and their differences."
        return render_svg(_draw_trajectory(comparison), name=name, title=title, description=description)


def _draw_heat_map(found: HeatMap, first: Place | None) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    rows, columns = len(found.layers), max(max(map(len, found.errors), default=0), 1)
    labels = [_shorten(layer) for layer in found.layers]
    width = min(max(columns * 0.3, 1.5), 8.5)
    margin = 0.075 * max(map(len, labels), default=0)
    figure = Figure(figsize=(margin + width + 1.4, max(0.28 * rows, 1.2) + 0.6), layout="constrained")
    axes, scale = figure.subplots(1, 2, width_ratios=(width, 0.16))
    exponents = np.full((max(rows, 1), columns), np.nan)
    for line, step, error in _cells(found):
        if error is not None and isfinite(error):
            exponents[line, step] = log10(error) if error > 0 else -DECADES
    shown: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "cmap": "viridis"}
    shown |= {"vmin": -DECADES, "vmax": 0}
    axes.imshow(exponents, **shown)
    for line, errors in enumerate(found.errors):
        for start, end in _runs([error is None for error in _padded(errors, columns)]):
            axes.add_patch(
                Rectangle((start - 0.5, line - 0.5), end - start, 1, fill=False, hatch="////", lw=0, ec=INK)
            )
        for start, end in _runs([error is not None and not isfinite(error) for error in errors]):
            axes.add_patch(Rectangle((start - 0.5, line - 0.5), end - start, 1, fc=_NOTHING, lw=0))
            axes.plot((start + end - 1) / 2, line, marker="x", color="white", ms=5, mew=1.4)
    if first is not None and first.step is not None and is_framed(found, first):
        place = (first.step - 0.5, found.layers.index(first.layer) - 0.5)
        axes.add_patch(Rectangle(place, 1, 1, fill=False, ec=_MARK, lw=2.4, clip_on=False, zorder=5))
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(max(rows, 1) - 0.5, -0.5)
    axes.set_yticks(range(rows), labels)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("time step")
    scale.imshow(
        np.linspace(-DECADES, 0, 64)[:, None],
        origin="lower",
        extent=(0, 1, -DECADES, 0),
        **shown,
    )
    scale.set_xticks([])
    scale.yaxis.tick_right()
    scale.set_yticks([-16, -12, -8, -4, 0], ["1e-16", "1e-12", "1e-8", "1e-4", "1"])
    return figure


def _draw_trajectory(comparison: TrajectoryComparison) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row.step for row in comparison.rows]
    marker = "o" if len(steps) == 1 else None
    losses = ([row.port_loss for row in comparison.rows], [row.oracle_loss for row in comparison.rows])
    above.plot(steps, _floats(losses[0]), color=INK, alpha=0.3, lw=5, label="port", marker=marker)
    above.plot(steps, _floats(losses[1]), color="#3f86c9", lw=1.3, ls="--", label="oracle", marker=marker)
    above.set_ylabel("loss")
    above.legend(frameon=False)
    for kind, (label, colour, dashes) in _KINDS.items():
        values = _floats([row.by_kind.get(kind) for row in comparison.rows])
        if not np.isnan(values).all():
            drawn = np.where(np.isfinite(values), np.maximum(values, LEAST), np.nan)
            below.plot(steps, drawn, color=colour, lw=1.4, ls=dashes, label=label, marker=marker)
    below.axhline(comparison.bound, color=_MARK, lw=1.2, ls=(0, (1, 2)), label="allowed")
    if comparison.divergence is not None:
        for axes in (above, below):
            axes.axvline(comparison.divergence.step, color=_MARK, lw=1)
    below.set_yscale("log")
    below.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    below.set_xlabel("step")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_ylabel("difference, relative")
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


def _cells(found: HeatMap) -> Iterator[tuple[int, int, float | None]]:
    for line, errors in enumerate(found.errors):
        for step, error in enumerate(errors):
            yield line, step, error


def _padded(errors: Sequence[float | None], columns: int) -> list[float | None]:
    return [*errors, *[None] * (columns - len(errors))]


def _runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """The start and the end of every run of True."""
    for flag, run in groupby(enumerate(flags), key=lambda each: each[1]):
        places = [place for place, _ in run]
        if flag:
            yield places[0], places[-1] + 1


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _shorten(name: str) -> str:
    if len(name) <= LABEL:
        return name
    kept = (LABEL - 1) // 2
    return f"{name[:kept]}\N{HORIZONTAL ELLIPSIS}{name[-kept:]}"
