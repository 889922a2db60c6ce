"""Every mode and precision in one table, and nothing green that means nothing."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from oracle.check import Request
from oracle.modes import COLUMNS, ROWS, ModeTable, Outcome, check_modes, hold_outcome
from oracle.report.modes import RENDERERS, state_modes, state_reasons, state_repeats
from oracle.run_tf import describe_repeats

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.slow]


def make_wrong(mode: str, dtype: str) -> Outcome:
    return Outcome(mode, dtype, "findings", "3 runs, bitwise the same", "loss", reason="1 of 20 tensors")


@pytest.fixture(scope="module")
def tables() -> dict[str, ModeTable]:
    """Small models in place of the zoo's, run in this process."""
    from oracle import check, modes, runner, zoo
    from tests.oracle.cases import small_case

    class SmallCases(check.CaseMaker):
        def make(self, variant: Any) -> Any:
            names = {choice.variant: choice.name for choice in zoo.choices()}
            return small_case(names[variant])

    patch = pytest.MonkeyPatch()
    patch.setattr(modes, "CaseMaker", SmallCases)
    names = ("explicit_state/full", "dynamic_rnn/lengths")
    with runner.InProcess() as here:
        found = {table.model: table for table in check_modes(Request(names), here)}
    patch.undo()
    return found


def by_place(table: ModeTable) -> dict[tuple[str, str], Outcome]:
    assert [(o.mode, o.dtype) for o in table.outcomes] == [(m, d) for m in ROWS for d in COLUMNS]
    return {(outcome.mode, outcome.dtype): outcome for outcome in table.outcomes}


def test_a_right_port_matches_in_every_mode_and_mixed_precision_is_judged_by_nobody(
    tables: dict[str, ModeTable],
) -> None:
    table = tables["explicit_state/full"]
    assert table.matches
    for (_, dtype), outcome in by_place(table).items():
        if dtype in ("float64", "float32"):
            assert outcome.status == "match"
            assert outcome.needed is not None
        else:
            assert outcome.status == "informational"
            assert outcome.error is not None
            # Half precision was really computed in: no float32 run is this far off.
            assert 1e-4 < outcome.error < 0.5
        assert outcome.repeats.startswith("3 runs")


def test_what_a_port_cannot_do_is_said(tables: dict[str, ModeTable]) -> None:
    places = by_place(tables["dynamic_rnn/lengths"])
    assert tables["dynamic_rnn/lengths"].matches
    assert places["eager", "float64"].status == "cannot"
    assert places["eager", "float64"].reason == "the port runs in v1, function, xla and unrolled"
    assert "know no policy" in places["function", "mixed_float16"].reason
    assert places["unrolled", "float64"].status == "match"
    lines = state_reasons(tables["dynamic_rnn/lengths"])
    assert any("cannot: eager float64, eager float32" in line for line in lines)


@pytest.mark.parametrize("mode, dtype", [("unrolled", "float64"), ("eager", "mixed_bfloat16")])
def test_a_gradient_that_is_lost_is_a_finding_in_any_precision(mode: str, dtype: Any) -> None:
    from oracle.run_jax import run_oracle
    from oracle.run_tf import run_port
    from tests.oracle.cases import small_case

    model = "implicit_state/outside_tape"
    case, done = small_case(model), Future()
    done.set_result(run_port(case, model=model, mode=mode, dtype=dtype))
    outcome = hold_outcome(mode, dtype, done, run_oracle(case, model=model), (), lambda dtype: [])
    assert outcome.status == "findings"
    assert not ModeTable(model, "", (Outcome("eager", "float64", "match"), outcome)).matches
    if dtype != "float64":
        assert outcome.reason == "gradient/state/encoder/c is none"


def test_nothing_held_to_a_tolerance_is_no_success() -> None:
    told = Outcome("eager", "mixed_float16", "informational", error=1e-9)
    cannot = Outcome("eager", "float64", "cannot", reason="none")
    assert not ModeTable("port", "", (told, cannot)).matches
    assert not ModeTable("port", "", ()).matches
    raised = Outcome("xla", "float64", "raised", reason="ValueError: x")
    assert not ModeTable("port", "", (Outcome("eager", "float64", "match"), raised)).matches


def test_the_formats_have_every_outcome(tables: dict[str, ModeTable]) -> None:
    wrong = ModeTable("wrong", "", tuple(make_wrong(mode, dtype) for mode in ROWS for dtype in COLUMNS))
    found = [*tables.values(), wrong]
    text = RENDERERS["text"](found)
    repeated = text.index("repeated first:")
    assert repeated < text.index("needs ")
    assert "PASS explicit_state/full: matches in 10 of 10 modes and precisions; 10 in mixed" in text
    assert "FAIL wrong: matches in 0 of 20" in text
    report = json.loads(RENDERERS["json"](found), parse_constant=pytest.fail)
    assert report["matches"] is False
    assert [len(table["outcomes"]) for table in report["modes"]] == [20, 20, 20]
    suites = ElementTree.fromstring(RENDERERS["junit"](found))
    assert [suite.get("failures") for suite in suites] == ["0", "0", "20"]
    assert len(suites[1].findall("testcase/skipped")) == len(
        [o for o in found[1].outcomes if o.status in ("cannot", "informational")]
    )
    markdown = RENDERERS["github"](found)
    assert markdown.count("| unrolled |") == 3


def test_runs_that_differ_are_described_and_reported_first() -> None:
    first = {"loss": np.array(1.0), "gradient/w": np.ones(3), "gradient/b": None}
    assert describe_repeats([first, dict(first)]) == "2 runs, bitwise the same"
    other = {**first, "gradient/w": np.array([1.0, 1.0, 1.5])}
    said = describe_repeats([first, other])
    assert said == "2 runs, 1 of 3 tensors differ, most gradient/w by 0.5"
    assert "gradient/b by inf" in describe_repeats([first, {**first, "gradient/b": np.ones(2)}])
    # The sign of a zero, and NaN, are bits too.
    assert "1 of 1" in describe_repeats([{"x": np.array(0.0)}, {"x": np.array(-0.0)}])
    assert "the same" in describe_repeats([{"x": np.array(np.nan)}, {"x": np.array(np.nan)}])
    table = ModeTable("port", "", (Outcome("xla", "float32", "match", said, "w", 0.5),))
    assert state_repeats(table) == [
        "repeated first: 0 of 1 give the same bits in every run",
        f"  xla, float32: {said}",
    ]
    assert "matches in 1 of 1" in state_modes(table)
