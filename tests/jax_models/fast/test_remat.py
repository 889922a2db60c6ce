"""Loops in segments, and when loops are cut."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp

from jax_models.fast.remat import (
    choose_rematerialisation,
    estimate_loop,
    find_memory,
    run_segments,
)
from oracle.case import random_case
from oracle.spec import LSTM, EncoderDecoder
from oracle.steps import encoder_decoder
from oracle.steps.leaves import nest_leaves

pytestmark = pytest.mark.jax


@pytest.mark.parametrize("segment", [None, 1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("reverse", [False, True])
def test_segments_are_steps_of_one_loop(segment: int | None, reverse: bool) -> None:
    steps = jnp.asarray(np.random.default_rng(0).integers(-4, 5, (7, 2)), jnp.float32)

    def run(state, steps):
        def step(state, now):
            # The order of the steps shows in the outputs.
            state = state / 2 + now
            return state, 3 * state

        return jax.lax.scan(step, state, steps, reverse=reverse)

    whole_state, whole = run(jnp.ones(2), steps)
    state, outputs = run_segments(run, jnp.ones(2), steps, segment=segment, reverse=reverse)
    np.testing.assert_array_equal(state, whole_state)
    np.testing.assert_array_equal(outputs, whole)


def test_cut_only_where_too_much_would_be_kept() -> None:
    whole = choose_rematerialisation(1000, 4096, limit_bytes=1000)
    assert whole.segment is None
    assert whole.describe().startswith("none")
    cut = choose_rematerialisation(3 * 2**20, 4096, limit_bytes=2**20)
    assert cut.segment == 64
    assert cut.describe() == "segments of 64 steps (in one piece about 3 MiB of 1 MiB)"
    assert choose_rematerialisation(2, 1, limit_bytes=1).segment == 1


def test_the_limit_is_a_share_of_the_memory() -> None:
    assert choose_rematerialisation(0, 9).limit_bytes == find_memory() // 2
    assert find_memory() > 2**20


def test_segments_keep_less() -> None:
    """What is compiled needs far less memory in segments, and the estimate is of the order of the truth."""
    spec = EncoderDecoder(2, 3, LSTM(8), LSTM(8))
    case = random_case(spec, batch_size=4, source_time=1024, target_time=1024)
    batch = dict(case.batch)

    def compile_step(**options):
        compute = encoder_decoder.differentiate(spec, **options)

        def train(weights, batch):
            computed = compute(weights, batch)
            return computed["loss"], computed["d_weights"]

        compiled = jax.jit(train).lower(nest_leaves(case.weights), batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = compile_step(path="plain")
    whole = compile_step(path="fast", limit_bytes=2**40)
    cut = compile_step(path="fast", limit_bytes=0)
    assert cut < 0.25 * plain
    assert cut < 0.35 * whole
    estimate = estimate_loop(4, 2048, 4, 8, itemsize=4)
    assert 0.5 * whole < estimate < 2 * whole
