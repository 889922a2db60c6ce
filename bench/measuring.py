"""One case being measured: every contestant is checked, then all take turns, round by round."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.agreement import (
    DisagreementError,
    check_beams,
    check_gradients,
    check_live,
    check_move,
    describe_spec,
    read_result,
)
from bench.cases import BEAM_STEPS, BenchCase
from bench.contestants import FLOORS, SIDES, Contestant, Side, list_contestants
from bench.gemms import count_flops, count_gemms
from bench.results import Absence, CaseFacts, Measurement, Profile
from bench.workers import AbsentHereError, FailedError, Workers
from oracle.case import Case, random_case, read_case, write_case
from oracle.errors import OracleError

LEAST_ROUNDS = 3
"""So many rounds every contestant gets, unless a single step takes longer than the whole budget: then one."""

WARM = 1.0
"""A contestant whose step takes more seconds than this needs none before its turn, to be warm."""

LEAST_SECONDS = 0.1
"""A round of a fast contestant is several steps, which take about so long together."""


PROFILED = "fast"
"""The contestant of which it is told where its time goes."""


@dataclass(frozen=True)
class Settings:
    """How a run measures.

    Args:
        selection: what was asked for, for the record.
        seed: of weights, batches and the order in the rounds.
        rounds: how often each contestant has its turn.
        budget: seconds that a contestant's rounds may take in a case; it has fewer rounds if they would take
            longer, as `LEAST_ROUNDS` says.
        limit: seconds after which a contestant that does not answer has failed.
        threads: CPUs that each process is held to.
        only: the contestants that take part; empty for all.
        verbose: whether what the frameworks print comes through.
    """

    selection: str = "default"
    seed: int = 0
    rounds: int = 9
    budget: float = 20.0
    limit: float = 900.0
    threads: int = 2
    only: tuple[str, ...] = ()
    verbose: bool = False


@dataclass
class Found:
    """What has been measured of a case so far."""

    measurements: list[Measurement] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    compilations: int | None = None


@dataclass
class _Racer:
    """A contestant that was checked, and is measured.

    Args:
        contestant: it.
        start: seconds of its start, as its process told.
        agreed: what was compared.
        iterations: steps in a round.
        warm: whether a step goes before those of a round, outside of their time.
        rounds: how many rounds it has.
        seconds: what they took.
    """

    contestant: Contestant
    start: dict[str, Any]
    agreed: str
    iterations: int = 1
    warm: bool = False
    rounds: int = 0
    seconds: list[float] = field(default_factory=list)


OnDone = Callable[[str], None]


def list_entries(case: BenchCase, settings: Settings) -> list[tuple[Contestant, str]]:
    """Who of those that were asked for could take part, and why one does not."""
    return [(c, why) for c, why in list_contestants(case) if not settings.only or c.name in settings.only]


class Measuring:
    """One case being measured."""

    def __init__(
        self,
        case: BenchCase,
        folder: Path,
        workers: Workers,
        settings: Settings,
        found: Found,
        on_done: OnDone,
    ) -> None:
        self._case, self._workers, self._settings = case, workers, settings
        self._found, self._on_done = found, on_done
        self._path = folder / "case.safetensors"
        self._folder = folder
        self._truths: list[Path] = []
        self._result = folder / "result.safetensors"
        self._made: Case | None = None
        self._ended: set[Side] = set()

    def run(self) -> CaseFacts:
        """Measure the case. One that cannot be made costs its own measurements, and none of other cases."""
        try:
            self._measure()
        except OracleError as error:
            self._found.absences = []
            for contestant, _ in list_entries(self._case, self._settings):
                self._miss(contestant, "failed", f"the case could not be made: {error}")
                self._on_done(self._case.name)
                self._on_done(self._case.name)
        return self._describe()

    def _measure(self) -> None:
        """Check every contestant, let all that agree take turns, and weigh them."""
        self._made = self._make_case()
        if self._case.job != "bridge":
            self._ask_truth()
        racers = []
        for contestant, reason in list_entries(self._case, self._settings):
            if reason:
                self._miss(contestant, "absent", reason)
            elif (racer := self._check(contestant)) is not None:
                racers.append(racer)
            self._on_done(f"{self._case.name}: {contestant.name} checked")
        racers = [racer for racer in racers if self._restore(racer)]
        self._race(racers)
        for side in SIDES:
            # A process that cannot even let go is started anew when it is next asked.
            with contextlib.suppress(FailedError):
                if self._workers.is_running(side):
                    self._workers.ask(side, "release")
        for racer in racers:
            if racer.seconds:
                self._keep(racer)
                if self._case.profile and racer.contestant.name == PROFILED:
                    self._profile(racer.contestant)
            self._on_done(f"{self._case.name}: {racer.contestant.name} measured")
        for _ in range(len(list_entries(self._case, self._settings)) - len(racers)):
            self._on_done(self._case.name)

    def _make_case(self) -> Case | None:
        case = self._case
        if case.port and case.job == "beam":
            self._workers.ask("tf", "trained", port=case.port, rows=case.batch, case=str(self._path))
            return read_case(self._path)
        if case.spec is None:
            return None
        sizes = {"batch_size": case.batch, "source_time": case.time, "target_time": case.time}
        made = random_case(case.spec, seed=self._settings.seed, **sizes)
        write_case(made, self._path)
        return made

    def _ask_truth(self) -> None:
        sources = {"job": self._case.job, "case": str(self._path), "target": self._case.target}
        sources |= {"seed": self._settings.seed, "folder": str(self._folder)}
        try:
            self._truths = [Path(path) for path in self._workers.ask("jax", "truth", **sources)]
        except (AbsentHereError, FailedError) as error:
            raise OracleError(f"{self._case.name}: the oracle could not be run: {error}") from error

    def _sources(self, contestant: Contestant) -> dict[str, Any]:
        return {
            "name": contestant.name,
            "job": self._case.job,
            "case": str(self._path),
            "target": self._case.target,
            "port": self._case.port,
            "seed": self._settings.seed,
        }

    def _check(self, contestant: Contestant) -> _Racer | None:
        """Make a contestant ready, and hold what it gives against the oracle. None if it does not agree."""
        try:
            start = self._workers.ask(
                contestant.side, "prepare", **self._sources(contestant), result=str(self._result)
            )
            return _Racer(contestant, start, self._compare(contestant, start))
        except DisagreementError as error:
            self._miss(contestant, "disagrees", str(error))
        except AbsentHereError as error:
            self._miss(contestant, "absent", str(error))
        except FailedError as error:
            self._miss(contestant, "failed", str(error))
            if not self._workers.is_running(contestant.side):
                self._ended.add(contestant.side)
        return None

    def _restore(self, racer: _Racer) -> bool:
        """Make a contestant ready once more if another one took its process with it."""
        contestant = racer.contestant
        if contestant.side not in self._ended:
            return True
        try:
            self._workers.ask(
                contestant.side, "prepare", **self._sources(contestant), result=str(self._result)
            )
        except (AbsentHereError, FailedError) as error:
            self._miss(contestant, "failed", str(error))
            return False
        return True

    def _compare(self, contestant: Contestant, start: dict[str, Any]) -> str:
        if contestant.name in FLOORS or self._case.job == "bridge":
            return ""
        computed, moved = read_result(self._result)
        if self._case.job == "beam":
            return check_beams(computed, read_result(self._truths[0])[0], BEAM_STEPS)
        if self._case.target:
            return check_live(contestant.name, computed, Path(f"{self._result}.record"), self._truths)
        assert self._made is not None
        truths = [read_result(path)[0] for path in self._truths]
        agreed = check_gradients(self._made, contestant.name, computed, truths)
        if self._case.job == "training":
            options = {"epsilon": start["epsilon"], "clip": start["clip"]}
            check_move(self._made.weights, moved, computed, **options)
            agreed += ", and the first step of Adam"
        return agreed

    def _race(self, racers: list[_Racer]) -> None:
        for racer in racers:
            taken = self._step(racer, 1)
            if taken is not None and taken < WARM:
                # Once more, warm, to see how many steps a round takes.
                taken = self._step(racer, 1)
            if taken is None:
                continue
            racer.iterations = max(1, min(100, math.ceil(LEAST_SECONDS / taken)))
            racer.warm = taken < WARM
            affordable = int(self._settings.budget / (taken * (racer.iterations + racer.warm)))
            least = LEAST_ROUNDS if taken <= self._settings.budget else 1
            racer.rounds = min(self._settings.rounds, max(least, affordable))
        order = random.Random(self._settings.seed)  # noqa: S311
        for number in range(self._settings.rounds):
            taking_turns = [racer for racer in racers if racer.rounds > number]
            order.shuffle(taking_turns)
            for racer in taking_turns:
                if racer.rounds > 0 and (taken := self._step(racer, racer.iterations)) is not None:
                    racer.seconds.append(taken)

    def _step(self, racer: _Racer, times: int) -> float | None:
        """Have a contestant do its job; None if it fails, and then it is out."""
        contestant = racer.contestant
        try:
            ways = {"name": contestant.name, "times": times, "warm": racer.warm}
            return self._workers.ask(contestant.side, "run", **ways)
        except (AbsentHereError, FailedError) as error:
            self._miss(contestant, "failed", f"while it was measured: {error}")
            racer.rounds = 0
            racer.seconds.clear()
            return None

    def _keep(self, racer: _Racer) -> None:
        contestant = racer.contestant
        peak = self._weigh(contestant) if self._case.memory and contestant.name not in FLOORS else None
        self._found.measurements.append(
            Measurement(
                self._case.name,
                contestant.name,
                tuple(racer.seconds),
                racer.iterations,
                racer.start["first"],
                racer.start["trace"],
                racer.start["compile"],
                peak,
                racer.agreed,
            )
        )

    def _weigh(self, contestant: Contestant) -> int | None:
        try:
            return self._workers.ask_fresh(contestant.side, "weigh", **self._sources(contestant), times=2)
        except (AbsentHereError, FailedError):
            # It has a speed; that its memory could not be measured alone is no reason to lose that.
            return None

    def _profile(self, contestant: Contestant) -> None:
        name, sources = self._case.name, self._sources(contestant)
        # Like the memory, it is told besides.
        with contextlib.suppress(AbsentHereError, FailedError):
            found = self._workers.ask_fresh(contestant.side, "profile", cpus=1, times=LEAST_ROUNDS, **sources)
            self._found.profiles.append(Profile(name, contestant.name, **found))

    def _miss(self, contestant: Contestant, kind: Any, reason: str) -> None:
        self._found.absences.append(Absence(self._case.name, contestant.name, kind, reason))

    def _describe(self) -> CaseFacts:
        case = self._case
        flops = None
        if case.job == "gradient" and case.spec is not None:
            gemms = count_gemms(case.spec, batch=case.batch, time=case.time)  # pyright: ignore[reportArgumentType]
            flops = count_flops(gemms)
        what = describe_spec(case.spec) or case.target or case.port
        return CaseFacts(case.name, case.job, what, case.batch, case.time, case.axis, case.value, flops)
