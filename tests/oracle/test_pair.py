"""Two records held against each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import pytest

from oracle import recorder
from oracle.commands.record import compare_files
from oracle.errors import RecordError, UsageError
from oracle.pair import compare_pair
from oracle.record import Record, read_record
from oracle.report.pair import render_pair, state_pair

GENERATOR = np.random.default_rng(4)
GRADIENT, WEIGHT, BATCH = (GENERATOR.standard_normal(shape) for shape in ((3, 4), (3, 4), (5, 3)))


def make(
    folder: Path, *, dtype="f8", gradient=GRADIENT, weight=WEIGHT, batch=BATCH, name="w", model="m"
) -> Record:
    def cast(array):
        return None if array is None else np.asarray(array).astype(dtype)

    path = folder / "made.safetensors"
    with recorder.recording(str(path), model=model) as r:
        r.weights({name: cast(weight)})
        r.inputs(x=cast(batch))
        r.loss(cast(2.5))
        r.gradients({name: cast(gradient)})
    return read_record(path)


def statuses(pair) -> dict[str, str]:
    return {row.name: row.status for row in pair.rows}


def test_in_float64_only_rounding_is_allowed(tmp_path: Path) -> None:
    a = make(tmp_path)
    near, far = GRADIENT.copy(), GRADIENT.copy()
    near[1, 2] += 5e-13 * np.abs(GRADIENT).max()
    far[1, 2] += 5e-12 * np.abs(GRADIENT).max()
    assert compare_pair(a, make(tmp_path, gradient=near)).matches
    pair = compare_pair(a, make(tmp_path, gradient=far))
    assert statuses(pair) == {"loss": "match", "gradient/w": "mismatch"}
    assert pair.findings[0].index == (1, 2)
    assert pair.needed == pytest.approx(5e-12, rel=1e-3)
    assert not pair.matches
    assert compare_pair(a, make(tmp_path, gradient=far), tolerance=6e-12).matches
    assert "allowed: 6e-12, as given" in state_pair(compare_pair(a, a, tolerance=6e-12))


@pytest.mark.parametrize(
    ("dtype", "allowed"), [("f4", 2048 * 2**-24), ("f2", 32 * 2**-11), (ml_dtypes.bfloat16, 16 * 2**-8)]
)
@pytest.mark.parametrize("other", ["f8", "same"])
def test_below_float64_the_bound_is_assumed_and_said_to_be(
    tmp_path: Path, dtype, allowed: float, other: str
) -> None:
    b = make(tmp_path, dtype="f8" if other == "f8" else dtype)
    pair = compare_pair(make(tmp_path, dtype=dtype), b)
    assert pair.matches
    assert (pair.allowed, pair.basis) == (allowed, "assumed")
    assert "assumed, not measured" in state_pair(pair)
    wrong = GRADIENT.copy()
    wrong[0, 0] += 1.5 * allowed * np.abs(GRADIENT).max()
    assert statuses(compare_pair(make(tmp_path, dtype=dtype, gradient=wrong), b))["gradient/w"] == "mismatch"


def test_none_zero_nonfinite_and_shape_are_findings_of_their_own(tmp_path: Path) -> None:
    a = make(tmp_path)
    nan = GRADIENT.copy()
    nan[2, 3] = np.nan
    for gradient, status in (
        (None, "none"),
        (0 * GRADIENT, "zero"),
        (nan, "nonfinite"),
        (GRADIENT.T, "shape"),
        (GRADIENT, "match"),
    ):
        for first, second in ((a, make(tmp_path, gradient=gradient)), (make(tmp_path, gradient=gradient), a)):
            assert statuses(compare_pair(first, second))["gradient/w"] == status


def test_a_tensor_of_one_side_alone_is_a_finding(tmp_path: Path) -> None:
    a = make(tmp_path)
    b = replace(a, tensors={"loss": a.tensors["loss"]})
    assert statuses(compare_pair(a, b)) == {"loss": "match", "gradient/w": "unexpected"}
    assert statuses(compare_pair(b, a)) == {"loss": "match", "gradient/w": "missing"}
    with pytest.raises(RecordError, match="no tensor in common"):
        compare_pair(a, replace(a, tensors={"output/y": GRADIENT}))


def test_other_weights_or_batches_are_refused_but_for_rounding(tmp_path: Path) -> None:
    a = make(tmp_path)
    for kind in ("weight", "batch"):
        moved = {"weight": WEIGHT, "batch": BATCH}[kind].copy()
        moved[0, 0] = np.nextafter(moved[0, 0], 9)
        with pytest.raises(RecordError, match="different (weights|batch)"):
            compare_pair(a, make(tmp_path, **{kind: moved}))
        moved[0, 0] *= 1 + 1e-6
        with pytest.raises(RecordError, match="more than a rounding of float32"):
            compare_pair(a, make(tmp_path, dtype="f4", **{kind: moved}))
    with pytest.raises(RecordError, match="different names"):
        compare_pair(a, make(tmp_path, name="v"))
    with pytest.raises(RecordError, match="one does not hold them"):
        compare_pair(a, replace(make(tmp_path, weight=2 * WEIGHT), weights={}))


def test_keras_numbers_do_not_part_the_same_weights(tmp_path: Path) -> None:
    a, b = (
        make(tmp_path, name=name) for name in ("decoder/lstm_cell_1/kernel", "decoder/lstm_cell_7/kernel")
    )
    pair = compare_pair(a, b)
    assert statuses(pair) == {"loss": "match", "gradient/decoder/lstm_cell_1/kernel": "match"}
    assert "lstm_cell_7/kernel is decoder/lstm_cell_1/kernel" in pair.notes[0]


def test_tolerances_that_are_none_are_refused(tmp_path: Path) -> None:
    a = make(tmp_path)
    for tolerance in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="give a positive number"):
            compare_pair(a, a, tolerance=tolerance)


def test_a_port_that_raised_is_no_match(tmp_path: Path) -> None:
    path = tmp_path / "raised"
    with pytest.raises(ValueError), recorder.recording(str(path), model="broken"):
        raise ValueError("no gradient")
    pair = compare_pair(read_record(path), make(tmp_path))
    assert not pair.matches
    assert state_pair(pair) == "A raised ValueError: no gradient"


def test_reports_say_a_and_b(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = GRADIENT.copy()
    wrong[1, 1] = 7.0
    pair = compare_pair(make(tmp_path, model="before"), make(tmp_path, gradient=wrong, model="after"))
    text = render_pair(pair, "text")
    assert "A: before (eager, float64)" in text
    assert "at [1, 1] A has" in text
    assert "B 7" in text
    assert "FAIL before and after: 1 of 2 tensors do not agree (1 mismatch), first gradient/w" in text
    assert "oracle" not in text
    report = json.loads(render_pair(pair, "json"))
    assert (report["matches"], report["rows"][1]["b_value"], report["b"]["model"]) == (False, 7.0, "after")
    suite = ElementTree.fromstring(render_pair(pair, "junit"))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert render_pair(pair, "github").startswith("::error title=before against after::1 of 2")
    make(tmp_path).origin  # noqa: B018 (the file of the last record stays)
    file = tmp_path / "made.safetensors"
    again = tmp_path / "again.safetensors"
    again.write_bytes(file.read_bytes())
    assert compare_files(file, again) == 0
    assert "PASS m and m: all 2 tensors agree" in capsys.readouterr().out
    assert compare_files(file, again, output=tmp_path / "out.json", output_format="json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["matches"]


@pytest.mark.parametrize("lost", [None, np.zeros((3, 4))])
def test_gradients_that_are_lost_on_both_sides_are_no_agreement(tmp_path: Path, lost) -> None:
    a = make(tmp_path, gradient=lost)
    with pytest.raises(RecordError, match="every gradient is None or zero throughout in A and in B"):
        compare_pair(a, a)


def test_one_gradient_that_is_lost_on_both_sides_is_said(tmp_path: Path) -> None:
    whole = make(tmp_path)
    a = replace(whole, tensors={**whole.tensors, "gradient/v": None, "gradient/u": np.zeros(3)})
    pair = compare_pair(a, a)
    assert pair.matches
    assert pair.notes == ("None on both sides: gradient/v", "zero throughout on both sides: gradient/u")
    assert "note: None on both sides: gradient/v" in render_pair(pair, "text")


def test_one_file_agrees_with_itself_and_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "made.safetensors"
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(UsageError, match="are one file"):
        compare_files(file, tmp_path / "link")
