"""The witness on the project's own ports: who is wrong, and how the reports say so."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from oracle import witness
from oracle.case import Case
from oracle.commands.compare import _choose_code
from oracle.compare import Comparison, compare_records
from oracle.errors import RecordError
from oracle.hearing import read_hearing, write_hearing
from oracle.inquiry import Inquiry, Questions
from oracle.judgement import Hearing
from oracle.record import Record
from oracle.report import render_github, render_json, render_junit, render_text
from oracle.runner import InProcess
from tests.oracle.cases import small_case

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.slow]

VERDICTS = {
    "implicit_state/outside_tape": "autodiff",
    "implicit_state/state_discarded": "forward",
    "implicit_state/initial_state_none": "forward",
    "implicit_state/initial_state_zeros": "forward",
    "implicit_state/zeros_silenced": "forward",
    "implicit_state/exchanged": "forward",
    "explicit_state/full": "consistent",
    "dynamic_rnn/lengths": "consistent",
    "attention_nmt/monotonic": "consistent",
}


def run_sides(model: str, *, dtype: Any = "float64") -> tuple[Case, Record, Record, list[Record]]:
    from oracle.case import jitter_case
    from oracle.run_jax import run_oracle
    from oracle.run_tf import run_port
    from oracle.tolerance import FLOAT32_RUNS

    case = small_case(model)
    numbers = range(FLOAT32_RUNS if dtype == "float32" else 0)
    yardstick = [run_oracle(jitter_case(case, number), model=model, dtype="float32") for number in numbers]
    return case, run_port(case, model=model, dtype=dtype), run_oracle(case, model=model), yardstick


def ask(case: Case, port: Record, oracle: Record, yardstick: list[Record] | None = None) -> Comparison:
    comparison = compare_records(port, oracle, yardstick=yardstick or ())
    questions = Questions("always", localise=False, explain=False)
    return Inquiry(comparison, InProcess(), case, port, oracle, questions=questions).finish()


@pytest.mark.parametrize("model", VERDICTS)
def test_the_witness_says_who_is_wrong(model: str) -> None:
    case, port, oracle, _ = run_sides(model)
    comparison = ask(case, port, oracle)
    assert comparison.witness is not None
    assert comparison.witness.verdict == VERDICTS[model], comparison.witness.lines
    assert comparison.matches == (VERDICTS[model] == "consistent")
    moved = {heard.name for heard in comparison.witness.heard}
    assert {"all", "batch/source", *case.weights} - moved <= {"batch/source"}
    # On the oracle's side, forward mode and differences agree with reverse mode everywhere.
    for heard in comparison.witness.heard:
        assert not heard.oracle_is_wrong
        assert heard.forward is not None
        assert abs(heard.forward - heard.oracle.claim) <= heard.wobble


@pytest.fixture(scope="module")
def cut() -> Comparison:
    case, port, oracle, _ = run_sides("implicit_state/outside_tape")
    return ask(case, port, oracle)


@pytest.fixture(scope="module")
def spoiled() -> Comparison:
    """An oracle with one wrong element in its gradient, and a port that is right."""
    case, port, oracle, _ = run_sides("explicit_state/full")
    name = "gradient/encoder/cell/recurrent_kernel"
    wrong = np.array(oracle.tensors[name])
    wrong[2, 3] *= 1.01
    return ask(case, port, dataclasses.replace(oracle, tensors={**oracle.tensors, name: wrong}))


def test_an_inconsistent_oracle_is_loud_and_exit_code_3(spoiled: Comparison, cut: Comparison) -> None:
    assert spoiled.witness is not None
    assert spoiled.witness.verdict == "oracle"
    assert not spoiled.matches
    assert _choose_code([spoiled]) == 3
    assert _choose_code([cut, spoiled]) == 3
    assert _choose_code([cut]) == 1
    for quiet in (False, True):
        text = render_text([spoiled], quiet=quiet)
        assert "THE ORACLE IS INCONSISTENT along encoder/cell/recurrent_kernel" in text
        assert "a defect of gradient-oracle, please report it" in text


def test_the_reports_have_the_witness_under_the_verdict(cut: Comparison) -> None:
    said = "witness: the two compute the same loss"
    lines = render_text([cut]).splitlines()
    (verdict,) = [number for number, line in enumerate(lines) if line.startswith("FAIL")]
    assert said in lines[verdict + 1]
    assert "it is cut, or customised" in lines[verdict + 2]
    assert said not in render_text([cut], quiet=True)
    (suite,) = ElementTree.fromstring(render_junit([cut]))
    assert said in (suite.findtext("system-out") or "")
    github = render_github([cut])
    (annotation,) = [line for line in github.splitlines() if line.startswith("::error")]
    assert said in annotation
    assert github.count(said) == 2
    (found,) = json.loads(render_json([cut]), parse_constant=pytest.fail)["comparisons"]
    assert found["witness"]["verdict"] == "autodiff"
    assert {"name", "kind", "port", "oracle", "forward"} <= set(found["witness"]["heard"][0])


def test_a_float32_comparison_is_judged_in_float64() -> None:
    case, port, oracle, yardstick = run_sides("implicit_state/exchanged", dtype="float32")
    comparison = ask(case, port, oracle, yardstick)
    assert comparison.witness is not None
    assert comparison.witness.verdict == "forward"
    assert comparison.witness.lines[-1] == "judged in float64"


def test_what_only_float32_shows_is_precision() -> None:
    case, port, oracle, yardstick = run_sides("explicit_state/full", dtype="float32")
    name = "gradient/projection/bias"
    off = np.array(port.tensors[name]) * np.float32(1.001)
    port = dataclasses.replace(port, tensors={**port.tensors, name: off})
    comparison = ask(case, port, oracle, yardstick)
    assert not comparison.matches
    assert comparison.witness is not None
    assert comparison.witness.verdict == "precision"


def test_a_gradient_that_is_customised_in_one_element_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that passes through a custom gradient which is wrong in one of its elements."""
    import tensorflow as tf

    from tf_models import explicit_state

    original = explicit_state.differentiate

    def spoil(*arguments: Any, **options: Any) -> Any:
        step = original(*arguments, **options)
        kernel = step.variable_gradients["decoder/cell/kernel"]
        if kernel is not None:
            step.variable_gradients["decoder/cell/kernel"] = tf.tensor_scatter_nd_update(
                kernel, [[1, 7]], [kernel[1, 7] * 1.0001]
            )
        return step

    monkeypatch.setattr(explicit_state, "differentiate", spoil)
    case, port, oracle, _ = run_sides("explicit_state/full")
    comparison = ask(case, port, oracle)
    (finding,) = comparison.findings
    assert (finding.name, finding.index) == ("gradient/decoder/cell/kernel", (1, 7))
    assert comparison.witness is not None
    assert comparison.witness.verdict == "autodiff"
    assert "along decoder/cell/kernel" in comparison.witness.lines[0]


class _Forbidden(InProcess):
    def hear(self, *arguments: Any, **options: Any) -> Future[Hearing]:
        raise AssertionError("the witness was asked")


def test_when_it_is_asked() -> None:
    from oracle.check import Request, check

    def run(when: Any, model: str, runner: InProcess) -> Iterator[Comparison]:
        request = Request(
            (model,), weights="random", batch_size=2, witness=when, localise=False, explain=False
        )
        yield from check(request, runner)

    (never,) = run("never", "implicit_state/outside_tape", _Forbidden())
    assert never.witness is None
    (matching,) = run("on-finding", "explicit_state", _Forbidden())
    assert matching.witness is None
    assert matching.matches
    with pytest.raises(AssertionError, match="was asked"):
        list(run("on-finding", "implicit_state/outside_tape", _Forbidden()))


def test_hearings_pass_through_a_file_and_damage_is_refused(tmp_path: Path) -> None:
    slope = witness.Slope(1.0, float("inf"))
    testimony = witness.Testimony("all", float("nan"), slope, witness.Order(None, 0), float("inf"))
    path = tmp_path / "hearing"
    write_hearing(Hearing(0.5, 0.5, 1e-17, (testimony,), (2.0,)), path)
    back = read_hearing(path)
    assert back.testimonies[0].slope == slope
    assert np.isnan(back.testimonies[0].claim)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RecordError, match="cannot be read as a hearing"):
        read_hearing(path)
