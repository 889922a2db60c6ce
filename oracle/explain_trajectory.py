"""Why a port trains otherwise than the oracle: the optimizer that gives its parameters, step by step.

Alternatives (`oracle.alternatives`) are driven by the port's own gradients, from the same parameters, so that
whatever else is wrong with the port has no part in it. One explains if every parameter, and every slot that
both have, agrees at every step within the trajectory's own bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oracle.alternative_numbers import Family, find_rate, list_families
from oracle.alternatives import Alternative, Form, list_alternatives
from oracle.driving import EXACT, Drive, Measure, find_driven
from oracle.errors import OracleError, UsageError
from oracle.explanation import Explanation
from oracle.frameworks import import_jax, precise_jax
from oracle.optimizer import Optimizer
from oracle.trajectory import BOUND, Divergence, Slices, Step
from oracle.trajectory_telling import MOST_OTHERS, Trial, tell_explained, tell_right, tell_unexplained

__all__ = ["explain_divergence", "explain_steps"]

MOST_BASES = 3
"""On top of how many alternatives a second one is tried."""

SAMPLE = 1000
"""How many elements of a tensor are driven where no norm is taken; what is found is confirmed on all."""


def explain_steps(
    port: Sequence[Step],
    *,
    optimizer: Optimizer,
    initial: Mapping[str, np.ndarray],
    divergence: Divergence | None = None,
    bound: float = BOUND,
    on_done: Callable[[str], None] = lambda line: None,
) -> Explanation:
    """Find the optimizer that gives a port's parameters, driven by the port's own gradients.

    Args:
        port: the port's first steps with their gradients, the one at which it parts among them.
        optimizer: the one that was meant.
        initial: the float64 parameters before the first step, by variable.
        divergence: where the port parts from the oracle, for what is said.
        bound: what is allowed, as of the trajectory.
        on_done: called with a line for people when something is done.

    Raises:
        UsageError: if there is no step, a step has no gradients, or a parameter that has one is not there.
        MissingPackageError: if JAX or optax is not installed.
    """
    _check(port, initial)
    if not find_driven(port, initial):
        said = "No variable has a gradient at every step: no optimizer can be driven by the port's gradients."
        return Explanation("unexplained", (said,))
    import_jax()
    with precise_jax():
        return _Search(port, optimizer, initial, divergence, bound, on_done).run()


def explain_divergence(
    port: Sequence[Step],
    divergence: Divergence,
    *,
    optimizer: Optimizer,
    initial: Mapping[str, np.ndarray],
    bound: float = BOUND,
) -> Explanation:
    """`explain_steps`, as `oracle.trajectory.compare_trajectories` asks for it."""
    return explain_steps(port, optimizer=optimizer, initial=initial, divergence=divergence, bound=bound)


def _check(port: Sequence[Step], initial: Mapping[str, np.ndarray]) -> None:
    if not port:
        raise UsageError("explain: there is no step of the port's; give at least one")
    for step in port:
        if not step.gradients:
            raise UsageError(
                f"explain: step {step.step} holds no gradients, so that no optimizer can be driven by them; "
                "give `Step(..., gradients=...)`"
            )
        for name, gradient in step.gradients.items():
            missing = name not in initial or f"parameter/{name}" not in step.tensors
            if gradient is not None and missing:
                raise UsageError(
                    f"explain: step {step.step} has a gradient of {name} and no parameter of that name; "
                    "give both by the variable's name"
                )


class _Search:
    """The order in which alternatives are tried."""

    def __init__(
        self,
        port: Sequence[Step],
        optimizer: Optimizer,
        initial: Mapping[str, np.ndarray],
        divergence: Divergence | None,
        bound: float,
        on_done: Callable[[str], None],
    ) -> None:
        self._optimizer, self._divergence, self._bound = optimizer, divergence, bound
        self._on_done = on_done
        self._whole = Drive(port, initial, bound)
        self._sample = Drive(port, initial, bound, most=SAMPLE)
        self._slices = any(isinstance(g, Slices) for step in port for g in (step.gradients or {}).values())
        self._trials: list[Trial] = []
        self.tried = 0

    def run(self) -> Explanation:
        """The optimizer itself, what has no number to be found, numbers, then pairs."""
        itself = self._try((Alternative("C821", self._optimizer),), whole=True)
        if itself.measure.distance <= self._bound and itself.measure.same_slots:
            return tell_right(itself, self.tried, self._bound)
        singles = [(one,) for one in self._list_loops(itself)]
        singles += [(one,) for one in list_alternatives(self._optimizer, slices=self._slices)]
        exact = self._try_all(singles)
        self._on_done(f"{self.tried} optimizers")
        if not self._is_settled(exact):
            exact += self._fit_all((), self._optimizer)
            self._on_done(f"{self.tried} optimizers, with numbers")
        if not exact and itself.measure.distance <= self._bound:
            return tell_right(itself, self.tried, self._bound)
        exact = exact or self._pair_with_rate(singles) or self._try_pairs(itself)
        if exact:
            return tell_explained(exact, self.tried, self._bound, self._divergence)
        nearest = sorted(self._trials, key=lambda trial: (trial.measure.distance, trial.cost))
        nearest = [one for one in nearest if one.measure.distance < 0.5 * itself.measure.distance]
        nearest = [self._try(one.parts, whole=True) for one in nearest[: 1 + MOST_OTHERS]]
        return tell_unexplained(itself, nearest, self.tried, self._bound)

    def _drive_for(self, parts: Sequence[Alternative]) -> Drive:
        return self._sample if is_elementwise(parts[-1]) else self._whole

    def _try(self, parts: tuple[Alternative, ...], *, limit: float = np.inf, whole: bool = False) -> Trial:
        self.tried += 1
        last = parts[-1]
        drive = self._whole if whole else self._drive_for(parts)
        try:
            return Trial(parts, drive.measure(last.optimizer, last.forms, limit=limit))
        except (OracleError, FloatingPointError, ZeroDivisionError):
            return Trial(parts, Measure(np.inf, False, 0, 0, 0))

    def _try_all(self, listed: Iterable[tuple[Alternative, ...]]) -> list[Trial]:
        """Those that explain. The nearest of the others are remembered."""
        exact = []
        for parts in sorted(listed, key=lambda parts: parts[-1].cost):
            near = sorted(trial.measure.distance for trial in self._trials)
            limit = near[MOST_OTHERS] if len(near) > MOST_OTHERS else np.inf
            exact += self._keep(self._try(parts, limit=max(limit, self._bound)))
        return exact

    def _keep(self, trial: Trial) -> list[Trial]:
        """Remember a trial. If it explains the sample, it is confirmed on every element."""
        if trial.measure.distance <= self._bound and self._drive_for(trial.parts) is self._sample:
            self.tried -= 1
            trial = self._try(trial.parts, whole=True)
        self._trials.append(trial)
        return [trial] if trial.measure.distance <= self._bound else []

    @staticmethod
    def _is_settled(exact: Sequence[Trial]) -> bool:
        return any(trial.measure.distance <= EXACT for trial in exact)

    def _list_loops(self, itself: Trial) -> list[Alternative]:
        """What may be wrong with the loop around the optimizer."""
        optimizer, step, found = self._optimizer, itself.measure.first_step, []
        every = self._whole.find_first_move()
        if every > 1:
            for word, said in (
                ("mean", "by the mean of the gradients since"),
                ("sum", "by the sum of the gradients since"),
                ("last", "by the last gradient alone"),
            ):
                forms = (Form("gather", word, every),)
                found.append(Alternative("C815", optimizer, forms, said, {"every": float(every)}))
        loops = [
            ((Form("reset"),), "the slots start anew at every step, as if the optimizer were made in it"),
            ((Form("twice"),), "every step is applied twice"),
        ]
        if step:
            loops += [
                ((Form("reset", number=step),), f"the slots start anew at step {step}"),
                ((Form("restore", number=step),), f"the first weights are back at step {step}"),
                (
                    (Form("restore", number=step), Form("reset", number=step)),
                    f"first weights and slots are back at step {step}",
                ),
                ((Form("skip", number=step),), f"step {step} is not applied"),
                ((Form("twice", number=step),), f"step {step} is applied twice"),
            ]
        # What holds of every step is said before what holds of one.
        return found + [
            Alternative("C816", optimizer, forms, said, cost=2 + (forms[0].number > 0))
            for forms, said in loops
        ]

    def _fit_all(self, before: tuple[Alternative, ...], optimizer: Optimizer) -> list[Trial]:
        exact = []
        for family in list_families(optimizer):
            trial = self._fit(before, family)
            if trial is not None:
                exact += self._keep(trial)
            if self._is_settled(exact):
                break
        return exact

    def _fit(self, before: tuple[Alternative, ...], family: Family) -> Trial | None:
        """The nearest number of a family: the best to start from, then Gauss and Newton's steps."""
        forms = before[-1].forms if before else ()

        def give(number: float) -> tuple[Alternative, ...]:
            return (*before, _add_forms(family.make(float(number)), forms))

        best: tuple[float, Trial] | None = None
        for start in family.starts:
            trial = self._try_number(give, start, limit=np.inf if best is None else best[1].measure.distance)
            if trial is not None and (best is None or trial.measure.distance < best[1].measure.distance):
                best = start, trial
        if best is None or best[1].measure.distance <= EXACT or not self._moves(family.kind, best[0]):
            return None if best is None else best[1]
        forward, back = _COORDINATES[family.kind]
        number, trial = best
        for turn in range(12):
            step = self._find_step(give, forward, back, number)
            if step is None:
                break
            # A step that leads off is halved: what is far away is seldom a straight line.
            for part in (1.0, 0.5, 0.25):
                following = back(forward(number) + part * step)
                other = self._try_number(give, following, limit=trial.measure.distance)
                if other is not None and other.measure.distance < trial.measure.distance:
                    break
            else:
                break
            assert other is not None
            gain = trial.measure.distance / max(other.measure.distance, 1e-300)
            number, trial = following, other
            if trial.measure.distance <= 1e-15 or (turn > 2 and gain < 1.5):
                break
        return self._shorten(give, number, trial)

    @staticmethod
    def _moves(kind: str, number: float) -> bool:
        return number > 0 if kind == "positive" else number < 1 or kind == "any"

    def _try_number(
        self, give: Callable[[float], tuple[Alternative, ...]], number: float, *, limit: float = np.inf
    ) -> Trial | None:
        try:
            return self._try(give(number), limit=limit)
        except UsageError:
            return None

    def _find_step(
        self, give: Callable[[float], tuple[Alternative, ...]], forward: Any, back: Any, number: float
    ) -> float | None:
        """How far the coordinate must go for the squares of the errors to be least, if all were linear."""
        place = forward(number)
        small = 1e-4 * max(abs(place), 1e-3) if back is _same else 1e-4
        try:
            here, there = give(number), give(back(place + small))
        except UsageError:
            return None
        drive = self._drive_for(here)
        error = drive.residual(here[-1].optimizer, here[-1].forms)
        other = drive.residual(there[-1].optimizer, there[-1].forms)
        slope = (other - error) / small
        size = float(slope @ slope)
        if not np.isfinite(size) or size == 0.0:
            return None
        step = -float(slope @ error) / size
        return step if back is _same else float(np.clip(step, -2.0, 2.0))

    def _shorten(
        self, give: Callable[[float], tuple[Alternative, ...]], number: float, trial: Trial
    ) -> Trial:
        """The number as a person would have written it, if that is as near."""
        if trial.measure.distance > self._bound:
            return trial
        for digits in range(1, 9):
            shorter = float(f"{number:.{digits}g}")
            if abs(shorter - number) > 1e-3 * abs(number):
                continue
            other = self._try_number(give, shorter)
            if other is not None and other.measure.distance <= max(10 * trial.measure.distance, 1e-12):
                return other
        return trial

    def _pair_with_rate(self, singles: Iterable[tuple[Alternative, ...]]) -> list[Trial]:
        """Every alternative with another rate, which the first step's moves tell: they are in proportion."""
        exact = []
        for (one,) in singles:
            for family in find_rate(one.optimizer):
                try:
                    factor = self._drive_for((one,)).find_factor(one.optimizer, one.forms)
                except OracleError:
                    continue
                if not np.isfinite(factor) or factor == 0.0:
                    continue

                def give(number: float, one: Any = one, family: Family = family) -> tuple[Alternative, ...]:
                    return one, _add_forms(family.make(number), one.forms)

                number = factor * family.meant
                trial = self._try_number(give, number, limit=self._bound)
                if trial is not None and trial.measure.distance <= self._bound:
                    exact += self._keep(self._shorten(give, number, trial))
        return exact

    def _try_pairs(self, itself: Trial) -> list[Trial]:
        """A second alternative on top of the nearest ones."""
        near = [t for t in self._trials if t.measure.distance < 0.9 * itself.measure.distance]
        bases: list[Alternative] = []
        for trial in sorted(near, key=lambda trial: (trial.measure.distance, trial.cost)):
            if all(base.code != trial.last.code for base in bases):
                bases.append(trial.last)
        for base in bases[:MOST_BASES]:
            listed = [
                (base, _add_forms(one, base.forms))
                for one in list_alternatives(base.optimizer, slices=self._slices)
                if one.code != base.code and (one.optimizer.name == base.optimizer.name or not base.forms)
            ]
            exact = [t for parts in listed for t in self._keep(self._try(parts, limit=self._bound))]
            exact = exact or self._fit_all((base,), base.optimizer)
            if exact:
                return exact
        return []


def is_elementwise(alternative: Alternative) -> bool:
    """Whether each element goes its own way, so that some of them can stand for all."""
    optimizer: Optimizer | None = alternative.optimizer
    while optimizer is not None:
        whole = optimizer.whole()
        if optimizer.name == "tfa.LAMB" or whole.get("clipnorm") or whole.get("global_clipnorm"):
            return False
        optimizer = optimizer.inner
    return not any(form.kind == "clip" for form in alternative.forms)


def _add_forms(alternative: Alternative, forms: tuple[Form, ...]) -> Alternative:
    if not forms:
        return alternative
    own = {form.kind for form in alternative.forms}
    more = tuple(form for form in forms if form.kind not in own)
    return Alternative(
        alternative.code,
        alternative.optimizer,
        (*more, *alternative.forms),
        alternative.setting,
        alternative.numbers,
        alternative.cost,
    )


def _same(number: float) -> float:
    return number


_COORDINATES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "positive": (lambda number: float(np.log(number)), lambda place: float(np.exp(min(place, 300.0)))),
    "part": (lambda number: float(np.log1p(-number)), lambda place: float(-np.expm1(min(place, 0.0)))),
    "any": (_same, _same),
}
"""The coordinate of a number in which its fit goes step by step, and back."""
