"""The floor's products are computed, all of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bench.floor import prepare_jax, prepare_numpy
from bench.gemms import Gemm, count_gemms
from oracle.spec import LSTM, EncoderDecoder

GEMMS = (Gemm("whole", 3, 5, 7), Gemm("stepwise", 2, 3, 4, 6), Gemm("rowwise", 1, 4, 3, 5, 2))


def test_numpy_multiplies_each_product_as_often_as_it_is_counted(monkeypatch):
    multiplied = []
    matmul = np.matmul

    def count(a, b, **options):
        multiplied.append((a.shape, b.shape))
        return matmul(a, b, **options)

    prepared = prepare_numpy(GEMMS)
    monkeypatch.setattr(np, "matmul", count)
    prepared.step()
    expected = [((3, 5), (5, 7))] + [((2, 3), (3, 4))] * 6 + [((2, 1, 4), (2, 4, 3))] * 5
    assert multiplied == expected


@pytest.mark.jax
def test_jax_compiles_every_product_and_keeps_the_loops(monkeypatch):
    import jax

    said = {}
    jit = jax.jit

    def see(function, **options):
        def lower(*arguments):
            lowered = jit(function, **options).lower(*arguments)
            said["program"] = lowered.compile().as_text()
            return lowered

        return type("Jitted", (), {"lower": staticmethod(lower)})()

    monkeypatch.setattr(jax, "jit", see)
    prepared = prepare_jax(GEMMS)
    prepared.step()
    program = said["program"]
    # Products that a step repeats are in a loop, whose operand depends on the step.
    assert len(re.findall(r"= .* while\(", program)) == 2
    assert '"known_trip_count":{"n":"5"}' in program.replace(" ", "")
    assert '"known_trip_count":{"n":"4"}' in program.replace(" ", "")


@pytest.mark.jax
def test_both_forms_of_a_product_of_rows_are_the_product():
    from bench.floor import _multiply, _sum

    generator = np.random.default_rng(0)
    rows, matrices = generator.standard_normal((2, 1, 4)), generator.standard_normal((2, 4, 3))
    np.testing.assert_allclose(_sum(rows, matrices), _multiply(rows, matrices), rtol=1e-12)
    np.testing.assert_allclose(_sum(rows, matrices), np.einsum("bik,bkn->bin", rows, matrices), rtol=1e-12)


@pytest.mark.jax
def test_both_run_all_of_a_model():
    gemms = count_gemms(EncoderDecoder(5, 4, LSTM(3), LSTM(3)), batch=2, time=3)
    for prepare in (prepare_numpy, prepare_jax):
        prepared = prepare(gemms)
        prepared.step()
        assert prepared.first > 0
