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
        Models (`implicit_state`) or single ports (`implicit_state/exchanged`); see `oracle models`. A
        model of your own: a function that gives an `oracle.LivePort`, as `my_port.py:build` or
        `package.module:build`. Without any, the TF1 original and its right conversion.
    precision
        What the ports compute in. The oracle is always in float64; float32 is held against the
        oracle's own float32 error.
    mode
        How TensorFlow runs the ports; by default as each port is meant to run. `oracle models` says
        which port has which modes.
    weights
        The prefix of a TensorFlow checkpoint, or `random`. By default, the trained weights that ship
        with each port.
    data
        A CSV file: a header, then a row a time step, its first column a label. For translators, a TSV
        file of pairs with the header `source`, `target`, `locale`. By default, what ships with each port.
    seed
        The seed of every random choice.
    batch_size
        How many windows are cut from the series, or pairs of texts drawn.
    processes
        2 runs TensorFlow and JAX at the same time, and a model of your own in a process of its own; 1 runs
        them here, one after the other.
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
    from oracle.errors import UsageError
    from oracle.live_port import check_live, is_target
    from oracle.progress import show_progress
    from oracle.runner import InProcess, LiveProcess, TwoProcesses

    own = tuple(name for name in models if is_target(name))
    named = tuple(name for name in models if not is_target(name))
    if own and (weights is not None or data is not None):
        raise UsageError(f"{own[0]} brings weights and a batch of its own; leave out --weights and --data")
    _check_output(output)
    comparisons = []
    with show_progress("comparing", quiet=quiet) as on_done:
        if named or not own:
            request = Request(named, precision, mode, weights, data, seed, batch_size)
            with InProcess() if processes == 1 else TwoProcesses(verbose=verbose) as runner:
                comparisons += check(request, runner, on_done=on_done)
        live: dict[str, Any] = {"precision": precision, "mode": mode, "seed": seed, "on_done": on_done}
        if own and processes == 1:
            comparisons += check_live(own, **live)
        elif own:
            with LiveProcess(verbose=verbose) as process:
                comparisons += check_live(own, record=process.record, **live)
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
    from oracle.report import RENDERERS, render_text
    from oracle.report.github import render_annotations, render_summary
    from oracle.report.terminal import open_terminal
    from oracle.report.text import print_text
    from oracle.storage import write_bytes

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output is not None:
        text = (
            render_text(comparisons, verbose=verbose, quiet=quiet)
            if output_format == "text"
            else RENDERERS[output_format](comparisons)
        )
        write_bytes(output, text.encode())
    elif output_format == "text":
        print_text(comparisons, open_terminal(), verbose=verbose, quiet=quiet)
    elif output_format == "github" and summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_summary(comparisons))
        sys.stdout.write(render_annotations(comparisons))
    else:
        sys.stdout.write(RENDERERS[output_format](comparisons))
    sys.stdout.flush()
