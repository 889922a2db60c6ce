"""The floor's products, counted by hand."""

from __future__ import annotations

import pytest

from bench.gemms import Gemm, count_flops, count_gemms
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder

PLAIN = EncoderDecoder(source_features=5, target_features=7, encoder=LSTM(3), decoder=LSTM(3))


def as_set(gemms):
    return {(gemm.batch, gemm.m, gemm.k, gemm.n, gemm.count) for gemm in gemms}


def test_the_products_of_a_plain_encoder_decoder():
    # 2 rows, 4 steps, 3 units: 8 row-steps, 12 columns of gates.
    expected = {
        # The encoder's inputs at once, and their kernel's gradient; the source has no gradient to give.
        (1, 8, 5, 12, 1),
        (1, 5, 8, 12, 1),
        # Its first state is zeros, so that three of four steps multiply it, forward and backward.
        (1, 2, 3, 12, 3),
        (1, 2, 12, 3, 3),
        (1, 3, 6, 12, 1),
        # The decoder starts from the encoder's state.
        (1, 8, 7, 12, 1),
        (1, 7, 8, 12, 1),
        (1, 2, 3, 12, 4),
        (1, 2, 12, 3, 4),
        (1, 3, 8, 12, 1),
        # The projection, its kernel's gradient, and its inputs'.
        (1, 8, 3, 7, 1),
        (1, 3, 8, 7, 1),
        (1, 8, 7, 3, 1),
    }
    gemms = count_gemms(PLAIN, batch=2, time=4)
    assert as_set(gemms) == expected
    assert len(gemms) == len(expected)
    inputs = 2 * 2 * 8 * 5 * 12 + 2 * 2 * 8 * 7 * 12
    states = 3 * 2 * (6 + 8) * 3 * 12
    projection = 3 * 2 * 8 * 3 * 7
    assert count_flops(gemms) == inputs + states + projection


def test_without_a_projection_there_is_none():
    spec = EncoderDecoder(5, 3, LSTM(3), LSTM(3), projection=False)
    assert not [gemm for gemm in count_gemms(spec, batch=2, time=4) if "projection" in gemm.name]


def test_one_step_from_zeros_multiplies_no_state():
    names = {gemm.name for gemm in count_gemms(PLAIN, batch=2, time=1)}
    assert not [name for name in names if name.startswith("encoder state")]
    assert "decoder state" in names


def nmt(mechanism, *, cell="lstm", layers=1, layer_units=11):
    attention = Attention(mechanism, 6, layer_units=layer_units)
    return AttentionNMT(13, 17, 5, cell, 3, layers, attention)


def test_the_products_of_an_attentive_decoder():
    # 2 rows, 4 steps; the encoder has 3 units each way, the decoder 6, the attention layer 11.
    found = {gemm.name: gemm for gemm in count_gemms(nmt("bahdanau"), batch=2, time=4)}
    decoder = {name: gemm for name, gemm in found.items() if not name.startswith("encoder")}
    assert {name: (g.batch, g.m, g.k, g.n, g.count) for name, g in decoder.items()} == {
        "decoder 0 target": (1, 8, 5, 24, 1),
        "decoder 0 target, kernel's gradient": (1, 5, 8, 24, 1),
        "decoder 0 target, inputs' gradient": (1, 8, 24, 5, 1),
        "decoder 0 attention": (1, 2, 11, 24, 4),
        "decoder 0 attention, inputs' gradient": (1, 2, 24, 11, 4),
        "decoder 0 attention, kernel's gradient": (1, 11, 8, 24, 1),
        "decoder 0 state": (1, 2, 6, 24, 4),
        "decoder 0 state, inputs' gradient": (1, 2, 24, 6, 4),
        "decoder 0 state, kernel's gradient": (1, 6, 8, 24, 1),
        "memory layer": (1, 8, 6, 6, 1),
        "memory layer, kernel's gradient": (1, 6, 8, 6, 1),
        "memory layer, inputs' gradient": (1, 8, 6, 6, 1),
        "query layer": (1, 2, 6, 6, 4),
        "query layer, inputs' gradient": (1, 2, 6, 6, 4),
        "query layer, kernel's gradient": (1, 6, 8, 6, 1),
        "context": (2, 1, 4, 6, 4),
        "context, row's gradient": (2, 1, 6, 4, 4),
        "context, matrix' gradient": (2, 4, 4, 6, 1),
        "attention layer": (1, 2, 12, 11, 4),
        "attention layer, inputs' gradient": (1, 2, 11, 12, 4),
        "attention layer, kernel's gradient": (1, 12, 8, 11, 1),
        "output layer": (1, 8, 11, 17, 1),
        "output layer, kernel's gradient": (1, 11, 8, 17, 1),
        "output layer, inputs' gradient": (1, 8, 17, 11, 1),
    }
    # Each direction of the encoder: the embedding is trained, so that the inputs have a gradient.
    assert found["encoder 0 forward inputs, inputs' gradient"] == Gemm(
        "encoder 0 forward inputs, inputs' gradient", 8, 12, 5
    )
    assert found["encoder 0 backward state"].count == 3


def test_luong_scores_by_products_and_has_no_query_layer():
    found = {gemm.name: gemm for gemm in count_gemms(nmt("luong"), batch=2, time=4)}
    assert (found["score"].batch, found["score"].k, found["score"].n, found["score"].count) == (2, 6, 4, 4)
    assert "query layer" not in found


def test_a_gru_has_three_gates_and_a_second_layer_reads_the_first():
    found = {gemm.name: gemm for gemm in count_gemms(nmt("luong", cell="gru", layers=2), batch=2, time=4)}
    assert found["decoder 1 inputs"] == Gemm("decoder 1 inputs", 2, 6, 18, 4)
    assert found["encoder 1 forward inputs"].k == 6


def test_without_an_attention_layer_the_context_is_fed_back():
    found = {gemm.name: gemm for gemm in count_gemms(nmt("luong", layer_units=None), batch=2, time=4)}
    assert "attention layer" not in found
    assert found["decoder 0 attention"].k == found["output layer"].k == 6


@pytest.mark.parametrize("batch, time", [(1, 1), (3, 2)])
def test_flops_are_those_of_the_names(batch, time):
    gemms = count_gemms(nmt("bahdanau"), batch=batch, time=time)
    assert len({gemm.name for gemm in gemms}) == len(gemms)
    assert count_flops(gemms) == sum(2 * g.m * g.k * g.n * g.count * g.batch for g in gemms)
