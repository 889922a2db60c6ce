"""Batches: cut from a series of numbers, or made of texts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from oracle import zoo
from oracle.batch import batch_tensors, series_batch, text_batch
from oracle.errors import CaseError
from oracle.series import read_series, sunspots
from oracle.spec import LSTM, EncoderDecoder
from oracle.text import BOS, EOS, PAD, load_texts

SUNSPOT_SPEC = EncoderDecoder(13, 12, LSTM(4), LSTM(4))


def test_sunspots_are_what_they_should_be() -> None:
    series = sunspots()
    assert series.values.shape == (260, 13)
    assert series.columns[0] == "jan"
    np.testing.assert_allclose(series.values[:, :12].mean(axis=1), series.values[:, 12], atol=0.5)


def test_series_batch_reads_the_past_and_predicts_the_future() -> None:
    batch = series_batch(SUNSPOT_SPEC, sunspots(), seed=0, batch_size=7, source_time=5, target_time=3)
    expected = batch_tensors(SUNSPOT_SPEC, 7, 5, 3)
    assert {name: array.shape for name, array in batch.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
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


def test_text_batch_is_made_of_texts_their_targets_cut() -> None:
    (choice,) = zoo.choose("attention_nmt/stacked")
    pairs, vocabularies = load_texts(choice.variant.data)
    batch = text_batch(choice.variant.spec, pairs, vocabularies, seed=3, batch_size=7)
    known = {pair.source: pair.target for pair in pairs}
    for row in range(7):
        source = vocabularies.source.decode(batch["source"][row].tolist())
        length = batch["target_length"][row]
        whole = [BOS, *vocabularies.target.encode(known[source]), EOS]
        assert batch["target"][row, : 1 + length].tolist() == whole[: 1 + length]
        assert (batch["target"][row, length + 1 :] == PAD).all()
    assert batch["target"][0, batch["target_length"][0]] == EOS


@pytest.mark.parametrize("batch_size", [2, 3, 16])
@pytest.mark.parametrize("seed", range(5))
def test_targets_differ_in_length_though_dates_do_not(batch_size: int, seed: int) -> None:
    (choice,) = zoo.choose("attention_nmt/lstm")
    pairs, vocabularies = load_texts(choice.variant.data)
    batch = text_batch(choice.variant.spec, pairs, vocabularies, seed=seed, batch_size=batch_size)
    assert batch["target_length"][0] == 11
    assert batch["target_length"][-1] < 11


def test_texts_of_another_vocabulary_are_refused() -> None:
    (choice,) = zoo.choose("attention_nmt/stacked")
    pairs, vocabularies = load_texts("dates")
    with pytest.raises(CaseError, match="source_vocab is 90, the pairs need 74"):
        text_batch(choice.variant.spec, pairs, vocabularies, seed=0, batch_size=1)


@pytest.mark.parametrize("port", [choice.name for choice in zoo.choose("attention_nmt")])
def test_the_translators_have_the_vocabularies_of_their_data(port: str) -> None:
    (choice,) = zoo.choose(port)
    pairs, vocabularies = load_texts(choice.variant.data)
    assert text_batch(choice.variant.spec, pairs, vocabularies, seed=0, batch_size=2)
