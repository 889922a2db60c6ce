"""One fault in one subject: is it seen, is its cause named first, and is its place right."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from oracle.case import Case, jitter_case
from oracle.compare import Comparison, compare_closely
from oracle.errors import OracleError
from oracle.explanation import Explanation
from oracle.localisation import Localisation, Place
from oracle.record import Failure, Origin, Record
from oracle.runner import InProcess, run_more
from oracle.selftest.fault import Fault
from oracle.selftest.faults import find_fault
from oracle.selftest.judging import digest_fault, judge_anew
from oracle.selftest.results import FaultResult
from oracle.selftest.seeding import seed_fault
from oracle.selftest.subjects import EAGER, Subject, find_subject
from oracle.tolerance import FLOAT32_RUNS


@dataclass(frozen=True)
class Prepared:
    """A subject with all that the oracle computes of it.

    Args:
        name: the subject's.
        seed: what it was drawn from.
        subject: the model, and the port.
        case: weights and batch.
        truth: the oracle's record in float64.
        runs: its records in float32, the yardstick.
    """

    name: str
    seed: int
    subject: Subject
    case: Case
    truth: Record
    runs: tuple[Record, ...]


@functools.cache
def prepare(name: str, seed: int) -> Prepared:
    """The oracle's records of a subject, computed once for all of its faults."""
    from oracle.run_jax import run_oracle

    subject = find_subject(name)
    case = subject.draw_uneven(seed)
    truth = run_oracle(case, model=subject.port)
    runs = [
        run_oracle(jitter_case(case, number), model=subject.port, dtype="float32")
        for number in range(FLOAT32_RUNS)
    ]
    return Prepared(name, seed, subject, case, truth, tuple(runs))


@functools.cache
def find_spread(name: str, seed: int, dtype: str) -> tuple[Record, ...]:
    """The oracle's further records of a subject, as `compare_closely` asks for them."""
    prepared = prepare(name, seed)
    return tuple(run_more(InProcess(), prepared.case, model=prepared.subject.port, dtype=dtype))


@functools.cache
def trace_truth(name: str, seed: int) -> Record:
    """What the oracle computes of a subject step by step."""
    from oracle.run_jax import trace_oracle

    prepared = prepare(name, seed)
    return trace_oracle(prepared.case, model=prepared.subject.port)


def run_fault(fault: Fault, prepared: Prepared, *, dtype: str = "float64") -> Record:
    """The record of a port with the fault in it. An error of the port's own making is its failure."""
    from oracle.run_tf import run_port

    subject, options = prepared.subject, {"mode": prepared.subject.mode, "dtype": dtype}
    with seed_fault(fault):
        try:
            return run_port(prepared.case, model=subject.port, **options)  # pyright: ignore
        except OracleError as error:
            return _fail(prepared, error, dtype)


def try_fault(*, fault: str, subject: str, seed: int, baselines: bool = False) -> FaultResult:
    """Seed a fault in a subject, run both sides, and ask whether, where and why.

    Args:
        fault: by name.
        subject: by name.
        seed: of the case.
        baselines: whether the commonly used checks are asked, too.

    Raises:
        MissingPackageError: if one of the frameworks is not installed.
        FaultError: if the fault no longer fits its port.
    """
    start = time.perf_counter()
    seeded, prepared = find_fault(fault), prepare(subject, seed)
    port = run_fault(seeded, prepared)
    comparison = compare_closely(port, prepared.truth, lambda: find_spread(subject, seed, "float64"))
    needed = None if comparison.failure or comparison.needed is None else comparison.needed
    result = FaultResult(
        fault=fault,
        family=seeded.family,
        subject=subject,
        digest=digest_fault(seeded),
        expected=seeded.causes,
        together=seeded.together,
        number=seeded.number,
        hides_in_float32=seeded.hides_in_float32,
        detected=not comparison.matches,
        findings=len(comparison.findings),
        tensors=len(comparison.rows),
        largest=needed,
        raised="" if comparison.failure is None else comparison.failure.type,
        detected_float32=not _compare_float32(seeded, prepared).matches,
    )
    if result.detected and not result.raised:
        try:
            located = list_places(seeded, find_place(seeded, prepared, port))
            answered = _add_answers(result, explain(prepared, port), located)
        except OracleError as error:
            answered = msgspec.structs.replace(result, said=f"{type(error).__name__}: {error}")
        result = judge_anew(answered, seeded)
    if baselines and not result.raised:
        from oracle.selftest.baselines import ask_baselines

        result = msgspec.structs.replace(result, baselines=tuple(ask_baselines(seeded, prepared, port)))
    return msgspec.structs.replace(result, seconds=round(time.perf_counter() - start, 3))


def explain(prepared: Prepared, port: Record) -> Explanation:
    """Why the port's record is not the oracle's."""
    from oracle.insight import explain_port

    return explain_port(prepared.case, port=port, oracle=prepared.truth)


def find_place(fault: Fault, prepared: Prepared, port: Record) -> Localisation:
    """Where the port's record leaves the oracle's, from a run step by step where there can be one."""
    from oracle.insight import localise_port
    from oracle.run_tf import trace_port

    trace = None
    if prepared.subject.mode == EAGER:
        with seed_fault(fault):
            trace = trace_port(prepared.case, model=prepared.subject.port)
    truth = trace_truth(prepared.name, prepared.seed)
    return localise_port(prepared.case, port=port, trace=trace, truth=truth)


def list_places(fault: Fault, localisation: Localisation) -> tuple[str, ...]:
    """The layers and tensors at which it is said to begin: of the first place, then of the failing checks."""
    first: Place | None = localisation.forward
    if fault.backward or first is None:
        first = localisation.backward
    found = [] if first is None else [first.layer, first.tensor]
    direction = "backward" if fault.backward else "forward"
    found += [
        check.layer
        for check in localisation.checks
        if check.direction == direction and check.input_agrees and not check.output_agrees
    ]
    return tuple(dict.fromkeys(found))


def _add_answers(result: FaultResult, explanation: Explanation, located: tuple[str, ...]) -> FaultResult:
    best = explanation.best
    named = explanation.kind != "unexplained" and best is not None
    return msgspec.structs.replace(
        result,
        kind=explanation.kind,
        codes=best.codes if named and best is not None else (),
        said=explanation.lines[0] if explanation.lines else "",
        located=located,
    )


def _compare_float32(fault: Fault, prepared: Prepared) -> Comparison:
    port = run_fault(fault, prepared, dtype="float32")
    ask_more = functools.partial(find_spread, prepared.name, prepared.seed, "float32")
    return compare_closely(port, prepared.truth, ask_more, yardstick=prepared.runs)


def _fail(prepared: Prepared, error: OracleError, dtype: Any) -> Record:
    """The record of a port that could not be run at all, say for lack of a variable."""
    case, truth = prepared.case, prepared.truth.origin
    origin: Origin = msgspec.structs.replace(
        truth, side="port", dtype=dtype, framework="tensorflow", mode=prepared.subject.mode
    )
    return Record(case.spec, origin, {}, failure=Failure(type(error).__name__, str(error), ""))
