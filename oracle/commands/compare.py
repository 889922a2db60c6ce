"""`oracle compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from oracle.commands.options import Mode, OutputFormat, Precision, Quiet, Verbose

SETTINGS = {
    "precision",
    "mode",
    "weights",
    "data",
    "seed",
    "batch-size",
    "processes",
    "output-format",
    "output",
    "verbose",
    "quiet",
}
"""What `[tool.oracle]` may hold: the options of `oracle compare`."""


def compare(
    *models: str,
    precision: Precision = "f64",
    mode: Mode | None = None,
    weights: str | None = None,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    processes: Literal[1, 2] = 2,
    output_format: OutputFormat = "text",
    output: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Check the gradients of ports against the oracle.

    Exits with 0 if every tensor of every port matches, with 1 if one does not, with 2 if the
    comparison could not be made.

    Parameters
    ----------
    models
        Models (`implicit_state`) or single ports (`implicit_state/exchanged`); see `oracle models`.
        Without any, the TF1 original and its right conversion.
    precision
        What the ports compute in. The oracle is always in float64; float32 is held against the
        oracle's own float32 error.
    mode
        How TensorFlow runs the ports; by default as each port is meant to run. `oracle models` says
        which port has which modes.
    weights
        The prefix of a TensorFlow checkpoint, or `random`. By default, weights that were trained on
        the sunspots.
    data
        A CSV file: a header, then a row a time step, its first column a label. By default, the
        sunspots.
    seed
        The seed of every random choice.
    batch_size
        How many windows are cut from the data.
    processes
        2 runs TensorFlow and JAX at the same time; 1 runs them here, one after the other.
    output_format
        Text for people, JSON or JUnit for programs, or what GitHub Actions shows.
    output
        Write the report to this file instead of standard output.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print the verdicts alone.
    """
    from oracle.check import Request, check
    from oracle.progress import show_progress
    from oracle.runner import InProcess, TwoProcesses

    request = Request(models, precision, mode, weights, data, seed, batch_size)
    _check_output(output)
    runner = InProcess() if processes == 1 else TwoProcesses(verbose=verbose)
    with show_progress("comparing", quiet=quiet) as on_done, runner:
        comparisons = list(check(request, runner, on_done=on_done))
    _deliver(comparisons, output_format, output, verbose=verbose, quiet=quiet)
    return 0 if comparisons and all(comparison.matches for comparison in comparisons) else 1


def _check_output(output: Path | None) -> None:
    """Refuse a place that cannot be written before minutes are spent on what should go there."""
    from oracle.errors import UsageError

    if output is None:
        return
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output}: cannot be written; give a file in a directory that can")


def _deliver(
    comparisons: Sequence[Any],
    output_format: OutputFormat,
    output: Path | None,
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    """Put the report where it was asked for."""
    from rich.console import Console

    from oracle.report import RENDERERS, render_text
    from oracle.report.github import render_annotations, render_summary
    from oracle.report.text import PLAIN_WIDTH, print_text
    from oracle.storage import write_bytes

    class Terminal(Console):
        """A console that leaves a closed pipe to `run`, where rich would exit with 1, as for a finding."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output is not None:
        text = (
            render_text(comparisons, verbose=verbose, quiet=quiet)
            if output_format == "text"
            else RENDERERS[output_format](comparisons)
        )
        write_bytes(output, text.encode())
    elif output_format == "text":
        console = Terminal(highlight=False)
        if not console.is_terminal or console.width < PLAIN_WIDTH:
            console = Terminal(highlight=False, width=max(console.width, PLAIN_WIDTH))
        print_text(comparisons, console, verbose=verbose, quiet=quiet)
    elif output_format == "github" and summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_summary(comparisons))
        sys.stdout.write(render_annotations(comparisons))
    else:
        sys.stdout.write(RENDERERS[output_format](comparisons))
    sys.stdout.flush()
