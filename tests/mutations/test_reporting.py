"""What is counted, what falls short, the page and the file, of results that are made up. No framework."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from oracle.errors import RecordError, UsageError
from oracle.selftest.baselines import CHECKS
from oracle.selftest.fault import Fault
from oracle.selftest.faults import find_fault
from oracle.selftest.goals import count, has_cause, has_place, list_shortfalls, meets_goals
from oracle.selftest.judging import digest_fault, is_located, is_named, judge_anew
from oracle.selftest.page import render_page
from oracle.selftest.places import find_places
from oracle.selftest.results import (
    Baseline,
    CorrectResult,
    FaultResult,
    SelfTest,
    read_results,
    write_results,
)
from oracle.selftest.run import list_requests, resume_run
from oracle.selftest.subjects import find_subject

SEEN = FaultResult(
    fault="state-exchanged",
    family="handoff",
    subject="pair",
    digest=digest_fault(find_fault("state-exchanged")),
    expected=("C102",),
    together=False,
    number=None,
    hides_in_float32="",
    detected=True,
    findings=19,
    tensors=22,
    largest=0.3,
    detected_float32=True,
    kind="explained",
    codes=("C102",),
    said="h and c are exchanged",
    cause_right=True,
    located=("decoder/cell", "step/decoder/cell/state_c"),
    place_right=True,
    baselines=tuple(Baseline(check, False) for check in CHECKS[:3]) + (Baseline(CHECKS[3], None, "no"),),
)
WRONG = msgspec.structs.replace(SEEN, subject="pair-wide", codes=("C101",), cause_right=False, said="zeros")
UNSEEN = msgspec.structs.replace(
    SEEN,
    fault="loss-halved",
    digest=digest_fault(find_fault("loss-halved")),
    detected=False,
    largest=1e-15,
    cause_right=None,
    place_right=None,
)
RIGHT = CorrectResult(0, "explicit_state/full", "LSTM(3)", "float64", (), 1e-15)
ALARM = CorrectResult(1, "explicit_state/full", "LSTM(4)", "float32", ("output/decoder",), 9.5)
REFUSED = CorrectResult(2, "explicit_state/full", "LSTM(5)", "float32", (), None, "zero throughout")


def make(*faults: FaultResult, correct: tuple[CorrectResult, ...] = ()) -> SelfTest:
    return SelfTest(0, {"tensorflow": "2.15.1"}, "x86_64", faults, correct)


def test_all_right_meets_the_goals() -> None:
    run = make(SEEN, correct=(RIGHT, REFUSED))
    assert meets_goals(run)
    assert list_shortfalls(run) == []


def test_nothing_done_does_not_meet_them() -> None:
    assert not meets_goals(make())


def test_a_fault_unseen_misses_them() -> None:
    run = make(SEEN, UNSEEN)
    assert not meets_goals(run)
    (line,) = list_shortfalls(run)
    assert line == "loss-halved in pair: not detected; every tensor agrees within 1.0e-15"


def test_one_cause_in_twenty_may_be_wrong() -> None:
    right = [msgspec.structs.replace(SEEN, subject=str(number)) for number in range(19)]
    assert meets_goals(make(*right, WRONG))
    assert not meets_goals(make(*right[:18], WRONG))
    (line,) = list_shortfalls(make(*right, WRONG))
    assert line == "state-exchanged in pair-wide: expected C102, said C101: zeros"


def test_a_false_alarm_misses_them() -> None:
    run = make(SEEN, correct=(RIGHT, ALARM))
    assert not meets_goals(run)
    (line,) = list_shortfalls(run)
    assert line.endswith("in float32: false alarm on output/decoder")


def test_a_fault_that_was_not_seen_has_no_cause_right() -> None:
    assert str(count((SEEN, WRONG, UNSEEN), has_cause)) == "1 of 3"
    assert str(count((SEEN, WRONG, UNSEEN), has_place)) == "2 of 2"


def test_a_place_or_float32_missed_is_a_shortfall() -> None:
    misplaced = msgspec.structs.replace(SEEN, place_right=False, located=("loss",), detected_float32=False)
    assert list_shortfalls(make(misplaced)) == [
        "state-exchanged in pair: located at loss",
        "state-exchanged in pair: not detected in float32",
    ]
    unplaced = msgspec.structs.replace(misplaced, detected_float32=True, hides_place="no layer is named")
    assert list_shortfalls(make(unplaced)) == ["state-exchanged in pair: located at loss; no layer is named"]
    hidden = msgspec.structs.replace(SEEN, detected_float32=False, hides_in_float32="noise")
    assert list_shortfalls(make(hidden)) == []


def test_the_page_has_every_number() -> None:
    page = render_page(make(SEEN, WRONG, UNSEEN, correct=(RIGHT, ALARM, REFUSED)))
    assert "| seeded faults detected, in float64 | all | 2 of 3 |" in page
    assert "| the cause named first, where the catalogue has it | 95 % | 1 of 3 (33.3 %) |" in page
    assert "| false alarms on right ports, in float32 | 0 | 1 of 1 |" in page
    assert "| **all** | 3 | 2 | 0 | 0 | 0 | 0, cannot 3 |" in page
    assert "- loss-halved in pair: not detected" in page
    assert "{" not in page


def test_the_page_of_a_run_with_no_shortfall_says_so() -> None:
    assert render_page(make(SEEN, correct=(RIGHT,))).endswith("## Shortfalls\n\nNone.\n")


def test_the_page_says_what_was_not_asked() -> None:
    page = render_page(make(msgspec.structs.replace(SEEN, baselines=())))
    assert "They were not asked in this run" in page
    assert "None were drawn in this run" in page


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = make(SEEN, WRONG, UNSEEN, correct=(RIGHT, ALARM, REFUSED))
    write_results(run, tmp_path / "run.json")
    assert read_results(tmp_path / "run.json") == run
    resumed = resume_run(tmp_path / "run.json", 0)
    assert [result.fault for result in resumed.faults] == [result.fault for result in run.faults]
    assert resumed.correct == run.correct
    assert resume_run(tmp_path / "none.json", 0).faults == ()
    with pytest.raises(RecordError, match="of seed 0, not 4"):
        resume_run(tmp_path / "run.json", 4)


def test_a_fault_whose_source_has_changed_is_tried_again(tmp_path: Path) -> None:
    old = msgspec.structs.replace(SEEN, digest="0" * 16)
    write_results(make(old, WRONG), tmp_path / "run.json")
    (kept,) = resume_run(tmp_path / "run.json", 0).faults
    assert kept.subject == "pair-wide"


def test_a_result_is_judged_by_what_is_expected_now() -> None:
    judged = judge_anew(
        msgspec.structs.replace(WRONG, expected=(), cause_right=True), find_fault(WRONG.fault)
    )
    assert (judged.expected, judged.cause_right) == (("C102",), False)
    assert judge_anew(SEEN, find_fault(SEEN.fault)) == SEEN


@pytest.mark.parametrize(
    ("name", "kind", "codes", "right"),
    [
        ("state-exchanged", "explained", ("C102",), True),
        ("state-exchanged", "explained", ("C102", "C502"), False),
        ("state-exchanged", "unexplained", (), False),
        ("exchanged-and-halved", "explained", ("C502", "C102"), True),
        ("exchanged-and-halved", "explained", ("C102",), False),
        ("output-gate-missing", "unexplained", (), True),
        ("output-gate-missing", "explained", ("C207",), False),
        ("output-gate-missing", "precision", ("C801",), False),
        ("products-in-bfloat16", "precision", ("C801",), True),
        ("products-in-bfloat16", "unexplained", (), False),
    ],
)
def test_when_a_cause_is_right(name: str, kind: str, codes: tuple[str, ...], right: bool) -> None:
    assert is_named(find_fault(name), kind, codes) is right


def test_when_a_place_is_right() -> None:
    fault = find_fault("state-exchanged")
    assert is_located(fault, "pair", ("decoder/cell", "step/decoder/cell/state_c"))
    assert is_located(fault, "pair", ("loss", "handoff"))
    assert not is_located(fault, "pair", ("decoder/cell", "step/decoder/cell/c"))
    assert not is_located(fault, "pair", ("encoder/cell", "loss"))
    assert not is_located(fault, "pair", ())
    loop = find_fault("loop-relu")
    assert is_located(loop, "loop", ("output/decoder",))
    assert not is_located(loop, "loop", ("output/encoder",))
    lost = find_fault("loop-state-stopped")
    assert is_located(lost, "loop", ("gradient/state/encoder/c",))
    changed = find_fault("accumulated-twice")
    assert is_located(changed, "pair", ("projection", "gradient/projection/kernel"))
    assert not is_located(changed, "pair", ("projection", "gradient/step/projection/output"))


def test_a_place_may_depend_on_the_model() -> None:
    joined, stopped = find_fault("backward-outputs-not-reversed"), find_fault("memory-stopped")
    assert is_located(joined, "luong", ("memory",))
    assert not is_located(joined, "bahdanau-gru-2", ("memory",))
    assert is_located(joined, "bahdanau-gru-2", ("step/encoder/layers_1/backward/cell/input",))
    adjoint = "gradient/step/encoder/layers_0/backward/cell/h"
    assert is_located(stopped, "luong", (adjoint,))
    assert not is_located(stopped, "bahdanau-gru-2", (adjoint,))
    fed = find_fault("feeding-stopped")
    alignments = "gradient/step/decoder/attention_mechanism/alignments"
    assert is_located(fed, "luong-monotonic", (alignments,))
    assert not is_located(fed, "luong", (alignments,))
    assert is_located(fed, "luong", ("gradient/step/decoder/attention_layer/output",))
    assert find_places(("handoff", "loss"), find_subject("pair").spec) == ("handoff", "loss")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"seed": 0}')
    with pytest.raises(RecordError, match="holds no results"):
        read_results(tmp_path / "run.json")
    with pytest.raises(RecordError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_only_what_is_left_is_asked() -> None:
    fault: Fault = find_fault("state-exchanged")
    run = make()
    asked = list_requests(run, [fault], correct=2, baselines=True)
    assert [(one["do"], one.get("subject"), one.get("baselines")) for one in asked] == [
        ("fault", "pair", True),
        ("fault", "pair-wide", False),
        ("correct", None, None),
        ("correct", None, None),
    ]
    assert [one.get("number") for one in asked[2:]] == [0, 1]
    done = make(SEEN, correct=(RIGHT, REFUSED))
    left = list_requests(done, [fault], correct=2, baselines=True)
    assert [(one.get("subject"), one.get("number")) for one in left] == [("pair-wide", None), (None, 1)]


def test_baselines_are_asked_later_of_what_has_none() -> None:
    bare = msgspec.structs.replace(SEEN, baselines=())
    fault = find_fault("state-exchanged")
    assert list_requests(make(bare, WRONG), [fault], correct=0, baselines=False) == []
    (left,) = list_requests(make(bare, WRONG), [fault], correct=0, baselines=True)
    assert (left["subject"], left["baselines"]) == ("pair", True)


def test_numbers_out_of_range_are_refused() -> None:
    from oracle.commands.selftest import selftest

    with pytest.raises(UsageError, match="--correct -1"):
        selftest(correct=-1)
    with pytest.raises(UsageError, match="--output"):
        selftest(resume=True)
