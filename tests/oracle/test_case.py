from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from oracle import zoo
from oracle.bridge.sites import find_sites
from oracle.case import cast_case, jitter_case, random_case, read_case, weight_shapes, write_case
from oracle.errors import BridgeError, CaseError, RecordError
from oracle.spec import LSTM, EncoderDecoder
from tests.oracle.cases import SMALL, shrink

FULL = msgspec.structs.replace(SMALL, lengths=True, initial_state="given")
SUNSPOT_SPEC = EncoderDecoder(13, 12, LSTM(4), LSTM(4))
(NMT,) = [shrink(choice.variant.spec) for choice in zoo.choose("attention-nmt/lstm")]


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


def test_a_translator_has_a_case_of_tokens(tmp_path: Path) -> None:
    case = random_case(NMT, seed=5, batch_size=4, source_time=6, target_time=7)
    assert {name: array.dtype for name, array in case.batch.items()} == dict.fromkeys(case.batch, np.int32)
    write_case(case, tmp_path / "case.safetensors")
    read = read_case(tmp_path / "case.safetensors")
    assert read.spec == case.spec
    for name in case.batch:
        assert np.array_equal(read.batch[name], case.batch[name])
    weights, batch = cast_case(case, "float64")
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float64)}
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
    jittered = jitter_case(case, 1)
    assert all(np.array_equal(jittered.batch[name], case.batch[name]) for name in case.batch)


@pytest.mark.parametrize(
    "name, place, value, said",
    [
        ("source", (2, 1), 11, r"source is 11 at \[2, 1\]; expected from 0 to 10"),
        ("target", (0, 3), -1, "target is -1"),
        ("source_length", (1,), 0, "source_length is 0"),
        ("target_length", (3,), 8, "target_length is 8"),
    ],
)
def test_tokens_and_lengths_out_of_range_are_refused(name: str, place: tuple, value: int, said: str) -> None:
    case = random_case(NMT, batch_size=4, source_time=6, target_time=7)
    tensor = case.batch[name].copy()
    tensor[place] = value
    with pytest.raises(CaseError, match=said):
        dataclasses.replace(case, batch={**case.batch, name: tensor})


def test_tokens_as_floats_are_refused() -> None:
    case = random_case(NMT, batch_size=4, source_time=6, target_time=7)
    floats = {**case.batch, "source": case.batch["source"].astype(np.float32)}
    with pytest.raises(CaseError, match="source is float32.*the spec wants int32"):
        dataclasses.replace(case, batch=floats)
    with pytest.raises(CaseError, match="of tokens"):
        dataclasses.replace(case, batch={**case.batch, "source": np.zeros((4, 6, 3), np.float32)})


def test_a_translator_has_no_tf1_names() -> None:
    with pytest.raises(BridgeError, match="give a TF2 checkpoint"):
        find_sites(NMT, "tf1")
