"""A trial: the oracle under a cause or two, held against a port. And all trials, made and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from oracle.causes.cause import CAUSES, Cause, Kind, Setting, Situation, Tensors
from oracle.causes.closeness import Closeness, Ruler
from oracle.causes.stages import LOSS, find_stage, sign, stage_of_tensor
from oracle.explanation import Candidate
from oracle.knobs import Knobs


@dataclass(frozen=True)
class Trial:
    """The oracle under some causes.

    Args:
        parts: the causes, each with its setting, in the order in which they were applied.
        knobs: as they are then turned.
        tensors: what the oracle then gives.
        closeness: how near that is to the port.
    """

    parts: tuple[tuple[Cause, Setting], ...]
    knobs: Knobs
    tensors: Tensors
    closeness: Closeness

    @property
    def codes(self) -> tuple[str, ...]:
        """The causes' codes."""
        return tuple(cause.code for cause, _ in self.parts)

    @property
    def is_fitted(self) -> bool:
        """Whether something is done to tensors after they were computed."""
        return any(cause.kind == "fits" for cause, _ in self.parts)

    def finish(self, tensors: Tensors) -> Tensors:
        """What becomes of computed tensors."""
        for _, setting in self.parts:
            if setting.after is not None:
                tensors = setting.after(tensors)
        return tensors

    def rank(self) -> tuple[float, ...]:
        """The smaller, the better: exact before near, one cause before two, computed before fitted."""
        kinds = {"turns": 0, "infers": 1, "rounds": 1, "precision": 1, "fits": 2}
        kind = sum(kinds[cause.kind] for cause, _ in self.parts)
        near = self.closeness
        if near.explains:
            return (0, len(self.parts), kind)
        return (1, -near.matching, near.decades, len(self.parts), kind)

    def describe(self) -> Candidate:
        """For people and reports."""
        return Candidate(
            self.codes,
            ", and ".join(cause.say(setting) for cause, setting in self.parts),
            " ".join(dict.fromkeys(cause.advise(setting) for cause, setting in self.parts)),
            self.closeness.distance,
            self.closeness.matching,
            len(self.closeness.ratios),
            {
                name: float(number)
                for _, setting in self.parts
                for name, number in setting.numbers.items()
                if not isinstance(number, str)
            },
        )


class Trials:
    """Makes trials, no setting twice.

    Args:
        situation: what causes may look at.
        ruler: what measures.
        neutral: the knobs of the oracle proper.
        on_done: called with a line for people when a cause has been tried.
    """

    def __init__(
        self, situation: Situation, ruler: Ruler, neutral: Knobs, on_done: Callable[[str], None]
    ) -> None:
        self.situation, self.ruler, self.neutral = situation, ruler, neutral
        self.count = 0
        self._seen: set[object] = set()
        self._on_done = on_done

    def begin(self) -> Trial:
        """The oracle proper."""
        (tensors,) = self.situation.evaluate([self.neutral])
        self._seen.add(())
        return Trial((), self.neutral, tensors, self.ruler.measure(tensors))

    def turn(
        self,
        base: Trial,
        *,
        stages: Iterable[int],
        most: int | None = None,
        kinds: Sequence[Kind] = ("turns", "infers"),
    ) -> list[Trial]:
        """What turns knobs at some stages, on top of a trial; what infers them, too."""
        made: list[Trial] = []
        wanted = frozenset(stages)
        batch: list[tuple[Cause, Setting]] = []
        for cause in self._applicable(*kinds):
            for setting in self._propose(cause, base):
                stage = find_stage(base.knobs, setting.knobs or base.knobs)
                if stage in wanted and (most is None or len(batch) < most) and self._is_new(base, setting):
                    batch.append((cause, setting))
        settings = [setting.knobs for _, setting in batch if setting.knobs is not None]
        for (cause, setting), tensors in zip(batch, self.situation.evaluate(settings), strict=True):
            made.append(self._make(base, cause, setting, tensors))
            self._on_done(f"{len(batch)} settings of {'+'.join(made[-1].codes)}")
        return made

    def fit(self, base: Trial) -> list[Trial]:
        """What is fitted to a trial's tensors; only if the forward pass, the loss left aside, agrees."""
        forward = [ratio for name, ratio in base.closeness.ratios.items() if stage_of_tensor(name) < LOSS]
        if any(ratio > 1.0 for ratio in forward):
            return []
        made = []
        for cause in self._applicable("fits"):
            if cause.code in base.codes:
                continue
            for setting in self._propose(cause, base):
                if setting.after is not None:
                    self.count += 1
                    made.append(self._make(base, cause, setting, base.tensors))
        return made

    def _make(self, base: Trial, cause: Cause, setting: Setting, tensors: Tensors) -> Trial:
        # What was done after the base's tensors were computed is in them already if no knob was turned.
        if setting.knobs is not None:
            tensors = base.finish(tensors)
        if setting.after is not None:
            tensors = setting.after(tensors)
        knobs = base.knobs if setting.knobs is None else setting.knobs
        return Trial((*base.parts, (cause, setting)), knobs, tensors, self.ruler.measure(tensors))

    def _propose(self, cause: Cause, base: Trial) -> Iterator[Setting]:
        situation = self.situation
        if cause.kind == "turns":
            return cause.propose(base.knobs, situation.spec, situation.batch)
        return cause.propose(base.knobs, base.tensors, situation)

    def _is_new(self, base: Trial, setting: Setting) -> bool:
        assert setting.knobs is not None
        key = (sign(self.neutral, setting.knobs), tuple(base.codes) if base.is_fitted else (), setting.after)
        if key in self._seen:
            return False
        self._seen.add(key)
        self.count += 1
        return True

    def _applicable(self, *kinds: str) -> Iterator[Cause]:
        for _, cause in sorted(CAUSES.items()):
            if cause.kind in kinds and cause.applies(self.situation.spec, self.situation.batch):
                yield cause


def choose_distinct(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The first trials, in order of their rank, whose closeness is not that of an earlier one."""
    chosen: list[Trial] = []
    for trial in trials:
        if all(trial.closeness.ratios != other.closeness.ratios for other in chosen):
            chosen.append(trial)
        if len(chosen) == count:
            break
    return chosen
