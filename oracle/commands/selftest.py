"""`oracle selftest`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from oracle.commands.options import Quiet, Verbose


def selftest(
    *,
    faults: str = "",
    correct: int = 1000,
    baselines: bool = True,
    seed: int = 0,
    processes: int = 2,
    output: Path | None = None,
    resume: bool = False,
    page: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Make real ports wrong on purpose, and say what is seen of it; and run right ports.

    Exits with 0 if every fault is detected, the cause is named first of at least 95 % of those that the
    catalogue has, and no right port is called wrong; with 1 if not; with 2 if it could not be run. All of it
    takes about an hour on two cores; `--faults handoff --correct 0 --no-baselines`, a minute.

    Parameters
    ----------
    faults
        Only faults with this in their name, or of the family of this name; `none` for none.
    correct
        How many right ports of random specs, each in float64 and in float32.
    baselines
        Whether commonly used checks are asked of every fault, too.
    seed
        The seed of every random choice.
    processes
        How many processes at a time; each takes about a gigabyte.
    output
        A JSON file for all that was found. It is written every minute.
    resume
        Go on with what the file holds.
    page
        Write `docs/detection.md`, or wherever the page is to be.
    verbose
        Print tracebacks.
    quiet
        Print the verdict and the shortfalls alone.
    """
    del verbose  # `main` reads it.
    from oracle.case import check_seed
    from oracle.errors import UsageError
    from oracle.report.terminal import open_terminal
    from oracle.selftest.faults import choose_faults
    from oracle.selftest.goals import meets_goals
    from oracle.selftest.page import render_page
    from oracle.selftest.run import list_requests, resume_run, run_requests, start_run
    from oracle.selftest.summary import print_shortfalls, print_summary, show_requests
    from oracle.storage import write_bytes

    check_seed(seed)
    if correct < 0 or processes < 1:
        raise UsageError(f"--correct {correct} --processes {processes}: give 0 or more, and 1 or more")
    if resume and output is None:
        raise UsageError("--resume: from which file? Give --output")
    chosen = () if faults == "none" else choose_faults(faults)
    run = resume_run(output, seed) if resume and output is not None else start_run(seed)
    # More than once, since a right port may be drawn on a case that judges nothing.
    while requests := list_requests(run, chosen, correct=correct, baselines=baselines):
        with show_requests(requests, processes=processes, quiet=quiet, start=time.monotonic()) as on_done:
            run = run_requests(run, requests, processes=processes, path=output, on_done=on_done)
    if page is not None:
        write_bytes(page, render_page(run).encode())
    terminal = open_terminal()
    if not quiet:
        print_summary(run, terminal)
    print_shortfalls(run, terminal)
    sys.stdout.flush()
    return 0 if meets_goals(run) else 1
