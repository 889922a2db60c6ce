"""`oracle compare`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
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
    "witness",
    "localise",
    "explain",
    "plain",
    "mesh",
    "processes",
    "output-format",
    "output",
    "report",
    "verbose",
    "quiet",
}
"""What `[tool.oracle]` may hold: the options of `oracle compare`."""


def compare(
    *models: str,
    precision: Precision = "f64",
    mode: Mode | Literal["all"] | None = None,
    weights: str | None = None,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    witness: Literal["always", "on-finding", "never"] = "on-finding",
    localise: bool = True,
    explain: bool = True,
    plain: bool = False,
    mesh: str | None = None,
    tolerance: float | None = None,
    processes: Literal[1, 2] = 2,
    output_format: OutputFormat = "text",
    output: Path | None = None,
    report: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Check the gradients of ports against the oracle.

    Exits with 0 if every tensor of every port matches, with 1 if one does not, with 2 if the
    comparison could not be made, with 3 if the witness finds the oracle itself inconsistent.

    Parameters
    ----------
    models
        Models (`implicit_state`) or single ports (`implicit_state/exchanged`); see `oracle models`. A
        model of your own: a function that gives an `oracle.LivePort`, as `my_port.py:build` or
        `package.module:build`. Or two records, `a.safetensors b.safetensors`. Without any, the TF1
        original and its right conversion.
    precision
        What the ports compute in. The oracle is always in float64; float32 is held against the
        oracle's own float32 error.
    mode
        How TensorFlow runs the ports; by default as each port is meant to run. `oracle models` says
        which port has which modes. `all` gives one table: every mode, unrolled loops too, in float64,
        float32 and mixed precision, and first whether each gives the same bits from run to run.
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
    witness
        When to find out who is wrong, by differences of each side's own loss in float64: the port's model,
        its gradient, or the oracle.
    localise
        Find where a port that does not match leaves the oracle: layer, time step, row and unit.
    explain
        Find why a port that does not match is not the oracle: the cause, and what to do about it.
    plain
        Have the oracle compute as its formulas read, with the derivative left to JAX, instead of by its
        fast path. The numbers are the same; big models take longer. A model of your own is computed so
        anyway.
    mesh
        Have the oracle spread the batch over this many devices: `data=8`. See docs/accelerators.md.
    tolerance
        Of two records: what they may differ by, as a part of a tensor's largest element.
    processes
        2 runs TensorFlow and JAX at the same time, and a model of your own in a process of its own; 1 runs
        them here, one after the other.
    output_format
        Text for people, JSON or JUnit for programs, or what GitHub Actions shows.
    output
        Write the report to this file instead of standard output.
    report
        Write a report for people to this HTML file, besides.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print the verdicts alone.
    """
    from oracle.check import Request, check
    from oracle.errors import UsageError
    from oracle.hosts import is_coordinated
    from oracle.live_port import check_live
    from oracle.mesh import parse_mesh
    from oracle.progress import show_progress
    from oracle.runner import LiveProcess
    from oracle.user_code import is_target

    files = [Path(name) for name in models if name.endswith(".safetensors")]
    devices = parse_mesh(mesh) if mesh else None
    if devices is not None and (files or any(is_target(name) for name in models)):
        raise UsageError(
            "--mesh is of this project's ports and of `oracle verify`; leave it out, or give --mesh '' "
            "where the environment or pyproject.toml sets it"
        )
    if tolerance is not None and not files:
        raise UsageError("--tolerance is for two records; a port's is measured")
    if files:
        if len(files) != 2 or len(models) != 2:
            raise UsageError(
                "give two records to compare, and no model beside them; `oracle verify` takes one alone"
            )
        from oracle.commands.record import compare_files

        if report is not None:
            raise UsageError("--report is of ports; of two records there are text, JSON, JUnit and GitHub")
        place = {"output_format": output_format, "output": output, "verbose": verbose, "quiet": quiet}
        return compare_files(*files, tolerance=tolerance, **place)

    own = tuple(name for name in models if is_target(name))
    named = tuple(name for name in models if not is_target(name))
    if own and (weights is not None or data is not None):
        raise UsageError(f"{own[0]} brings weights and a batch of its own; leave out --weights and --data")
    if devices is not None and is_coordinated():
        raise UsageError(
            "several hosts verify a record: `oracle record` it once, and on each `oracle verify --mesh`"
        )
    check_output(output)
    check_output(report)
    if mode == "all":
        if report is not None:
            raise UsageError("--report is of one mode; of --mode all there are text, JSON, JUnit and GitHub")
        request = Request(named, weights=weights, data=data, seed=seed, batch_size=batch_size)
        ways = {"processes": processes, "plain": plain, "mesh": devices, "verbose": verbose, "quiet": quiet}
        tables = _check_every_mode(request, own, run_named=bool(named or not own), **ways)
        _deliver_modes(tables, output_format, output, quiet=quiet)
        return 0 if tables and all(table.matches for table in tables) else 1
    comparisons = []
    # What nobody will see need not be looked for.
    shown = not quiet or output_format != "text" or report is not None
    with show_progress("comparing", quiet=quiet) as on_done:
        if named or not own:
            chosen = Request(named, precision, mode, weights, data, seed, batch_size, witness)
            request = replace(chosen, localise=localise and shown, explain=explain and shown)
            with _choose_runner(processes, plain=plain, mesh=devices, verbose=verbose) as runner:
                comparisons += check(request, runner, on_done=on_done)
        live: dict[str, Any] = {"precision": precision, "mode": mode, "seed": seed, "on_done": on_done}
        live |= {"witness": witness, "localise": localise and shown, "explain": explain and shown}
        if own and processes == 1:
            comparisons += check_live(own, **live)
        elif own:
            with LiveProcess(verbose=verbose) as process:
                comparisons += check_live(own, record=process.record, **live)
    deliver(comparisons, output_format, output, report=report, verbose=verbose, quiet=quiet)
    return _choose_code(comparisons)


def _check_every_mode(
    request: Any,
    own: Sequence[str],
    *,
    run_named: bool,
    processes: int,
    plain: bool,
    mesh: Any,
    verbose: bool,
    quiet: bool,
) -> list[Any]:
    """Every port in every mode and precision."""
    from oracle.modes import check_live_modes, check_modes
    from oracle.progress import show_progress
    from oracle.runner import LiveProcess

    tables: list[Any] = []
    with show_progress("comparing", quiet=quiet) as on_done:
        if run_named:
            with _choose_runner(processes, plain=plain, mesh=mesh, verbose=verbose) as runner:
                tables += check_modes(request, runner, on_done=on_done)
        if own and processes == 1:
            tables += check_live_modes(own, seed=request.seed, on_done=on_done)
        elif own:
            with LiveProcess(verbose=verbose) as process:
                tables += check_live_modes(own, seed=request.seed, record=process.record, on_done=on_done)
    return tables


def _choose_runner(processes: int, *, plain: bool, mesh: Any, verbose: bool) -> Any:
    """What runs the two sides, in one process or two, the oracle by the path that was asked for."""
    from oracle.runner import InProcess, TwoProcesses

    path = "plain" if plain else "fast"
    if processes == 1:
        return InProcess(path=path, mesh=mesh)
    return TwoProcesses(path=path, mesh=mesh, verbose=verbose)


def _deliver_modes(
    tables: Sequence[Any], output_format: OutputFormat, output: Path | None, *, quiet: bool
) -> None:
    """Put the tables of `--mode all` where they were asked for."""
    from oracle.report import modes
    from oracle.report.terminal import open_terminal
    from oracle.storage import write_bytes

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output_format == "text" and output is None:
        modes.print_modes(tables, open_terminal(), quiet=quiet)
        return
    text = modes.RENDERERS[output_format](tables)
    if output is not None:
        write_bytes(output, text.encode())
    elif output_format == "github" and summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    sys.stdout.flush()


def _choose_code(comparisons: Sequence[Any]) -> int:
    """The exit code: 3 for an oracle that is inconsistent, which no port's fault may hide."""
    if any(found.witness is not None and found.witness.verdict == "oracle" for found in comparisons):
        return 3
    return 0 if comparisons and all(found.matches for found in comparisons) else 1


def state_command(known: Collection[str] = SETTINGS) -> str:
    """The command line as it was given, and before it the settings that came from the environment."""
    names = [f"ORACLE_{name.upper().replace('-', '_')}" for name in sorted(known)]
    given = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    return " ".join([*given, shlex.join(["oracle", *sys.argv[1:]])])


def check_output(output: Path | None) -> None:
    """Refuse a place that cannot be written before minutes are spent on what should go there."""
    from oracle.errors import UsageError

    if output is None:
        return
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output}: cannot be written; give a file in a directory that can")


def deliver(
    comparisons: Sequence[Any],
    output_format: OutputFormat,
    output: Path | None,
    *,
    report: Path | None = None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Put the report where it was asked for, and the one in HTML where that was."""
    from oracle.report import RENDERERS, render_text
    from oracle.report.github import render_annotations, render_summary
    from oracle.report.terminal import open_terminal
    from oracle.report.text import print_text
    from oracle.storage import write_bytes

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if report is not None:
        from oracle.report.html import render_html

        write_bytes(report, render_html(comparisons, command=state_command()).encode())
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
