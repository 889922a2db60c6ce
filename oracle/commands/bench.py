"""`oracle bench`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from oracle.commands.compare import check_output
from oracle.commands.options import Quiet, Verbose


def bench(
    *targets: str,
    quick: Annotated[bool, Parameter(negative="")] = False,
    full: Annotated[bool, Parameter(negative="")] = False,
    case: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    contestant: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    memory: bool | None = None,
    rounds: int | None = None,
    budget: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    read: Path | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    report: Path | None = None,
    page: Path | None = None,
    compare: Path | None = None,
    compare_fail: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    check_targets: Annotated[bool, Parameter(negative="")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Measure the step times of TensorFlow, of Flax and of the oracle side by side.

    Only what computes the oracle's gradients is given a speed. Exits with 0; with 1 if a target is not met
    and --check-targets is given, if a rule of --compare-fail is broken, or if a contestant disagrees with
    the oracle; with 2 if nothing could be measured.

    Parameters
    ----------
    targets
        Models of your own, functions that give an `oracle.LivePort`, as `my_port.py:build`. Each is measured
        against its mirrored oracle, and the suite's own cases are left out.
    quick
        The LSTM models at one size.
    full
        Every model and size, the sweeps, and the peak memory.
    case
        The cases that match a pattern, as `gradient/lstm*/32x32x256`. Can be given several times.
    contestant
        These contestants alone. Can be given several times.
    memory
        Whether to measure the peak memory, each contestant in a fresh process; by default with --full. That
        of the longest sequence always is.
    rounds
        How often each contestant has its turn; by default 9, with --quick 5. A contestant so slow that this
        would take longer than the budget has fewer, but at least 3.
    budget
        Seconds that the rounds of a contestant may take in a case; by default 20, with --quick 5.
    threads
        CPUs that each process is held to; by default all.
    seed
        Of weights, batches and the order in the rounds.
    read
        Measure nothing: take the record that --output wrote.
    output
        Write the record to this JSON file, which pytest-benchmark reads too; after every case, so that
        nothing is lost of a run that is broken off.
    resume
        Go on with the run that --output has begun, if there is one: of this machine, commit and settings.
    report
        Write a report for people to this HTML file.
    page
        Write a page to this Markdown file, and its figures into a folder of its name.
    compare
        Hold the run against the record in this file.
    compare_fail
        Fail if a contestant is slower than the record by a rule of pytest-benchmark's: `median:10%`.
    check_targets
        Fail if a target that the cases hold is not met.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print no bar and no tables.
    """
    from bench.cases import choose_cases, live_case
    from bench.machine import count_cpus
    from bench.page import render_report, write_page
    from bench.records import compare_runs, read_run, write_run
    from bench.suite import Settings, count_turns, leave_out_measured, run_suite
    from bench.targets import check_targets as list_targets
    from bench.targets import find_unmet, judge
    from bench.terminal import print_changes, print_run, show_bar
    from oracle.case import check_seed
    from oracle.errors import UsageError
    from oracle.report.terminal import open_terminal
    from oracle.storage import write_bytes

    for place in (output, report, page):
        check_output(place)
    check_seed(seed)
    if compare_fail and compare is None:
        raise UsageError("--compare-fail is a rule for --compare; give the record to hold the run against")
    if sum([quick, full, bool(case), bool(targets), read is not None]) > 1:
        raise UsageError("give one of --quick, --full, --case, --read and models of your own")
    if resume and (output is None or read is not None):
        raise UsageError(
            "--resume goes on with measuring into the record of --output; give --output, not --read"
        )
    saved = None if compare is None else read_run(compare)
    if read is not None:
        run = read_run(read)
    else:
        selection = "quick" if quick else "full" if full else "default"
        weighs = full if memory is None else memory
        if targets:
            cases = [live_case(target, memory=weighs) for target in targets]
        else:
            cases = choose_cases(selection=selection, patterns=case, memory=weighs)
        _check_numbers(rounds, budget, threads)
        _check_contestants(contestant)
        quick_ones: dict[str, Any] = {"rounds": 5, "budget": 5.0} if quick else {}
        settings = replace(
            Settings(selection=" ".join(targets or case) or selection, seed=seed, only=contestant),
            **{"threads": threads or count_cpus(), "verbose": verbose, **quick_ones},
        )
        if rounds is not None:
            settings = replace(settings, rounds=rounds)
        if budget is not None:
            settings = replace(settings, budget=budget)
        begun = read_run(output) if resume and output is not None and output.exists() else None
        if begun is not None:
            cases = leave_out_measured(cases, settings, begun)
        with show_bar(count_turns(cases, settings), quiet=quiet) as on_done:
            run = run_suite(
                cases,
                settings,
                on_done=on_done,
                on_case=lambda run: None if output is None else write_run(run, output),
                begun=begun,
            )
    changes = [] if saved is None else compare_runs(run, saved, fail=compare_fail)
    checked = list_targets(run)
    if report is not None:
        command = shlex.join(["oracle", *sys.argv[1:]])
        write_bytes(report, render_report(run, command=command, changes=changes).encode())
    if page is not None:
        write_page(run, page)
    if not quiet:
        print_run(run, checked, open_terminal())
        if changes:
            print_changes(changes, open_terminal())
    sys.stdout.flush()
    if not run.measurements:
        raise UsageError("no contestant has a speed: see why above, or run with -v")
    if check_targets:
        for target in find_unmet(checked, run):
            print(f"{target.state}: {target.what}, {target.where}", file=sys.stderr)
    disagrees = any(absence.kind == "disagrees" for absence in run.absences)
    broken = any(change.failure for change in changes)
    return int(disagrees or broken or (check_targets and not judge(checked, run)))


def _check_numbers(rounds: int | None, budget: float | None, threads: int | None) -> None:
    """Raise UsageError for numbers that nothing can be measured by."""
    from bench.machine import count_cpus
    from oracle.errors import UsageError

    if rounds is not None and rounds < 1:
        raise UsageError(f"--rounds {rounds}: nothing to measure; give at least 1")
    if budget is not None and not budget > 0:
        raise UsageError(f"--budget {budget}: nothing to measure; give a number of seconds above 0")
    if threads is not None and not 1 <= threads <= count_cpus():
        raise UsageError(f"--threads {threads}: this process may use 1 to {count_cpus()} CPUs")


def _check_contestants(names: tuple[str, ...]) -> None:
    import difflib

    from bench.contestants import CONTESTANTS
    from oracle.errors import UsageError

    known = [contestant.name for contestant in CONTESTANTS]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"no contestant {name!r}; {hint}There are {', '.join(known)}")
