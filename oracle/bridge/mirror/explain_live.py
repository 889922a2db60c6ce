"""Why a live port is not its reference: the cause, or the pair of them, under which the oracle is the port.

The reference is run with knobs at every call of the mirror's parts; the causes that are fitted to gradients
are those of the catalogue (`oracle.causes`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from oracle.bridge.mirror.counterfactual.agreement import CALL_BOUND, measure
from oracle.bridge.mirror.counterfactual.knobbed import KnobbedReference, Knobs
from oracle.bridge.mirror.counterfactual.parts import find_parts
from oracle.bridge.mirror.counterfactual.proposals import Proposal, make_cause, merge_knobs, say_outside
from oracle.bridge.mirror.counterfactual.reference import References
from oracle.bridge.mirror.counterfactual.sites import INITIAL_STATE
from oracle.bridge.mirror.counterfactual.taps import tap_port
from oracle.bridge.mirror.counterfactual.turns import propose_turns
from oracle.bridge.mirror.mirrored import flatten
from oracle.bridge.mirror.run_port_side import PortRun
from oracle.causes import CAUSES
from oracle.causes.cause import Situation
from oracle.causes.closeness import Ruler
from oracle.causes.trial import Trial
from oracle.explanation import Candidate, Explanation
from oracle.live_port import LivePort
from oracle.record import Record
from oracle.tolerance import FLOAT64_BOUND

SECONDS = 90.0
"""How long causes are tried before what was found is told."""

PAIRED = 10
"""How many of the nearest causes are tried in pairs."""


def explain_live(port: LivePort, run: PortRun, truth: Record) -> Explanation:
    """Say why a live port is not its reference.

    Whatever goes wrong on the way is what the lines say; nothing is raised.

    Args:
        port: the live port.
        run: what its side gave, in float64.
        truth: the oracle's record, in float64.
    """
    try:
        return _Search(port, run, truth).conclude()
    except Exception as error:
        said = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])
        return _give_up(f"with knobs at its calls the reference raised {said}")


class _Search:
    """The trials of one port."""

    def __init__(self, port: LivePort, run: PortRun, truth: Record) -> None:
        self._run, self._ends = run, time.monotonic() + SECONDS
        tensors = {name: array for name, array in truth.tensors.items() if array is not None}
        self._port = _fill(run.record, tensors)
        self._ruler = Ruler(self._port, tensors)
        self._apart = sorted(run.record.tensors.keys() ^ truth.tensors.keys())
        self._nones = frozenset(name for name, array in run.record.tensors.items() if array is None)
        self._live, self._parts = port, find_parts(port.models)
        references = References(port, run, self._parts)
        whole = {
            leaf: np.shape(array) for leaf, array in flatten(run.mirror.expand(run.mirror.params)).items()
        }
        self._leaves = tuple(run.mirror.spec.weight_shapes())
        self._others = references.others
        ties = run.mirror.spec.ties
        self._reference = KnobbedReference(references, whole, self._leaves, ties)
        neutral = self._reference.neutral()
        computed = self._reference.compute(neutral)
        self._same = all(measure(computed[name], array) <= CALL_BOUND for name, array in tensors.items())
        self._neutral = Trial((), neutral, computed, self._ruler.measure(computed))  # pyright: ignore[reportArgumentType]
        self.tried = 0

    def conclude(self) -> Explanation:
        """The explanation."""
        if not self._same:
            return _give_up("watched by the mirror, the reference computes something else than before")
        turns = list(propose_turns(self._reference))
        forward = self._is_forward_right()
        backward_only = [turn for turn in turns if _is_backward(turn)]
        others = [turn for turn in turns if not _is_backward(turn)]
        # What holds back gradients does not change the forward pass, and all else does.
        single = self._try(backward_only if forward else others)
        fitted = list(self._fit([self._neutral]))
        if exact := [trial for trial in (*single, *fitted) if trial.closeness.explains]:
            return self._tell(exact)
        nearest = sorted(single, key=Trial.rank)[:PAIRED]
        second = list(self._fit(nearest))
        pairs = self._pair(nearest, backward_only if not forward else [])
        if exact := [trial for trial in (*pairs, *second) if trial.closeness.explains]:
            return self._tell(exact)
        shifted = list(self._shift_lengths())
        if exact := [trial for trial in shifted if trial.closeness.explains]:
            return self._tell(exact)
        return self._tell_nearest([*single, *fitted, *second, *pairs, *shifted])

    def _is_forward_right(self) -> bool:
        ratios = self._neutral.closeness.ratios
        return all(ratio <= 1 for name, ratio in ratios.items() if not name.startswith("gradient/"))

    def _try(self, proposals: Iterable[Proposal]) -> list[Trial]:
        made = []
        for cause, setting in proposals:
            if time.monotonic() > self._ends:
                break
            knobs: Any = setting.knobs
            made.append(self._make(((cause, setting),), knobs))
        return made

    def _make(self, parts: tuple[Proposal, ...], knobs: Knobs) -> Trial:
        self.tried += 1
        computed = self._reference.compute(knobs)
        held: Any = knobs
        return Trial(parts, held, computed, self._ruler.measure(computed))

    def _pair(self, nearest: Sequence[Trial], backward: Sequence[Proposal]) -> list[Trial]:
        """The nearest two by two; and each of the very nearest with every cut, which alone changes no number
        of the forward pass.
        """
        made = []
        cuts = [
            ((first.parts[0], cut), first.knobs, cut[1].knobs) for first in nearest[:3] for cut in backward
        ]
        twos = [
            # The likeliest pair is of one fault forward and one in the tape, so that comes first.
            ((first.parts[0], second.parts[0]), first.knobs, second.knobs)
            for first, second in itertools.combinations(nearest, 2)
        ]
        for parts, one, two in [*cuts, *twos]:
            first: Any = one
            second: Any = two
            if time.monotonic() > self._ends:
                break
            merged = merge_knobs(self._reference.neutral(), first, second)
            if merged is not None:
                made.append(self._make(parts, merged))
        return made

    def _fit(self, bases: Sequence[Trial]) -> Iterator[Trial]:
        """What is done to the gradients of a trial once they are computed."""
        spec: Any = self._run.mirror.spec
        weights = {leaf: np.asarray(self._run.weights[leaf], np.float64) for leaf in self._leaves}
        for base in bases:
            situation = Situation(
                spec, weights, self._run.batch, self._port, self._nones, _refuse, FLOAT64_BOUND * 100
            )
            outputs = [r for name, r in base.closeness.ratios.items() if name.startswith("output/")]
            if any(ratio > 1 for ratio in outputs):
                continue
            for cause in [cause for cause in CAUSES.values() if cause.kind == "fits" and _fits(cause, spec)]:
                for setting in _propose(cause, base, situation):
                    if setting.after is None:
                        continue
                    self.tried += 1
                    tensors = setting.after(base.tensors)
                    yield Trial(
                        (*base.parts, (cause, setting)), base.knobs, tensors, self._ruler.measure(tensors)
                    )

    def _shift_lengths(self) -> Iterator[Trial]:
        """Lengths in the batch that are one step more or less: each a program of its own."""
        for name, array in self._others.items():
            if "len" not in name.lower() or array.ndim != 1 or array.dtype.kind not in "iu":
                continue
            for step, said in ((1, "one step more"), (-1, "one step less")):
                if time.monotonic() > self._ends:
                    return
                moved = np.clip(array + step, 0, None).astype(array.dtype)
                try:
                    computed = self._reference.compute_other({**self._others, name: moved})
                except Exception:  # noqa: S112
                    # Lengths that reach past the arrays are no explanation.
                    continue
                self.tried += 1
                part = make_cause(
                    "C302",
                    f"`{name}` is {said} than it is",
                    "Count the tokens without start or end markers, or with them, on both sides alike.",
                    None,
                )
                neutral: Any = self._reference.neutral()
                yield Trial((part,), neutral, computed, self._ruler.measure(computed))

    def _tell(self, exact: Sequence[Trial]) -> Explanation:
        # Sorting keeps the order of the proposals among equals: the likelier first.
        ordered = self._prefer_outside(sorted(exact, key=Trial.rank))
        best = ordered[0].describe()
        lines = [
            f"Your port equals the oracle exactly ({best.distance:.0e}) if {best.sentence}.",
            best.remedy,
        ]
        others = _distinct(ordered[0], ordered[1:])
        if others:
            said = "; ".join(f"{other.sentence} ({', '.join(other.codes)})" for other in others)
            lines.append(f"On this batch that cannot be told from: {said}.")
        if self._apart:
            lines.append(f"Left aside, since one side alone has it: {', '.join(self._apart)}.")
        lines.append(f"See {' and '.join(f'docs/causes/{code}.md' for code in dict.fromkeys(best.codes))}.")
        return Explanation(
            "explained", tuple(lines), best, tuple(t.describe() for t in ordered[1:]), self.tried
        )

    def _prefer_outside(self, ordered: list[Trial]) -> list[Trial]:
        """What is known to be called outside of the tape comes before what explains as much."""
        subjects = [_subject_of(trial) for trial in ordered]
        if not any(subjects):
            return ordered
        wanted = {
            (site.part, site.method): self._parts[site.part]
            for site in self._reference.sites
            if site.part in self._parts and site.method != INITIAL_STATE
        }
        calls = tap_port(self._live, self._run, wanted).calls
        for trial, subject in zip(ordered, subjects, strict=True):
            own = [c for c in calls if subject and f"{c.part}/".startswith(f"{subject}/")]
            if own and not any(call.is_recorded for call in own) and trial.rank() == ordered[0].rank():
                parts = tuple(say_outside(p) if p[0].code == "C601" else p for p in trial.parts)
                return [replace(trial, parts=parts), *(other for other in ordered if other is not trial)]
        return ordered

    def _tell_nearest(self, trials: Sequence[Trial]) -> Explanation:
        line = (
            f"No cause that is known explains it: {self.tried} were tried at the calls of your parts, alone "
            "and in pairs."
        )
        least = self._neutral.closeness.matching
        near = sorted((t for t in trials if t.closeness.matching > least), key=Trial.rank)[:5]
        if not near:
            return Explanation("unexplained", (line,), None, (), self.tried)
        best = near[0].describe()
        left = [name for name, ratio in near[0].closeness.ratios.items() if ratio > 1]
        said = (
            f"Nearest ({', '.join(best.codes)}): if {best.sentence}, {best.matching} of {best.total} tensors "
            f"agree in place of {self._neutral.closeness.matching}; what is left is {best.distance:.1e}, "
            f"first in {left[0]}."
        )
        return Explanation(
            "unexplained", (line, said), best, tuple(t.describe() for t in near[1:]), self.tried
        )


def _fill(record: Record, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The port's tensors, a gradient of None as zeros."""
    filled = {}
    for name, array in truth.items():
        if name in record.tensors:
            theirs = record.tensors[name]
            filled[name] = np.zeros_like(array) if theirs is None else np.asarray(theirs, np.float64)
    return filled


def _is_backward(proposal: Proposal) -> bool:
    """Whether a cause holds back gradients alone."""
    return proposal[0].code.startswith("C60")


def _fits(cause: Any, spec: Any) -> bool:
    try:
        return bool(cause.applies(spec, {}))
    except AttributeError:
        # A condition on a spec of this project's own models.
        return False


def _propose(cause: Any, base: Trial, situation: Situation) -> Iterator[Any]:
    try:
        yield from cause.propose(base.knobs, base.tensors, situation)
    except (AttributeError, KeyError):
        # A cause of this project's own models, which looks at what a mirror has not.
        return


def _refuse(knobs: Any) -> Any:
    raise KeyError("a live port has no knobs of the catalogue")


def _distinct(best: Trial, others: Sequence[Trial]) -> list[Candidate]:
    """What explains as much with as few causes, fitted or not as the best is."""
    alike = [trial for trial in others if trial.rank() == best.rank() and trial.codes != best.codes]
    return [trial.describe() for trial in {trial.codes: trial for trial in reversed(alike)}.values()][::-1]


def _subject_of(trial: Trial) -> str:
    """The model or part that no gradient reaches, if that is what a trial says."""
    said: list[Any] = [setting.numbers for cause, setting in trial.parts if cause.code == "C601"]
    return said[0].get("subject", "") if said else ""


def _give_up(reason: str) -> Explanation:
    return Explanation("unexplained", (f"cannot say why: {reason}",))
