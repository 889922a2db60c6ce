"""TF1's loops: lengths, padding, masks, transformations, bad input. For agreement with TensorFlow on
random configurations see `tests/parity/tf1_loops.py`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.cell_base import PerStep
from jax_models.cell_wrappers import (
    DropoutWrapper,
    MultiRNNCell,
    ResidualWrapper,
    WrapperMasks,
    draw_dropout_masks,
)
from jax_models.cells import BasicLSTMCell, GRUCell, LSTMCell, LSTMState
from jax_models.keras_cells import LSTMCell as KerasLSTMCell
from jax_models.rnn import bidirectional_dynamic_rnn, dynamic_rnn, reverse_time, static_rnn
from tests.jax_models.refusal import refused

BATCH, TIME, FEATURES, UNITS = 3, 5, 2, 4

STACK = MultiRNNCell(
    (
        DropoutWrapper(BasicLSTMCell(UNITS), input_keep_prob=0.7, variational_recurrent=True),
        ResidualWrapper(DropoutWrapper(LSTMCell(UNITS), output_keep_prob=0.5, state_keep_prob=0.8)),
        GRUCell(3),
    )
)


def make_inputs(seed: int = 0, *, batch: int = BATCH, time: int = TIME) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (batch, time, FEATURES))


def run(cell: Any, inputs: Any, *, loop: Any = dynamic_rnn, params: Any = None, **options: Any) -> Any:
    def forward(cell: Any) -> Any:
        return loop(cell, inputs, **options)

    if params is None:
        params = start(cell)
    return nn.apply(forward, cell)(params)


def start(cell: Any) -> Any:
    return nn.init(lambda cell: dynamic_rnn(cell, make_inputs(), key=jax.random.key(9)), cell)(
        jax.random.key(1)
    )


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected)


def test_past_its_length_a_row_is_zero_and_keeps_its_state() -> None:
    cell, inputs = BasicLSTMCell(UNITS), make_inputs()
    initial = LSTMState(jnp.full((BATCH, UNITS), 0.3), jnp.full((BATCH, UNITS), -0.2))
    lengths = jnp.array([0, 2, TIME])
    outputs, final = run(cell, inputs, sequence_length=lengths, initial_state=initial)
    whole, last = run(cell, inputs, initial_state=initial)
    for row, length in enumerate([0, 2, TIME]):
        assert not outputs[row, length:].any()
        assert_close(outputs[row, :length], whole[row, :length])
    assert_close(final.h[0], initial.h[0])
    assert_close(final.c[0], initial.c[0])
    assert_close(final.h[1], whole[1, 1])
    assert_close(final.c[2], last.c[2])


@pytest.mark.parametrize("lengths", [[TIME] * BATCH, [TIME + 3] * BATCH])
def test_lengths_of_all_steps_or_more_change_nothing(lengths: list[int]) -> None:
    cell = GRUCell(UNITS)
    assert_close(run(cell, make_inputs(), sequence_length=jnp.array(lengths)), run(cell, make_inputs()))


@pytest.mark.parametrize("batch, time", [(1, 1), (1, TIME), (BATCH, 1)])
def test_small_sizes(batch: int, time: int) -> None:
    outputs, final = run(GRUCell(UNITS), make_inputs(batch=batch, time=time))
    assert outputs.shape == (batch, time, UNITS)
    assert_close(outputs[:, -1], final)


def test_all_lengths_zero_give_the_initial_state_and_no_gradient() -> None:
    cell = GRUCell(UNITS)
    params, none = start(cell), jnp.zeros(BATCH, jnp.int32)

    def loss(params: Any) -> Any:
        outputs, final = run(cell, make_inputs(), params=params, sequence_length=none)
        return outputs.sum() + final.sum()

    assert loss(params) == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(loss)(params)))


@pytest.mark.parametrize("lengths, spoilt", [([2, 2, 1], False), ([2, 3, 1], True)])
def test_nan_spoils_a_gradient_only_where_the_cell_is_run(lengths: list[int], spoilt: bool) -> None:
    """TF1 runs the cell until the last row ends (measured); in a step it does run, zero times NaN is NaN."""
    cell, inputs = GRUCell(UNITS), make_inputs().at[0, 2:].set(jnp.nan)
    params = start(cell)
    for loop, given in ((dynamic_rnn, inputs), (static_rnn, list(jnp.swapaxes(inputs, 0, 1)))):

        def loss(params: Any, loop: Any = loop, given: Any = given) -> Any:
            outputs, final = run(cell, given, loop=loop, params=params, sequence_length=jnp.array(lengths))
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves((outputs, final)))

        value, gradient = jax.value_and_grad(loss)(params)
        assert jnp.isfinite(value)
        assert any(jnp.isnan(leaf).any() for leaf in jax.tree.leaves(gradient)) == spoilt


def test_time_major_is_a_transposition() -> None:
    lengths, key, params = jnp.array([1, 5, 3]), jax.random.key(3), start(STACK)
    outputs, final = run(STACK, make_inputs(), params=params, sequence_length=lengths, key=key)
    turned = jnp.swapaxes(make_inputs(), 0, 1)
    there = run(STACK, turned, params=params, sequence_length=lengths, key=key, time_major=True)
    assert_close((jnp.swapaxes(there[0], 0, 1), there[1]), (outputs, final))


def test_static_and_dynamic_loops_agree() -> None:
    lengths, key, params = jnp.array([1, 5, 3]), jax.random.key(3), start(STACK)
    dynamic = run(STACK, make_inputs(), params=params, sequence_length=lengths, key=key)
    steps = list(jnp.swapaxes(make_inputs(), 0, 1))
    outputs, final = run(STACK, steps, loop=static_rnn, params=params, sequence_length=lengths, key=key)
    assert_close((jnp.stack(outputs, 1), final), dynamic)


def test_key_draws_the_masks_that_can_be_passed_instead() -> None:
    key, params = jax.random.key(3), start(STACK)
    masks = draw_dropout_masks(STACK, key, BATCH, FEATURES, jnp.float32, time=TIME)
    assert isinstance(masks[1].output, PerStep)
    assert masks[0].input.shape == (1, FEATURES)
    drawn = run(STACK, make_inputs(), params=params, key=key)
    assert_close(run(STACK, make_inputs(), params=params, dropout_masks=masks), drawn)
    other = run(STACK, make_inputs(), params=params, key=jax.random.key(4))
    assert not np.allclose(drawn[0], other[0])


def test_each_step_has_its_own_mask_only_if_marked() -> None:
    cell = DropoutWrapper(GRUCell(UNITS), output_keep_prob=0.5)
    mask = jnp.arange(UNITS) < 2
    shared, _ = run(cell, make_inputs(), dropout_masks=WrapperMasks(output=mask[None]))
    assert not shared[..., 2:].any()
    assert shared[..., :2].all()
    per_step = PerStep((jnp.arange(TIME) == 3)[:, None, None] & jnp.ones((1, 1, UNITS), bool))
    one, _ = run(cell, make_inputs(), dropout_masks=WrapperMasks(output=per_step))
    assert [bool(one[:, t].any()) for t in range(TIME)] == [t == 3 for t in range(TIME)]


def test_keras_cell_with_its_own_masks_runs_in_tf1s_loop() -> None:
    cell = KerasLSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5)
    outputs, _ = run(cell, make_inputs(), key=jax.random.key(0))
    assert outputs.shape == (BATCH, TIME, UNITS)


class Both(nn.Module):
    fw: nn.Module
    bw: nn.Module

    def __call__(self, inputs: Any, **options: Any) -> Any:
        return bidirectional_dynamic_rnn(self.fw, self.bw, inputs, **options)


def test_backward_cell_reads_each_row_from_its_own_end() -> None:
    both, lengths, inputs = Both(GRUCell(UNITS), GRUCell(3)), jnp.array([0, 2, 5]), make_inputs()
    ((out_fw, out_bw), (last_fw, last_bw)), params = both.init_with_output(
        jax.random.key(0), inputs, sequence_length=lengths
    )
    backward = {"params": params["params"]["bw"]}
    turned, last = run(GRUCell(3), inputs[1:2, :2][:, ::-1], params=backward)
    assert_close(out_bw[1:2, :2], turned[:, ::-1])
    assert_close(last_bw[1:2], last)
    assert not out_bw[0].any()
    assert not out_bw[1, 2:].any()
    forward = run(GRUCell(UNITS), inputs, params={"params": params["params"]["fw"]}, sequence_length=lengths)
    assert_close((out_fw, last_fw), forward)


def test_the_two_directions_draw_different_masks() -> None:
    both = Both(*(DropoutWrapper(GRUCell(20), output_keep_prob=0.5) for _ in range(2)))
    ((fw, bw), _), _ = both.init_with_output(jax.random.key(0), make_inputs(), key=jax.random.key(1))
    assert ((fw == 0) != (bw[:, ::-1] == 0)).any()


@pytest.mark.parametrize("time_major", [False, True])
def test_reverse_time(time_major: bool) -> None:
    values, lengths = make_inputs(), [0, 3, 5]
    expected = np.array(values)
    for row, length in enumerate(lengths):
        expected[row, :length] = expected[row, :length][::-1]
    turn = (lambda array: jnp.swapaxes(array, 0, 1)) if time_major else (lambda array: array)
    found = reverse_time(turn(values), sequence_length=jnp.array(lengths), time_major=time_major)
    np.testing.assert_array_equal(turn(found), expected)
    np.testing.assert_array_equal(reverse_time(turn(values), time_major=time_major), turn(values[:, ::-1]))


def test_transformations_of_a_stack_with_dropout() -> None:
    lengths, params = jnp.array([1, 5, 3]), start(STACK)

    def loss(params: Any, inputs: Any, key: Any) -> Any:
        outputs, final = run(STACK, inputs, params=params, sequence_length=lengths, key=key)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((outputs, final)))

    key, inputs = jax.random.key(2), make_inputs()
    plain = jax.value_and_grad(loss, (0, 1))(params, inputs, key)
    assert_close(jax.jit(jax.value_and_grad(loss, (0, 1)))(params, inputs, key), plain)
    assert_close(jax.value_and_grad(jax.checkpoint(loss), (0, 1))(params, inputs, key), plain)
    keys = jax.random.split(key, 2)
    mapped = jax.vmap(loss, (None, None, 0))(params, inputs, keys)
    assert_close(mapped, jnp.stack([loss(params, inputs, k) for k in keys]))
    assert all(leaf.any() for leaf in jax.tree.leaves(plain[1])), "every parameter has a gradient"


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"sequence_length": jnp.array([1, 2])},
            r"sequence_length has shape \[2\] and dtype int32, expected \[3\]",
        ),
        ({"time_major": True, "sequence_length": jnp.array([1, 2, 3])}, "Maybe time_major"),
        ({"dropout_masks": WrapperMasks(), "key": jax.random.key(0)}, "both dropout_masks and key"),
        (
            {"dropout_masks": WrapperMasks(output=jnp.ones((1, 3), bool))},
            r"masks.output has shape \[1, 3\]",
        ),
        (
            {"dropout_masks": WrapperMasks(output=PerStep(jnp.ones((4, 1, UNITS), bool)))},
            r"PerStep of shape \[4, 1, 4\]; expected one mask for each of 5 steps",
        ),
        ({}, r"masks.output is None but its keep_prob is 0.5"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with refused(message, ValueError):
        run(DropoutWrapper(GRUCell(UNITS), output_keep_prob=0.5), make_inputs(), **options)


def test_bad_inputs_are_named() -> None:
    with refused(r"\[batch, time, features\]|inputs"):
        run(GRUCell(UNITS), make_inputs()[:, 0])
    with refused(r"which is what dynamic_rnn takes|inputs"):
        run(GRUCell(UNITS), make_inputs(), loop=static_rnn)
    with refused("given for GRUCell, which takes none", ValueError):
        run(GRUCell(UNITS), make_inputs(), dropout_masks=WrapperMasks())
