"""Monotonic attention: edges, switches, bad input, and JAX's transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.attention import AttentionMechanism
from jax_models.monotonic import (
    MODES,
    BahdanauMonotonicAttention,
    LuongMonotonicAttention,
    monotonic_attention,
    safe_cumprod,
)
from tests.jax_models.refusal import refused

BATCH, MEMORY, UNITS = 3, 4, 2
WEIGHTS = jnp.array([[0.7, -1.3, 2.1, 0.4], [-0.2, 0.9, 1.7, -1.1], [1.2, -0.6, 0.3, 2.2]])


def make_p(key: int = 0) -> tuple[jax.Array, jax.Array]:
    """Probabilities away from 0 and 1, and previous alignments."""
    first, second = jax.random.split(jax.random.key(key))
    p = jax.random.uniform(first, (BATCH, MEMORY), minval=0.2, maxval=0.8)
    return p, jax.nn.softmax(jax.random.normal(second, (BATCH, MEMORY)))


def of_p(p: jax.Array, previous: jax.Array, mode: str, **switches) -> jax.Array:
    """The gradient of a weighted sum of the alignments."""
    weights = WEIGHTS[: p.shape[0], : p.shape[1]]
    return jax.grad(lambda p: jnp.sum(weights * monotonic_attention(p, previous, mode, **switches)))(p)


def slowly(p: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """The definition: sum over where the walk began, and not stopping in between."""
    alignments = np.zeros_like(p)
    for b, i in np.ndindex(*p.shape):
        walks = [previous[b, j] * np.prod(1 - p[b, j:i]) for j in range(i + 1)]
        alignments[b, i] = p[b, i] * sum(walks)
    return alignments


def test_parallel_and_recursive_follow_the_definition() -> None:
    p, previous = make_p()
    expected = slowly(np.asarray(p), np.asarray(previous))
    for mode in ("parallel", "recursive"):
        np.testing.assert_allclose(monotonic_attention(p, previous, mode), expected, rtol=1e-5)
    np.testing.assert_allclose(
        of_p(p, previous, "parallel"), of_p(p, previous, "recursive"), rtol=1e-4, atol=1e-6
    )


def test_hard_takes_the_first_chosen_step_not_before_the_last() -> None:
    p = jnp.array([[1.0, 0.0, 1.0, 1.0]] * 4 + [[0.0] * 4], jnp.float32)
    previous = jnp.concatenate([jnp.eye(4), jnp.eye(4)[:1]]).astype(jnp.float32)
    expected = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    for mode in ("recursive", "hard"):
        np.testing.assert_array_equal(monotonic_attention(p, previous, mode), expected)
    # The clip of the "parallel" mode's divisor forgets all that lies past a step with p = 1.
    lost = monotonic_attention(p, previous, "parallel")
    np.testing.assert_array_equal(lost, [expected[0], [0] * 4, [0] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("everywhere", [0.0, 1.0])
def test_probabilities_of_zero_or_one_everywhere(mode: str, everywhere: float) -> None:
    _, previous = make_p()
    p = jnp.full((BATCH, MEMORY), everywhere)
    alignments = monotonic_attention(p, previous, mode)
    assert np.isfinite(of_p(p, previous, mode)).all()
    if everywhere == 0:
        assert not alignments.any()
    elif mode == "recursive":
        np.testing.assert_allclose(alignments, previous)
    else:
        np.testing.assert_allclose(alignments[:, 0], previous[:, 0])


def test_gradient_at_ties() -> None:
    """p = 0 puts 1 - p, and the products, on the clips' upper bound."""
    previous = jnp.eye(4)[:1].repeat(BATCH, 0)
    zeros = jnp.zeros((BATCH, MEMORY))
    exact = of_p(zeros, previous, "recursive")
    np.testing.assert_allclose(of_p(zeros, previous, "parallel"), exact, rtol=1e-6)

    p = jnp.array([[0.0, 0.5, 0.0, 0.5]] * BATCH)
    exact = of_p(p, previous, "recursive")
    np.testing.assert_allclose(of_p(p, previous, "parallel"), exact, rtol=1e-6)
    split = of_p(p, previous, "parallel", gradient_at_ties="split")
    assert np.abs(split - exact).max() > 0.1

    ones = jnp.ones(3)
    assert (jax.grad(lambda x: safe_cumprod(x).sum())(ones) == jnp.array([3.0, 2.0, 1.0])).all()
    halved = jax.grad(lambda x: safe_cumprod(x, gradient_at_ties="split").sum())(ones)
    np.testing.assert_array_equal(halved, [1.5, 1.0, 0.5])


def test_parallel_and_recursive_gradients_differ_where_p_is_one() -> None:
    p, previous = jnp.array([[1.0, 0.5, 0.5]]), jnp.array([[1.0, 0.0, 0.0]])
    assert np.abs(of_p(p, previous, "parallel") - of_p(p, previous, "recursive"))[0, 0] > 0.1


def test_gradient_at_zero_factors_of_hard_mode() -> None:
    p, previous = jnp.array([[0.0, 1.0, 0.0, 1.0]]), jnp.array([[1.0, 0.0, 0.0, 0.0]])
    tensorflow = of_p(p, previous, "hard")
    exact = of_p(p, previous, "hard", gradient_at_zero_factors="exact")
    # The alignments are (0, 1, 0, 0). A little less of p_1 lets the walk go on to step 3.
    np.testing.assert_allclose(exact[0, 1], WEIGHTS[0, 1] - WEIGHTS[0, 3], rtol=1e-6)
    np.testing.assert_allclose(tensorflow[0, 1], WEIGHTS[0, 1], rtol=1e-6)
    inside, previous = make_p()
    np.testing.assert_allclose(
        of_p(inside, previous, "hard"),
        of_p(inside, previous, "hard", gradient_at_zero_factors="exact"),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("mode", MODES)
def test_forward_and_reverse_mode_agree(mode: str) -> None:
    p, previous = make_p()
    p = p.at[0, 1].set(0.0).at[1, 2].set(1.0)

    def run(p):
        return monotonic_attention(p, previous, mode)

    np.testing.assert_allclose(jax.jacfwd(run)(p), jax.jacrev(run)(p), atol=1e-5)
    assert np.isfinite(jax.hessian(lambda p: run(p).sum())(make_p()[0])).all()


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_safe_cumprod_is_a_cumulative_product(axis: int, reverse: bool, exclusive: bool) -> None:
    x = np.random.default_rng(0).uniform(0.1, 1, (3, 4)).astype(np.float32)
    turned = np.flip(x, axis) if reverse else x
    expected = np.cumprod(turned, axis) / (turned if exclusive else 1)
    expected = np.flip(expected, axis) if reverse else expected
    ours = safe_cumprod(jnp.asarray(x), axis=axis, exclusive=exclusive, reverse=reverse)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


MECHANISMS = [
    LuongMonotonicAttention(UNITS, scale=True),
    LuongMonotonicAttention(UNITS, mode="recursive"),
    LuongMonotonicAttention(UNITS, mode="hard"),
    BahdanauMonotonicAttention(UNITS, normalize=True),
    BahdanauMonotonicAttention(UNITS, mode="recursive"),
    BahdanauMonotonicAttention(UNITS, mode="hard"),
]


def make_mechanism_inputs(*, batch: int = BATCH, memory: int = MEMORY) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(jax.random.key(4))
    return jax.random.normal(first, (batch, memory, 5)), jax.random.normal(second, (batch, UNITS))


def make_params(mechanism: AttentionMechanism) -> Any:
    return mechanism.init(jax.random.key(5), *make_mechanism_inputs(), key=jax.random.key(0), method="attend")


def attend(mechanism: AttentionMechanism, params: dict, *arrays, **options) -> Any:
    return mechanism.apply(params, *arrays, method="attend", **options)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_masked_row_attends_to_nothing(mechanism: AttentionMechanism) -> None:
    params, arrays = make_params(mechanism), make_mechanism_inputs()
    mask = jnp.array([[False] * 4, [True, False, True, False], [True] * 4])
    alignments = attend(mechanism, params, *arrays, memory_mask=mask)
    assert not alignments[0].any()
    assert not alignments[1, jnp.array([1, 3])].any()
    contrib = mechanism.clone(masked_score="minus_infinity")
    np.testing.assert_array_equal(attend(contrib, params, *arrays, memory_mask=mask), alignments)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_one_row_and_one_step(mechanism: AttentionMechanism) -> None:
    params = make_params(mechanism)
    (alignment,) = attend(mechanism, params, *make_mechanism_inputs(batch=1, memory=1))
    assert alignment.shape == (1,)
    assert 0 <= alignment[0] <= 1


def test_the_walk_begins_at_the_first_step() -> None:
    mechanism = LuongMonotonicAttention(UNITS, mode="hard", score_bias_init=1e6)
    params = make_params(mechanism)
    assert params["params"]["attention_score_bias"] == 1e6
    alignments = attend(mechanism, params, *make_mechanism_inputs())
    np.testing.assert_array_equal(alignments, np.eye(4)[[0, 0, 0]])


def test_hard_mode_gives_no_weight_a_gradient() -> None:
    mechanism = BahdanauMonotonicAttention(UNITS, mode="hard")
    params, arrays = make_params(mechanism), make_mechanism_inputs()
    gradients = jax.grad(lambda p: jnp.sum(attend(mechanism, p, *arrays) * WEIGHTS))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_noise_is_data_or_drawn_from_a_key() -> None:
    quiet = BahdanauMonotonicAttention(UNITS)
    noisy = BahdanauMonotonicAttention(UNITS, sigmoid_noise=0.5)
    params, arrays = make_params(noisy), make_mechanism_inputs()
    key = jax.random.key(6)
    drawn = attend(noisy, params, *arrays, key=key)
    noise = jax.random.normal(key, (BATCH, MEMORY))
    np.testing.assert_array_equal(drawn, attend(noisy, params, *arrays, noise=noise))
    without = attend(quiet, params, *arrays)
    assert np.abs(drawn - without).max() > 1e-3
    np.testing.assert_array_equal(attend(noisy, params, *arrays, noise=0 * noise), without)
    with refused("neither noise nor a key", ValueError):
        attend(noisy, params, *arrays)
    with refused("sigmoid_noise is 0.0", ValueError):
        attend(quiet, params, *arrays, noise=noise)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_jit_vmap_and_checkpoint_change_nothing(mechanism: AttentionMechanism) -> None:
    params, (memory, query) = make_params(mechanism), make_mechanism_inputs()
    lengths = jnp.array([1, 3, 4])

    def run(params, memory, query, lengths):
        return attend(mechanism, params, memory, query, memory_sequence_length=lengths)

    plain = run(params, memory, query, lengths)
    np.testing.assert_allclose(jax.jit(run)(params, memory, query, lengths), plain, atol=1e-6)
    rows = jax.vmap(lambda m, q, n: run(params, m[None], q[None], n[None])[0])(memory, query, lengths)
    np.testing.assert_allclose(rows, plain, atol=1e-6)

    def gradient(run):
        return jax.jit(jax.grad(lambda p: jnp.sum(WEIGHTS * run(p, memory, query, lengths))))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        gradient(run),
        gradient(jax.checkpoint(run)),
    )


def test_bad_input_is_refused() -> None:
    p, previous = make_p()
    with refused("mode is 'soft'", ValueError):
        monotonic_attention(p, previous, "soft")
    with refused("mode is 'soft'", ValueError):
        LuongMonotonicAttention(UNITS, mode="soft")
    with refused("set mode", ValueError):
        LuongMonotonicAttention(UNITS, probability_fn="hardmax")
    with refused("previous_attention has shape"):
        monotonic_attention(p, previous[:, :3], "parallel")
    with refused("gradient_at_ties is 'half'"):
        monotonic_attention(p, previous, "parallel", gradient_at_ties="half")  # pyright: ignore
    with refused("gradient_at_zero_factors is 'half'"):
        monotonic_attention(p, previous, "hard", gradient_at_zero_factors="half")  # pyright: ignore
    with refused("axis is 2", ValueError):
        safe_cumprod(p, axis=2)
