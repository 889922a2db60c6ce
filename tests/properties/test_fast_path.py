"""The fast path against the plain one in float64: every value and every gradient, whatever the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_models import keras_rnn
from jax_models.cell_base import LSTMState
from jax_models.fast.attention_nmt import CELLS
from jax_models.fast.cell import project
from jax_models.fast.gru import GRU_RESET_BEFORE
from jax_models.fast.loop import repeat_last, run_cell, zero_masked
from jax_models.fast.remat import run_segments
from oracle.case import cast_case, random_case
from oracle.frameworks import precise_jax
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder
from oracle.steps import attention_nmt, encoder_decoder
from oracle.steps.leaves import nest_leaves
from tests.examples import few

pytestmark = pytest.mark.jax

TOLERANCE = 1e-12
"""Of the largest element of a tensor."""

ROUNDING = 1e-15
"""Of the largest element of all: what is left of sums that are zero in exact numbers."""

SIZES = st.integers(1, 4)


def assert_same(fast: dict[str, Any], plain: dict[str, Any]) -> None:
    assert list(fast) == list(plain)
    largest = max(float(np.max(np.abs(array), initial=0)) for array in plain.values())
    for name, expected in plain.items():
        given = np.asarray(fast[name])
        assert given.shape == expected.shape, name
        assert given.dtype == expected.dtype, name
        bound = TOLERANCE * np.max(np.abs(expected), initial=0) + ROUNDING * largest
        assert np.max(np.abs(given - expected), initial=0) <= bound, name


@given(
    kind=st.sampled_from(["lstm", "gru", "gru_reset_before"]),
    time=st.integers(1, 6),
    batch=SIZES,
    features=SIZES,
    units=SIZES,
    masked=st.sampled_from(["nothing", "lengths", "anything"]),
    zeros=st.booleans(),
    reverse=st.booleans(),
    segment=st.sampled_from([None, 1, 2, 4]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=few(24))
def test_a_loop_is_the_layer_of_keras(
    kind: str,
    time: int,
    batch: int,
    features: int,
    units: int,
    masked: str,
    zeros: bool,
    reverse: bool,
    segment: int | None,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    layer = keras_rnn.LSTM if kind == "lstm" else keras_rnn.GRU
    options: dict[str, Any] = {} if kind == "lstm" else {"reset_after": kind == "gru"}
    module = layer(
        units=units,
        return_sequences=True,
        return_state=True,
        go_backwards=reverse,
        zero_output_for_mask=zeros,
        **options,
    )
    cell = GRU_RESET_BEFORE if kind == "gru_reset_before" else CELLS[kind]
    gates = cell.gates
    bias = (2, gates * units) if kind == "gru" else (gates * units,)
    leaves = {
        "kernel": generator.standard_normal((features, gates * units)),
        "recurrent_kernel": generator.standard_normal((units, gates * units)),
        "bias": generator.standard_normal(bias),
    }
    inputs = generator.standard_normal((batch, time, features))
    start = tuple(generator.standard_normal((batch, units)) for _ in range(2 if kind == "lstm" else 1))
    mask = {
        "nothing": None,
        "lengths": np.arange(time) < generator.integers(0, time + 1, (batch, 1)),
        "anything": generator.random((batch, time)) < 0.6,
    }[masked]
    adjoints = (
        generator.standard_normal((batch, time, units)),
        tuple(generator.standard_normal((batch, units)) for _ in start),
    )

    def plain(leaves: Any, inputs: Any, start: Any) -> Any:
        state = LSTMState(*start) if kind == "lstm" else start[0]
        outputs, state = module.apply(
            {"params": {"cell": leaves}},
            inputs,
            mask=None if mask is None else jnp.asarray(mask),
            initial_state=state,
        )
        outputs = jnp.flip(outputs, 1) if reverse else outputs
        return outputs, tuple(state) if kind == "lstm" else (state,)

    def fast(leaves: Any, inputs: Any, start: Any) -> Any:
        input_bias, recurrent = cell.split_leaves(leaves)
        mask_t = None if mask is None else jnp.asarray(mask.T)

        def run(state: Any, now: Any) -> Any:
            parts = project(now[0], leaves["kernel"], input_bias, gates)
            outputs, state = run_cell(cell, reverse, recurrent, parts, state, now[1])
            return state, outputs

        steps = (jnp.swapaxes(inputs, 0, 1), mask_t)
        state, outputs = run_segments(run, start, steps, segment=segment, reverse=reverse)
        outputs = zero_masked(outputs, mask_t) if zeros else repeat_last(outputs, mask_t, reverse=reverse)
        return jnp.swapaxes(outputs, 0, 1), state

    def everything(function: Any) -> dict[str, np.ndarray]:
        def compute(leaves: Any, inputs: Any, start: Any) -> Any:
            values, pull = jax.vjp(function, leaves, inputs, start)
            return values, pull(adjoints)

        (outputs, state), (d_leaves, d_inputs, d_start) = jax.jit(compute)(leaves, inputs, start)
        named = {"outputs": outputs, "d_inputs": d_inputs}
        named |= {f"state/{i}": part for i, part in enumerate(state)}
        named |= {f"d_start/{i}": part for i, part in enumerate(d_start)}
        named |= {f"d_{name}": d_leaves[name] for name in leaves}
        return {name: np.asarray(array) for name, array in named.items()}

    with precise_jax():
        assert_same(everything(fast), everything(plain))


@given(
    lengths=st.booleans(),
    given_state=st.booleans(),
    projection=st.booleans(),
    handoff=st.sampled_from(["state", "stopped", "zeros", "exchanged"]),
    forget_biases=st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([1.0, -0.5])),
    sizes=st.tuples(SIZES, SIZES, SIZES, st.integers(1, 6), st.integers(1, 5)),
    again=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=few(8))
def test_an_encoder_decoder_gives_the_same_record(
    lengths: bool,
    given_state: bool,
    projection: bool,
    handoff: Any,
    forget_biases: tuple[float, float],
    sizes: tuple[int, ...],
    again: bool,
    seed: int,
) -> None:
    features, units, batch, source_time, target_time = sizes
    spec = EncoderDecoder(
        features,
        features + 1 if projection else units,
        LSTM(units, forget_biases[0]),
        LSTM(units, forget_biases[1]),
        projection,
        "given" if given_state else "implicit",
        lengths,
        handoff,
    )
    shape = {"batch_size": batch, "source_time": source_time, "target_time": target_time}
    assert_same(*compute_both(encoder_decoder, spec, seed, shape, again))


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic"])
@given(
    cell=st.sampled_from(["lstm", "gru"]),
    layers=st.integers(1, 2),
    scaled=st.booleans(),
    width=st.sampled_from([None, 3]),
    sizes=st.tuples(SIZES, SIZES, st.integers(1, 6), st.integers(1, 5)),
    again=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=few(3))
def test_a_translator_gives_the_same_record(
    mechanism: Any,
    cell: Any,
    layers: int,
    scaled: bool,
    width: int | None,
    sizes: tuple[int, ...],
    again: bool,
    seed: int,
) -> None:
    units, batch, source_time, target_time = sizes
    depth = 2 * units if mechanism.startswith("luong") else 5
    spec = AttentionNMT(7, 9, 3, cell, units, layers, Attention(mechanism, depth, scaled, width))
    shape = {"batch_size": batch, "source_time": source_time, "target_time": target_time}
    assert_same(*compute_both(attention_nmt, spec, seed, shape, again))


def compute_both(
    step: Any, spec: Any, seed: int, shape: dict[str, int], again: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a record by the fast path, which computes segments again if so asked, and the plain."""
    weights, batch = cast_case(random_case(spec, seed=seed, **shape), "float64")
    with precise_jax():
        fast, plain = (
            step.name_tensors(
                spec,
                jax.device_get(jax.jit(step.differentiate(spec, **options))(nest_leaves(weights), batch)),
            )
            for options in ({"path": "fast", "limit_bytes": 0 if again else 2**40}, {"path": "plain"})
        )
    return fast, plain
