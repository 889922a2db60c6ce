from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from oracle.bridge.sites import find_sites
from oracle.case import (
    batch_shapes,
    jitter_case,
    random_case,
    read_case,
    series_batch,
    weight_shapes,
    write_case,
)
from oracle.errors import CaseError, RecordError
from oracle.series import read_series, sunspots
from oracle.spec import LSTM, EncoderDecoder
from tests.oracle.cases import SMALL

FULL = msgspec.structs.replace(SMALL, lengths=True, initial_state="given")
SUNSPOT_SPEC = EncoderDecoder(13, 12, LSTM(4), LSTM(4))


def test_random_case_is_the_same_for_a_seed_and_another_for_another() -> None:
    first, again, other = (random_case(FULL, seed=seed) for seed in (1, 1, 2))
    for name in first.weights:
        assert np.array_equal(first.weights[name], again.weights[name])
        assert not np.array_equal(first.weights[name], other.weights[name])
    for name in first.batch:
        assert np.array_equal(first.batch[name], again.batch[name])


@pytest.mark.parametrize("convention", ["tf1", "keras"])
def test_the_sites_have_the_leaves_of_the_spec(convention: str) -> None:
    for spec in (SMALL, SUNSPOT_SPEC):
        leaves = {
            f"{site.path}/{leaf}": tuple(shape)
            for site in find_sites(spec, convention)
            for leaf, shape in site.layout.leaves.items()
        }
        assert leaves == weight_shapes(spec)


def test_case_survives_a_file(tmp_path: Path) -> None:
    case = random_case(FULL, seed=4)
    write_case(case, tmp_path / "case.safetensors")
    read = read_case(tmp_path / "case.safetensors")
    assert (read.spec, read.seed, read.data_from) == (case.spec, case.seed, case.data_from)
    for name in case.weights:
        assert np.array_equal(read.weights[name], case.weights[name])
    for name in case.batch:
        assert np.array_equal(read.batch[name], case.batch[name])
        assert read.batch[name].dtype == case.batch[name].dtype


def test_jitter_moves_every_number_by_one_rounding_and_no_length() -> None:
    case = random_case(FULL)
    moved = jitter_case(case, 1)
    assert jitter_case(case, 0) is case
    for name, array in case.weights.items():
        assert np.array_equal(
            np.abs(np.spacing(array)) >= np.abs(moved.weights[name] - array), array == array
        )
        assert (moved.weights[name] != array).all()
    assert np.array_equal(moved.batch["source_length"], case.batch["source_length"])
    assert not np.array_equal(
        jitter_case(case, 2).weights["encoder/cell/bias"], moved.weights["encoder/cell/bias"]
    )


@pytest.mark.parametrize(
    "group, name, value, said",
    [
        ("weights", "encoder/cell/kernel", None, "weight encoder/cell/kernel is missing"),
        ("weights", "encoder/cell/kernel", np.zeros((2, 20), np.float32), r"spec wants float32 \[3, 20\]"),
        ("weights", "encoder/cell/kernel", np.zeros((3, 20)), "is float64"),
        ("weights", "encoder/cell/kernels", np.zeros(3, np.float32), "has no weight encoder/cell/kernels"),
        ("batch", "source", np.full((3, 5, 3), np.nan, np.float32), r"not finite at \[0, 0, 0\]"),
        ("batch", "source", np.zeros((0, 5, 3), np.float32), "nothing to compute on"),
        ("batch", "target", np.zeros((3, 1, 2), np.float32), "two target steps"),
        ("batch", "source", None, "needs `source` and `target`"),
        ("batch", "source_length", np.array([6, 1, 1], np.int32), "from 0 to 5"),
        ("batch", "source_length", np.array([-1, 1, 1], np.int32), "from 0 to 5"),
    ],
)
def test_bad_case_is_refused(group: str, name: str, value: np.ndarray | None, said: str) -> None:
    case = random_case(FULL)
    tensors = {**getattr(case, group), name: value}
    if value is None:
        del tensors[name]
    with pytest.raises(CaseError, match=said):
        dataclasses.replace(case, **{group: tensors})


def test_a_record_is_no_case(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such file"):
        read_case(tmp_path / "none.safetensors")


def test_sunspots_are_what_they_should_be() -> None:
    series = sunspots()
    assert series.values.shape == (260, 13)
    assert series.columns[0] == "jan"
    np.testing.assert_allclose(series.values[:, :12].mean(axis=1), series.values[:, 12], atol=0.5)


def test_series_batch_reads_the_past_and_predicts_the_future() -> None:
    batch = series_batch(SUNSPOT_SPEC, sunspots(), seed=0, batch_size=7, source_time=5, target_time=3)
    assert {name: array.shape for name, array in batch.items()} == batch_shapes(SUNSPOT_SPEC, 7, 5, 3)
    # The target begins with the last step of the past.
    assert np.array_equal(batch["source"][:, -1, :12], batch["target"][:, 0])


def test_lengths_keep_the_end_of_the_past_and_pad_with_zeros() -> None:
    spec = msgspec.structs.replace(SUNSPOT_SPEC, lengths=True)
    whole = series_batch(SUNSPOT_SPEC, sunspots(), seed=3, batch_size=6)
    batch = series_batch(spec, sunspots(), seed=3, batch_size=6)
    assert batch["source_length"][0] == 22
    assert batch["source_length"][-1] == batch["target_length"][-1] == 0
    for row in range(6):
        past, future = batch["source_length"][row], batch["target_length"][row]
        assert np.array_equal(batch["source"][row, :past], whole["source"][row, 22 - past :])
        assert not batch["source"][row, past:].any()
        assert np.array_equal(batch["target"][row, : 1 + future], whole["target"][row, : 1 + future])
        assert not batch["target"][row, 1 + future :].any()


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no data"),
        ("year,a\n", "no data"),
        ("year,a\n1,2\n2,x\n", "row 3, column 'a': 'x' is not a number"),
        ("year,a\n1,nan\n", "row 2, column 'a': 'nan' is not finite"),
        ("year,a\n1,inf\n", "not finite"),
        ("year,a,b\n1,2\n", "row 2 has 2 columns, the header 3"),
    ],
)
def test_bad_csv_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    with pytest.raises(CaseError, match=said):
        read_series(path)


def test_binary_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(CaseError, match="cannot be read as CSV"):
        read_series(path)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("t,a\n" + "".join(f"{t},{t * t}\n" for t in range(10)))
    series = read_series(path)
    spec = EncoderDecoder(1, 1, LSTM(2), LSTM(2))
    assert series_batch(spec, series, seed=0, batch_size=6, source_time=3, target_time=2)
    with pytest.raises(CaseError, match="choose from 1 to 6"):
        series_batch(spec, series, seed=0, batch_size=7, source_time=3, target_time=2)
    with pytest.raises(CaseError, match="at least 32 steps"):
        series_batch(spec, series, seed=0, batch_size=1)
    with pytest.raises(CaseError, match="the model reads 13"):
        series_batch(SUNSPOT_SPEC, series, seed=0, batch_size=1)
