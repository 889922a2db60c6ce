"""What the suite must show, as ratios within one run, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bench.analysis import find_exponent, find_fastest, find_floor, ratio, sweeps
from bench.cases import SIZES
from bench.results import Run

LARGE = "64x50x512"
LONGEST = 4096


class Target(msgspec.Struct, frozen=True):
    """One target in one run.

    Args:
        what: what is held against what.
        where: in which case.
        bound: what it may be at most; None where it is only reported.
        found: what it is; None if this run has not measured it.
        note: what else there is to say.
        contestant: whose time it is; empty where it is no time of one.
    """

    what: str
    where: str
    bound: float | None
    found: float | None
    note: str = ""
    contestant: str = ""

    @property
    def state(self) -> str:
        """`met`, `not met`, `not measured`, or `reported` where there is no bound."""
        if self.found is None:
            return "not measured"
        if self.bound is None:
            return "reported"
        return "met" if self.found <= self.bound else "not met"


def check_targets(run: Run) -> list[Target]:
    """Every target, met or not. Of cases that the run did not hold, they are not measured."""
    return [*_of_steps(run), *_of_scaling(run), *_of_memory(run), *_of_commands(run)]


def judge(targets: list[Target], run: Run) -> bool:
    """Whether every target of the run's cases is met, and there is one."""
    return bool(_list_due(targets, run)) and not find_unmet(targets, run)


def find_unmet(targets: list[Target], run: Run) -> list[Target]:
    """The targets of the run's cases that are not met.

    One that could not be measured though its case was run is among them: a contestant is missing.
    """
    return [target for target in _list_due(targets, run) if target.state != "met"]


def _list_due(targets: list[Target], run: Run) -> list[Target]:
    cases = {case.name for case in run.cases} | set(sweeps(run))
    return [target for target in targets if target.bound is not None and target.where in cases]


def _of_steps(run: Run) -> Iterator[Target]:
    sizes = ["x".join(map(str, size)) for size in SIZES]
    for model in ("lstm", "lstm-luong", "lstm-bahdanau"):
        for size in sizes:
            case = f"gradient/{model}/{size}"
            fast, fastest = run.find(case, "fast"), find_fastest(run, case)
            note = "" if fastest is None else f"against {fastest.contestant}"
            yield Target("fast path / TensorFlow's fastest", case, 0.5, ratio(fast, fastest), note, "fast")
    for size in sizes:
        case = f"gradient/lstm/{size}"
        fast = run.find(case, "fast")
        found = ratio(fast, run.find(case, "flax"))
        yield Target("fast path / Flax's own", case, 0.7, found, contestant="fast")
    for model in ("lstm", "lstm-luong", "lstm-bahdanau"):
        for size in sizes:
            case = f"gradient/{model}/{size}"
            # Attention has much to do beside products of matrices.
            bound = None if model != "lstm" else 1.5 if size == LARGE else 2.0
            floor = find_floor(run, case)
            note = "" if floor is None else f"against {floor.contestant}"
            found = ratio(run.find(case, "fast"), floor)
            yield Target("fast path / floor", case, bound, found, note, "fast")
    for model in ("lstm", "lstm-luong", "lstm-bahdanau"):
        for size in sizes:
            case = f"gradient/{model}/{size}"
            found = ratio(run.find(case, "plain"), run.find(case, "fast"))
            yield Target("plain path / fast path", case, None, found)


def _of_scaling(run: Run) -> Iterator[Target]:
    group = "sweep-T/lstm"
    cases = sweeps(run).get(group, [])
    values = [case.value for case in cases]
    whole = {64, LONGEST} <= set(values)
    found = find_exponent(run, cases, "fast") if whole else None
    yield Target("fast path, exponent of T from 64 to 4,096", group, 1.05, found)


def _of_memory(run: Run) -> Iterator[Target]:
    case = f"sweep-T/lstm/{LONGEST}"
    plain, remat = run.find(case, "plain"), run.find(case, "fast-remat")
    peak = None
    if plain is not None and remat is not None and plain.peak and remat.peak:
        peak = remat.peak / plain.peak
    yield Target("rematerialised / plain, peak memory", case, 0.25, peak)
    found = ratio(remat, plain)
    yield Target("rematerialised / plain, step time", case, 1.4, found, contestant="fast-remat")


def _of_commands(run: Run) -> Iterator[Target]:
    for case, ours, other, bound in (
        ("latency/verify", "oracle verify", "import jax, flax.linen", 2.0),
        ("latency/compare", "oracle compare", "import tensorflow_addons", 1.3),
    ):
        found = ratio(run.find(case, ours), run.find(case, other))
        yield Target(f'`{ours}` / `python -c "{other}"`', case, bound, found, contestant=ours)
    compiled = None if run.compilations is None else float(run.compilations)
    yield Target("programs that a second `oracle compare` compiles", "latency/compare", 0.0, compiled)
