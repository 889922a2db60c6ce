"""Samplers: keys, replay, edge cases and bad input. Agreement with TensorFlow is in tests/parity."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.cells import BasicLSTMCell
from jax_models.decoder import BasicDecoder
from jax_models.sampler import (
    GreedyEmbeddingSampler,
    InferenceSampler,
    SampleEmbeddingSampler,
    Sampler,
    TrainingSampler,
)
from jax_models.scheduled_sampler import (
    ScheduledEmbeddingTrainingSampler,
    ScheduledOutputTrainingSampler,
)
from tests.jax_models.refusal import refused

BATCH, TIME, FEATURES = 2, 4, 3
INPUTS = jax.random.normal(jax.random.key(0), (BATCH, TIME, FEATURES))
EMBEDDING = jax.random.normal(jax.random.key(1), (FEATURES, FEATURES))
KEY = jax.random.key(2)
STATE = BasicLSTMCell(2).zero_state(BATCH, jnp.float32)


def decode(sampler: Sampler, inputs: Any, **arguments: Any) -> Any:
    steps = None if isinstance(sampler, TrainingSampler) else TIME
    decoder = BasicDecoder(BasicLSTMCell(2), sampler, nn.Dense(FEATURES), maximum_iterations=steps)
    arguments["initial_state"] = STATE
    variables = decoder.init(jax.random.key(3), inputs, **arguments)
    return decoder.apply(variables, inputs, **arguments)[0]


def test_the_abstract_sampler_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Sampler()


def test_training_reads_padding_until_all_rows_are_finished() -> None:
    finished, first, feed = TrainingSampler().initialize(INPUTS, sequence_length=jnp.array([0, 2]))
    assert finished.tolist() == [True, False]
    np.testing.assert_array_equal(first, INPUTS[:, 0])
    np.testing.assert_array_equal(feed.at(0).rows.inputs, INPUTS[:, 1])
    assert not feed.at(1).rows.inputs.any()


def test_training_with_zero_lengths_reads_zeros() -> None:
    finished, first, _ = TrainingSampler().initialize(INPUTS, sequence_length=jnp.zeros(BATCH, int))
    assert finished.all()
    assert not first.any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sequence_length": jnp.array([1, 2]), "mask": jnp.ones((2, 4), bool)}, "both given"),
        ({"sequence_length": jnp.array([1, 2, 3])}, r"shape \[3\] and dtype int32, expected \[2\]"),
        (
            {"sequence_length": jnp.array([1, 5])},
            r"\[1, 5\], expected every length to be at least 0 and at most 4",
        ),
        ({"mask": jnp.ones((4, 2), bool)}, "time_major should be True"),
        ({"mask": jnp.array([[True, False, True, False]] * 2)}, "not padded on the right"),
    ],
)
def test_bad_limits_are_named(arguments: dict, message: str) -> None:
    with refused(message):
        TrainingSampler().initialize(INPUTS, **arguments)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_scheduled_sampling_at_the_ends_of_the_scale(probability: float) -> None:
    sampler = ScheduledEmbeddingTrainingSampler(probability)
    ids = decode(sampler, INPUTS, embedding=EMBEDDING, key=KEY).sample_id
    assert ((ids >= 0) == bool(probability)).all()
    choices = decode(ScheduledOutputTrainingSampler(probability), INPUTS, key=KEY).sample_id
    assert (choices == int(probability)).all()


def test_a_run_with_a_key_is_replayed_by_its_ids() -> None:
    sampler = ScheduledEmbeddingTrainingSampler(0.5)
    run = decode(sampler, INPUTS, embedding=EMBEDDING, key=KEY)
    assert run.sample_id.max() > -1
    assert run.sample_id.min() == -1
    replayed = decode(sampler, INPUTS, embedding=EMBEDDING, sample_ids=run.sample_id.T)
    jax.tree.map(np.testing.assert_array_equal, replayed, run)

    sampler = SampleEmbeddingSampler(softmax_temperature=2.0)
    tokens = {"start_tokens": jnp.array([0, 1]), "end_token": 9}
    run = decode(sampler, EMBEDDING, key=KEY, **tokens)
    replayed = decode(sampler, EMBEDDING, sample_ids=run.sample_id.T, **tokens)
    jax.tree.map(np.testing.assert_array_equal, replayed, run)


def test_a_tiny_temperature_is_greedy() -> None:
    tokens = {"start_tokens": jnp.array([0, 1]), "end_token": 9}
    greedy = decode(GreedyEmbeddingSampler(), EMBEDDING, **tokens)
    cold = decode(SampleEmbeddingSampler(softmax_temperature=1e-6), EMBEDDING, key=KEY, **tokens)
    np.testing.assert_array_equal(cold.sample_id, greedy.sample_id)


def test_a_vector_of_probabilities_is_refused_unless_it_is_for_rows() -> None:
    vector = jnp.array([0.0, 1.0])
    for make in (ScheduledEmbeddingTrainingSampler, ScheduledOutputTrainingSampler):
        more = {"embedding": EMBEDDING} if make is ScheduledEmbeddingTrainingSampler else {}
        with refused("vector_probability"):
            make(vector).initialize(INPUTS, key=KEY, **more)
        ids = decode(make(vector, vector_probability="per_row"), INPUTS, key=KEY, **more).sample_id
        never = -1 if more else 0
        assert (ids[0] == never).all()
        assert (ids[1] > never).all()


def test_a_module_can_be_the_embedding() -> None:
    sampler = GreedyEmbeddingSampler(nn.Embed(FEATURES, FEATURES))
    decoder = BasicDecoder(BasicLSTMCell(2), sampler, nn.Dense(FEATURES), maximum_iterations=TIME)
    arguments = {"start_tokens": jnp.array([0, 1]), "end_token": 9, "initial_state": STATE}
    variables = decoder.init(KEY, None, **arguments)
    assert variables["params"]["sampler"]["embedding_fn"]["embedding"].shape == (FEATURES, FEATURES)

    def loss(variables: Any) -> jax.Array:
        return jnp.sum(decoder.apply(variables, None, **arguments)[0].rnn_output ** 2)

    gradient = jax.jit(jax.grad(loss))(variables)
    assert gradient["params"]["sampler"]["embedding_fn"]["embedding"].any()


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: GreedyEmbeddingSampler().initialize(None, start_tokens=jnp.array([0]), end_token=0),
            "embedding",
        ),
        (
            lambda: GreedyEmbeddingSampler().initialize(
                EMBEDDING, start_tokens=jnp.array([0]), end_token=jnp.array([0])
            ),
            "end_token has shape",
        ),
        (
            lambda: SampleEmbeddingSampler().initialize(EMBEDDING, start_tokens=jnp.array([0]), end_token=0),
            "either a key",
        ),
        (
            lambda: ScheduledEmbeddingTrainingSampler(0.1).initialize(INPUTS, key=KEY),
            "give an embedding",
        ),
        (lambda: ScheduledOutputTrainingSampler(0.1).initialize(INPUTS), "give a key, or the choices"),
        (
            lambda: ScheduledOutputTrainingSampler(0.1).initialize(INPUTS, choices=jnp.ones((4, 3), bool)),
            r"choices has shape \[4, 3\]",
        ),
        (
            lambda: decode(ScheduledOutputTrainingSampler(0.5), INPUTS[..., :2], key=KEY),
            "fed back have shape",
        ),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with refused(message):
        make()


def test_inference_feeds_its_samples_back() -> None:
    sampler = InferenceSampler(
        sample_fn=lambda x: x,
        sample_shape=(FEATURES,),
        sample_dtype=jnp.float32,
        end_fn=lambda x: jnp.zeros(x.shape[0], bool),
    )
    output = decode(sampler, INPUTS[:, 0])
    np.testing.assert_array_equal(output.rnn_output, output.sample_id)
    assert output.sample_id.shape == (BATCH, TIME, FEATURES)
