"""Losses: denominators, edge cases, bad input, and JAX's transformations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.losses import SequenceLoss, mean_squared_error, sequence_loss
from tests.jax_models.refusal import refused

LOGITS = jax.random.normal(jax.random.key(0), (2, 3, 4))
TARGETS = jnp.array([[0, 1, 2], [3, 0, 1]])
WEIGHTS = jnp.array([[2.0, 0.5, 0.0], [1.0, 0.0, 0.0]])
CROSS_ENTROPY = -jnp.take_along_axis(jax.nn.log_softmax(LOGITS), TARGETS[..., None], -1)[..., 0]


def test_the_function_divides_by_the_weights_and_the_class_by_their_count() -> None:
    total = jnp.sum(CROSS_ENTROPY * WEIGHTS)
    np.testing.assert_allclose(sequence_loss(LOGITS, TARGETS, WEIGHTS), total / 3.5, rtol=1e-6)
    np.testing.assert_allclose(SequenceLoss()(TARGETS, LOGITS, WEIGHTS), total / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "options, shape",
    [
        ({"average_across_timesteps": False}, (3,)),
        ({"average_across_batch": False}, (2,)),
        ({"average_across_batch": False, "average_across_timesteps": False}, (2, 3)),
    ],
)
def test_an_axis_without_an_option_is_kept(options: dict, shape: tuple) -> None:
    assert sequence_loss(LOGITS, TARGETS, WEIGHTS, **options).shape == shape


def test_zero_weights_give_zero_loss_and_gradients() -> None:
    for loss in (sequence_loss, lambda x, y, w: SequenceLoss()(y, x, w)):
        value, gradients = jax.value_and_grad(loss, (0, 2))(LOGITS, TARGETS, jnp.zeros((2, 3)))
        assert value == 0
        for gradient in gradients:
            assert np.isfinite(gradient).all()
        assert not gradients[0].any()


def test_unnormalized_targets_have_tensorflows_gradient_unless_told_otherwise() -> None:
    targets = jnp.full((2, 3, 4), 0.5)

    def loss(x: jax.Array, **options: str) -> jax.Array:
        kept = {"average_across_batch": False, "average_across_timesteps": False}
        return jnp.sum(sequence_loss(x, targets, jnp.ones((2, 3)), **kept, **options))

    softmax = jax.nn.softmax(LOGITS)
    np.testing.assert_allclose(jax.grad(loss)(LOGITS), softmax - 0.5, atol=1e-6)
    exact = jax.grad(lambda x: loss(x, unnormalized_targets="exact"))(LOGITS)
    np.testing.assert_allclose(exact, 2 * softmax - 0.5, atol=1e-6)
    np.testing.assert_allclose(loss(LOGITS), loss(LOGITS, unnormalized_targets="exact"), rtol=1e-6)


def test_an_id_outside_the_vocabulary_gives_nan() -> None:
    assert np.isnan(sequence_loss(LOGITS, TARGETS.at[0, 0].set(4), WEIGHTS))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"logits": LOGITS[0]}, r"logits has shape \[3, 4\]"),
        ({"targets": TARGETS[:, :2]}, r"targets have shape \[2, 2\]"),
        ({"weights": None}, "weights are missing"),
        ({"weights": WEIGHTS[:1]}, r"weights has shape \[1, 3\]"),
        ({"sum_over_batch": True}, "average_across_timesteps.*sum_over_batch"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    with refused(message):
        sequence_loss(**{"logits": LOGITS, "targets": TARGETS, "weights": WEIGHTS} | change)


def test_the_class_asks_for_weights() -> None:
    with refused("sample_weight is missing"):
        SequenceLoss()(TARGETS, LOGITS)


def test_it_works_under_jit_vmap_and_checkpoint() -> None:
    value = sequence_loss(LOGITS, TARGETS, WEIGHTS)
    np.testing.assert_allclose(
        jax.jit(jax.checkpoint(sequence_loss))(LOGITS, TARGETS, WEIGHTS), value, rtol=1e-6
    )
    many = jax.vmap(sequence_loss, (0, None, None))(jnp.stack([LOGITS, LOGITS]), TARGETS, WEIGHTS)
    np.testing.assert_allclose(many, [value, value], rtol=1e-6)


def test_mean_squared_error() -> None:
    x, y = LOGITS, LOGITS + 2
    assert mean_squared_error(x, y) == pytest.approx(4)
    with refused("targets has shape"):
        mean_squared_error(x, y[..., :1])
