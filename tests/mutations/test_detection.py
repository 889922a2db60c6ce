"""A sample of the seeded faults: seen, the cause named first, the place right. Right twins match."""

from __future__ import annotations

import dataclasses
import importlib
import sys

import pytest

from oracle.compare import compare_records
from oracle.selftest.fault import Edit, Fault
from oracle.selftest.faults.attention import MAKE, SEEDED_MAKE
from oracle.selftest.faults.cells import PAIR_DECODER, PAIR_ENCODER, TRANSLATOR_DECODER, TRANSLATOR_ENCODER
from oracle.selftest.faults.small import NUDGE
from oracle.selftest.faults.stack import LAYER_CALL
from oracle.selftest.seeding import seed_fault
from oracle.selftest.snippets import (
    BAHDANAU_SCORE,
    LUONG_SCORE,
    SEEDED_ENCODER,
    by_hand,
    gru_cell,
    lstm_cell,
    mechanism,
)
from oracle.selftest.trial import Prepared, prepare, run_fault, try_fault

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.slow]

SEED = 0


def _right(module: str, *edits: Edit, addition: str = "") -> Fault:
    return Fault("right", "cells", module, (), edits, (), (), addition=addition)


LUONG = LUONG_SCORE.format(scale="self.scale_weight")
BAHDANAU = BAHDANAU_SCORE.format(g="self.attention_g", b="self.attention_b")

TWINS = {
    "encoder cell": ("pair", _right("explicit_state", PAIR_ENCODER, addition=lstm_cell())),
    "decoder cell": ("pair", _right("explicit_state", PAIR_DECODER, addition=lstm_cell())),
    "nudged by nothing": (
        "pair",
        _right(
            "explicit_state",
            PAIR_ENCODER,
            addition=NUDGE + lstm_cell(kernel="nudge(self.kernel, (0, 1), 0.0)"),
        ),
    ),
    "decoder's LSTM cells": ("luong", _right("attention_nmt", TRANSLATOR_DECODER, addition=lstm_cell())),
    "encoder's LSTM cells": (
        "luong",
        _right("attention_nmt", TRANSLATOR_ENCODER, addition=lstm_cell() + SEEDED_ENCODER),
    ),
    "decoder's GRU cells": (
        "bahdanau-gru-2",
        _right("attention_nmt", TRANSLATOR_DECODER, addition=gru_cell()),
    ),
    "directions by hand": ("bahdanau-gru-2", _right("attention_nmt", Edit(LAYER_CALL, by_hand()))),
    "Luong's score": ("luong", _right("attention_nmt", Edit(MAKE, SEEDED_MAKE), addition=mechanism(LUONG))),
    "Bahdanau's score": (
        "bahdanau",
        _right("attention_nmt", Edit(MAKE, SEEDED_MAKE), addition=mechanism(BAHDANAU)),
    ),
    "nothing at all": ("loop-lengths", _right("dynamic_rnn")),
}
"""Right ports with the pieces that faults are made of, each with nothing changed in it."""


@pytest.mark.parametrize(("subject", "twin"), TWINS.values(), ids=TWINS)
def test_a_right_twin_matches(subject: str, twin: Fault) -> None:
    prepared = prepare(subject, SEED)
    for dtype, runs in (("float64", ()), ("float32", prepared.runs)):
        comparison = compare_records(run_fault(twin, prepared, dtype=dtype), prepared.truth, yardstick=runs)
        assert comparison.matches, [row.name for row in comparison.findings]


SAMPLE = [
    ("state-exchanged", "pair"),
    ("state-stopped", "pair"),
    ("encoder-outside-tape", "pair"),
    ("bias-twice", "pair"),
    ("clipped-global-norm", "pair"),
    ("zeros-and-forget-bias", "pair"),
    ("row-of-gradient-by-1e-06", "pair"),
    ("source-length-short", "loop-lengths"),
    ("feeding-missing", "luong"),
    ("padding-counted", "luong"),
    ("gradient-of-nan", "pair"),
]


@pytest.mark.parametrize(("fault", "subject"), SAMPLE, ids=[name for name, _ in SAMPLE])
def test_a_fault_is_seen_explained_and_located(fault: str, subject: str) -> None:
    result = try_fault(fault=fault, subject=subject, seed=SEED)
    assert result.detected
    assert result.cause_right, (result.expected, result.codes, result.said)
    assert result.place_right, result.located
    assert result.hides_in_float32 or result.detected_float32


def test_the_port_is_the_right_one_again_after_a_fault() -> None:
    prepared = prepare("pair", SEED)
    before = importlib.import_module("tf_models.explicit_state")
    fault = TWINS["decoder cell"][1]
    wrong = dataclasses.replace(fault, addition=lstm_cell(forget="f + 1.0"))
    assert not _matches(wrong, prepared)
    with pytest.raises(ZeroDivisionError), seed_fault(wrong):
        assert sys.modules["tf_models.explicit_state"] is not before
        raise ZeroDivisionError
    assert sys.modules["tf_models.explicit_state"] is before
    assert _matches(_right("explicit_state"), prepared)


def test_a_traceback_shows_the_edited_line() -> None:
    prepared = prepare("pair", SEED)
    edit = Edit(
        "self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)", "raise OSError('seeded')", 1
    )
    record = run_fault(_right("explicit_state", edit), prepared)
    assert record.failure is not None
    assert record.failure.type == "OSError"
    assert "raise OSError('seeded')" in record.failure.traceback


def _matches(fault: Fault, prepared: Prepared) -> bool:
    return compare_records(run_fault(fault, prepared), prepared.truth).matches
