"""Every mode and precision that a port can run in, each held against the one oracle.

Whether a mode gives the same bits from run to run is found out first: a figure of a mode that does not is
worth no more than what its runs differ by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np

from oracle.case import Case, check_seed, choose_dtypes, jitter_case
from oracle.check import CaseMaker, Request, choose_ports
from oracle.compare import Comparison, compare_closely
from oracle.live_port import MODES as LIVE_MODES
from oracle.live_port import LiveRecords, record_live
from oracle.record import Record
from oracle.run_tf import BITWISE, POLICIES, UNROLLED, describe_repeats
from oracle.runner import Runner, run_more
from oracle.tolerance import FLOAT32_RUNS, root_mean_square
from oracle.zoo import MODES, Choice

ROWS = (*MODES, UNROLLED)
COLUMNS = ("float64", "float32", *POLICIES)

REPEATS = 3
"""How often each is run."""

Status = Literal["match", "findings", "raised", "cannot", "informational"]
"""What was found of a port in one mode and precision.

- `match`, `findings`: it was held to the tolerance of its precision.
- `raised`: it raised, in a precision that it should run in.
- `cannot`: it does not run so, and why.
- `informational`: mixed precision, for which there is no tolerance: its errors are given, and judged by
  nobody.
"""


class Outcome(msgspec.Struct, frozen=True):
    """What was found of a port in one mode and precision.

    Args:
        mode: one of `ROWS`.
        dtype: one of `COLUMNS`.
        status: what was found.
        repeats: what running it several times showed; empty if it did not run.
        worst: the tensor that needs the largest tolerance, or is none at all.
        needed: the tolerance that would have passed, as of a comparison; None if none would.
        error: the largest relative L2 error of any tensor against the oracle in float64.
        reason: why it cannot, what it raised, or what was found.
    """

    mode: str
    dtype: str
    status: Status
    repeats: str = ""
    worst: str = ""
    needed: float | None = None
    error: float | None = None
    reason: str = ""

    @property
    def is_repeatable(self) -> bool:
        """Whether all runs gave the same bits."""
        return self.repeats.endswith(BITWISE)


class ModeTable(msgspec.Struct, frozen=True):
    """A port in every mode and precision.

    Args:
        model: the port.
        case: weights, data and seed, for people.
        outcomes: one for each of `ROWS` and `COLUMNS`, row by row.
    """

    model: str
    case: str
    outcomes: tuple[Outcome, ...]

    @property
    def matches(self) -> bool:
        """Whether something was held to a tolerance, and nothing that was, or raised, is a finding."""
        statuses = [outcome.status for outcome in self.outcomes]
        return "match" in statuses and not {"findings", "raised"} & set(statuses)


def check_modes(
    request: Request, runner: Runner, *, on_done: Callable[[str], None] = lambda _: None
) -> Iterator[ModeTable]:
    """Run every port of a request in every mode and precision. The request's own are not looked at.

    Raises:
        OracleError: as `oracle.check.check`.
    """
    cases = CaseMaker(request)
    for choice, _ in choose_ports(replace(request, mode=None)):
        case = cases.make(choice.variant)
        started = {
            (mode, dtype): _start(runner, case, choice, mode, dtype) for mode in ROWS for dtype in COLUMNS
        }
        truth, yardstick, ask_more = _run_oracle(runner, case, choice)
        outcomes = []
        for (mode, dtype), future in started.items():
            outcomes.append(hold_outcome(mode, dtype, future, truth, yardstick, ask_more))
            on_done(f"{choice.name}, {mode}, {dtype}")
        where = f"weights: {case.weights_from}; data: {case.data_from}; seed {case.seed}"
        yield ModeTable(choice.name, where, tuple(outcomes))


def _start(runner: Runner, case: Case, choice: Choice, mode: str, dtype: str) -> Future[Record] | str:
    """A run, or why there is none."""
    if mode != UNROLLED and mode not in choice.variant.modes:
        return f"the port runs in {', '.join(choice.variant.modes)} and unrolled"
    return runner.run("tf", case, model=choice.name, mode=mode, dtype=dtype, repeats=REPEATS)


def _run_oracle(
    runner: Runner, case: Case, choice: Choice
) -> tuple[Record, list[Record], Callable[[str], list[Record]]]:
    """The truth, the yardstick of float32, and what asks for further runs, once for all modes."""

    def run(case: Case, dtype: str) -> Future[Record]:
        return runner.run("jax", case, model=choice.name, mode=None, dtype=dtype)

    truth = run(case, "float64")
    yardstick = [run(jitter_case(case, number), "float32") for number in range(FLOAT32_RUNS)]
    ask_more = functools.cache(lambda dtype: run_more(runner, case, model=choice.name, dtype=dtype))
    return truth.result(), [future.result() for future in yardstick], ask_more


def hold_outcome(
    mode: str,
    dtype: str,
    future: Future[Record] | str,
    truth: Record,
    yardstick: Sequence[Record],
    ask_more: Callable[[str], Sequence[Record]],
) -> Outcome:
    """Hold one run, or the reason why there is none, against the oracle.

    Args:
        mode: one of `ROWS`.
        dtype: one of `COLUMNS`.
        future: the port's record, or why there is none.
        truth: the oracle's record in float64.
        yardstick: its records in float32, for a port in float32.
        ask_more: gives its further records in a precision, where they are needed (`oracle.runner.run_more`).
    """
    if isinstance(future, str):
        return Outcome(mode, dtype, "cannot", reason=future)
    record = future.result()
    if dtype in POLICIES:
        return _tell_mixed(mode, dtype, record, truth)
    comparison = compare_closely(
        record, truth, lambda: ask_more(dtype), yardstick=yardstick if dtype == "float32" else ()
    )
    return _tell(mode, dtype, comparison, record.origin.flags.get("repeats", ""))


def _tell(mode: str, dtype: str, comparison: Comparison, repeats: str) -> Outcome:
    if comparison.failure is not None:
        failure = comparison.failure
        return Outcome(mode, dtype, "raised", reason=f"{failure.type}: {failure.message}")
    worst = max(comparison.rows, key=lambda row: float("inf") if row.needed is None else row.needed)
    errors = [row.rel_l2 for row in comparison.rows if row.rel_l2 is not None]
    findings = comparison.findings
    reason = f"{len(findings)} of {len(comparison.rows)} tensors" if findings else ""
    return Outcome(
        mode,
        dtype,
        "findings" if findings else "match",
        repeats,
        worst.name,
        comparison.needed,
        max(errors, default=None),
        reason,
    )


def _tell_mixed(mode: str, dtype: str, record: Record, truth: Record) -> Outcome:
    """The largest relative error of any tensor. A gradient that is not there is a finding all the same."""
    if record.failure is not None:
        return Outcome(
            mode, dtype, "cannot", reason=f"it raises {record.failure.type}: {record.failure.message}"
        )
    repeats = record.origin.flags.get("repeats", "")
    errors: dict[str, float] = {}
    for name, wanted in truth.tensors.items():
        tensor = record.tensors.get(name)
        if wanted is None or tensor is None or tensor.shape != wanted.shape:
            state = "missing" if name not in record.tensors else "none" if tensor is None else "misshapen"
            return Outcome(mode, dtype, "findings", repeats, name, reason=f"{name} is {state}")
        size = root_mean_square(wanted)
        error = tensor.astype(np.float64) - wanted
        if not np.isfinite(error).all():
            return Outcome(mode, dtype, "informational", repeats, name, reason=f"{name} is not finite")
        if size:
            errors[name] = root_mean_square(error) / size
    worst = max(errors, key=lambda name: errors[name])
    return Outcome(mode, dtype, "informational", repeats, worst, error=errors[worst])


def check_live_modes(
    targets: Iterable[str],
    *,
    seed: int = 0,
    record: Callable[..., LiveRecords] | None = None,
    on_done: Callable[[str], None] = lambda _: None,
) -> Iterator[ModeTable]:
    """Run live ports in every mode and precision that there is for them, each twice.

    Raises:
        OracleError: as `oracle.live_port.compare_live`.
    """
    check_seed(seed)
    record = record or record_live
    for target in targets:
        outcomes = []
        for mode in ROWS:
            for dtype in COLUMNS:
                outcomes.append(_run_live(record, target, mode, dtype, seed))
                on_done(f"{target}, {mode}, {dtype}")
        yield ModeTable(target, f"seed {seed}", tuple(outcomes))


def _run_live(record: Callable[..., LiveRecords], target: str, mode: str, dtype: Any, seed: int) -> Outcome:
    if mode not in LIVE_MODES:
        return Outcome(mode, dtype, "cannot", reason=f"a live port runs in {', '.join(LIVE_MODES)}")
    if dtype not in choose_dtypes("both"):
        return Outcome(mode, dtype, "cannot", reason="a live port runs in float64 and float32")
    first = record(target, dtype=dtype, mode=mode, seed=seed)
    again = record(target, dtype=dtype, mode=mode, seed=seed)
    comparison = first.compare()
    repeats = ""
    if comparison.failure is None and again.port.failure is None:
        repeats = describe_repeats([first.port.tensors, again.port.tensors])
    return _tell(mode, dtype, comparison, repeats)
