"""TF1's and tfa's cells and wrappers: ties, masks, initial values, transformations, bad input. For
agreement with TensorFlow on random configurations see `tests/parity/{tf1_cells,contrib_cells,tfa_rnn}.py`."""

from __future__ import annotations

import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.cell_base import PerStep, clip
from jax_models.cell_wrappers import (
    DeviceWrapper,
    DropoutWrapper,
    MultiRNNCell,
    ResidualWrapper,
    WrapperMasks,
    draw_dropout_masks,
)
from jax_models.cells import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell, LSTMState
from jax_models.keras_cells import GRUCell as KerasGRUCell
from jax_models.layer_norm_cells import LayerNormBasicLSTMCell, LayerNormLSTMCell, LayerNormSimpleRNNCell
from jax_models.tfa_cells import ESNCell, NASCell, PeepholeLSTMCell, spectral_radius
from tests.jax_models.refusal import refused

BATCH, FEATURES, UNITS = 3, 2, 4

CELLS = {
    "BasicRNNCell": BasicRNNCell(UNITS),
    "BasicLSTMCell": BasicLSTMCell(UNITS),
    "LSTMCell": LSTMCell(UNITS, use_peepholes=True, cell_clip=0.3, num_proj=3, proj_clip=0.2),
    "GRUCell": GRUCell(UNITS),
    "LayerNormBasicLSTMCell": LayerNormBasicLSTMCell(UNITS, dropout_keep_prob=0.5),
    "LayerNormLSTMCell": LayerNormLSTMCell(UNITS, dropout=0.2, recurrent_dropout=0.2),
    "LayerNormSimpleRNNCell": LayerNormSimpleRNNCell(UNITS),
    "NASCell": NASCell(UNITS, projection=3, use_bias=True),
    "ESNCell": ESNCell(UNITS, connectivity=0.5),
    "PeepholeLSTMCell": PeepholeLSTMCell(UNITS, recurrent_dropout=0.4),
    "MultiRNNCell": MultiRNNCell(
        (
            BasicLSTMCell(UNITS),
            ResidualWrapper(DropoutWrapper(LSTMCell(UNITS), input_keep_prob=0.5, state_keep_prob=0.7)),
            DeviceWrapper(GRUCell(3), "/gpu:0"),
        )
    ),
}

cells = pytest.mark.parametrize("name", sorted(CELLS))


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def masks_of(cell: Any) -> dict[str, Any]:
    masks = draw_dropout_masks(cell, jax.random.key(5), BATCH, FEATURES, jnp.float32)
    return {} if masks is None else {"dropout_masks": masks}


def random_state(cell: Any, seed: int = 1) -> Any:
    leaves, tree = jax.tree.flatten(cell.zero_state(BATCH, jnp.float32))
    return jax.tree.unflatten(tree, [normal(*leaf.shape, seed=seed + i) for i, leaf in enumerate(leaves)])


@cells
def test_state_and_output_have_the_sizes_that_the_cell_says(name: str) -> None:
    cell = CELLS[name]
    state, inputs = cell.zero_state(BATCH, jnp.float32), normal(BATCH, FEATURES)
    (new_state, output), variables = cell.init_with_output(jax.random.key(0), state, inputs, **masks_of(cell))
    assert output.shape == (BATCH, cell.output_size)
    assert jax.tree.structure(new_state) == jax.tree.structure(cell.state_size)
    assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(lambda n: (BATCH, n), cell.state_size)
    assert variables.keys() == {"params"}, "a cell keeps nothing but its parameters"


@cells
def test_transformations_do_not_change_a_step(name: str) -> None:
    cell, inputs = CELLS[name], normal(BATCH, FEATURES)
    state, masks = random_state(cell), masks_of(cell)
    params = cell.init(jax.random.key(0), state, inputs, **masks)

    def loss(params: Any, state: Any, inputs: Any) -> Any:
        new_state, output = cell.apply(params, state, inputs, **masks)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((new_state, output)))

    plain = jax.grad(loss, argnums=(0, 1, 2))(params, state, inputs)
    for transformed in (
        jax.jit(jax.grad(loss, argnums=(0, 1, 2))),
        jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            transformed(params, state, inputs),
            plain,
        )
    mapped = jax.vmap(loss, in_axes=(None, None, 0))(params, state, jnp.stack([inputs, 2 * inputs]))
    expected = [loss(params, state, inputs), loss(params, state, 2 * inputs)]
    np.testing.assert_allclose(mapped, expected, rtol=1e-4)


@cells
def test_batch_of_one(name: str) -> None:
    cell = CELLS[name]
    masks = draw_dropout_masks(cell, jax.random.key(5), 1, FEATURES, jnp.float32)
    extra = {} if masks is None else {"dropout_masks": masks}
    state, inputs = cell.zero_state(1, jnp.float32), normal(1, FEATURES)
    (_, output), _ = cell.init_with_output(jax.random.key(0), state, inputs, **extra)
    assert output.shape == (1, cell.output_size)


@pytest.mark.parametrize("name", ["BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell", "NASCell"])
def test_tensorflow_order_of_arguments_is_refused(name: str) -> None:
    cell, inputs = CELLS[name], normal(BATCH, FEATURES)
    with refused(r"(TensorFlow's order|expected \[3, 4\]|LSTMState)"):
        cell.init(jax.random.key(0), inputs, cell.zero_state(BATCH, jnp.float32))


@pytest.mark.parametrize("cell", [BasicLSTMCell(UNITS), PeepholeLSTMCell(UNITS)])
def test_keras_state_is_refused(cell: Any) -> None:
    state = [normal(BATCH, UNITS), normal(BATCH, UNITS)]
    with refused("LSTMState", TypeError):
        cell.init(jax.random.key(0), state, normal(BATCH, FEATURES))


def test_state_of_another_batch_is_refused() -> None:
    cell = BasicLSTMCell(UNITS)
    with refused(r"BasicLSTMCell: state .* \[2, 4\]; expected \[3, 4\]", ValueError):
        cell.init(jax.random.key(0), cell.zero_state(2, jnp.float32), normal(BATCH, FEATURES))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MultiRNNCell(()), "cells is empty"),
        (lambda: DropoutWrapper(GRUCell(2), input_keep_prob=0.0), r"input_keep_prob is 0\."),
        (lambda: DropoutWrapper(GRUCell(2), state_keep_prob=1.5), "state_keep_prob is 1.5"),
        (lambda: LayerNormBasicLSTMCell(2, dropout_keep_prob=-1.0), r"dropout_keep_prob is -1\."),
        (lambda: LSTMCell(2, cell_clip=-0.1), "cell_clip is -0.1"),
        (lambda: PeepholeLSTMCell(2, dropout=1.0), r"dropout is 1\."),
        (lambda: PeepholeLSTMCell(2, implementation=3), "implementation is 3"),
        (lambda: LayerNormLSTMCell(2, recurrent_dropout=-0.5), "recurrent_dropout is -0.5"),
    ],
)
def test_impossible_options_are_refused(make: Any, message: str) -> None:
    with refused(message):
        make()


@pytest.mark.parametrize("masks", [None, WrapperMasks(output=jnp.ones((BATCH, UNITS), bool))])
def test_missing_mask_is_refused(masks: Any) -> None:
    cell = DropoutWrapper(GRUCell(UNITS), input_keep_prob=0.5)
    with refused(r"masks.input is None but its keep_prob is 0.5.*draw_dropout_masks", ValueError):
        call(cell, masks)


def test_missing_state_mask_is_refused() -> None:
    with refused("masks.state is None", ValueError):
        call(DropoutWrapper(GRUCell(UNITS), state_keep_prob=0.5), None)


def test_superfluous_and_misshapen_masks_are_refused() -> None:
    cell = DropoutWrapper(GRUCell(UNITS), output_keep_prob=0.5)
    with refused(r"masks.output has shape \[3, 3\]; expected \[3, 4\]", ValueError):
        call(cell, WrapperMasks(output=jnp.ones((BATCH, 3), bool)))
    with refused("masks.input: a mask was given but its keep_prob is 1", ValueError):
        call(
            cell,
            WrapperMasks(input=jnp.ones((BATCH, FEATURES), bool), output=jnp.ones((BATCH, UNITS), bool)),
        )
    with refused("given for GRUCell, which takes none", ValueError):
        call(ResidualWrapper(GRUCell(FEATURES)), jnp.ones((1, 1), bool))


def test_stack_and_residual_name_what_does_not_fit() -> None:
    stack = MultiRNNCell((GRUCell(UNITS), GRUCell(UNITS)))
    with refused("expected a tuple with the state of each of its 2 cells", ValueError):
        stack.init(jax.random.key(0), (normal(BATCH, UNITS),), normal(BATCH, FEATURES))
    with refused("dropout_masks has 1 items", ValueError):
        call(stack, (None,))
    with refused(r"inputs has shape \[3, 2\] and the cell's output \[3, 4\]", ValueError):
        call(ResidualWrapper(GRUCell(UNITS)), None)


def call(cell: Any, masks: Any) -> Any:
    state, inputs = cell.zero_state(BATCH, jnp.float32), normal(BATCH, FEATURES)
    return cell.init_with_output(jax.random.key(0), state, inputs, dropout_masks=masks)[0]


def test_a_visitor_says_which_states_are_dropped() -> None:
    """By the rule of TF1's `dropout_state_filter_visitor`: asked of the state, and of its wanted parts."""

    def draw(visitor: Any) -> Any:
        stack = MultiRNNCell((BasicLSTMCell(UNITS), GRUCell(3)))
        cell = DropoutWrapper(stack, state_keep_prob=0.5, dropout_state_filter_visitor=visitor)
        return draw_dropout_masks(cell, jax.random.key(0), BATCH, FEATURES, jnp.float32).state

    everything = draw(lambda part: True)
    assert everything[0].c.shape == everything[0].h.shape == (BATCH, UNITS)
    only_gru = draw(lambda part: not isinstance(part, LSTMState))
    assert only_gru[0] == LSTMState(None, None)
    assert only_gru[1].shape == (BATCH, 3)
    only_c = draw(lambda part: (True, False) if isinstance(part, tuple) else True)
    assert only_c[0].c.shape == (BATCH, UNITS)
    assert only_c[0].h is None
    assert only_c[1] is None
    for wrong in (lambda part: None, lambda part: (True,), lambda part: (True, True)):
        with refused("dropout_state_filter_visitor returned"):
            draw(wrong)


def test_drawn_masks_spare_c_and_given_ones_need_not() -> None:
    cell = DropoutWrapper(MultiRNNCell((BasicLSTMCell(UNITS), GRUCell(3))), state_keep_prob=0.5)
    drawn = draw_dropout_masks(cell, jax.random.key(0), BATCH, FEATURES, jnp.float32).state
    assert drawn[0].c is None
    assert drawn[0].h.shape == (BATCH, UNITS)
    assert drawn[1].shape == (BATCH, 3)

    nothing = LSTMState(jnp.zeros((BATCH, UNITS), bool), None)
    state, _ = call(DropoutWrapper(BasicLSTMCell(UNITS), state_keep_prob=0.5), WrapperMasks(state=nothing))
    assert not state.c.any()
    assert state.h.any()


def test_state_and_output_are_dropped_apart() -> None:
    cell = DropoutWrapper(BasicLSTMCell(UNITS), state_keep_prob=0.5, output_keep_prob=0.5)
    keep, lose = jnp.ones((BATCH, UNITS), bool), jnp.zeros((BATCH, UNITS), bool)
    state, output = call(cell, WrapperMasks(state=LSTMState(None, keep), output=lose))
    assert state.h.any()
    assert not output.any()


@pytest.mark.parametrize("variational, rows", [(True, 1), (False, BATCH)])
def test_masks_come_from_the_key_alone(variational: bool, rows: int) -> None:
    cell = DropoutWrapper(GRUCell(50), 0.3, 0.6, 0.9, variational)

    def draw(seed: int, time: int | None = None) -> Any:
        return draw_dropout_masks(cell, jax.random.key(seed), BATCH, 40, jnp.float32, time=time)

    assert jax.tree.map(jnp.shape, draw(0)) == WrapperMasks((rows, 40), (rows, 50), (rows, 50))
    jax.tree.map(np.testing.assert_array_equal, draw(0), draw(0))
    assert not (draw(0).input == draw(1).input).all()
    looped = draw(0, time=30)
    assert isinstance(looped.input, PerStep) != variational
    for mask, keep_prob in zip(looped[:3], (0.3, 0.9, 0.6), strict=True):
        kept = jnp.concatenate([mask.masks]) if isinstance(mask, PerStep) else mask
        assert abs(kept.mean() - keep_prob) < 0.25 if variational else 0.05


def test_keep_prob_is_rounded_as_tensorflow_rounds_it() -> None:
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        inputs, masks = jnp.ones((1, 1)), WrapperMasks(input=jnp.ones((1, 1), bool))
        read = []
        for dtype in (jnp.float32, jnp.float64):
            cell = DropoutWrapper(Echo(), input_keep_prob=0.3, keep_prob_dtype=dtype)
            read.append(float(cell.apply({}, jnp.zeros((1, 1)), inputs, dropout_masks=masks)[1][0, 0]))
    assert read == [1 / float(np.float32(0.3)), 1 / 0.3]


class Echo(nn.Module):
    """A cell that gives out what it is given."""

    def __call__(self, state: Any, inputs: Any) -> tuple[Any, Any]:
        return state, inputs

    def zero_state(self, batch: int, dtype: Any) -> Any:
        return jnp.zeros((batch, 1), dtype)


def test_residual_function_takes_inputs_first() -> None:
    cell = ResidualWrapper(Echo(), lambda inputs, output: inputs - 2 * output)
    assert cell.apply({}, jnp.zeros((1, 1)), jnp.ones((1, 1)))[1] == -1


def test_device_wrapper_changes_no_number() -> None:
    wrapped, plain = DeviceWrapper(GRUCell(UNITS), "/gpu:3"), GRUCell(UNITS)
    state, inputs = random_state(plain), normal(BATCH, FEATURES)
    params = plain.init(jax.random.key(0), state, inputs)["params"]
    here = wrapped.apply({"params": {"cell": params}}, state, inputs)
    jax.tree.map(np.testing.assert_array_equal, here, plain.apply({"params": params}, state, inputs))


def test_keras_cells_can_be_stacked_under_tf1_wrappers() -> None:
    stack = MultiRNNCell((KerasGRUCell(UNITS, dropout=0.5), DropoutWrapper(GRUCell(2), input_keep_prob=0.5)))
    masks = draw_dropout_masks(stack, jax.random.key(0), BATCH, FEATURES, jnp.float32)
    assert masks[1].input.shape == (BATCH, UNITS)
    assert call(stack, masks)[1].shape == (BATCH, 2)


def test_clip_lets_the_gradient_through_at_its_bounds() -> None:
    gradient = jax.vmap(jax.grad(lambda x: clip(x, 0.5)))
    np.testing.assert_array_equal(gradient(jnp.array([-0.6, -0.5, 0.1, 0.5, 0.6])), [0, 1, 1, 1, 0])


@pytest.mark.tf
def test_clipped_cell_has_tensorflows_gradient_at_the_tie() -> None:
    from tests.parity.tensorflow_side import tf

    v1 = tf.compat.v1
    with warnings.catch_warnings(), tf.Graph().as_default():
        warnings.simplefilter("ignore")
        c = tf.constant([[1.0, -1.0, 0.25, 3.0]])
        cell = v1.nn.rnn_cell.LSTMCell(4, cell_clip=0.5, forget_bias=0.0, initializer=tf.zeros_initializer())
        _, state = cell(tf.zeros((1, 2)), v1.nn.rnn_cell.LSTMStateTuple(c, tf.zeros((1, 4))))
        (expected,) = v1.gradients(state.c, c)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            clipped, expected = session.run((state.c, expected))
    ours = LSTMCell(4, cell_clip=0.5, forget_bias=0.0)
    h, inputs = jnp.zeros((1, 4)), jnp.zeros((1, 2))
    params = ours.init(jax.random.key(0), LSTMState(h, h), inputs)
    params = jax.tree.map(jnp.zeros_like, params)
    c = jnp.array([[1.0, -1.0, 0.25, 3.0]])
    found = jax.grad(lambda c: ours.apply(params, LSTMState(c, h), inputs)[0].c.sum())(c)
    np.testing.assert_array_equal(clipped, [[0.5, -0.5, 0.125, 0.5]])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(expected, [[0.5, 0.5, 0.5, 0.0]])


def test_projection_clip_without_a_projection_does_nothing() -> None:
    state, inputs = random_state(BasicLSTMCell(UNITS)), normal(BATCH, FEATURES)
    params = LSTMCell(UNITS).init(jax.random.key(0), state, inputs)
    clipped = LSTMCell(UNITS, proj_clip=1e-6).apply(params, state, inputs)
    jax.tree.map(np.testing.assert_array_equal, clipped, LSTMCell(UNITS).apply(params, state, inputs))


def initial(cell: Any) -> Any:
    masks = masks_of(cell)
    state, inputs = cell.zero_state(BATCH, jnp.float32), normal(BATCH, FEATURES)
    return cell.init(jax.random.key(0), state, inputs, **masks)["params"]


def test_biases_begin_where_tensorflows_do() -> None:
    np.testing.assert_array_equal(initial(GRUCell(2))["bias"], [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(initial(PeepholeLSTMCell(2))["bias"], [0, 0, 1, 1, 0, 0, 0, 0])
    assert not initial(PeepholeLSTMCell(2, unit_forget_bias=False))["bias"].any()
    assert "bias" not in initial(PeepholeLSTMCell(2, use_bias=False))
    assert not initial(BasicLSTMCell(2))["bias"].any(), "TF1 adds its forget bias at run time"
    norms = initial(LayerNormBasicLSTMCell(2, norm_gain=0.7, norm_shift=0.1))
    assert "bias" not in norms
    np.testing.assert_allclose(norms["state_norm"]["scale"], [0.7, 0.7])
    np.testing.assert_allclose(norms["gate_norm"]["bias"], [0.1] * 8)
    assert "gate_norm" not in initial(LayerNormBasicLSTMCell(2, layer_norm=False))


@pytest.mark.parametrize("use_norm2", [False, True])
def test_reservoir_is_sparse_and_scaled(use_norm2: bool) -> None:
    cell = ESNCell(40, connectivity=0.2, spectral_radius=0.8, use_norm2=use_norm2)
    kernel = np.asarray(initial(cell)["recurrent_kernel"], np.float64)
    assert 0.1 < (kernel != 0).mean() < 0.3
    size = np.linalg.norm(kernel, 2) if use_norm2 else np.abs(np.linalg.eigvals(kernel)).max()
    assert size == pytest.approx(0.8, rel=1e-4)


@pytest.mark.parametrize(
    "matrix",
    [[[0.0, 1.0], [0.0, 0.0]], [[0.0, -2.0], [2.0, 0.0]], [[0.0]], [[-3.0]], [[1.0, 1e3], [0.0, 0.5]]],
)
def test_spectral_radius_of_hard_matrices(matrix: list) -> None:
    expected = np.abs(np.linalg.eigvals(np.array(matrix))).max()
    assert float(spectral_radius(jnp.array(matrix))) == pytest.approx(expected, rel=1e-5)


def test_reservoir_has_no_gradient_unless_it_is_trainable() -> None:
    params, inputs = {"params": initial(ESNCell(UNITS))}, normal(BATCH, FEATURES)

    def size(kernel: jax.Array) -> Any:
        return jnp.abs(kernel).sum()

    for trainable in (False, True):
        cell = ESNCell(UNITS, trainable=trainable)
        gradient = jax.grad(lambda p, cell=cell: cell.apply(p, normal(BATCH, UNITS), inputs)[1].sum())(params)
        assert bool(size(gradient["params"]["kernel"]) > 0) == trainable


@cells
def test_parameters_may_be_numpy_arrays(name: str) -> None:
    cell, inputs = CELLS[name], normal(BATCH, FEATURES)
    state, masks = random_state(cell), masks_of(cell)
    params = cell.init(jax.random.key(0), state, inputs, **masks)
    given = cell.apply(jax.tree.map(np.asarray, params), state, inputs, **masks)
    expected = cell.apply(params, state, inputs, **masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), given, expected)
