"""From names to comparisons: choose the ports, make the cases, run both sides, compare."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from oracle import zoo
from oracle.batch import series_batch, text_batch
from oracle.bridge.checkpoints import Checkpoint, read_checkpoint
from oracle.bridge.mapping import read_weights
from oracle.bridge.sites import find_sites
from oracle.case import Case, Dtype, check_seed, choose_dtypes, jitter_case, random_weights
from oracle.compare import Comparison, compare_closely
from oracle.errors import UsageError
from oracle.inquiry import Inquiry, Questions
from oracle.judgement import WitnessWhen
from oracle.record import Record
from oracle.runner import Runner, run_more
from oracle.series import read_series, sunspots
from oracle.spec import EncoderDecoder, Spec
from oracle.text import load_texts, read_pairs
from oracle.tolerance import FLOAT32_RUNS
from oracle.zoo import Choice, Data, Variant

Precision = Literal["f64", "f32", "both"]

RANDOM_WEIGHTS = "random"
"""What is given for a checkpoint's path to draw the weights instead."""


@dataclass(frozen=True)
class Request:
    """What is to be checked.

    Args:
        models: models and ports by name; none for the default ones.
        precision: in which precision the ports run.
        mode: how TensorFlow runs them; None for each port's default.
        weights: the prefix of a TensorFlow checkpoint, or `random`; None for the trained weights that
            ship with the project.
        data: a CSV file of numbers, or for translators a TSV file of pairs; None for what ships with the
            project.
        seed: the seed of every random choice.
        batch_size: how many windows of the series, or pairs of texts.
        witness: when the witness is asked who is wrong.
        localise: whether to find out where a port that does not match leaves the oracle.
        explain: whether to find out why.
    """

    models: tuple[str, ...] = ()
    precision: Precision = "f64"
    mode: str | None = None
    weights: str | None = None
    data: str | None = None
    seed: int = 0
    batch_size: int = 16
    witness: WitnessWhen = "on-finding"
    localise: bool = True
    explain: bool = True


def check(
    request: Request, runner: Runner, *, on_done: Callable[[str], None] = lambda _: None
) -> Iterator[Comparison]:
    """Check every port of the request, in order. All are started before the first is waited for.

    Args:
        request: what is to be checked.
        runner: what runs the two sides; its context is entered.
        on_done: called with a line for people when something is done.

    Raises:
        OracleError: if the request cannot be carried out.
    """
    chosen = choose_ports(request)
    cases = CaseMaker(request)
    oracles: dict[int, _Oracle] = {}
    ports: list[tuple[Choice, Case, str, Future[Record]]] = []
    for choice, mode in chosen:
        case = cases.make(choice.variant)
        for dtype in choose_dtypes(request.precision):
            port = runner.run("tf", case, model=choice.name, mode=mode, dtype=dtype)
            ports.append((choice, case, dtype, port))
        if id(case) not in oracles:
            oracles[id(case)] = _start_oracle(runner, case, choice, float32=request.precision != "f64")
    inquiries: list[Inquiry] = []
    questions = Questions(request.witness, request.localise, request.explain)
    for choice, case, dtype, future in ports:
        oracle = oracles[id(case)]
        truth = oracle.truth.result()
        yardstick = [run.result() for run in oracle.yardstick] if dtype == "float32" else []
        port = future.result()
        on_done(f"{choice.name} in {dtype}")
        ask_more = functools.partial(run_more, runner, case, model=choice.name, dtype=dtype)
        comparison = compare_closely(port, truth, ask_more, yardstick=yardstick)
        inquiries.append(Inquiry(comparison, runner, case, port, truth, questions=questions))
    for inquiry in inquiries:
        yield inquiry.finish(on_done=on_done)


@dataclass(frozen=True)
class _Oracle:
    """The oracle's records of one case: the truth in float64, and the yardstick in float32."""

    truth: Future[Record]
    yardstick: list[Future[Record]]


def _start_oracle(runner: Runner, case: Case, choice: Choice, *, float32: bool) -> _Oracle:
    truth = _run_oracle(runner, case, choice)
    jittered = [jitter_case(case, number) for number in range(FLOAT32_RUNS if float32 else 0)]
    return _Oracle(truth, [_run_oracle(runner, moved, choice, dtype="float32") for moved in jittered])


def _run_oracle(runner: Runner, case: Case, choice: Choice, *, dtype: Dtype = "float64") -> Future[Record]:
    return runner.run("jax", case, model=choice.name, mode=None, dtype=dtype)


def choose_ports(request: Request) -> list[tuple[Choice, str]]:
    """The ports that a request names, each with the mode it runs in.

    Raises:
        UsageError: if a name is unknown, a port cannot run in the mode, or a number is out of range.
    """
    choose_dtypes(request.precision)
    if request.mode is not None and request.mode not in zoo.MODES:
        raise UsageError(f"no mode {request.mode!r}; choose from {', '.join(zoo.MODES)}")
    if request.batch_size < 1:
        raise UsageError(f"batch size {request.batch_size}: nothing to compute on; give at least 1")
    check_seed(request.seed)
    chosen = [choice for name in request.models or zoo.DEFAULT_MODELS for choice in zoo.choose(name)]
    unique = list({choice.name: choice for choice in chosen}.values())
    return [(choice, zoo.choose_mode(choice.variant, request.mode, port=choice.name)) for choice in unique]


class CaseMaker:
    """Cases made on demand: ports of one spec, with the same weights and data, share one."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._made: dict[tuple[Spec, Path, Data], Case] = {}
        self._read_checkpoint = functools.cache(read_checkpoint)
        self._read_series = functools.cache(read_series)

    def make(self, variant: Variant) -> Case:
        """The case of a port."""
        key = (variant.spec, variant.weights, variant.data)
        if key not in self._made:
            batch, data_from = self._make_batch(variant)
            seed = self._request.seed
            weights, weights_from = load_weights(
                variant, weights=self._request.weights, seed=seed, read=self._read_checkpoint
            )
            self._made[key] = Case(variant.spec, seed, weights, batch, weights_from, data_from)
        return self._made[key]

    def _make_batch(self, variant: Variant) -> tuple[dict[str, np.ndarray], str]:
        path, spec = self._request.data, variant.spec
        draw = {"seed": self._request.seed, "batch_size": self._request.batch_size}
        if isinstance(spec, EncoderDecoder):
            series = sunspots() if path is None else self._read_series(path)
            return series_batch(spec, series, **draw), series.name
        pairs, vocabularies = load_texts(variant.data)
        # The weights know the characters of the texts that ship with the project.
        chosen = pairs if path is None else read_pairs(path)
        return text_batch(spec, chosen, vocabularies, **draw), variant.data if path is None else path


def load_weights(
    variant: Variant,
    *,
    weights: str | None,
    seed: int,
    read: Callable[[str], Checkpoint] = read_checkpoint,
) -> tuple[dict[str, np.ndarray], str]:
    """The leaves of a port in float32, and where they are from.

    Args:
        variant: the port.
        weights: the prefix of a checkpoint, or `random`; None for the port's trained ones.
        seed: of random weights.
        read: what reads a checkpoint.

    Raises:
        BridgeError: if the checkpoint cannot be read, or does not fit the port.
    """
    spec = variant.spec
    if weights == "":
        raise UsageError("the path of the weights is empty; maybe a variable that was meant is not set")
    if weights == RANDOM_WEIGHTS:
        return random_weights(spec, seed), f"random, seed {seed}"
    checkpoint = read(str(variant.weights) if weights is None else weights)
    sites = find_sites(spec, checkpoint.convention)
    leaves = read_weights(sites, checkpoint.variables, where=checkpoint.path)
    origin = variant.weights.name if weights is None else checkpoint.path
    with np.errstate(over="ignore"):
        return {path: leaf.astype(np.float32) for path, leaf in leaves.items()}, origin
