"""When a cell that a decoder steps draws its dropout masks anew: the switch `mask_reset`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.cell_base import PerStep
from jax_models.keras_layers import GRUCell, LSTMCell, StackedRNNCells, choose_dropout_masks
from jax_models.seq2seq import BasicDecoder, TrainingSampler
from tests.jax_models.refusal import refused

pytestmark = pytest.mark.jax

BATCH, TIME, FEATURES, UNITS = 3, 5, 2, 4
CELL = LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5)
ONE, OTHER = jax.random.split(jax.random.key(0))


def choose(key: Any, *, cell: Any = CELL, training: bool = True, **options: Any) -> Any:
    return choose_dropout_masks(cell, key, BATCH, FEATURES, jnp.float32, training=training, **options)


def equal(one: Any, other: Any) -> bool:
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one, other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(jax.tree.leaves(same))


def test_masks_are_never_reset_by_default() -> None:
    first = choose(ONE)
    assert first.inputs.shape == (4, BATCH, FEATURES)
    assert not (first.inputs == 1).all()
    assert choose(OTHER, earlier=first) is first
    assert choose(None, training=False, earlier=first) is first


def test_a_first_call_without_training_leaves_ones() -> None:
    first = choose(None, training=False)
    assert all((mask == 1).all() for mask in first)
    assert choose(OTHER, earlier=first) is first


def test_every_call_is_what_it_should_have_been() -> None:
    first = choose(ONE, mask_reset="every_call")
    assert equal(first, choose(ONE))
    assert not equal(first, choose(OTHER, mask_reset="every_call", earlier=first))
    assert choose(None, training=False, mask_reset="every_call", earlier=first) is None


def test_every_step_draws_for_each() -> None:
    masks = choose(ONE, mask_reset="every_step", time=TIME)
    assert isinstance(masks.inputs, PerStep)
    assert masks.inputs.masks.shape == (TIME, 4, BATCH, FEATURES)
    assert not equal(masks.inputs.masks[0], masks.inputs.masks[1])
    with refused("time is None"):
        choose(ONE, mask_reset="every_step")


def test_a_stack_and_a_cell_without_dropout() -> None:
    masks = choose(ONE, cell=StackedRNNCells([CELL, GRUCell(3, dropout=0.5)]))
    assert masks[1].inputs.shape == (1, BATCH, UNITS)
    assert choose(None, cell=GRUCell(3)) is None
    with refused("key is None, expected a JAX key"):
        choose(None)


@pytest.mark.parametrize("mask_reset", ["never", "every_step"])
def test_a_decoder_takes_them_under_jit_and_grad(mask_reset: Any) -> None:
    decoder = BasicDecoder(CELL, TrainingSampler())
    inputs, state = jnp.ones((BATCH, TIME, FEATURES)), CELL.zero_state(BATCH, jnp.float32)
    variables = decoder.init(ONE, inputs, initial_state=state)

    def loss(variables: Any, key: Any) -> jax.Array:
        masks = choose(key, mask_reset=mask_reset, time=TIME)
        outputs, _, _ = decoder.apply(variables, inputs, initial_state=state, dropout_masks=masks)
        return jnp.sum(outputs.rnn_output**2)

    value, gradient = jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(variables, ONE)
    np.testing.assert_allclose(value, loss(variables, ONE), rtol=1e-5)
    assert all(g.any() for g in jax.tree.leaves(gradient))
    many = jax.vmap(loss, (None, 0))(variables, jax.random.split(OTHER, 2))
    assert many[0] != many[1]
