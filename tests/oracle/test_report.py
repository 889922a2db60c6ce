from __future__ import annotations

import json
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from oracle.compare import Comparison, compare_records
from oracle.record import Failure, Record
from oracle.report import RENDERERS, render_github, render_json, render_junit, render_text
from tests.oracle.cases import SMALL
from tests.oracle.test_compare import ORACLE
from tests.oracle.test_record import ORIGIN

NAN = float("nan")


def make(port: dict, **options: object) -> Comparison:
    truth = {
        "loss": np.array(0.5),
        "gradient/encoder/cell/kernel": np.arange(6.0).reshape(2, 3),
        "gradient/encoder/cell/bias": np.arange(1.0, 4.0),
    }
    variables = {"gradient/encoder/cell/kernel": ("encoder/rnn/basic_lstm_cell/kernel",)}
    record = Record(SMALL, ORIGIN, {**truth, **port}, variables, **options)
    return compare_records(record, Record(SMALL, ORACLE, truth))


GOOD = make({})
BAD = make(
    {
        "gradient/encoder/cell/kernel": None,
        "gradient/encoder/cell/bias": np.array([1.0, NAN, 3.0]),
    }
)
RAISED = compare_records(
    Record(
        SMALL,
        ORIGIN,
        {},
        failure=Failure("AttributeError", "'NoneType' object has no attribute 'outer_context'", "Trace\x1b"),
    ),
    Record(SMALL, ORACLE, {"loss": np.array(0.5)}),
)


def test_text_has_every_tensor_the_verdict_and_the_tolerance() -> None:
    text = render_text([GOOD, BAD])
    assert "PASS explicit_state/full (function, float64): all 3 tensors match" in text
    assert "tolerance that would have passed: 0 of the largest element (allowed: 1e-12)" in text
    assert "2 of 3 tensors do not match (1 none, 1 nonfinite), first gradient/encoder/cell/kernel" in text
    assert "no tolerance would have passed" in text
    assert "held by encoder/rnn/basic_lstm_cell/kernel" in text
    assert "1 of 2 comparisons match" in text
    assert "seed 0" in text


def test_text_of_a_port_that_raised_says_what() -> None:
    text = render_text([RAISED])
    assert "FAIL" in text
    assert "the port raised AttributeError: 'NoneType' object has no attribute 'outer_context'" in text


def test_json_is_strict_and_complete() -> None:
    report = json.loads(render_json([GOOD, BAD, RAISED]), parse_constant=pytest.fail)
    assert report["format"] == 1
    assert report["matches"] is False
    good, bad, raised = report["comparisons"]
    assert good["matches"] is True
    assert [row["status"] for row in bad["rows"]] == ["match", "none", "nonfinite"]
    assert bad["rows"][2]["port_value"] is None
    assert raised["failure"]["type"] == "AttributeError"
    assert json.loads(render_json([]))["matches"] is False


def test_junit_has_a_test_for_each_tensor() -> None:
    root = ElementTree.fromstring(render_junit([GOOD, BAD, RAISED]))
    good, bad, raised = root
    assert len(good.findall("testcase")) == 3
    assert [failure.get("type") for failure in bad.iter("failure")] == ["none", "nonfinite"]
    assert raised.find("testcase/error") is not None


def test_github_annotates_what_fails_and_nothing_else() -> None:
    report = render_github([GOOD, BAD])
    (annotation,) = [line for line in report.splitlines() if line.startswith("::error")]
    assert annotation.startswith("::error title=gradients of explicit_state/full (function%2C float64)::")
    assert "%0A" in annotation
    assert "| `gradient/encoder/cell/kernel` | [2, 3] | - | - | - | **none** |" in report
    assert "::error" not in render_github([GOOD])


@pytest.mark.parametrize("output_format", sorted(RENDERERS))
def test_every_format_ends_with_a_line_end(output_format: str) -> None:
    assert RENDERERS[output_format]([GOOD, BAD, RAISED]).endswith("\n")


def test_what_the_port_does_not_train_is_said() -> None:
    flags = {**GOOD.port.flags, "frozen": "encoder/embedding/embedding"}
    frozen = msgspec.structs.replace(GOOD, port=msgspec.structs.replace(GOOD.port, flags=flags))
    said = "; not compared, since the port does not train them: encoder/embedding/embedding"
    assert "all 3 tensors match" + said in render_text([frozen])
    assert said not in render_text([GOOD])
