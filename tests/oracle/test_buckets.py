"""Padding to few lengths changes no number of a record, and has batches of many lengths share a program."""

from __future__ import annotations

import numpy as np
import pytest

from bench.commands import count_compiled
from oracle.batch import random_batch
from oracle.buckets import crop_tensors, pad_batch, round_up
from oracle.case import random_case
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder

TRANSLATOR = AttentionNMT(11, 13, 4, "gru", 3, 1, Attention("luong", 6, layer_units=5))


def test_lengths_are_few_and_never_shorter_nor_much_longer():
    lengths = range(1, 4097)
    rounded = [round_up(length) for length in lengths]
    assert rounded[:20] == [8] * 8 + [10] * 2 + [12] * 2 + [14] * 2 + [16] * 2 + [20] * 4
    assert all(length <= up for length, up in zip(lengths, rounded, strict=True))
    assert all(up <= 1.25 * length for length, up in zip(lengths, rounded, strict=True) if length > 8)
    assert all(round_up(up) == up for up in rounded)
    assert len(set(rounded)) == 1 + 4 * 9


def test_texts_are_padded_and_what_is_computed_of_them_is_cropped():
    batch = random_batch(TRANSLATOR, seed=0, batch_size=2, source_time=9, target_time=11)
    padded = pad_batch(TRANSLATOR, batch)
    assert padded["source"].shape == (2, 10)
    assert padded["target"].shape == (2, 1 + 12)
    for name in ("source", "target"):
        width = batch[name].shape[1]
        np.testing.assert_array_equal(padded[name][:, :width], batch[name])
        assert not padded[name][:, width:].any()
    for name in ("source_length", "target_length"):
        assert padded[name] is batch[name]
    computed = {
        "output/encoder": np.arange(2 * 10 * 6).reshape(2, 10, 6),
        "output/alignments": np.arange(2 * 12 * 10).reshape(2, 12, 10),
        "gradient/embedded/target": None,
        "loss": np.float64(1),
    }
    cropped = crop_tensors(TRANSLATOR, computed, batch)
    np.testing.assert_array_equal(cropped["output/encoder"], computed["output/encoder"][:, :9])
    np.testing.assert_array_equal(cropped["output/alignments"], computed["output/alignments"][:, :11, :9])
    assert cropped["gradient/embedded/target"] is None
    assert cropped["loss"] == 1


def test_a_series_stays_as_it_is():
    spec = EncoderDecoder(5, 4, LSTM(3), LSTM(3), lengths=True)
    batch = random_batch(spec, seed=0, batch_size=2, source_time=9, target_time=11)
    padded = pad_batch(spec, batch)
    assert all(padded[name] is array for name, array in batch.items())


@pytest.mark.jax
@pytest.mark.parametrize("mechanism", ["luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic"])
@pytest.mark.parametrize(("cell", "loss"), [("lstm", "tokens"), ("gru", "steps"), ("lstm", "rows")])
def test_padding_changes_no_number(mechanism, cell, loss):
    from oracle.run_jax import run_oracle

    units = 6 if mechanism.startswith("luong") else 4
    attention = Attention(mechanism, units, scaled=True, layer_units=5)
    spec = AttentionNMT(11, 13, 4, cell, 3, 2, attention, loss=loss)
    case = random_case(spec, seed=3, batch_size=3, source_time=9, target_time=5)
    padded = run_oracle(case, model="test")
    plain = run_oracle(case, model="test", path="plain")
    assert list(padded.tensors) == list(plain.tensors)
    for name, expected in plain.tensors.items():
        found = padded.tensors[name]
        assert found is not None
        assert expected is not None
        assert found.shape == expected.shape, name
        # Terms of size 1e-5 cancel in the gradient of Bahdanau's bias, which moves all scores of a row alike.
        scale = max(np.abs(expected).max(initial=0.0), 1e-5)
        assert np.abs(found - expected).max(initial=0.0) <= 1e-13 * scale, name


@pytest.mark.jax
def test_texts_of_other_lengths_share_a_program(caplog):
    import jax

    from oracle.run_jax import run_oracle

    def count_programs(source_time: int, target_time: int) -> int:
        sizes = {"source_time": source_time, "target_time": target_time}
        case = random_case(TRANSLATOR, batch_size=2, **sizes)
        caplog.clear()
        with jax.log_compiles():
            run_oracle(case, model="test")
        return count_compiled(caplog.text)

    assert count_programs(9, 5) > 0
    assert [count_programs(10, 8), count_programs(9, 1), count_programs(10, 3)] == [0, 0, 0]
    assert count_programs(11, 5) > 0
