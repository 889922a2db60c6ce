"""Why a port trains otherwise, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oracle.alternatives import Alternative
from oracle.causes import optimizers as catalogue
from oracle.causes.cause import CAUSES, Setting
from oracle.driving import EXACT, Measure
from oracle.explanation import Candidate, Explanation
from oracle.trajectory import Divergence

assert catalogue.never  # Importing it registers its causes.

MOST_OTHERS = 5
"""How many other candidates an explanation names."""


@dataclass(frozen=True)
class Trial:
    """One alternative, or one on top of another, and how near it comes."""

    parts: tuple[Alternative, ...]
    measure: Measure

    @property
    def last(self) -> Alternative:
        """The one that was driven: what is on top has what it is on top of in it."""
        return self.parts[-1]

    @property
    def cost(self) -> int:
        """The least is said first."""
        return sum(part.cost for part in self.parts) + 10 * (len(self.parts) - 1)


def tell_right(itself: Trial, tried: int, bound: float) -> Explanation:
    """What is said where the optimizer that was meant gives the port's parameters."""
    best = _describe(itself)
    lines = (
        f"The optimizer is right: driven by the port's own gradients, {itself.last.optimizer.describe()} "
        f"gives the port's parameters {_say_within(itself, bound)}. It is the gradients that differ.",
        best.remedy,
        "See docs/causes/C821.md.",
    )
    return Explanation("explained", lines, best, (), tried)


def tell_explained(
    exact: Sequence[Trial], tried: int, bound: float, divergence: Divergence | None
) -> Explanation:
    """What is said of those that explain, the simplest first; what merely comes near goes last."""
    least = min(trial.measure.distance for trial in exact)

    def rank(trial: Trial) -> tuple[Any, ...]:
        measure = trial.measure
        loose = measure.distance > max(EXACT, 100 * least)
        return loose, not measure.same_slots, trial.cost, measure.distance

    distinct: dict[str, Trial] = {}
    for trial in sorted(exact, key=rank):
        distinct.setdefault(_describe(trial).sentence, trial)
    best, *others = list(distinct.values())[: 1 + MOST_OTHERS]
    told = _describe(best)
    link = " if" if best.last.forms else ":"
    name = best.last.optimizer.describe()
    lines = [
        f"Your port's training equals that of {name} {_say_within(best, bound)}{link} {told.sentence}.",
        told.remedy,
    ]
    alike = [_describe(trial) for trial in others if rank(trial)[:3] == rank(best)[:3]]
    if alike:
        said = "; ".join(f"{one.sentence} ({', '.join(one.codes)})" for one in alike)
        lines.append(f"On these steps that cannot be told from: {said}.")
    if divergence is not None and divergence.step == 1 and divergence.name in ("loss", "gradient norm"):
        lines.append("Its gradients differ, too, from the first step on: `oracle compare` says why.")
    lines.append(f"See {' and '.join(f'docs/causes/{code}.md' for code in told.codes)}.")
    return Explanation("explained", tuple(lines), told, tuple(map(_describe, others)), tried)


def tell_unexplained(itself: Trial, nearest: Sequence[Trial], tried: int, bound: float) -> Explanation:
    """What comes nearest where nothing explains."""
    line = (
        f"No optimizer explains it: {tried} were driven by the port's own gradients, none gives the port's "
        f"parameters within {bound:g} of how far they moved."
    )
    if not nearest:
        return Explanation("unexplained", (line,), None, (), tried)
    best, *others = map(_describe, nearest)
    left = (
        f"Nearest ({', '.join(best.codes)}): if {best.sentence}, {best.distance:.1e} is left, in place of "
        f"{itself.measure.distance:.1e}."
    )
    return Explanation("unexplained", (line, left), best, tuple(others), tried)


def _describe(trial: Trial) -> Candidate:
    said, advised = [], []
    for part in trial.parts:
        cause, setting = CAUSES[part.code], Setting(part.setting, numbers=part.numbers)
        said.append(cause.say(setting))
        advised.append(cause.advise(setting))
    numbers = {name: value for part in trial.parts for name, value in part.numbers.items()}
    measure = trial.measure
    return Candidate(
        tuple(part.code for part in trial.parts),
        ", and ".join(said),
        " ".join(dict.fromkeys(advised)),
        measure.distance,
        measure.matching,
        measure.total,
        numbers,
    )


def _say_within(trial: Trial, bound: float) -> str:
    distance = trial.measure.distance
    if distance == 0.0:
        return "exactly (to the last bit)"
    return f"exactly ({distance:.0e})" if distance <= EXACT else f"within {bound:g} ({distance:.0e})"
