"""Right ports of random specs: whatever is called wrong of them is a false alarm."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from oracle.case import Case, jitter_case
from oracle.compare import compare_closely
from oracle.errors import RecordError
from oracle.record import Record
from oracle.runner import InProcess, run_more
from oracle.selftest.results import CorrectResult
from oracle.selftest.subjects import Subject, draw_subject
from oracle.spec import describe
from oracle.tolerance import FLOAT32_RUNS

Dtype = Literal["float64", "float32"]


def check_correct(seed: int, number: int) -> list[CorrectResult]:
    """Draw a spec and a case, run the right port and the oracle in float64 and in float32, and compare.

    Args:
        seed: of the self-test.
        number: which draw.

    Raises:
        MissingPackageError: if one of the frameworks is not installed.
    """
    from oracle.run_jax import run_oracle

    subject = draw_subject(seed, number)
    case = subject.draw(int(np.random.default_rng([seed, 8, number]).integers(2**31)))
    start = time.perf_counter()
    truth = run_oracle(case, model=subject.port)
    results = [_judge(subject, case, number, "float64", truth=truth, runs=(), start=start)]
    start = time.perf_counter()
    runs = [
        run_oracle(jitter_case(case, run), model=subject.port, dtype="float32") for run in range(FLOAT32_RUNS)
    ]
    results.append(_judge(subject, case, number, "float32", truth=truth, runs=runs, start=start))
    return results


def _judge(
    subject: Subject,
    case: Case,
    number: int,
    dtype: Dtype,
    *,
    truth: Record,
    runs: Sequence[Record],
    start: float,
) -> CorrectResult:
    """Run the right port in one precision, and hold it against the oracle."""
    from oracle.run_tf import run_port

    spec, alarms, needed, refused = describe(subject.spec), (), None, ""
    try:
        port = run_port(case, model=subject.port, mode=subject.mode, dtype=dtype)
        ask_more = functools.partial(run_more, InProcess(), case, model=subject.port, dtype=dtype)
        comparison = compare_closely(port, truth, ask_more, yardstick=runs)
        alarms, needed = tuple(row.name for row in comparison.findings), comparison.needed
        if comparison.failure is not None:
            alarms = (f"raised {comparison.failure.type}: {comparison.failure.message}",)
    except RecordError as error:
        refused = str(error)
    seconds = round(time.perf_counter() - start, 3)
    return CorrectResult(number, subject.port, spec, dtype, alarms, needed, refused, seconds)
