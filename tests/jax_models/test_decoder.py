"""Decoding: edge cases, TensorFlow's mask, bad input, XLA's output time, and JAX's transformations."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.attention import LuongAttention
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.cell_base import PerStep
from jax_models.cell_wrappers import DropoutWrapper, WrapperMasks
from jax_models.cells import BasicLSTMCell
from jax_models.decoder import BaseDecoder, BasicDecoder, Decoder, dynamic_decode
from jax_models.sampler import Feed, GreedyEmbeddingSampler, TrainingSampler
from tests.jax_models.refusal import refused

BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 2
INPUTS = jax.random.normal(jax.random.key(0), (BATCH, TIME, FEATURES))
CELL = BasicLSTMCell(UNITS)
STATE = jax.tree.map(lambda x: x + 0.5, CELL.zero_state(BATCH, jnp.float32))
DECODER = BasicDecoder(CELL, TrainingSampler(), nn.Dense(FEATURES))
VARIABLES = DECODER.init(jax.random.key(1), INPUTS, initial_state=STATE)
EMBEDDING = jax.random.normal(jax.random.key(2), (FEATURES, FEATURES))


def decode(decoder: BaseDecoder = DECODER, *, inputs: Any = INPUTS, **arguments: Any) -> Any:
    return decoder.apply(VARIABLES, inputs, initial_state=STATE, **arguments)


def assert_close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_the_abstract_decoder_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Decoder()
    with pytest.raises(TypeError, match="abstract"):
        BaseDecoder()


@pytest.mark.parametrize("impute_finished", [False, True])
def test_zero_lengths_run_no_step(impute_finished: bool) -> None:
    decoder = DECODER.clone(impute_finished=impute_finished)
    output, state, lengths = decode(decoder, sequence_length=jnp.zeros(BATCH, int))
    assert_close(state, STATE)
    assert not output.rnn_output.any()
    assert not lengths.any()
    output, _, _ = decode(decoder.clone(output_time="steps_run"), sequence_length=jnp.zeros(BATCH, int))
    assert output.rnn_output.shape == (BATCH, 0, FEATURES)


def test_imputing_keeps_the_state_at_each_rows_end() -> None:
    _, state, lengths = decode(DECODER.clone(impute_finished=True), sequence_length=jnp.array([2, 4]))
    assert lengths.tolist() == [2, 4]
    _, short, _ = decode(inputs=INPUTS[:, :2])
    _, full, _ = decode()
    assert_close(state.h, jnp.stack([short.h[0], full.h[1]]))


def test_without_imputing_padding_reaches_the_state_and_the_gradient() -> None:
    def loss(inputs: jax.Array, decoder: BasicDecoder) -> jax.Array:
        return jnp.sum(decode(decoder, inputs=inputs, sequence_length=jnp.array([2, 4]))[1].h)

    assert jax.grad(loss)(INPUTS, DECODER)[0, 3].any()
    assert not jax.grad(loss)(INPUTS, DECODER.clone(impute_finished=True))[0, 2:].any()


def test_the_outputs_have_the_steps_of_the_bound_or_those_run() -> None:
    lengths = jnp.array([1, 2])
    output, _, _ = decode(DECODER.clone(maximum_iterations=6), sequence_length=lengths)
    assert output.rnn_output.shape == (BATCH, 6, FEATURES)
    assert not output.rnn_output[:, 2:].any()
    cut, _, _ = decode(DECODER.clone(maximum_iterations=6, output_time="steps_run"), sequence_length=lengths)
    assert_close(cut.rnn_output, output.rnn_output[:, :2])
    turned, _, _ = decode(DECODER.clone(output_time_major=True), sequence_length=lengths)
    assert_close(jnp.swapaxes(turned.rnn_output, 0, 1)[:, :2], cut.rnn_output)
    with refused("steps_run"):
        jax.jit(lambda: decode(DECODER.clone(output_time="steps_run")))()


def test_a_while_loop_gives_what_the_scan_gives() -> None:
    greedy = BasicDecoder(CELL, GreedyEmbeddingSampler(), nn.Dense(FEATURES), maximum_iterations=5)
    tokens = {"start_tokens": jnp.array([0, 1]), "end_token": 2}
    by_scan = jax.jit(lambda: decode(greedy, inputs=EMBEDDING, **tokens))()
    by_while = jax.jit(lambda: decode(greedy.clone(loop="while"), inputs=EMBEDDING, **tokens))()
    assert_close(by_while, by_scan)
    variables = greedy.clone(loop="while").init(jax.random.key(1), EMBEDDING, initial_state=STATE, **tokens)
    assert jax.tree.structure(variables) == jax.tree.structure(VARIABLES)


def test_it_works_under_jit_vmap_and_checkpoint() -> None:
    lengths = jnp.array([2, 4])

    def loss(variables: Any, inputs: jax.Array) -> jax.Array:
        output, state, _ = DECODER.apply(variables, inputs, initial_state=STATE, sequence_length=lengths)
        return jnp.sum(output.rnn_output**2) + jnp.sum(state.c)

    gradient = jax.grad(loss)(VARIABLES, INPUTS)
    assert_close(jax.jit(jax.grad(loss))(VARIABLES, INPUTS), gradient)
    assert_close(jax.grad(jax.checkpoint(loss))(VARIABLES, INPUTS), gradient)
    many = jax.vmap(jax.grad(loss), (None, 0))(VARIABLES, jnp.stack([INPUTS, INPUTS]))
    assert_close(jax.tree.map(lambda x: x[1], many), gradient)


def test_it_decodes_inside_a_scan() -> None:
    def again(state: Any, _: Any) -> Any:
        _, state, _ = DECODER.apply(VARIABLES, INPUTS, initial_state=state)
        return state, None

    state, _ = jax.lax.scan(again, STATE, None, length=2)
    assert_close(state, again(again(STATE, None)[0], None)[0])


def test_one_row_and_one_step() -> None:
    state = jax.tree.map(lambda x: x[:1], STATE)
    output, state, lengths = DECODER.apply(VARIABLES, INPUTS[:1, :1], initial_state=state)
    assert output.rnn_output.shape == (1, 1, FEATURES)
    assert lengths.tolist() == [1]


class Cube(Decoder):
    """Adds 1 to a state of rank 3 whose row 0 is finished from the start."""

    shape: tuple[int, ...] = (2, 2, 1)

    def initialize(self, *args: Any, **kwargs: Any) -> Any:
        return jnp.array([True, False]), jnp.zeros(2), jnp.zeros(self.shape), Feed()

    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> Any:
        return state + 1, state + 1, inputs, jnp.array([False, False])


def cube(shape: tuple[int, ...], **options: Any) -> Any:
    options = {"impute_finished": True, "maximum_iterations": 1} | options
    return nn.apply(lambda decoder: dynamic_decode(decoder, **options), Cube(shape))({})


def test_tensorflows_mask_falls_on_the_second_axis() -> None:
    _, state, _ = cube((2, 2, 1))
    assert state[..., 0].tolist() == [[0, 1], [0, 1]]
    outputs, state, _ = cube((2, 2, 1), impute_mask="batch")
    assert state[..., 0].tolist() == [[0, 0], [1, 1]]
    assert outputs[:, 0, :, 0].tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("shape", [(2, 3, 1), (2,)])
def test_where_tensorflows_mask_does_not_fit_it_is_an_error(shape: tuple[int, ...]) -> None:
    with refused('impute_mask="batch"'):
        cube(shape)
    _, state, _ = cube(shape, impute_mask="batch")
    assert not state[0].any()
    assert (state[1] == 1).all()


class Attending(nn.Module):
    decoder: BasicDecoder

    def __call__(self, memory: jax.Array) -> Any:
        wrapper: Any = self.decoder.cell
        state = wrapper.initial_state(STATE, wrapper.setup_memory(memory), maximum_steps=TIME)
        return self.decoder(INPUTS, initial_state=state, sequence_length=jnp.array([1, 3]))


@pytest.mark.parametrize("impute_finished", [False, True])
def test_an_attention_wrapper_is_a_cell(impute_finished: bool) -> None:
    wrapper = AttentionWrapper(CELL, LuongAttention(UNITS), attention_layer_size=2, alignment_history=True)
    model = Attending(BasicDecoder(wrapper, TrainingSampler(), impute_finished=impute_finished))
    memory = jax.random.normal(jax.random.key(4), (BATCH, 5, 3))
    variables = model.init(jax.random.key(5), memory)

    def loss(variables: Any, memory: jax.Array) -> Any:
        output, state, _ = model.apply(variables, memory)
        return jnp.sum(output.rnn_output**2), state

    gradients, state = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables, memory)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))
    # The history is not imputed, as in TensorFlow; the steps after the last row's end are not made.
    assert state.alignment_history[:3].any(axis=-1).all()
    assert not state.alignment_history[3:].any()
    assert state.time == 3


def test_dropout_masks_are_for_all_steps_or_for_each() -> None:
    cell = DropoutWrapper(CELL, output_keep_prob=0.5)
    decoder = BasicDecoder(cell, TrainingSampler())
    variables = {"params": {"cell": {"cell": VARIABLES["params"]["cell"]}}}
    kept = jnp.array([[True, False], [False, True]])

    def outputs(mask: Any) -> jax.Array:
        masks = WrapperMasks(output=mask)
        return decoder.apply(variables, INPUTS, initial_state=STATE, dropout_masks=masks)[0].rnn_output

    shared = outputs(kept)
    assert (shared.any(axis=1) == kept).all()
    assert_close(outputs(PerStep(jnp.broadcast_to(kept, (TIME, *kept.shape)))), shared)
    changing = outputs(PerStep(jnp.stack([kept, ~kept, kept, ~kept])))
    assert_close(changing[:, 0], shared[:, 0])
    assert not (changing[:, 1] * kept).any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DECODER.apply(VARIABLES, INPUTS), "initial_state is missing"),
        (lambda: DECODER.apply(VARIABLES, INPUTS[:1], initial_state=STATE), r"expected \[1, ...\]"),
        (lambda: decode(DECODER.clone(maximum_iterations=0)), "maximum_iterations is 0"),
        (
            lambda: decode(
                BasicDecoder(CELL, GreedyEmbeddingSampler(), nn.Dense(FEATURES)),
                inputs=EMBEDDING,
                start_tokens=jnp.array([0, 1]),
                end_token=0,
            ),
            "maximum_iterations is missing",
        ),
        (
            lambda: DECODER.apply(
                VARIABLES, INPUTS, initial_state=jax.tree.map(lambda x: x.astype(jnp.bfloat16), STATE)
            ),
            "a step made state",
        ),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with refused(message):
        make()


@pytest.mark.tf
def test_tensorflow_under_xla_has_as_many_steps_as_the_bound() -> None:
    from tests.parity.tensorflow_side import tf, tfa

    cell = tf.keras.layers.LSTMCell(UNITS)
    decoder = tfa.seq2seq.BasicDecoder(cell, tfa.seq2seq.TrainingSampler(), maximum_iterations=3)
    inputs, lengths = tf.constant(np.asarray(INPUTS)), tf.constant([1, 2])
    zeros = [tf.zeros((BATCH, UNITS))] * 2

    @tf.function(jit_compile=True)
    def run() -> Any:
        output, _, final_lengths = decoder(inputs, initial_state=zeros, sequence_length=lengths)
        return output.rnn_output, final_lengths

    rnn_output, final_lengths = run()
    kernel, recurrent, bias = (w.numpy() for w in cell.weights)
    leaves = {"cell": {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}}
    ours = BasicDecoder(BasicLSTMCell(UNITS, forget_bias=0.0), TrainingSampler(), maximum_iterations=3)
    output, _, our_lengths = ours.apply(
        {"params": jax.tree.map(jnp.asarray, leaves)},
        INPUTS,
        initial_state=CELL.zero_state(BATCH, jnp.float32),
        sequence_length=jnp.array([1, 2]),
    )
    assert rnn_output.shape == (BATCH, 3, UNITS)
    np.testing.assert_allclose(rnn_output, output.rnn_output, atol=1e-5)
    np.testing.assert_array_equal(final_lengths, our_lengths)
