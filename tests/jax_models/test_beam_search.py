"""Beam search: edge cases, bad input, and JAX's transformations. Agreement is in tests/parity."""

from __future__ import annotations

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.attention import LuongAttention
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.beam_search import BeamSearchDecoder, average_alignments, coverage_penalty
from jax_models.beam_search_ops import gather_tree, gather_tree_from_array, tile_batch
from jax_models.cells import BasicLSTMCell
from tests.jax_models.refusal import refused

BATCH, BEAM, VOCAB, UNITS, DEPTH, STEPS, END = 2, 3, 4, 2, 3, 4, 0
CELL = BasicLSTMCell(UNITS)
EMBEDDING = 2 * jax.random.normal(jax.random.key(0), (VOCAB, DEPTH))
STATE = jax.tree.map(lambda x: x + jnp.arange(BATCH)[:, None] / 3, CELL.zero_state(BATCH, jnp.float32))
TOKENS = jnp.array([1, 2])
DECODER = BeamSearchDecoder(CELL, BEAM, output_layer=nn.Dense(VOCAB), maximum_iterations=STEPS)


def arguments(beam: int = BEAM, **changed: Any) -> dict[str, Any]:
    given = {"start_tokens": TOKENS, "end_token": END, "initial_state": tile_batch(STATE, beam)}
    return given | changed


PARAMS = DECODER.init(jax.random.key(1), EMBEDDING, **arguments())["params"]
# Logits far from each other, so that no two beams are equal.
VARIABLES = {"params": jax.tree.map(lambda x: 3 * x, PARAMS)}


def search(decoder: BeamSearchDecoder = DECODER, **changed: Any) -> Any:
    return decoder.apply(VARIABLES, EMBEDDING, **arguments(decoder.beam_width, **changed))


def log_probability(row: int, tokens: tuple[int, ...]) -> float:
    """Of a sequence up to its end token, step by step."""
    state = jax.tree.map(lambda x: x[row : row + 1], STATE)
    before, total = TOKENS[row], 0.0
    for token in tokens:
        state, output = CELL.apply({"params": VARIABLES["params"]["cell"]}, state, EMBEDDING[before][None])
        layer = VARIABLES["params"]["output_layer"]
        total += float(jax.nn.log_softmax(output @ layer["kernel"] + layer["bias"])[0, token])
        before = token
        if token == END:
            break
    return total


def test_a_beam_as_wide_as_all_sequences_finds_the_best() -> None:
    steps = 2
    decoder = DECODER.clone(beam_width=VOCAB**steps, maximum_iterations=steps)
    output, state, _ = search(decoder)
    for row in range(BATCH):
        # What follows an end token does not count.
        sequences = {
            tokens if tokens[0] != END else (END, END)
            for tokens in itertools.product(range(VOCAB), repeat=steps)
        }
        ranked = sorted(sequences, key=lambda tokens: -log_probability(row, tokens))
        found = [tuple(ids) for ids in output.predicted_ids[row].T.tolist()]
        assert found[: len(ranked)] == ranked
        expected = [log_probability(row, tokens) for tokens in ranked]
        np.testing.assert_allclose(state.log_probs[row, : len(ranked)], expected, rtol=1e-5)


def test_a_beam_wider_than_the_vocabulary_has_finite_gradients() -> None:
    def loss(variables: Any) -> jax.Array:
        decoder = DECODER.clone(beam_width=7)
        output, state, _ = decoder.apply(variables, EMBEDDING, **arguments(7))
        scores = output.beam_search_decoder_output.scores
        finite = jnp.where(scores > -1e30, scores, 0)
        return jnp.sum(finite) + jnp.sum(state.cell_state.h)

    first = search(DECODER.clone(beam_width=7))[0].beam_search_decoder_output.scores[:, 0]
    assert (first[:, VOCAB:] == -jnp.inf).all()
    gradients = jax.jit(jax.grad(loss))(VARIABLES)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_one_row_one_beam_and_one_step() -> None:
    decoder = DECODER.clone(beam_width=1, maximum_iterations=1)
    state = jax.tree.map(lambda x: x[:1], STATE)
    output, final, lengths = decoder.apply(
        VARIABLES, EMBEDDING, **arguments(start_tokens=TOKENS[:1], initial_state=state)
    )
    assert output.predicted_ids.shape == (1, 1, 1)
    assert lengths.tolist() == [[1]]
    best = max(range(VOCAB), key=lambda token: log_probability(0, (token,)))
    assert output.predicted_ids.item() == best
    assert final.finished.item() == (best == END)


def test_all_beams_at_once_finished_stop_the_search() -> None:
    bias = VARIABLES["params"]["output_layer"]["bias"].at[END].set(50.0)
    params = VARIABLES["params"] | {"output_layer": VARIABLES["params"]["output_layer"] | {"bias": bias}}
    decoder = DECODER.clone(beam_width=1, output_time="steps_run")
    output, state, lengths = decoder.apply({"params": params}, EMBEDDING, **arguments(1))
    assert output.predicted_ids.tolist() == [[[END]], [[END]]]
    assert lengths.tolist() == [[1], [1]]
    assert state.finished.all()


def test_the_length_of_a_candidate_that_ends_does_not_count_the_end_token() -> None:
    decoder = DECODER.clone(length_penalty_weight=1.0, output_all_scores=True, maximum_iterations=1)
    scores = search(decoder)[0].beam_search_decoder_output.scores
    for token in range(VOCAB):
        length = 0 if token == END else 1
        expected = log_probability(0, (token,)) / ((5 + length) / 6)
        assert scores[0, 0, 0, token] == pytest.approx(expected, rel=1e-5)


def test_what_got_no_attention_counts_as_covered_and_the_gradient_at_one_is_one() -> None:
    attention = jnp.array([[[0.0, 1.0, 0.5, 2.0]]])
    assert coverage_penalty(attention).item() == pytest.approx(np.log(0.5))
    gradient = jax.grad(lambda x: coverage_penalty(x).sum())(attention)
    assert gradient[0, 0].tolist() == [0, 1, 2, 0]


class Attending(nn.Module):
    decoder: BeamSearchDecoder

    def __call__(self, memory: jax.Array) -> Any:
        wrapper: Any = self.decoder.cell
        beam = self.decoder.beam_width
        memories = wrapper.setup_memory(tile_batch(memory, beam))
        state = wrapper.initial_state(tile_batch(STATE, beam), memories, maximum_steps=STEPS + 2)
        return self.decoder(EMBEDDING, **arguments(beam, initial_state=state))


def test_the_history_follows_the_beams_and_the_memory_stays() -> None:
    wrapper = AttentionWrapper(CELL, LuongAttention(UNITS), alignment_history=True)
    decoder = DECODER.clone(cell=wrapper, coverage_penalty_weight=0.5)
    memory = jax.random.normal(jax.random.key(2), (BATCH, 5, DEPTH))
    model = Attending(decoder)
    variables = model.init(jax.random.key(3), memory)
    output, state, _ = jax.jit(model.apply)(variables, memory)
    _, unsorted, _ = Attending(decoder.clone(reorder_tensor_arrays=False)).apply(variables, memory)
    parents = output.beam_search_decoder_output.parent_ids.swapaxes(0, 1)
    parents = jnp.pad(parents, ((0, 2), (0, 0), (0, 0)))
    expected = gather_tree_from_array(unsorted.cell_state.alignment_history, parents, state.lengths)
    np.testing.assert_allclose(state.cell_state.alignment_history, expected, rtol=1e-6)
    values = state.cell_state.memories.values
    np.testing.assert_array_equal(values, tile_batch(memory, BEAM))
    sums = average_alignments(state.cell_state)
    assert sums.shape == (BATCH, BEAM, 5)


def test_it_works_under_jit_vmap_and_checkpoint() -> None:
    def loss(variables: Any, embedding: jax.Array) -> jax.Array:
        output, state, _ = DECODER.apply(variables, embedding, **arguments())
        return jnp.sum(output.beam_search_decoder_output.scores) + jnp.sum(state.cell_state.c)

    gradient = jax.jit(jax.grad(loss))(VARIABLES, EMBEDDING)
    again = jax.jit(jax.grad(jax.checkpoint(loss)))(VARIABLES, EMBEDDING)
    many = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(VARIABLES, jnp.stack([EMBEDDING] * 2))
    for other in (again, jax.tree.map(lambda x: x[0], many)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), other, gradient)


def test_a_while_loop_gives_what_the_scan_gives() -> None:
    by_scan = jax.jit(search)()
    by_while = jax.jit(lambda: search(DECODER.clone(loop="while")))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), by_while, by_scan)


def test_gather_tree_reads_back_and_fills_with_the_end_token() -> None:
    ids = jnp.array([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]])
    parents = jnp.array([[[0, 0, 0]], [[0, 1, 1]], [[2, 1, 2]]])
    tree = gather_tree(ids, parents, jnp.array([3]), 10)
    assert tree[:, 0].T.tolist() == [[2, 6, 7], [2, 5, 8], [2, 6, 9]]
    assert gather_tree(ids, parents, jnp.array([0]), 10).tolist() == [[[10] * 3]] * 3
    assert gather_tree(ids, parents, jnp.array([3]), 6)[:, 0, 0].tolist() == [2, 6, 6]
    assert gather_tree(ids[:0], parents[:0], jnp.array([0]), 10).shape == (0, 1, 3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: search(initial_state=STATE), r"shape \(2, 2\), expected \[6, ...\].*tile_batch"),
        (lambda: search(start_tokens=TOKENS[:, None]), r"start_tokens has shape \[2, 1\]"),
        (lambda: search(end_token=jnp.array([0])), r"end_token has shape \[1\]"),
        (lambda: search(DECODER.clone(beam_width=0)), "beam_width is 0"),
        (lambda: search(DECODER.clone(impute_finished=True)), "impute_finished"),
        (lambda: search(DECODER.clone(maximum_iterations=None)), "maximum_iterations is missing"),
        (lambda: search(DECODER.clone(coverage_penalty_weight=0.1)), "needs a cell that attends"),
        (lambda: DECODER.apply(VARIABLES, None, **arguments()), "give an embedding"),
        (lambda: tile_batch(jnp.float32(1), 2), "rank 0"),
        (
            lambda: gather_tree(jnp.ones((1, 1, 2), int), jnp.full((1, 1, 2), 2), jnp.array([1]), 0),
            "parent_ids reach from 2 to 2",
        ),
        (
            lambda: gather_tree_from_array(
                jnp.ones((1, 5)), jnp.zeros((1, 2, 2), int), jnp.ones((2, 2), int)
            ),
            r"t has shape \(1, 5\)",
        ),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with refused(message):
        make()
