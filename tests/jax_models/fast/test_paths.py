"""What the fast path shares with the plain one besides numbers, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp

from jax_models.cell_base import LSTMState
from jax_models.fast.attention_nmt import look_up
from jax_models.fast.encoder_decoder import read
from jax_models.fast.loop import mask_lengths, repeat_last, zero_masked
from oracle.case import random_case
from oracle.errors import UsageError
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder
from oracle.steps import attention_nmt, encoder_decoder
from oracle.steps.leaves import nest_leaves

pytestmark = pytest.mark.jax

SPEC = EncoderDecoder(2, 3, LSTM(4), LSTM(4))
TRANSLATOR = AttentionNMT(7, 8, 3, "lstm", 2, 1, Attention("luong", 4))


@pytest.mark.parametrize(("step", "spec"), [(encoder_decoder, SPEC), (attention_nmt, TRANSLATOR)])
def test_there_are_two_paths(step, spec) -> None:
    with pytest.raises(UsageError, match="no path 'quick'; choose from fast, plain"):
        step.differentiate(spec, path="quick")


def test_float32_stays_float32() -> None:
    case = random_case(SPEC, seed=1)
    computed = jax.jit(encoder_decoder.differentiate(SPEC, path="fast"))(
        nest_leaves(case.weights), dict(case.batch)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(computed)} == {np.dtype("float32")}
    assert not jax.config.jax_enable_x64


def draw_cell() -> tuple[dict[str, jax.Array], np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
    leaves = {name: jnp.asarray(generator.standard_normal(shape)) for name, shape in shapes.items()}
    return leaves, generator.standard_normal((2, 5, 3)).astype(np.float32)


def total(leaves, inputs):
    zeros = jnp.zeros((2, 2))
    outputs, _ = read(leaves, inputs, LSTMState(zeros, zeros), jnp.asarray([4, 2]), 1.0, None)
    return jnp.sum(outputs)


def test_forward_mode_is_refused() -> None:
    """A derivative written by hand is of reverse mode: who pushes forward must take the plain path."""
    leaves, inputs = draw_cell()
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda leaves: total(leaves, jnp.asarray(inputs)), (leaves,), (leaves,))


def test_what_no_row_reads_reaches_no_gradient() -> None:
    """A NaN past all lengths, as in `dynamic_rnn`, which does not run those steps."""
    leaves, inputs = draw_cell()
    inputs[:, 4:] = np.nan
    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(leaves, jnp.asarray(inputs))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert not np.any(gradients[1][:, 4:])


def test_outputs_where_a_step_does_not_count() -> None:
    outputs = jnp.asarray([[[5.0]], [[6.0]], [[6.0]], [[7.0]]])
    mask = jnp.asarray([[False], [True], [False], [True]])
    np.testing.assert_array_equal(zero_masked(outputs, mask)[:, 0, 0], [0, 6, 0, 7])
    np.testing.assert_array_equal(repeat_last(outputs, mask)[:, 0, 0], [0, 6, 6, 7])
    np.testing.assert_array_equal(repeat_last(outputs, mask, reverse=True)[:, 0, 0], [5, 6, 6, 7])
    assert mask_lengths(None, 3) is None
    np.testing.assert_array_equal(mask_lengths(jnp.asarray([0, 2]), 2), [[False, True], [False, True]])


def test_ids_outside_the_vocabulary_have_no_vector() -> None:
    vectors = look_up(jnp.asarray([[1.0], [2.0]]), jnp.asarray([[0, 1, 2, -1]]))
    np.testing.assert_array_equal(vectors[0, :, 0], [1, 2, np.nan, np.nan])


def test_what_is_computed_again_is_chosen_by_the_shapes() -> None:
    batch = {
        "source": np.zeros((4, 100, 2), np.float32),
        "target": np.zeros((4, 50, 3), np.float32),
    }
    kept = 11 * (100 + 49) * 4 * 4 * 4
    assert encoder_decoder.choose_segments(SPEC, batch, itemsize=4, limit_bytes=kept).segment is None
    assert encoder_decoder.choose_segments(SPEC, batch, itemsize=4, limit_bytes=kept - 1).segment == 10
    tokens = {"source": np.zeros((4, 100), np.int32), "target": np.zeros((4, 50), np.int32)}
    chosen = attention_nmt.choose_segments(TRANSLATOR, tokens, itemsize=8, limit_bytes=0)
    assert chosen.segment == 10
    assert chosen.kept_bytes > 8 * 11 * (100 + 49) * 4 * 4
