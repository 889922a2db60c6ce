"""The oracle's own models: against Flax's cell, as pure functions, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flax")

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_models.cells import BasicLSTMCell, LSTMState
from jax_models.dynamic_rnn import DynamicRNN
from jax_models.explicit_state import BasicRNNDecoder, BasicRNNEncoder, ExplicitState
from oracle.bridge.layouts import flax_lstm
from oracle.case import jitter_case, random_case
from oracle.frameworks import precise_jax
from oracle.run_jax import run_oracle
from oracle.spec import LSTM, EncoderDecoder
from tests.oracle.cases import small_case


@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_cell_is_flax_own_lstm_cell(forget_bias: float) -> None:
    """A third witness: values and gradients of `flax.linen.OptimizedLSTMCell`, weights by the bridge."""
    generator = np.random.default_rng(0)
    layout = flax_lstm(3, 4, forget_bias=forget_bias)
    leaves = {name: generator.standard_normal(shape) for name, shape in layout.leaves.items()}
    flax_params: dict = {}
    for name, array in layout.to_variables(leaves).items():
        gate, part = name.split("/")
        flax_params.setdefault(gate, {})[part] = array
    inputs, c, h, weight = (generator.standard_normal((5, size)) for size in (3, 4, 4, 4))
    with precise_jax():
        ours, theirs = BasicLSTMCell(4, forget_bias), nn.OptimizedLSTMCell(4)

        def our_loss(params, inputs, c, h):
            state, output = ours.apply({"params": params}, LSTMState(c, h), inputs)
            return jnp.sum(weight * output * jnp.sin(state.c)), (state.c, output)

        def their_loss(params, inputs, c, h):
            (new_c, _), output = theirs.apply({"params": params}, (c, h), inputs)
            return jnp.sum(weight * output * jnp.sin(new_c)), (new_c, output)

        ours_all = jax.value_and_grad(our_loss, argnums=(0, 1, 2, 3), has_aux=True)(leaves, inputs, c, h)
        theirs_all = jax.value_and_grad(their_loss, argnums=(0, 1, 2, 3), has_aux=True)(
            flax_params, inputs, c, h
        )
    our_gradients, their_gradients = ours_all[1], theirs_all[1]
    carried = layout.gradients_to_leaves(
        {name: np.asarray(their_gradients[0][name[:2]][name[3:]]) for name in layout.variables}
    )
    for name, gradient in our_gradients[0].items():
        np.testing.assert_allclose(gradient, carried[name], rtol=0, atol=1e-14)
    for ours_part, theirs_part in zip(
        jax.tree.leaves((ours_all[0], our_gradients[1:])),
        jax.tree.leaves((theirs_all[0], their_gradients[1:])),
        strict=True,
    ):
        np.testing.assert_allclose(ours_part, theirs_part, rtol=0, atol=1e-14)


@pytest.mark.parametrize("lengths", [False, True])
def test_gradients_are_the_derivatives_of_the_forward_pass(lengths: bool) -> None:
    """Central differences in float64 along random directions, each tensor by itself and all at once."""
    spec = EncoderDecoder(3, 2, LSTM(4), LSTM(4), lengths=lengths, initial_state="given")
    case = random_case(spec, seed=2)
    record = run_oracle(case, model="explicit_state/full")
    names = {f"gradient/{path}": path for path in case.weights}
    generator = np.random.default_rng(3)
    step = 2.0**-12

    def loss_at(path: str, moved: np.ndarray) -> float:
        from oracle.case import Case

        weights = {**case.weights, path: moved}
        changed = Case(spec, case.seed, weights, case.batch, "moved", "random")
        return float(run_oracle(changed, model="explicit_state/full").tensors["loss"])

    for name, path in names.items():
        # Cases hold float32, so the direction is made of powers of two that float32 adds exactly enough.
        direction = generator.choice([-1.0, 1.0], case.weights[path].shape).astype(np.float32)
        up, down = (case.weights[path] + sign * np.float32(step) * direction for sign in (1, -1))
        moved = (up.astype(np.float64) - down.astype(np.float64)).ravel()
        numeric = loss_at(path, up) - loss_at(path, down)
        analytic = float(record.tensors[name].ravel() @ moved)
        assert numeric == pytest.approx(analytic, rel=1e-5, abs=1e-9), name


def test_initial_state_zeros_is_the_implicit_one() -> None:
    case = small_case("dynamic_rnn/full")
    source, target = (jnp.asarray(case.batch[name]) for name in ("source", "target"))
    params = {}
    for path, leaf in case.weights.items():
        node = params
        *parents, name = path.split("/")
        for part in parents:
            node = node.setdefault(part, {})
        node[name] = leaf
    zeros = jnp.zeros((4, 5), jnp.float32)
    explicit = ExplicitState(5, 2).apply(
        {"params": params}, source, target, initial_state=LSTMState(zeros, zeros)
    )
    implicit = DynamicRNN(5, 2).apply({"params": params}, source, target)
    for first, second in zip(jax.tree.leaves(explicit), jax.tree.leaves(implicit), strict=True):
        assert np.array_equal(first, second)


def test_encoder_and_decoder_compose_by_hand() -> None:
    """State in, state out: what a person writes who leaves tfa."""
    key = jax.random.key(0)
    source, target = jax.random.normal(key, (2, 5, 3)), jax.random.normal(key, (2, 4, 6))
    encoder, decoder = BasicRNNEncoder(6), BasicRNNDecoder(6)
    encoder_params = encoder.init(key, source)
    _, state = encoder.apply(encoder_params, source)
    decoder_params = decoder.init(key, target, state)

    @jax.jit
    def loss(encoder_params, decoder_params):
        _, state = encoder.apply(encoder_params, source)
        outputs, _ = decoder.apply(decoder_params, target[:, :-1], state)
        return jnp.mean(jnp.square(outputs - target[:, 1:]))

    gradients = jax.grad(loss, argnums=(0, 1))(encoder_params, decoder_params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    checkpointed = jax.grad(jax.checkpoint(loss), argnums=(0, 1))(encoder_params, decoder_params)
    for first, second in zip(jax.tree.leaves(gradients), jax.tree.leaves(checkpointed), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_vmap_over_rows_is_the_batch() -> None:
    key = jax.random.key(1)
    source = jax.random.normal(key, (3, 5, 2))
    encoder = BasicRNNEncoder(4)
    params = encoder.init(key, source)
    outputs, state = encoder.apply(params, source)
    by_row = jax.vmap(lambda row: encoder.apply(params, row[None]))(source)
    np.testing.assert_allclose(by_row[0][:, 0], outputs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(by_row[1].c[:, 0], state.c, rtol=0, atol=1e-6)


def test_compiled_and_op_by_op_agree_and_float32_is_float32() -> None:
    case = small_case("explicit_state/full")
    compiled, eager = (run_oracle(case, model="m", mode=mode) for mode in ("jit", "eager"))
    single = run_oracle(jitter_case(case, 1), model="m", dtype="float32")
    for name, tensor in compiled.tensors.items():
        scale = np.abs(tensor).max()
        assert np.abs(tensor - eager.tensors[name]).max() <= 1e-14 * scale, name
        assert tensor.dtype == np.float64
        assert single.tensors[name].dtype == np.float32
        assert np.abs(single.tensors[name] - tensor).max() <= 1e-4 * scale, name


def test_the_oracle_leaves_the_process_settings_alone() -> None:
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    run_oracle(small_case("dynamic_rnn/full"), model="m")
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_annotated_shapes_are_checked() -> None:
    """The import hook of `conftest.py` is at work: a wrong shape is refused at the call."""
    pytest.importorskip("beartype")
    encoder = BasicRNNEncoder(4)
    with pytest.raises(Exception, match="inputs"):
        encoder.init(jax.random.key(0), jnp.zeros((3, 5)))
