"""Why a port is not the oracle: the cause, or the pair of causes, under which the oracle gives its numbers.

Causes (`oracle.causes`) are tried on the counterfactual oracle. One that explains must make *every* tensor
agree, as a comparison would have it: in float64 within 1e-12 of the largest element. How the search goes,
and what it cannot find, is told in `docs/explanation.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import numpy as np

from oracle.case import jitter_arrays
from oracle.causes import CAUSES, ModelSpec, Situation, Tensors
from oracle.causes.closeness import Ruler
from oracle.causes.coarseness import find_precision
from oracle.causes.plugins import load_plugins
from oracle.causes.precision import MANTISSAS, round_mantissa
from oracle.causes.roundings import round_products
from oracle.causes.stages import BACKWARD, ENCODER, possible_stages
from oracle.causes.telling import tell_explained, tell_unexplained
from oracle.causes.trial import Trial, Trials, choose_distinct
from oracle.compare import read_truths
from oracle.errors import RecordError, UsageError
from oracle.explanation import Explanation
from oracle.frameworks import import_jax, precise_jax
from oracle.knobs import Knobs
from oracle.rebuild import Rebuilt
from oracle.record import Record
from oracle.spec import AttentionNMT, EncoderDecoder
from oracle.tolerance import FLOAT32_RUNS, FLOAT64_BOUND, largest

MOST_PAIRS = 480
"""How many settings are computed on top of others, at most."""

MOST_BASES = 6
"""On top of how many."""

NEUTRAL_BOUND = 1e-10
"""How near the oracle that can be turned is to the oracle proper."""

MOST_OTHERS = 5
"""How many other candidates an explanation names."""


class Evaluating(Protocol):
    """What computes the oracle with its knobs turned: `oracle.steps.counterfactual.Evaluator`."""

    neutral: Knobs

    def evaluate(self, settings: Sequence[Knobs]) -> object:
        """The tensors of a record under each setting, in turn."""
        ...


@dataclass(frozen=True)
class _Inputs:
    """What the oracle computes on."""

    spec: ModelSpec
    weights: Tensors
    batch: Tensors
    seed: int


def explain_record(
    port: Record,
    truth: Record,
    evaluator: Evaluating,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    batch: Mapping[str, np.ndarray] | None = None,
    on_done: Callable[[str], None] = lambda line: None,
) -> Explanation:
    """Find the cause, or the pair of causes, under which the oracle gives a port's numbers.

    A gradient of the port's that is None counts as zeros. What the port does not give is not compared.

    Args:
        port: the port's record, named by leaves. In half or mixed precision only the precision itself can
            be its explanation.
        truth: the oracle's, in float64.
        evaluator: computes the oracle with its knobs turned, on what the records are of.
        weights: the leaves; by default those that the port's record holds.
        batch: the batch; by default the one that the port's record holds.
        on_done: called with a line for people when something is done.

    Raises:
        RecordError: if the port raised, gives nothing that the oracle has, or its weights and batch are not
            known, or the oracle's own tensors are not finite.
        UsageError: if the spec has no knobs.
        MissingPackageError: if JAX or Flax is not installed, which a float32 port and precision need.
    """
    load_plugins()
    inputs = _find_inputs(port, truth, weights, batch)
    truths = read_truths(truth)
    tensors = {
        name: np.zeros_like(expected)
        if port.tensors[name] is None
        else np.asarray(port.tensors[name], np.float64)
        for name, expected in truths.items()
        if name in port.tensors
    }
    if not tensors:
        raise RecordError(f"{port.origin.model}: the port gives no tensor that the oracle has; record some")
    is_float32 = port.origin.dtype == "float32"

    def runs(knobs: Knobs) -> list[Tensors]:
        return _run_float32(inputs, knobs) if is_float32 else []

    neutral_runs = runs(evaluator.neutral)
    ruler = Ruler(tensors, truths, neutral_runs)
    situation = Situation(
        inputs.spec,
        inputs.weights,
        inputs.batch,
        tensors,
        frozenset(name for name, tensor in port.tensors.items() if tensor is None),
        lambda settings: list(evaluator.evaluate(settings)),
        bound=1e-4 if is_float32 else 100 * FLOAT64_BOUND,
    )
    trials = Trials(situation, ruler, evaluator.neutral, on_done)
    return _Search(trials, runs, inputs, port, truths).run()


def explain_rebuilt(rebuilt: Rebuilt, *, on_done: Callable[[str], None] = lambda line: None) -> Explanation:
    """Explain a record that was rebuilt for the oracle (`oracle.rebuild`), which is run on its inputs.

    Raises:
        RecordError: as `explain_record`.
        UsageError: as `explain_record`.
        MissingPackageError: if JAX or Flax is not installed.
    """
    from oracle.run_jax import compute_tensors, describe_oracle
    from oracle.steps.counterfactual import Evaluator

    spec, weights, batch = rebuilt.spec, rebuilt.weights, rebuilt.batch
    evaluator = Evaluator(spec, weights, batch)
    import_jax()
    with precise_jax():
        tensors = compute_tensors(spec, weights, batch)
    origin = describe_oracle(rebuilt.port.origin, mode="jit", dtype="float64")
    truth = Record(spec, origin, tensors)
    return explain_record(rebuilt.port, truth, evaluator, weights=weights, batch=batch, on_done=on_done)


class _Search:
    """The order in which causes are tried."""

    def __init__(
        self,
        trials: Trials,
        runs: Callable[[Knobs], list[Tensors]],
        inputs: _Inputs,
        port: Record,
        truths: Tensors,
    ) -> None:
        self._trials, self._runs, self._inputs = trials, runs, inputs
        self._port, self._truths = port, truths
        self._all: list[Trial] = []

    def run(self) -> Explanation:
        """Singles, then one tensor that is rounded, then coarser arithmetic, then pairs."""
        neutral = self._settle(self._trials.begin())
        self._check_neutral(neutral)
        if neutral.closeness.explains:
            said = (
                "What the port gives equals the oracle: there is nothing to explain, save what is missing, "
                "unexpected or None."
            )
            return Explanation("unexplained", (said,), tried=0)
        exact = self._try_singles(neutral) or self._try_roundings(neutral)
        if not exact:
            coarse = find_precision(
                self._trials.ruler, neutral.tensors, self._compute_coarse, self._port.origin.dtype
            )
            if coarse is not None:
                return msgspec.structs.replace(coarse, tried=self._trials.count)
            exact = self._try_pairs(neutral)
        tried = self._trials.count
        if exact:
            return tell_explained(self._port, neutral, exact, tried, most=1 + MOST_OTHERS)
        nearest = choose_distinct(sorted(self._all, key=Trial.rank), 1 + MOST_OTHERS)
        return tell_unexplained(neutral, nearest, tried, sum(one.kind != "trains" for one in CAUSES.values()))

    def _check_neutral(self, neutral: Trial) -> None:
        for name, truth in self._truths.items():
            if largest(neutral.tensors[name] - truth) > NEUTRAL_BOUND * largest(truth):
                raise RecordError(
                    f"explain: the oracle that can be turned gives another {name} than the oracle's record; "
                    "is the record of these weights and this batch?"
                )

    def _try_singles(self, neutral: Trial) -> list[Trial]:
        stages = possible_stages(neutral.closeness)
        exact = self._keep(self._trials.turn(neutral, stages=stages) + self._trials.fit(neutral))
        if not exact and len(stages) > 1 and stages[0] != ENCODER:
            exact = self._keep(self._trials.turn(neutral, stages=range(BACKWARD + 1)))
        return exact

    def _try_roundings(self, neutral: Trial) -> list[Trial]:
        """One tensor cast. Nothing is looked for on top of a rounding, so that those that fail are let go."""
        stages = range(BACKWARD + 1)
        made = [self._settle(one) for one in self._trials.turn(neutral, stages=stages, kinds=("rounds",))]
        return sorted((trial for trial in made if trial.closeness.explains), key=Trial.rank)

    def _try_pairs(self, neutral: Trial) -> list[Trial]:
        """A second cause on top of a first, which is chosen by `_choose_bases`."""
        singles, exact = list(self._all), []
        solved: list[Trial] = []
        for base in singles:
            found = self._keep(self._trials.fit(base))
            exact += found
            solved += [base] if found else []
        left = MOST_PAIRS
        # What is fitted may be the trace of a cause that can be computed: that is tried, and preferred.
        for base in solved[:MOST_BASES] or self._choose_bases(neutral, singles):
            if base.is_fitted:
                continue
            made = self._trials.turn(base, stages=possible_stages(base.closeness), most=left)
            left -= len(made)
            found = self._keep(made)
            exact += found
            if found:
                break
        return sorted(exact, key=Trial.rank)

    @staticmethod
    def _choose_bases(neutral: Trial, singles: list[Trial]) -> list[Trial]:
        """The causes that bring the first difference later, if any do; else those that bring it nearest."""
        singles = [trial for trial in singles if not trial.is_fitted]
        first = neutral.closeness.leading
        advancing = [trial for trial in singles if trial.closeness.leading > first]
        if advancing:
            advancing.sort(key=lambda trial: (-trial.closeness.leading, *trial.rank()))
            return choose_distinct(advancing, MOST_BASES)
        name = list(neutral.closeness.ratios)[first]
        near = sorted(singles, key=lambda trial: (trial.closeness.ratios[name], *trial.rank()))
        return choose_distinct(near, MOST_BASES)

    def _keep(self, made: list[Trial]) -> list[Trial]:
        """Remember trials; the ones that explain, the best first."""
        settled = [self._settle(trial) for trial in made]
        self._all += settled
        return sorted((trial for trial in settled if trial.closeness.explains), key=Trial.rank)

    def _settle(self, trial: Trial) -> Trial:
        """Measure a near trial of a float32 port by the roundings of the oracle under its causes."""
        if self._port.origin.dtype != "float32" or not trial.closeness.is_near:
            return trial
        runs = [trial.finish(run) for run in self._runs(trial.knobs)]
        return replace(trial, closeness=self._trials.ruler.confirm(trial.tensors, runs))

    def _compute_coarse(self, bits: int) -> list[list[Tensors]]:
        """The oracle of weights and batch that are rounded, as a matrix product's inputs would be.

        Of float32, in which a case is already: all in that arithmetic, or the inputs of products alone.
        """
        inputs, neutral = self._inputs, self._trials.neutral
        if bits == MANTISSAS["float32"]:
            return [_run_float32(inputs, neutral), self._round_products()]
        runs = []
        for number in range(FLOAT32_RUNS):
            generator = np.random.default_rng([inputs.seed, 5, number]) if number else None
            weights, batch = (
                {name: round_mantissa(array, bits, generator=generator) for name, array in arrays.items()}
                for arrays in (inputs.weights, inputs.batch)
            )
            runs.append(_evaluate(inputs.spec, weights, batch, neutral, "float64"))
        return [runs]

    def _round_products(self) -> list[Tensors]:
        """What each product is given rounded to float32; of jittered cases what that does, on the truth."""
        inputs, neutral = self._inputs, self._trials.neutral
        rounded, runs = round_products(neutral, "float32"), []
        for number in range(FLOAT32_RUNS):
            weights, batch = inputs.weights, inputs.batch
            if number:
                weights, batch = jitter_arrays(weights, batch, seed=[inputs.seed, 6, number])
            exact, coarse = (
                _evaluate(inputs.spec, weights, batch, knobs, "float64") for knobs in (neutral, rounded)
            )
            runs.append({name: self._truths[name] + coarse[name] - exact[name] for name in exact})
        return runs


def _find_inputs(
    port: Record,
    truth: Record,
    weights: Mapping[str, np.ndarray] | None,
    batch: Mapping[str, np.ndarray] | None,
) -> _Inputs:
    spec = truth.spec or port.spec
    if not isinstance(spec, EncoderDecoder | AttentionNMT):
        raise UsageError("explain: the model is a mirror of live objects or unknown; it has no knobs to turn")
    if port.failure is not None:
        raise RecordError(f"{port.origin.model}: the port raised {port.failure.type}; diagnose it instead")
    weights, batch = weights or port.weights, batch or port.batch
    if not weights or not batch:
        raise RecordError(f"{port.origin.model}: the record holds no weights or no batch; give them")
    return _Inputs(spec, _widen(weights), _widen(batch), port.origin.seed)


def _widen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: array.astype(np.float64 if array.dtype.kind == "f" else np.int32)
        for name, array in arrays.items()
    }


def _run_float32(inputs: _Inputs, knobs: Knobs) -> list[Tensors]:
    """The oracle in float32 under some knobs, on the case and on jittered ones, as a comparison has it."""
    runs = []
    for number in range(FLOAT32_RUNS):
        weights, batch = inputs.weights, inputs.batch
        if number:
            weights, batch = jitter_arrays(weights, batch, seed=[inputs.seed, 2, number])
        runs.append(_evaluate(inputs.spec, weights, batch, knobs, "float32"))
    return runs


def _evaluate(spec: ModelSpec, weights: Tensors, batch: Tensors, knobs: Knobs, dtype: str) -> Tensors:
    from oracle.steps.counterfactual import Evaluator

    (tensors,) = Evaluator(spec, weights, batch, dtype=dtype).evaluate([knobs])
    return {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
