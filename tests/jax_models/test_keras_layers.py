"""Keras' recurrent layers: masks, dropout, states, transformations, bad input. For agreement with
Keras itself on random configurations see `tests/parity/keras_layers.py`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.cells import BasicLSTMCell, LSTMState
from jax_models.keras_activations import ACTIVATIONS, get_activation, hard_sigmoid
from jax_models.keras_layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    DropoutMasks,
    Embedding,
    GRUCell,
    LSTMCell,
    Masking,
    SimpleRNN,
    SimpleRNNCell,
    StackedRNNCells,
    flatten_keras_states,
    unflatten_keras_states,
)
from tests.jax_models.refusal import refused

BATCH, TIME, FEATURES, UNITS = 3, 5, 2, 4

LAYERS = {"SimpleRNN": SimpleRNN, "LSTM": LSTM, "GRU": GRU}


def make_inputs(*, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (BATCH, TIME, FEATURES))


def start(module: nn.Module, inputs: jax.Array | None = None) -> Any:
    return module.init(jax.random.key(1), make_inputs() if inputs is None else inputs)


@pytest.fixture(autouse=True)
def step_by_step(request: pytest.FixtureRequest) -> Any:
    """Without jit but in the tests of the transformations: compiling each small loop takes longer."""
    with jax.disable_jit("transformations" not in request.node.name):
        yield


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected)


MASK = jnp.asarray(
    [
        [False, True, False, True, False],
        [True, True, True, True, True],
        [False, False, False, False, False],
    ]
)


@pytest.mark.parametrize("kind", LAYERS)
def test_mask_acts_as_compaction_of_the_states(kind: str) -> None:
    layer, inputs = LAYERS[kind](UNITS, return_state=True), make_inputs()
    variables = start(layer)
    output, state = layer.apply(variables, inputs, mask=MASK)
    compact_output, compact_state = layer.apply(variables, inputs[:1, jnp.array([1, 3])])
    assert_close(output[:1], compact_output)
    assert_close(jax.tree.map(lambda leaf: leaf[:1], state), compact_state)
    assert not np.any(output[2]), "nothing counts in the last row"
    assert not any(np.any(leaf[2]) for leaf in jax.tree.leaves(state))


def test_masked_steps_repeat_the_last_output() -> None:
    layer, inputs = GRU(UNITS, return_sequences=True), make_inputs()
    output = layer.apply(start(layer), inputs, mask=MASK)
    assert not np.any(output[0, 0])
    np.testing.assert_array_equal(output[0, 2], output[0, 1])
    np.testing.assert_array_equal(output[0, 4], output[0, 3])


def test_masked_steps_are_zero_with_zero_output_for_mask() -> None:
    inputs = make_inputs()
    layer = GRU(UNITS, return_sequences=True, zero_output_for_mask=True)
    variables = start(layer)
    output = layer.apply(variables, inputs, mask=MASK)
    np.testing.assert_array_equal(np.any(output, axis=-1), MASK)
    last_only = layer.clone(return_sequences=False).apply(variables, inputs, mask=MASK)
    assert not np.any(last_only[0]), "Keras gives zero where the last step is masked"


def test_a_masked_step_gets_no_gradient() -> None:
    layer, inputs = LSTM(UNITS), make_inputs()
    variables = start(layer)
    gradient = jax.grad(lambda x: layer.apply(variables, x, mask=MASK).sum())(inputs)
    np.testing.assert_array_equal(np.any(gradient, axis=-1), MASK)


def test_numbers_serve_as_a_mask() -> None:
    layer, inputs = LSTM(UNITS), make_inputs()
    variables = start(layer)
    as_numbers = layer.apply(variables, inputs, mask=2 * MASK.astype(jnp.int32))
    np.testing.assert_array_equal(as_numbers, layer.apply(variables, inputs, mask=MASK))


def test_outputs_of_go_backwards_stay_reversed_and_the_mask_does_not() -> None:
    inputs = make_inputs()
    layer = LSTM(UNITS, return_sequences=True, go_backwards=True)
    variables = start(layer)
    forward = LSTM(UNITS, return_sequences=True)
    expected = forward.apply(variables, inputs[:, ::-1], mask=MASK[:, ::-1])
    assert_close(layer.apply(variables, inputs, mask=MASK), expected)
    assert layer.compute_mask(MASK) is MASK
    assert layer.clone(return_sequences=False).compute_mask(MASK) is None


@pytest.mark.parametrize("kind", LAYERS)
def test_time_major_and_unroll_change_no_number(kind: str) -> None:
    inputs = make_inputs()
    layer = LAYERS[kind](UNITS, return_sequences=True, return_state=True)
    variables = start(layer)
    output, state = layer.apply(variables, inputs, mask=MASK)
    assert_close(layer.clone(unroll=True).apply(variables, inputs, mask=MASK), (output, state))
    swapped = layer.clone(time_major=True).apply(variables, inputs.swapaxes(0, 1), mask=MASK.T)
    assert_close(swapped, (output.swapaxes(0, 1), state))


def test_rnn_takes_the_cells_of_tensorflow_1_and_stacks() -> None:
    layer, inputs = RNN([BasicLSTMCell(3), GRUCell(UNITS)], return_state=True), make_inputs()
    variables = start(layer)
    assert set(variables["params"]["cell"]) == {"cells_0", "cells_1"}
    output, (first, second) = layer.apply(variables, inputs)
    assert isinstance(first, LSTMState)
    assert first.c.shape == (BATCH, 3)
    np.testing.assert_array_equal(output, second)


def test_stack_is_the_composition_of_its_cells() -> None:
    cells, inputs = (LSTMCell(3), SimpleRNNCell(UNITS)), make_inputs()[:, 0]
    stack = StackedRNNCells(cells)
    state = stack.zero_state(BATCH, jnp.float32)
    variables = stack.init(jax.random.key(0), state, inputs)
    new, output = stack.apply(variables, state, inputs)
    first, between = cells[0].apply({"params": variables["params"]["cells_0"]}, state[0], inputs)
    second, expected = cells[1].apply({"params": variables["params"]["cells_1"]}, state[1], between)
    assert_close((new, output), ((first, second), expected))


def test_bidirectional_directions_have_leaves_of_their_own() -> None:
    layer = Bidirectional(RNN([LSTMCell(3), GRUCell(UNITS)]))
    params = start(layer)["params"]
    assert set(params) == {"forward", "backward"}
    for ahead, behind in zip(
        jax.tree.leaves(params["forward"]), jax.tree.leaves(params["backward"]), strict=True
    ):
        assert ahead.shape == behind.shape
        assert not np.any(ahead) or not np.array_equal(ahead, behind) or ahead.ndim == 1


def test_bidirectional_zeroes_masked_steps_and_restores_the_order() -> None:
    inputs = make_inputs()
    layer = Bidirectional(LSTM(UNITS, return_sequences=True), merge_mode=None)
    variables = start(layer)
    ahead, behind = layer.apply(variables, inputs, mask=MASK)
    np.testing.assert_array_equal(np.any(ahead, axis=-1), MASK)
    np.testing.assert_array_equal(np.any(behind, axis=-1), MASK)
    plain = LSTM(UNITS, return_sequences=True, zero_output_for_mask=True)
    of_backward = {"params": variables["params"]["backward"]}
    reverse = plain.apply(of_backward, inputs[:, ::-1], mask=MASK[:, ::-1])
    assert_close(behind, reverse[:, ::-1])


@pytest.mark.parametrize(("mode", "width"), [("concat", 8), ("sum", 4), ("mul", 4), ("ave", 4)])
def test_merge_modes(mode: str, width: int) -> None:
    inputs = make_inputs()
    layer = Bidirectional(GRU(UNITS), merge_mode=mode)
    variables = start(layer)
    ahead, behind = layer.clone(merge_mode=None).apply(variables, inputs)
    expected = {
        "concat": np.concatenate([ahead, behind], -1),
        "sum": ahead + behind,
        "mul": ahead * behind,
        "ave": (ahead + behind) / 2,
    }[mode]
    output = layer.apply(variables, inputs)
    assert output.shape == (BATCH, width)
    assert_close(output, expected)


def test_states_in_the_order_of_keras() -> None:
    state = (LSTMState(c=jnp.full((1, 2), 1.0), h=jnp.full((1, 2), 2.0)), jnp.full((1, 3), 3.0))
    flat = flatten_keras_states(state)
    assert [array[0, 0] for array in flat] == [2.0, 1.0, 3.0], "Keras has h before c"
    assert_close(unflatten_keras_states(flat, like=state), state)
    with pytest.raises(ValueError, match="2 arrays; expected 3"):
        unflatten_keras_states(flat[:2], like=state)


def test_stateful_starts_from_the_recorded_state_without_its_gradient() -> None:
    inputs = make_inputs()
    layer = LSTM(UNITS, stateful=True, return_state=True)
    variables = start(layer)

    def run(first: jax.Array, given: LSTMState) -> jax.Array:
        _, recorded = layer.apply(variables, first)
        return layer.apply(variables, inputs, initial_state=given, recorded_state=recorded)[0]

    given = LSTMState(jnp.ones((BATCH, UNITS)), jnp.ones((BATCH, UNITS)))
    plain = LSTM(UNITS, return_state=True)
    whole, _ = plain.apply(variables, jnp.concatenate([inputs, inputs], axis=1))
    assert_close(run(inputs, given), whole)
    gradients = jax.grad(lambda *args: run(*args).sum(), argnums=(0, 1))(inputs, given)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_stateful_takes_an_initial_state_after_a_reset() -> None:
    inputs = make_inputs()
    layer = LSTM(UNITS, stateful=True, return_state=True)
    variables = start(layer)
    given = LSTMState(jnp.ones((BATCH, UNITS)), jnp.ones((BATCH, UNITS)))
    zeros = jax.tree.map(jnp.zeros_like, given)
    expected = layer.apply(variables, inputs, initial_state=given)
    assert_close(layer.apply(variables, inputs, initial_state=given, recorded_state=zeros), expected)


DROPPING = {
    "every step": LSTM(UNITS, dropout=0.5),
    "every step, GRU": GRU(UNITS, dropout=0.5, go_backwards=True),
    "every call": LSTM(UNITS, dropout=0.5, use_bias=False),
    "implementation 1": GRU(UNITS, dropout=0.5, recurrent_dropout=0.3),
    "simple": SimpleRNN(UNITS, dropout=0.5, recurrent_dropout=0.3, time_major=True),
    "stack": RNN([LSTMCell(3, dropout=0.5), GRUCell(UNITS), SimpleRNNCell(2, recurrent_dropout=0.3)]),
    "both directions": Bidirectional(LSTM(UNITS, dropout=0.5)),
}


@pytest.mark.parametrize("case", DROPPING)
def test_a_key_is_the_masks_that_it_draws(case: str) -> None:
    layer, inputs, key = DROPPING[case], make_inputs(), jax.random.key(7)
    variables = start(layer)
    masks = layer.apply({}, key, inputs, method="draw_dropout_masks")
    by_key = layer.apply(variables, inputs, training=True, key=key)
    by_masks = layer.apply(variables, inputs, training=True, dropout_masks=masks)
    np.testing.assert_array_equal(by_key, by_masks)
    other = layer.apply(variables, inputs, training=True, key=jax.random.key(8))
    assert not np.array_equal(by_key, other)
    np.testing.assert_array_equal(
        layer.apply(variables, inputs), layer.apply(variables, inputs, key=key), "a key without training"
    )
    with pytest.raises(ValueError, match="needs a key"):
        layer.apply(variables, inputs, training=True)


def test_drawn_masks_keep_the_mean() -> None:
    cell = LSTMCell(50, dropout=0.25, recurrent_dropout=0.5)
    masks = cell.draw_dropout_masks(jax.random.key(0), 50, 40, jnp.float32)
    assert masks.inputs is not None
    assert masks.recurrent is not None
    assert masks.inputs.shape == (4, 50, 40)
    assert masks.recurrent.shape == (4, 50, 50)
    np.testing.assert_allclose(np.unique(masks.inputs), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(np.unique(masks.recurrent), [0, 2])
    # Five standard errors of a mean of 8000 and of 10000 such numbers.
    assert abs(masks.inputs.mean() - 1) < 5 * (1 / 3 / 8000) ** 0.5
    assert abs(masks.recurrent.mean() - 1) < 5 * (1 / 10000) ** 0.5


def test_input_masks_are_anew_every_step_only_in_the_form_that_cudnn_has() -> None:
    def drops_every_step(layer: Any) -> bool:
        return layer.drops_every_step()

    assert drops_every_step(LSTM(UNITS))
    assert drops_every_step(GRU(UNITS, implementation=1))
    for options in (
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"unroll": True},
        {"recurrent_dropout": 0.1},
        {"dropout_every_step": False},
    ):
        assert not drops_every_step(LSTM(UNITS, **options)), options
        assert not drops_every_step(GRU(UNITS, **options)), options
    assert not drops_every_step(GRU(UNITS, reset_after=False))
    assert drops_every_step(LSTM(UNITS, use_bias=False, dropout_every_step=True))


def test_implementation_2_uses_the_first_of_the_masks() -> None:
    cell, inputs = LSTMCell(UNITS, dropout=0.5), make_inputs()[:, 0]
    state = cell.zero_state(BATCH, jnp.float32)
    variables = cell.init(jax.random.key(0), state, inputs)
    masks = LSTMCell(UNITS, dropout=0.5, implementation=1).draw_dropout_masks(
        jax.random.key(0), BATCH, FEATURES, jnp.float32
    )
    assert masks.inputs is not None
    four = cell.apply(variables, state, inputs, dropout_masks=masks)
    one = cell.apply(variables, state, inputs, dropout_masks=DropoutMasks(masks.inputs[:1]))
    assert_close(four, one)


TRANSFORMED = {
    "SimpleRNN": SimpleRNN(UNITS, return_sequences=True),
    "LSTM": LSTM(UNITS, return_state=True),
    "GRU": GRU(UNITS, reset_after=False),
    "stack": RNN((LSTMCell(3), GRUCell(UNITS)), return_state=True),
    "Bidirectional": Bidirectional(GRU(UNITS, return_sequences=True), merge_mode="ave"),
}


@pytest.mark.parametrize("case", TRANSFORMED)
def test_transformations(case: str) -> None:
    layer, inputs = TRANSFORMED[case], make_inputs()
    several = jnp.stack([inputs, inputs[::-1], -inputs])

    def loss(variables: Any, inputs: jax.Array) -> Any:
        result = layer.apply(variables, inputs, mask=MASK)
        return sum((jnp.sin(leaf) ** 2).sum() for leaf in jax.tree.leaves(result))

    with jax.disable_jit():
        variables = start(layer)
        expected = jax.value_and_grad(loss)(variables, inputs)
        one_by_one = jnp.stack([loss(variables, one) for one in several])

    def scan(variables: Any, several: jax.Array) -> Any:
        return jax.lax.scan(lambda total, one: (total + loss(variables, one), None), 0.0, several)[0]

    for differentiated in (loss, jax.checkpoint(loss)):
        assert_close(jax.jit(jax.value_and_grad(differentiated))(variables, inputs), expected)
    assert_close(jax.jit(jax.vmap(loss, in_axes=(None, 0)))(variables, several), one_by_one)
    assert_close(jax.jit(scan)(variables, several), one_by_one.sum())


def test_a_cell_runs_inside_a_scan() -> None:
    cell, inputs = LSTMCell(UNITS), make_inputs()
    layer = RNN(cell, return_state=True)
    variables = start(layer)
    of_cell = {"params": variables["params"]["cell"]}
    state, outputs = jax.lax.scan(
        lambda state, x: cell.apply(of_cell, state, x),
        cell.zero_state(BATCH, jnp.float32),
        inputs.swapaxes(0, 1),
    )
    assert_close(layer.apply(variables, inputs), (outputs[-1], state))


def test_initial_values_are_those_of_keras() -> None:
    params = start(LSTM(UNITS))["params"]["cell"]
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], UNITS))
    assert_close(params["recurrent_kernel"] @ params["recurrent_kernel"].T, np.eye(UNITS))
    assert not np.any(start(LSTM(UNITS, unit_forget_bias=False))["params"]["cell"]["bias"])
    assert start(GRU(UNITS))["params"]["cell"]["bias"].shape == (2, 3 * UNITS)
    assert start(GRU(UNITS, reset_after=False))["params"]["cell"]["bias"].shape == (3 * UNITS,)
    assert "bias" not in start(SimpleRNN(UNITS, use_bias=False))["params"]["cell"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_is_that_of_inputs_and_parameters(dtype: Any) -> None:
    layer = LSTM(UNITS, return_state=True, param_dtype=dtype)
    inputs = make_inputs().astype(dtype)
    result = layer.apply(start(layer, inputs), inputs, mask=MASK)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(dtype)}


def test_hard_sigmoid_corners() -> None:
    x = jnp.asarray([-3.0, -2.5, 0.0, 2.5, 3.0])
    np.testing.assert_allclose(hard_sigmoid(x), [0, 0, 0.5, 1, 1])
    slopes = jax.vmap(jax.grad(hard_sigmoid))(x)
    np.testing.assert_allclose(slopes, [0, 0.2, 0.2, 0.2, 0], rtol=1e-6)


def test_selu_has_the_slope_of_its_line_at_zero() -> None:
    slopes = jax.vmap(jax.grad(get_activation("selu")))(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(slopes, [1.0507009873554805] * 2, rtol=1e-6)


def test_activations_by_name_function_and_none() -> None:
    assert get_activation(None) is ACTIVATIONS["linear"]
    assert get_activation(jnp.tanh) is jnp.tanh
    with pytest.raises(ValueError, match="'tahn'"):
        get_activation("tahn")


def test_embedding_marks_padding_and_ids_outside() -> None:
    layer, ids = Embedding(4, 3, mask_zero=True), jnp.asarray([[0, 1, 3], [4, -1, 2]])
    variables = layer.init(jax.random.key(0), ids)
    vectors: Any = layer.apply(variables, ids)
    np.testing.assert_array_equal(layer.compute_mask(ids), [[False, True, True], [True, True, True]])
    np.testing.assert_array_equal(np.isnan(vectors).all(-1), [[False] * 3, [True, True, False]])
    np.testing.assert_array_equal(vectors[0, 2], variables["params"]["embedding"][3])
    assert Embedding(4, 3).compute_mask(ids) is None
    assert np.all(np.abs(variables["params"]["embedding"]) <= 0.05)


def test_masking_stops_the_gradient_of_a_masked_step() -> None:
    layer = Masking(0.5)
    inputs = jnp.asarray([[[0.5, 0.5], [0.5, 1.0]]])
    np.testing.assert_array_equal(layer.compute_mask(inputs), [[False, True]])
    np.testing.assert_array_equal(layer.apply({}, inputs), [[[0, 0], [0.5, 1.0]]])
    gradient = jax.grad(lambda x: layer.apply({}, x).sum())(inputs)
    np.testing.assert_array_equal(gradient, [[[0, 0], [1, 1]]])


def test_embedding_masking_and_layers_chain() -> None:
    ids = jnp.asarray([[3, 1, 0, 0], [2, 0, 1, 0]])
    embedding, layer, dense = Embedding(4, FEATURES, mask_zero=True), LSTM(UNITS), Dense(2, "softmax")

    def run(params: Any, ids: jax.Array) -> Any:
        vectors = embedding.apply(params["embedding"], ids)
        last = layer.apply(params["lstm"], vectors, mask=embedding.compute_mask(ids))
        return dense.apply(params["dense"], last)

    params = {
        "embedding": embedding.init(jax.random.key(0), ids),
        "lstm": layer.init(jax.random.key(1), jnp.zeros((1, 1, FEATURES))),
        "dense": dense.init(jax.random.key(2), jnp.zeros((1, UNITS))),
    }
    np.testing.assert_allclose(run(params, ids).sum(-1), 1, rtol=1e-6)
    gradient = jax.grad(lambda p: run(p, ids)[:, 0].sum())(params)["embedding"]["params"]["embedding"]
    assert not np.any(gradient[0])
    assert np.all(np.any(gradient[1:], axis=-1))


def test_unrolled_backwards_the_zeros_come_from_the_mask_that_was_not_reversed() -> None:
    inputs = make_inputs()
    looped = GRU(UNITS, return_sequences=True, go_backwards=True, zero_output_for_mask=True)
    unrolled = looped.clone(unroll=True)
    variables = start(looped)
    right = looped.apply(variables, inputs, mask=MASK)
    assert_close(unrolled.clone(unrolled_zeros="reversed").apply(variables, inputs, mask=MASK), right)
    padded = jnp.arange(TIME)[None, :] < jnp.asarray([[1], [2], [5]])
    output: Any = unrolled.apply(variables, inputs, mask=padded)
    assert not np.any(output[:2]), "what counts comes last, where the mask that was not reversed is False"
    assert np.all(np.any(output[2], axis=-1))


def run_wrongly(layer: Any, **arguments: Any) -> Any:
    inputs = arguments.pop("inputs", make_inputs())
    return layer.apply(start(layer), inputs, **arguments)


STATE = jnp.zeros((BATCH, UNITS))

BAD_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "mask of the wrong shape": (
        lambda: run_wrongly(LSTM(UNITS), mask=MASK.T),
        ValueError,
        r"mask has shape \[5, 3\] and dtype bool, expected \[3, 5\].*time_major",
    ),
    "no steps": (
        lambda: run_wrongly(LSTM(UNITS), inputs=jnp.zeros((3, 0, FEATURES))),
        ValueError,
        r"\[3, 0\].*one step",
    ),
    "a list for an LSTM's state": (
        lambda: run_wrongly(LSTM(UNITS), initial_state=[STATE, STATE]),
        TypeError,
        r"initial_state.*Maybe you passed Keras' \[h, c\]",
    ),
    "a state of another size": (
        lambda: run_wrongly(GRU(UNITS), initial_state=STATE[:, 1:]),
        ValueError,
        r"initial_state.*\[3, 3\] and dtype float32, expected \[3, 4\]",
    ),
    "a recorded state without stateful": (
        lambda: run_wrongly(GRU(UNITS), recorded_state=STATE),
        ValueError,
        "recorded_state.*stateful=False",
    ),
    "masks and a key": (
        lambda: run_wrongly(
            SimpleRNN(UNITS, dropout=0.5),
            training=True,
            key=jax.random.key(0),
            dropout_masks=DropoutMasks(jnp.ones((1, BATCH, FEATURES))),
        ),
        ValueError,
        "both key and dropout_masks",
    ),
    "masks without training": (
        lambda: run_wrongly(SimpleRNN(UNITS), dropout_masks=DropoutMasks()),
        ValueError,
        "training is False",
    ),
    "masks of the wrong shape": (
        lambda: run_wrongly(
            LSTM(UNITS, dropout=0.5, implementation=1, use_bias=False),
            training=True,
            dropout_masks=DropoutMasks(jnp.ones((1, BATCH, FEATURES))),
        ),
        ValueError,
        r"dropout_masks.inputs has shape \[1, 3, 2\]; expected \[4, 3, 2\]",
    ),
    "masks of all steps alike for the form that drops every step anew": (
        lambda: run_wrongly(
            LSTM(UNITS, dropout=0.5),
            training=True,
            dropout_masks=DropoutMasks(jnp.ones((1, BATCH, FEATURES))),
        ),
        ValueError,
        "See dropout_every_step",
    ),
    "a recurrent mask in implementation 2": (
        lambda: run_wrongly(
            GRU(UNITS, use_bias=False),
            training=True,
            dropout_masks=DropoutMasks(None, jnp.ones((3, BATCH, UNITS))),
        ),
        ValueError,
        "implementation=2, where Keras drops no state",
    ),
    "a pair for Bidirectional's states": (
        lambda: run_wrongly(Bidirectional(GRU(UNITS)), initial_state=[STATE, STATE]),
        TypeError,
        "initial_state is list; expected",
    ),
    "outputs of two sizes, summed": (
        lambda: run_wrongly(
            Bidirectional(GRU(UNITS), backward_layer=GRU(3, go_backwards=True), merge_mode="sum")
        ),
        ValueError,
        "merge_mode 'sum'",
    ),
    "a vector for Dense": (
        lambda: Dense(2).init(jax.random.key(0), jnp.zeros((3,))),
        ValueError,
        r"Dense: inputs has shape \[3\] and dtype float32, expected \[batch",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case: str) -> None:
    call, error, message = BAD_CALLS[case]
    with refused(message, error):
        call()


BAD_OPTIONS: dict[str, tuple[Any, type[Exception], str]] = {
    "rate of 1": (lambda: LSTMCell(UNITS, dropout=1.0), ValueError, r"dropout is 1\."),
    "implementation": (lambda: GRUCell(UNITS, implementation=3), ValueError, "implementation is 3"),
    "no cells": (lambda: StackedRNNCells(()), ValueError, "cells is empty"),
    "a layer for a cell": (lambda: RNN(Dense(2)), TypeError, "cell is a Dense"),
    "stateful": (lambda: LSTM(UNITS, stateful=True), ValueError, "return_state=True"),
    "unrolled zeros": (
        lambda: LSTM(UNITS, unrolled_zeros="right"),
        ValueError,
        "unrolled_zeros is 'right'",
    ),
    "merge mode": (
        lambda: Bidirectional(LSTM(UNITS), merge_mode="max"),
        ValueError,
        "merge_mode is 'max'",
    ),
    "both forward": (
        lambda: Bidirectional(LSTM(UNITS), backward_layer=LSTM(UNITS)),
        ValueError,
        "go_backwards is False in layer and in backward_layer",
    ),
    "layers that differ": (
        lambda: Bidirectional(LSTM(UNITS), backward_layer=LSTM(UNITS, go_backwards=True, return_state=True)),
        ValueError,
        "return_state is False in layer and True",
    ),
    "a form that Keras has not": (
        lambda: LSTM(UNITS, recurrent_dropout=0.1, dropout_every_step=True),
        ValueError,
        "dropout_every_step=True with recurrent_dropout",
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str) -> None:
    make, error, message = BAD_OPTIONS[case]
    with refused(message, error):
        make()


@pytest.mark.tf
class TestFactsOfKeras:
    """What the docstrings say that Keras 2.15 does, where the parity tests do not show it."""

    def test_a_list_of_cells_is_a_stack_in_float32(self) -> None:
        from tests.parity.tensorflow_side import tf

        inputs = np.random.default_rng(0).normal(size=(2, 3, 3))
        cell = tf.keras.layers.LSTMCell(2, dtype="float64")
        one = tf.keras.layers.RNN(cell, dtype="float64")(inputs)
        listed = tf.keras.layers.RNN([cell], dtype="float64")(inputs)
        assert 1e-12 < np.abs(one - listed).max() < 1e-6

    def test_the_default_lstm_drops_every_step_anew(self) -> None:
        from tests.parity.keras_side import record_dropout
        from tests.parity.tensorflow_side import tf

        for options, shape in (({}, (2, 4, 3)), ({"use_bias": False}, (2, 3))):
            layer = tf.keras.layers.LSTM(2, dropout=0.5, **options)
            layer.build((2, 4, 3))
            recorded = [record_dropout(owner) for owner in (layer, layer.cell)]
            layer(tf.ones((2, 4, 3)), training=True)
            (masks,) = [r["inputs"] for r in recorded if r]
            assert [tuple(mask.shape) for mask in masks] == [shape] * 4

    def test_what_keras_refuses(self) -> None:
        from tests.parity.tensorflow_side import tf

        inputs, mask = tf.ones((2, 3, 3)), tf.constant([[True, False, True]] * 2)
        unrolled = tf.keras.layers.GRU(2, unroll=True, zero_output_for_mask=True)
        with pytest.raises(ValueError, match="not compatible"):
            unrolled(inputs, mask=mask)
        with pytest.raises(ValueError, match="rate"):
            tf.keras.layers.LSTM(2, dropout=1.0)(inputs, training=True)
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.keras.layers.LSTM(2)(inputs[:, :0])

    def test_hard_sigmoid_corners(self) -> None:
        from tests.parity.tensorflow_side import tf

        x = tf.constant([-2.5, 2.5])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.keras.activations.hard_sigmoid(x)
        np.testing.assert_allclose(tape.gradient(y, x), [0.2, 0.2], rtol=1e-6)
