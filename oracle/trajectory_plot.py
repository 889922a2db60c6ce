"""A plot of two trajectories: both loss curves, and how far they are apart."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from oracle.errors import UsageError
from oracle.storage import write_bytes
from oracle.trajectory import TrajectoryComparison

FORMATS = (".png", ".svg", ".pdf")

LEAST = 1e-17
"""Where a difference of nothing at all is drawn."""

_COLOURS = {"loss": "#4477aa", "gradient norm": "#228833", "slot": "#ccbb44", "parameter": "#aa3377"}

_LABELS = {"slot": "slots", "parameter": "parameters, of their move"}


def check_plot(path: Path) -> None:
    """Raise UsageError unless a plot can be written there, before a trajectory is computed for it."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a plot is written as {', '.join(FORMATS)}; give a name that ends so")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written; give a file in a directory that can")


def plot_trajectory(comparison: TrajectoryComparison, path: Path, *, title: str) -> None:
    """Draw the loss of both sides over the steps, and below it every kind of difference, by powers of ten.

    The plot is written whole or not at all. No window is opened.

    Raises:
        UsageError: if the name ends in no format that is known.
        RecordError: if the place cannot be written.
    """
    check_plot(path)
    # The figure's own canvas: pyplot would choose a window system for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row.step for row in comparison.rows]
    marker = "o" if len(steps) == 1 else None
    above.plot(
        steps, [row.port_loss for row in comparison.rows], color="#bbbbbb", lw=5, label="port", marker=marker
    )
    above.plot(
        steps, [row.oracle_loss for row in comparison.rows], color="#4477aa", lw=1.2, label="oracle", ls="--"
    )
    above.set_ylabel("loss")
    above.set_title(title, fontsize=10, wrap=True)
    above.legend(frameon=False)
    for kind, colour in _COLOURS.items():
        values = [row.by_kind.get(kind) for row in comparison.rows]
        if any(value is not None for value in values):
            drawn = [np.nan if value is None or np.isinf(value) else max(value, LEAST) for value in values]
            below.plot(steps, drawn, color=colour, lw=1.2, label=_LABELS.get(kind, kind), marker=marker)
    below.axhline(comparison.bound, color="#ee6677", ls=":", lw=1.2)
    below.annotate(
        f"allowed: {comparison.bound:g}",
        (1, comparison.bound),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#ee6677",
    )
    if comparison.divergence is not None:
        for axes in (above, below):
            axes.axvline(comparison.divergence.step, color="#ee6677", lw=0.8)
        below.annotate(
            f"step {comparison.divergence.step}: {comparison.divergence.name}",
            (comparison.divergence.step, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color="#ee6677",
        )
    below.set_yscale("log")
    below.set_xlabel("step")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_ylabel("difference, relative")
    below.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.18))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lower().removeprefix("."), dpi=150)
    write_bytes(path, content.getvalue())
