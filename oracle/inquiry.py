"""An inquiry: what is asked about a comparison with a finding. Who is wrong, where it begins, and why.

Everything that one answer does not need of another is asked at once, so that both sides work at the same
time; what has been asked about one port runs while the next is compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from oracle.case import Case
from oracle.compare import Comparison, compare_closely
from oracle.errors import OracleError
from oracle.explanation import Explanation
from oracle.hearing import judge_records
from oracle.judgement import Hearing, Judgement, WitnessWhen
from oracle.localisation import Localisation
from oracle.record import Record
from oracle.runner import Runner, run_more

T = TypeVar("T")


@dataclass(frozen=True)
class Questions:
    """What to ask about a comparison.

    Args:
        witness: when to ask who is wrong.
        localise: whether to ask where a port with findings leaves the oracle.
        explain: whether to ask why.
    """

    witness: WitnessWhen = "on-finding"
    localise: bool = True
    explain: bool = True


class Inquiry:
    """What has been asked about one comparison, and is perhaps not answered yet.

    Args:
        comparison: the port's record held against the oracle's.
        runner: what runs the two sides.
        case: what the records are of.
        port: the port's record.
        truth: the oracle's, in float64.
        questions: what to ask.
    """

    def __init__(
        self,
        comparison: Comparison,
        runner: Runner,
        case: Case,
        port: Record,
        truth: Record,
        *,
        questions: Questions,
    ) -> None:
        self._comparison, self._runner, self._case = comparison, runner, case
        self._port, self._truth = port, truth
        wants = bool(comparison.rows) and comparison.failure is None
        found = wants and not comparison.matches
        self._witness = wants and comparison.wants_witness(questions.witness)
        self._localise, self._explain = found and questions.localise, found and questions.explain
        self._asked: _Asked | None = None
        self._again: Future[Record] | None = None
        if not (self._witness or self._localise or self._explain):
            return
        # A finding is inquired into in float64, whatever the port ran in.
        if port.origin.dtype == "float64":
            self._asked = self._ask(port)
        else:
            self._again = runner.run(
                "tf", case, model=port.origin.model, mode=port.origin.mode, dtype="float64"
            )

    def finish(self, *, on_done: Callable[[str], None] = lambda _: None) -> Comparison:
        """Wait for every answer. Gives the comparison with them.

        Args:
            on_done: called with a line for people when something was answered.

        Raises:
            OracleError: if a side could not answer.
        """
        port, comparison, note = self._port, self._comparison, ()
        if self._again is not None:
            port = self._again.result()
            if port.failure is not None:
                said = f"cannot say who is wrong: in float64 the port raises {port.failure.type}"
                return self._answer(
                    Judgement("unknown", (f"{said}: {port.failure.message}",), self._case.seed)
                )
            model = port.origin.model
            ask_more = functools.partial(run_more, self._runner, self._case, model=model, dtype="float64")
            comparison = compare_closely(port, self._truth, ask_more)
            if self._comparison.findings and comparison.matches:
                said = "in float64 every tensor matches: what differs is precision"
                return self._answer(Judgement("precision", (said,), self._case.seed))
            note = ("judged in float64",)
            self._asked = self._ask(port)
        if self._asked is None:
            return self._comparison
        name = f"{port.origin.model} in {self._port.origin.dtype}"
        judgement = localisation = explanation = None
        if self._asked.hearings:
            heard = (self._asked.hearings[0].result(), self._asked.hearings[1].result())
            judgement = judge_records(
                self._case, comparison, (port, self._truth), heard, seed=self._case.seed
            )
            judgement = msgspec.structs.replace(judgement, lines=(*judgement.lines, *note))
            on_done(f"who is wrong, of {name}")
        if self._asked.explanation is not None:
            explanation = _wait(self._asked.explanation, _leave_unexplained)
            on_done(f"why, of {name}")
        if self._asked.trace is not None:
            # A port that cannot be traced, as TF1's loops cannot run eagerly, has a record all the same.
            trace = _wait(self._asked.trace, lambda _: None)
            if trace is not None and trace.failure is not None:
                trace = None
            asked = self._runner.localise(self._case, port=port, trace=trace)
            localisation = _wait(asked, _leave_unlocalised)
            on_done(f"where, of {name}")
        return self._answer(judgement, localisation, explanation)

    def _ask(self, port: Record) -> _Asked:
        runner, case, truth = self._runner, self._case, self._truth
        seed = case.seed
        trace = runner.trace(case, model=port.origin.model) if self._localise else None
        explanation = runner.explain(case, port=port, oracle=truth) if self._explain else None
        sides = ("tf", "jax") if self._witness else ()
        hearings = tuple(runner.hear(side, case, port=port, oracle=truth, seed=seed) for side in sides)
        return _Asked(hearings, trace, explanation)

    def _answer(
        self,
        judgement: Judgement | None,
        localisation: Localisation | None = None,
        explanation: Explanation | None = None,
    ) -> Comparison:
        return msgspec.structs.replace(
            self._comparison,
            witness=judgement if self._witness else None,
            localisation=localisation,
            explanation=explanation,
        )


@dataclass(frozen=True)
class _Asked:
    """The answers to be."""

    hearings: tuple[Future[Hearing], ...]
    trace: Future[Record] | None
    explanation: Future[Explanation] | None


def _wait(answer: Future[T], instead: Callable[[OracleError], T]) -> T:
    """An answer, or what stands for it: that something cannot be found out takes nothing from a verdict."""
    try:
        return answer.result()
    except OracleError as error:
        return instead(error)


def _leave_unexplained(error: OracleError) -> Explanation:
    return Explanation("unexplained", (f"this could not be found out: {error}",))


def _leave_unlocalised(error: OracleError) -> Localisation:
    return Localisation((f"this could not be found out: {error}",))
