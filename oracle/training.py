"""The trajectory of a port chosen by name: its weights, a batch a step, both sides, the comparison."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oracle.batch import series_batch, text_batch
from oracle.bridge.mapping import write_weights
from oracle.bridge.sites import Convention, find_sites
from oracle.case import Case, cast_case, check_seed
from oracle.check import load_weights
from oracle.errors import UsageError
from oracle.explain_trajectory import explain_divergence
from oracle.frameworks import import_tensorflow, import_tfa
from oracle.optimizer import Optimizer
from oracle.series import read_series, sunspots
from oracle.spec import AttentionNMT, EncoderDecoder
from oracle.text import PAD, load_texts, read_pairs
from oracle.trajectory import Step, TrajectoryComparison, check_steps, compare_trajectories
from oracle.zoo import Choice


@dataclass(frozen=True)
class Training:
    """What is trained on what.

    Args:
        choice: the port.
        optimizer: what trains it.
        steps: how many steps.
        seed: the first batch is drawn with this seed, the next with the next.
        batch_size: how many windows of the series, or pairs of texts, a step.
        weights: the prefix of a checkpoint, or `random`; None for the port's trained ones.
        data: a CSV file, or for a translator a TSV file; None for what ships with the port.
        l2: the rate of `tf.nn.l2_loss` of every variable that is added to the loss.
        trained_by: what trains the port, if that is not the optimizer that was meant.

    Raises:
        UsageError: if a number is out of range.
    """

    choice: Choice
    optimizer: Optimizer
    steps: int = 100
    seed: int = 0
    batch_size: int = 16
    weights: str | None = None
    data: str | None = None
    l2: float = 0.0
    trained_by: Optimizer | None = None

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_seed(self.seed)
        if self.batch_size < 1:
            raise UsageError(f"batch size {self.batch_size}: nothing to compute on; give at least 1")
        if not 0 <= self.l2 < float("inf"):
            raise UsageError(f"l2 {self.l2:g}: give a finite number from 0 on")


def compare_training(
    training: Training, *, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[TrajectoryComparison, Case]:
    """Train both sides in this process, and hold every step against the other's.

    Returns:
        The comparison, and the first step's case.

    Raises:
        OracleError: if the training cannot be carried out.
    """
    cases = make_cases(training)
    return compare_cases(training, cases, on_step=on_step), cases[0]


def compare_cases(
    training: Training,
    cases: Sequence[Case],
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> TrajectoryComparison:
    """As `compare_training`, on cases that are given: one a step, the first one with the weights."""
    import_tensorflow()
    trained = training.trained_by or training.optimizer
    if training.choice.model.needs_tfa or trained.namespace == "tfa":
        import_tfa()
    from oracle.steps.trajectory import step_oracle
    from tf_models.trajectory import step_port

    convention = find_convention(training.choice)
    initial = write_weights(find_sites(cases[0].spec, convention), cast_case(cases[0], "float64")[0])
    options: dict[str, Any] = {"optimizer": training.optimizer, "l2": training.l2}
    port = step_port(cases, model=training.choice.name, optimizer=trained, l2=training.l2)
    oracle = step_oracle(cases, convention=convention, **options)
    explain = functools.partial(explain_divergence, optimizer=training.optimizer, initial=initial)
    return compare_trajectories(_told(port, on_step), oracle, initial=initial, explain=explain)


def find_convention(choice: Choice) -> Convention:
    """How a port's variables are named: the TF1 original's by scopes, all others' by attributes."""
    return "tf1" if choice.model.name == "dynamic_rnn" else "keras"


def make_cases(training: Training) -> list[Case]:
    """One case a step: the same weights, and a batch of its own. All batches are of one shape."""
    variant = training.choice.variant
    weights, weights_from = load_weights(variant, weights=training.weights, seed=training.seed)
    batches, data_from = _draw_batches(training)
    first = Case(variant.spec, training.seed, weights, batches[0], weights_from, data_from)
    return [replace(first, batch=batch, seed=training.seed + number) for number, batch in enumerate(batches)]


def _draw_batches(training: Training) -> tuple[list[dict[str, np.ndarray]], str]:
    variant, path = training.choice.variant, training.data
    seeds = range(training.seed, training.seed + training.steps)
    if isinstance(variant.spec, EncoderDecoder):
        series = sunspots() if path is None else read_series(path)
        draw = functools.partial(series_batch, variant.spec, series, batch_size=training.batch_size)
        return [draw(seed=seed) for seed in seeds], series.name
    assert isinstance(variant.spec, AttentionNMT)
    pairs, vocabularies = load_texts(variant.data)
    chosen = pairs if path is None else read_pairs(path)
    batches = [
        text_batch(variant.spec, chosen, vocabularies, seed=seed, batch_size=training.batch_size)
        for seed in seeds
    ]
    return _pad(batches), variant.data if path is None else path


def _pad(batches: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Batches of one shape are traced and compiled once; past the lengths nothing is read."""
    times = {name: max(batch[name].shape[1] for batch in batches) for name in ("source", "target")}
    return [
        {
            name: np.pad(array, ((0, 0), (0, times[name] - array.shape[1])), constant_values=PAD)
            if name in times
            else array
            for name, array in batch.items()
        }
        for batch in batches
    ]


def _told(steps: Iterator[Step], on_step: Callable[[int, float], None]) -> Iterator[Step]:
    for step in steps:
        on_step(step.step, float("nan") if step.loss is None else step.loss)
        yield step
