"""Which cases there are, and which are chosen."""

from __future__ import annotations

import pytest

from bench.cases import SIZES, all_cases, choose_cases, live_case
from bench.contestants import CONTESTANTS, list_contestants
from oracle.errors import UsageError


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


def test_every_model_is_there_at_every_size():
    names = {case.name for case in all_cases()}
    for size in SIZES:
        for model in ("lstm", "lstm-luong", "lstm-bahdanau", "gru", "gru-luong", "gru-bahdanau"):
            assert f"gradient/{model}/{'x'.join(map(str, size))}" in names


def test_every_axis_is_swept():
    axes = {case.axis for case in all_cases()}
    assert axes == {"", "B", "T", "H", "layers", "vocabulary"}
    times = [case.value for case in all_cases() if case.name.startswith("sweep-T/lstm/")]
    assert (min(times), max(times)) == (64, 4096)


def test_selections_grow():
    quick, default, full = (
        {case.name for case in choose_cases(selection=name)} for name in ("quick", "default", "full")
    )
    assert quick < default < full


def test_memory_is_measured_on_request():
    assert not any(case.memory for case in choose_cases(selection="full") if not case.axis)
    assert any(case.memory for case in choose_cases(selection="full", memory=True) if not case.axis)
    assert [case.name for case in choose_cases(selection="full") if case.memory] == ["sweep-T/lstm/4096"]
    assert live_case("m:build", memory=True).memory


def test_a_pattern_chooses_among_all():
    names = [case.name for case in choose_cases(patterns=["sweep-T/lstm/*"])]
    assert names == [f"sweep-T/lstm/{time}" for time in (64, 256, 1024, 4096)]


def test_a_pattern_that_chooses_nothing_is_an_error():
    with pytest.raises(UsageError, match="no case 'gradeint"):
        choose_cases(patterns=["gradient/lstm/*", "gradeint/*"])


def test_who_does_not_take_part_says_why():
    for case in all_cases():
        for contestant, reason in list_contestants(case):
            assert contestant in CONTESTANTS
            assert not reason or reason[-1] != "."


def test_attention_has_no_keras_layer_and_no_cell_of_flax():
    (case,) = choose_cases(patterns=["gradient/lstm-luong/32x32x256"])
    reasons = {contestant.name: reason for contestant, reason in list_contestants(case)}
    assert reasons["keras"]
    assert reasons["flax"]
    assert not reasons["fast"]
    assert not reasons["tf-session"]
