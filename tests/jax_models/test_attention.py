"""Attention mechanisms: edges, bad input, and JAX's transformations. Parity with tfa is in tests/parity."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.attention import (
    AttentionMechanism,
    BahdanauAttention,
    LuongAttention,
    glorot_vector,
    hardmax,
)
from tests.jax_models.refusal import refused

BATCH, MEMORY, DEPTH, UNITS = 3, 4, 5, 2

MECHANISMS = [
    LuongAttention(UNITS),
    LuongAttention(UNITS, scale=True),
    BahdanauAttention(UNITS),
    BahdanauAttention(UNITS, normalize=True),
]


def make_inputs(*, batch: int = BATCH, memory: int = MEMORY) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(first, (batch, memory, DEPTH)),
        jax.random.normal(second, (batch, UNITS)),
    )


def make_params(mechanism: AttentionMechanism) -> Any:
    memory, query = make_inputs()
    shapes = mechanism.init(jax.random.key(1), memory, query, method="attend")
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return tree.unflatten(
        [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def attend(mechanism: AttentionMechanism, params: dict, memory, query, **options) -> Any:
    return mechanism.apply(params, memory, query, method="attend", **options)


def test_hardmax_takes_the_first_of_ties_and_passes_no_gradient() -> None:
    logits = jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(hardmax(logits), [[0, 1, 0], [1, 0, 0]])
    assert not jax.grad(lambda x: jnp.sum(hardmax(x) * logits))(logits).any()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_masked_row_attends_uniformly_or_is_nan(mechanism: AttentionMechanism) -> None:
    params, (memory, query) = make_params(mechanism), make_inputs()
    mask = jnp.array([[False] * MEMORY, [True, False, True, False], [True] * MEMORY])
    alignments = attend(mechanism, params, memory, query, memory_mask=mask)
    np.testing.assert_allclose(alignments[0], np.full(MEMORY, 1 / MEMORY))
    assert not alignments[1, 1]
    assert not alignments[1, 3]
    np.testing.assert_allclose(alignments.sum(axis=1), 1, rtol=1e-6)

    contrib = mechanism.clone(masked_score="minus_infinity")
    theirs = attend(contrib, params, memory, query, memory_mask=mask)
    assert np.isnan(theirs[0]).all()
    np.testing.assert_array_equal(theirs[1:], alignments[1:])


def test_a_length_of_zero_is_refused_where_it_is_known() -> None:
    mechanism, lengths = LuongAttention(UNITS), jnp.array([0, 2, 4])
    params, (memory, query) = make_params(mechanism), make_inputs()
    with refused(r"\[0, 2, 4\]", ValueError):
        attend(mechanism, params, memory, query, memory_sequence_length=lengths)

    @jax.jit
    def traced(lengths):
        return attend(mechanism, params, memory, query, memory_sequence_length=lengths)

    def uniform(mechanism, lengths):
        ready = mechanism.setup_memory(memory, memory_sequence_length=lengths, zero_length="attend_uniformly")
        return mechanism(ready, query, mechanism.initial_state(ready))[0]

    np.testing.assert_allclose(traced(lengths)[0], 1 / MEMORY)
    np.testing.assert_allclose(mechanism.apply(params, lengths, method=uniform), traced(lengths), rtol=1e-6)


def test_lengths_past_the_end_are_the_whole_memory() -> None:
    mechanism = BahdanauAttention(UNITS)
    params, (memory, query) = make_params(mechanism), make_inputs()
    long = attend(mechanism, params, memory, query, memory_sequence_length=jnp.array([4, 9, 100]))
    np.testing.assert_array_equal(long, attend(mechanism, params, memory, query))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_one_row_and_one_step(mechanism: AttentionMechanism) -> None:
    params, (memory, query) = make_params(mechanism), make_inputs(batch=1, memory=1)
    np.testing.assert_array_equal(attend(mechanism, params, memory, query), [[1.0]])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_padding_gets_no_gradient_and_does_not_matter(mechanism: AttentionMechanism) -> None:
    params, (memory, query) = make_params(mechanism), make_inputs()
    lengths = jnp.array([1, 2, 4])
    weights = jax.random.normal(jax.random.key(3), (BATCH, MEMORY))

    def loss(memory):
        aligned = attend(mechanism, params, memory, query, memory_sequence_length=lengths)
        return jnp.sum(aligned * weights), aligned

    gradient, aligned = jax.grad(loss, has_aux=True)(memory)
    padding = np.arange(MEMORY) >= lengths[:, None]
    assert not gradient[padding].any()
    assert gradient[2].any()
    np.testing.assert_array_equal(loss(jnp.where(padding[..., None], 1e3, memory))[1], aligned)


def test_a_nan_in_the_padding_stays_in_the_values_as_in_tensorflow() -> None:
    mechanism = LuongAttention(UNITS)
    params, (memory, query) = make_params(mechanism), make_inputs()
    memory = memory.at[0, 3].set(jnp.nan)

    def prepare(mechanism):
        ready = mechanism.setup_memory(memory, memory_sequence_length=jnp.array([3, 4, 4]))
        return ready, mechanism(ready, query, mechanism.initial_state(ready))[0]

    ready, alignments = mechanism.apply(params, method=prepare)
    assert np.isnan(ready.values[0, 3]).all()
    assert np.isfinite(alignments).all()


def test_first_values() -> None:
    memory, query = make_inputs()
    luong = LuongAttention(UNITS, scale=True).init(jax.random.key(0), memory, query, method="attend")
    assert luong["params"]["attention_g"] == 1
    assert jax.tree.map(jnp.shape, luong["params"]) == {
        "attention_g": (),
        "memory_layer": {"kernel": (DEPTH, UNITS)},
    }
    bahdanau = BahdanauAttention(7, normalize=True)
    params = bahdanau.init(jax.random.key(0), memory, query, method="attend")["params"]
    np.testing.assert_allclose(params["attention_g"], np.sqrt(1 / 7), rtol=1e-6)
    assert not params["attention_b"].any()
    assert np.abs(params["attention_v"]).max() <= np.sqrt(3 / 7)
    assert np.ptp(glorot_vector(jax.random.key(0), (1000,), jnp.float32)) > 1.9 * np.sqrt(3 / 1000)


def test_a_zero_attention_v_is_not_normalized_to_something() -> None:
    mechanism = BahdanauAttention(UNITS, normalize=True)
    params, (memory, query) = make_params(mechanism), make_inputs()
    params["params"]["attention_v"] *= 0
    assert np.isnan(attend(mechanism, params, memory, query)).all()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_jit_vmap_checkpoint_and_scan_change_nothing(mechanism: AttentionMechanism) -> None:
    params, (memory, query) = make_params(mechanism), make_inputs()
    lengths = jnp.array([1, 3, 4])

    def run(params, memory, query, lengths):
        return attend(mechanism, params, memory, query, memory_sequence_length=lengths)

    def loss(run, params):
        return jnp.sum(run(params, memory, query, lengths)[:, 0] ** 2)

    plain = run(params, memory, query, lengths)
    np.testing.assert_allclose(jax.jit(run)(params, memory, query, lengths), plain, atol=1e-6)
    rows = jax.vmap(lambda m, q, n: run(params, m[None], q[None], n[None])[0])(memory, query, lengths)
    np.testing.assert_allclose(rows, plain, atol=1e-6)
    gradient = jax.grad(lambda p: loss(run, p))(params)
    again = jax.grad(lambda p: loss(jax.checkpoint(run), p))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, again)

    def scanned(mechanism, memory, query):
        ready = mechanism.setup_memory(memory, memory_sequence_length=lengths)
        return mechanism.unbind()[0], ready

    def steps(params, memory, query):
        _, ready = mechanism.apply(params, memory, query, method=scanned)
        state = mechanism.initial_state(ready)
        return jax.lax.scan(
            lambda state, q: mechanism.apply(params, ready, q, state)[::-1],
            state,
            jnp.stack([query] * 2),
        )[1]

    np.testing.assert_allclose(jax.jit(steps)(params, memory, query), [plain, plain], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": jnp.ones((3, 5))}, r"memory has shape \[3, 5\]"),
        ({"memory_sequence_length": jnp.array([1, 2])}, r"memory_sequence_length has shape \[2\]"),
        ({"memory_mask": jnp.ones((3, 5), bool)}, r"memory_mask has shape \[3, 5\]"),
        ({"memory_mask": jnp.ones((3, 4))}, "dtype float32"),
        ({"query": jnp.ones((3, 7))}, r"query has shape \[3, 7\]"),
        (
            {"memory_sequence_length": jnp.array([1, 2, 3]), "memory_mask": jnp.ones((3, 4), bool)},
            "both given",
        ),
    ],
)
def test_bad_input_is_refused(options: dict, message: str) -> None:
    mechanism = LuongAttention(UNITS)
    memory, query = make_inputs()
    given = {"memory": memory, "query": query} | options
    with refused(message):
        attend(mechanism, make_params(mechanism), given.pop("memory"), given.pop("query"), **given)


def test_lengths_of_the_constructor_are_ignored_unless_asked_for() -> None:
    lengths, (memory, query) = jnp.array([1, 2, 4]), make_inputs()
    plain = LuongAttention(UNITS)
    params = make_params(plain)
    expected = attend(plain, params, memory, query, memory_sequence_length=lengths)
    free = attend(plain, params, memory, query)
    ignored = LuongAttention(UNITS, memory_sequence_length=lengths)
    np.testing.assert_array_equal(attend(ignored, params, memory, query), free)
    used = ignored.clone(constructor_lengths="used")
    np.testing.assert_array_equal(attend(used, params, memory, query), expected)
    np.testing.assert_allclose(
        jax.jit(lambda params: attend(used, params, memory, query))(params), expected, atol=1e-6
    )
    # What the memory is set up with comes first.
    everything = jnp.ones((BATCH, MEMORY), bool)
    np.testing.assert_array_equal(attend(used, params, memory, query, memory_mask=everything), free)
    listed = LuongAttention(UNITS, memory_sequence_length=[1, 2, 4], constructor_lengths="used")
    np.testing.assert_array_equal(attend(listed, params, memory, query), expected)


def test_bad_options_are_refused_at_once() -> None:
    with refused("sparsemax", ValueError):
        LuongAttention(UNITS, probability_fn="sparsemax")
    with refused("masked_score is 'zero'"):
        LuongAttention(UNITS, masked_score="zero")  # pyright: ignore[reportArgumentType]
    with refused("LuongAttention is deterministic", ValueError):
        mechanism = LuongAttention(UNITS)
        attend(mechanism, make_params(mechanism), *make_inputs(), noise=jnp.ones((BATCH, MEMORY)))
    with pytest.raises(NotImplementedError, match="calculate_score"):
        attend(AttentionMechanism(), {}, *make_inputs())


@pytest.mark.tf
@pytest.mark.parametrize("lengths", [[0, 2, 4], [-1, 2, 4]])
def test_tensorflow_refuses_a_length_of_zero_too(lengths: list[int]) -> None:
    from tests.parity.tensorflow_side import tf, tfa

    memory, query = make_inputs()
    theirs = tfa.seq2seq.LuongAttention(UNITS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="greater than zero"):
        theirs.setup_memory(tf.constant(np.asarray(memory)), tf.constant(lengths))
        theirs([tf.constant(np.asarray(query)), theirs.initial_state(BATCH, tf.float32)])
    with refused("at least 1", ValueError):
        ours = LuongAttention(UNITS)
        attend(ours, make_params(ours), memory, query, memory_sequence_length=jnp.array(lengths))
