"""Sums in sequence are NumPy's row after row, wherever in a program they are, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.case import random_case
from oracle.compare import compare_closely, compare_records
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder

pytestmark = pytest.mark.jax

ROWS = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)


def add_rows(rows: np.ndarray) -> np.ndarray:
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows:
        total = total + row
    return total


def test_rows_are_added_one_after_another():
    import jax

    from oracle.steps.sequential_sums import sum_in_sequence

    def total(rows):
        return rows.sum(0)

    expected = add_rows(ROWS)
    np.testing.assert_array_equal(jax.jit(sum_in_sequence(total))(ROWS), expected)
    assert not np.array_equal(jax.jit(total)(ROWS), expected)
    # Several axes count as rows, the last of them fastest.
    both = jax.jit(sum_in_sequence(lambda rows: rows.sum((0, 1))))(ROWS.reshape(50, 100, 3))
    np.testing.assert_array_equal(both, expected)


def test_they_are_within_loops_branches_and_derivatives():
    import jax
    import jax.numpy as jnp

    from oracle.steps.sequential_sums import sum_in_sequence

    @jax.jit
    def called(rows):
        return rows.sum(0)

    def in_loop(rows):
        return jax.lax.scan(lambda carry, each: (carry, called(each)), 0, rows)[1]

    def in_branch(rows):
        return jax.lax.cond(rows[0, 0] < 1e9, called, lambda rows: rows[0], rows)

    def in_while(rows):
        return jax.lax.while_loop(
            lambda s: s[0] < 1, lambda s: (s[0] + 1, s[1] + called(rows)), (0, rows[0] * 0)
        )[1]

    def derivative(rows):
        def loss(bias):
            return jnp.sum((jnp.zeros_like(rows) + bias) * rows)

        return jax.grad(jax.checkpoint(loss))(jnp.ones(3, np.float32))

    expected = add_rows(ROWS)
    for function in (in_branch, in_while, derivative):
        np.testing.assert_array_equal(jax.jit(sum_in_sequence(function))(ROWS), expected)
        assert not np.array_equal(jax.jit(function)(ROWS), expected)
    pieces = ROWS.reshape(2, 2500, 3)
    found = jax.jit(sum_in_sequence(in_loop))(pieces)
    np.testing.assert_array_equal(found, [add_rows(piece) for piece in pieces])


def test_other_sums_are_left_to_the_compiler():
    import jax

    from oracle.steps.sequential_sums import sum_in_sequence

    def others(rows):
        return {"columns": rows.sum(1), "all": rows.sum(), "whole": rows.astype(int).sum(0)}

    expected, found = jax.jit(others)(ROWS), jax.jit(sum_in_sequence(others))(ROWS)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    "spec",
    [
        EncoderDecoder(5, 4, LSTM(3), LSTM(3), lengths=True),
        AttentionNMT(11, 13, 4, "gru", 3, 2, Attention("bahdanau_monotonic", 6, layer_units=5)),
    ],
    ids=["encoder-decoder", "translator"],
)
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_the_oracle_computes_the_same_in_float64(spec, path):
    from oracle.run_jax import run_oracle

    case = random_case(spec, batch_size=3, source_time=7, target_time=5)
    expected = run_oracle(case, model="test", path=path)
    found = run_oracle(case, model="test", path=path, sums_in_sequence=True)
    assert list(found.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert tensor is not None
        scale = np.abs(tensor).max(initial=0.0)
        assert np.abs(found.tensors[name] - tensor).max(initial=0.0) <= 1e-13 * scale, name


@pytest.mark.tf
@pytest.mark.slow
def test_a_long_float32_sum_of_tensorflow_is_no_fault_of_the_port():
    from oracle.case import jitter_case
    from oracle.run_jax import run_oracle
    from oracle.run_tf import run_port
    from oracle.runner import InProcess, run_more
    from oracle.tolerance import FLOAT32_RUNS

    # TensorFlow adds the projection's bias' gradient over 64 x 2,048 rows, one after another.
    spec = EncoderDecoder(13, 12, LSTM(8), LSTM(8))
    case = random_case(spec, batch_size=64, source_time=8, target_time=2048)
    model = "explicit_state/full"
    truth = run_oracle(case, model=model)
    yardstick = [run_oracle(jitter_case(case, n), model=model, dtype="float32") for n in range(FLOAT32_RUNS)]
    port = run_port(case, model=model, mode="function", dtype="float32")
    first = compare_records(port, truth, yardstick=yardstick)
    assert [row.name for row in first.findings] == ["gradient/projection/bias"]
    assert first.wants_more_runs

    def ask_more():
        return run_more(InProcess(), case, model=model, dtype="float32")

    assert compare_closely(port, truth, ask_more, yardstick=yardstick).matches
    # What is wrong stays wrong: one element of another bias, by a part in ten thousand.
    wrong = port.tensors["gradient/decoder/cell/bias"].copy()
    wrong[np.abs(wrong).argmax()] *= 1.0001
    changed = type(port)(port.spec, port.origin, {**port.tensors, "gradient/decoder/cell/bias": wrong})
    found = compare_closely(changed, truth, ask_more, yardstick=yardstick)
    assert [row.name for row in found.findings] == ["gradient/decoder/cell/bias"]
