"""The catalogue: its codes, its words, its pages, and causes from outside."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from oracle.causes import CAUSES, cause, find_cause, render_cause, render_index
from oracle.causes.cause import Setting
from oracle.causes.pages import GROUPS
from oracle.causes.precision import round_mantissa
from oracle.causes.stages import BACKWARD, DECODER, ENCODER, LOSS, find_stage, list_differences
from oracle.errors import UsageError
from oracle.knobs import neutral_knobs
from tests.oracle.cases import small_case

ROOT = Path(__file__).parents[3]
PORTS = ("dynamic_rnn/lengths", "explicit_state/full", "attention_nmt/gru", "attention_nmt/stacked")


def test_the_pages_are_current() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "docs" / "causes").glob("*.md")}
    pages = {f"{code}.md": render_cause(CAUSES[code]) for code in CAUSES if code.startswith("C")}
    assert written == pages | {"README.md": render_index()}, "run `python -m oracle.causes docs/causes`"


@pytest.mark.parametrize("port", PORTS)
def test_every_setting_has_words_and_turns_something(port: str) -> None:
    case = small_case(port)
    neutral = neutral_knobs(case.spec, case.batch)
    for one in CAUSES.values():
        if one.kind != "turns" or not one.applies(case.spec, case.batch):
            continue
        assert one.code[:2] in GROUPS
        for setting in one.propose(neutral, case.spec, case.batch):
            assert "{" not in one.say(setting), one.code
            assert "{" not in one.advise(setting), one.code
            assert setting.knobs is not None
            shapes = [np.shape(array) for array in list_differences(neutral, setting.knobs).values()]
            back = [np.shape(array) for array in list_differences(setting.knobs, neutral).values()]
            assert shapes == back, f"{one.code} changes the shape of a knob"


def test_a_code_that_is_unknown_gets_the_nearest() -> None:
    assert find_cause("c101") is CAUSES["C101"]
    with pytest.raises(UsageError, match="did you mean C101"):
        find_cause("C1011")


def test_a_code_cannot_be_taken_twice() -> None:
    with pytest.raises(UsageError, match="there is one already"):
        cause("C101", title="x", sentence="x", remedy="x")
    with pytest.raises(UsageError, match="needs a code, a title"):
        cause("X999", title="x", sentence="", remedy="x")


def test_the_stage_of_a_setting_is_where_it_is_first_seen() -> None:
    case = small_case("attention_nmt/stacked")
    neutral = neutral_knobs(case.spec, case.batch)
    stages = {
        code: {
            find_stage(neutral, setting.knobs)
            for setting in CAUSES[code].propose(neutral, case.spec, case.batch)
            if setting.knobs is not None
        }
        for code in ("C101", "C201", "C302", "C406", "C502", "C603", "C607")
    }
    assert stages["C101"] == {DECODER}
    assert stages["C201"] == {ENCODER, DECODER}
    assert stages["C302"] == {ENCODER}
    assert stages["C406"] == {DECODER}
    assert stages["C502"] - {None} == {LOSS}
    assert stages["C603"] == stages["C607"] == {BACKWARD}


@pytest.mark.parametrize("bits, unit", [(7, 2.0**-7), (10, 2.0**-10), (23, 2.0**-23)])
def test_numbers_are_rounded_to_so_many_bits(bits: int, unit: float) -> None:
    numbers = np.array([1.0, 1 + unit, 1 + 0.6 * unit, -1 - 0.4 * unit, 0.0])
    assert round_mantissa(numbers, bits).tolist() == [1.0, 1 + unit, 1 + unit, -1.0, 0.0]
    random = np.random.default_rng(0).standard_normal(200)
    if bits == 23:
        assert (round_mantissa(random, bits) == random.astype(np.float32)).all()
    assert round_mantissa(np.array([3, 4], np.int32), bits).tolist() == [3, 4]


@pytest.mark.jax
def test_the_example_of_a_cause_of_ones_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "docs" / "examples" / "own_cause.py"
    module_spec = importlib.util.spec_from_file_location("own_cause", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    monkeypatch.setitem(sys.modules, "own_cause", module)
    known = dict(CAUSES)
    try:
        module_spec.loader.exec_module(module)
        module.test_half_of_the_state()
    finally:
        CAUSES.clear()
        CAUSES.update(known)


def test_a_setting_needs_nothing_but_a_name() -> None:
    assert (
        CAUSES["C616"]
        .say(Setting("", numbers={"scale": 0.5, "rest": ""}))
        .startswith("every weight's gradient is 0.5")
    )
