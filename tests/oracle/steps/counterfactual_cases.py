"""The cases of the counterfactual oracle's tests, and what compares two sets of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oracle.case import Case, random_case
from oracle.knobs import Knobs
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec
from oracle.steps.counterfactual import Evaluator

SEQUENCES = {
    f"{'lengths' if lengths else 'full'}-{state}-{'projection' if projection else 'bare'}": EncoderDecoder(
        3,
        6 if projection else 4,
        LSTM(4, 0.7),
        LSTM(4, 1.3),
        projection=projection,
        initial_state=state,
        lengths=lengths,
    )
    for lengths in (False, True)
    for state in ("implicit", "given")
    for projection in (False, True)
}

TRANSLATORS = {
    "lstm-2-luong": AttentionNMT(8, 7, 5, "lstm", 3, 2, Attention("luong", 6, True, 9)),
    "gru-1-bahdanau": AttentionNMT(8, 7, 5, "gru", 3, 1, Attention("bahdanau", 4, False, 6), loss="steps"),
    "lstm-1-bahdanau": AttentionNMT(8, 7, 5, "lstm", 3, 1, Attention("bahdanau", 4, True, 9), loss="rows"),
    "gru-1-luong_monotonic": AttentionNMT(8, 7, 5, "gru", 3, 1, Attention("luong_monotonic", 6, True)),
    "lstm-1-bahdanau_monotonic": AttentionNMT(8, 7, 5, "lstm", 3, 1, Attention("bahdanau_monotonic", 4)),
}


def draw_case(spec: Spec, *, seed: int = 3) -> Case:
    """Four rows, six source steps, five target steps; of a translator no row is of full target length."""
    case = random_case(spec, seed=seed, batch_size=4, source_time=6, target_time=5)
    if isinstance(spec, AttentionNMT):
        lengths = np.array([4, 1, 3, 2], np.int32)
        tokens = np.where(np.arange(6) <= lengths[:, None], np.maximum(case.batch["target"], 2), 0)
        batch = {**case.batch, "target": tokens.astype(np.int32), "target_length": lengths}
        batch["source_length"] = np.array([6, 2, 5, 4], np.int32)
        case = Case(spec, seed, case.weights, batch, case.weights_from, case.data_from)
    return case


def build(case: Case, **options: str) -> Evaluator:
    """The evaluator of a case."""
    return Evaluator(case.spec, case.weights, case.batch, **options)


def evaluate(evaluator: Evaluator, knobs: Knobs) -> dict[str, np.ndarray]:
    """What the oracle has under one setting."""
    (tensors,) = evaluator.evaluate([knobs])
    return tensors


def errors(tensors: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest error of each tensor, as a part of the truth's largest element."""
    return {name: relative(tensors[name], truth[name]) for name in truth}


def relative(values: np.ndarray, truth: np.ndarray) -> float:
    """The largest error, as a part of the truth's largest element."""
    scale = np.abs(truth).max(initial=0.0)
    error = np.abs(values - truth).max(initial=0.0)
    return float(error / scale) if scale else float(np.inf if error else 0.0)
