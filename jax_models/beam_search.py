"""Beam search: the most probable sequences, several kept for every row of the batch.

Source: `tfa.seq2seq.BeamSearchDecoder` of TensorFlow Addons 0.23; the length and the coverage penalty are
those of Wu et al. (2016), "Google's Neural Machine Translation System", section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jax_models.beam_search_ops import gather_tree, gather_tree_from_array
from jax_models.checks import check_array, check_callable, check_choice, check_number, check_size
from jax_models.decode_loop import map_rows
from jax_models.decoder import BaseDecoder, check_batch
from jax_models.embedding_sampler import check_tokens, check_vocabulary, look_up, start_with_tokens
from jax_models.sampler_base import Constants, Feed


class BeamSearchDecoderState(NamedTuple):
    """What a beam search carries: `tfa.seq2seq.BeamSearchDecoderState`.

    Attributes:
        cell_state: the cell's, its arrays [batch, beam, ...].
        log_probs: the log-probability of each beam.
        finished: which beams have emitted the end token. Of the first step all beams but one, which are
            copies, are finished with log-probability -inf.
        lengths: steps of each beam, that of the end token included. (TensorFlow's are int64.)
        accumulated_attention_probs: the sum of the alignments so far, [batch, beam, memory]; () without
            a coverage penalty.
    """

    cell_state: Any
    log_probs: Float[Array, "batch beam"]
    finished: Bool[Array, "batch beam"]
    lengths: Int[Array, "batch beam"]
    accumulated_attention_probs: Any


class BeamSearchDecoderOutput(NamedTuple):
    """One step, or with a time axis all: `scores` and `predicted_ids` of the beams, and their `parent_ids`.

    Each is [batch, beam]; with `output_all_scores` the scores are those of all tokens before the beams are
    chosen, [batch, beam, vocab].
    """

    scores: Any
    predicted_ids: Any
    parent_ids: Any


class FinalBeamSearchDecoderOutput(NamedTuple):
    """`predicted_ids` [batch, time, beam], each beam read back through its parents, the best first."""

    predicted_ids: Any
    beam_search_decoder_output: BeamSearchDecoderOutput


class BeamSearchDecoder(BaseDecoder):
    """Keeps the `beam_width` best sequences at every step, as `tfa.seq2seq.BeamSearchDecoder`.

    The initial state has batch * beam_width rows: tile what depends on the batch with `tile_batch`. A
    sequence's score is log p / length_penalty + coverage_penalty.

    TensorFlow's habits, which are kept:

    * a candidate that ends the sequence is scored with a length that does not count the end token, which
      the stored length then does;
    * the coverage penalty is that of beams that were finished before the step;
    * a position that got exactly no attention counts as covered;
    * `impute_finished` fails.

    Attributes:
        cell: called as `state, output = cell(state, inputs)`.
        beam_width: may be greater than the vocabulary; beams without a sequence have score -inf.
        embedding_fn: maps ids [batch, beam] to inputs [batch, beam, ...].
        output_layer: a module or function that turns the cell's outputs [batch, beam, units] to logits.
        length_penalty_weight: the exponent of ((5 + length) / 6); 0 for no penalty.
        coverage_penalty_weight: 0 for no penalty. The cell's state must have `alignments`, or be a tuple
            of states some of which do.
        reorder_tensor_arrays: whether the final state's `alignment_history` follows the final beams.
        output_all_scores: see `BeamSearchDecoderOutput`.
        length_penalty_precision: "tensorflow" computes the length penalty in float32 whatever the logits
            are; "logits" in their dtype.
    """

    cell: nn.Module
    beam_width: int
    embedding_fn: Callable[..., Any] | None = None
    output_layer: Callable[..., Any] | None = None
    length_penalty_weight: float = 0.0
    coverage_penalty_weight: float = 0.0
    reorder_tensor_arrays: bool = True
    output_all_scores: bool = False
    length_penalty_precision: Literal["tensorflow", "logits"] = "tensorflow"

    def __post_init__(self) -> None:
        check_callable("BeamSearchDecoder: cell", self.cell, optional=False)
        check_size("BeamSearchDecoder: beam_width", self.beam_width)
        for name in ("embedding_fn", "output_layer"):
            check_callable(f"BeamSearchDecoder: {name}", getattr(self, name))
        for name in ("length_penalty_weight", "coverage_penalty_weight"):
            check_number(f"BeamSearchDecoder: {name}", getattr(self, name))
        precisions = ("tensorflow", "logits")
        check_choice("length_penalty_precision", self.length_penalty_precision, precisions)
        super().__post_init__()

    @property
    def tracks_own_finished(self) -> bool:
        """True: beams change places, and so do their flags."""
        return True

    def initialize(
        self,
        embedding: Float[Array, "vocab depth"] | None,
        *,
        start_tokens: Int[Array, " batch"],
        end_token: Any,
        initial_state: Any,
    ) -> tuple[Bool[Array, "batch beam"], Any, BeamSearchDecoderState, Feed]:
        """Begin with one live beam a row.

        Args:
            embedding: the matrix to read; it overrides an `embedding_fn`.
            start_tokens: [batch].
            end_token: the id, a scalar, that ends a sequence.
            initial_state: the cell's, a pytree of arrays [batch * beam_width, ...].
        """
        start_tokens = check_tokens(
            "BeamSearchDecoder", start_tokens, embedding, hint="They are not tiled: the decoder does that"
        )
        if not start_tokens.size:
            raise ValueError(
                "BeamSearchDecoder: start_tokens is empty, expected one for each row, at least one"
            )
        if initial_state is None:
            raise ValueError(
                "BeamSearchDecoder: initial_state is missing, expected the cell's state. Maybe "
                "cell.zero_state(batch * beam_width, dtype)?"
            )
        batch, beam = start_tokens.shape[0], self.beam_width
        check_batch(initial_state, batch * beam, hint=" Maybe it was not tiled with tile_batch?")
        tokens = jnp.broadcast_to(start_tokens[:, None], (batch, beam))
        embedding_fn = self.embedding_fn if embedding is None else None
        constants = start_with_tokens(embedding_fn, embedding, tokens, end_token)

        cell_state = map_rows(self._split, initial_state)
        copies = jnp.broadcast_to(jnp.arange(beam) > 0, (batch, beam))
        dtype = _first_float(initial_state)
        attention: Any = ()
        if self.coverage_penalty_weight:
            attention = average_alignments(cell_state)
        state = BeamSearchDecoderState(
            cell_state=cell_state,
            log_probs=jnp.where(copies, -jnp.inf, 0.0).astype(dtype),
            finished=copies,
            lengths=jnp.zeros((batch, beam), jnp.int32),
            accumulated_attention_probs=attention,
        )
        return copies, constants.start_inputs, state, Feed((), constants)

    def step(
        self, time: Any, inputs: Any, state: BeamSearchDecoderState, feed: Feed
    ) -> tuple[BeamSearchDecoderOutput, BeamSearchDecoderState, Any, Bool[Array, "batch beam"]]:
        """Step the cell with all beams as one batch, and keep the best continuations."""
        constants = feed.constants
        merged = map_rows(_merge, state.cell_state)
        cell_state, outputs = self.cell(merged, jax.tree.map(_merge, inputs))
        logits = self._split(outputs)
        if self.output_layer is not None:
            logits = self.output_layer(logits)
        logits = check_array("BeamSearchDecoder: logits", logits, (*state.log_probs.shape, "vocab"), "float")
        check_vocabulary("BeamSearchDecoder", logits, constants.embedding)
        output, next_state = self._choose(logits, map_rows(self._split, cell_state), state, constants)

        embedding_fn = self.embedding_fn if constants.embedding is None else None
        following = look_up(embedding_fn, constants.embedding, output.predicted_ids)
        next_inputs = jnp.where(jnp.all(next_state.finished), constants.start_inputs, following)
        return output, next_state, next_inputs, next_state.finished

    def finalize(
        self,
        outputs: BeamSearchDecoderOutput,
        final_state: BeamSearchDecoderState,
        sequence_lengths: Any,
        feed: Feed,
    ) -> tuple[FinalBeamSearchDecoderOutput, BeamSearchDecoderState]:
        """Read the final beams back through their parents; `outputs` themselves stay as they are."""
        lengths, parents = final_state.lengths, outputs.parent_ids
        longest = jnp.max(lengths, axis=1)
        ids = gather_tree(outputs.predicted_ids, parents, longest, feed.constants.end_token)
        if self.reorder_tensor_arrays:
            cell_state = _reorder_histories(final_state.cell_state, parents, lengths)
            final_state = final_state._replace(cell_state=cell_state)
        return FinalBeamSearchDecoderOutput(ids, outputs), final_state

    def _choose(
        self,
        logits: Float[Array, "batch beam vocab"],
        cell_state: Any,
        state: BeamSearchDecoderState,
        constants: Constants,
    ) -> tuple[BeamSearchDecoderOutput, BeamSearchDecoderState]:
        """Score every continuation of every beam, and keep the best `beam_width`."""
        finished, vocab = state.finished, logits.shape[-1]
        is_end = jnp.arange(vocab) == constants.end_token

        ended = jnp.where(is_end, 0.0, jnp.finfo(logits.dtype).min).astype(logits.dtype)
        step_log_probs = jnp.where(finished[..., None], ended, jax.nn.log_softmax(logits))
        log_probs = state.log_probs[..., None] + step_log_probs
        grown = (~finished[..., None] & ~is_end).astype(jnp.int32)
        scores = log_probs
        if self.length_penalty_weight:
            scores = log_probs / self._length_penalty(state.lengths[..., None] + grown, logits.dtype)
        attention: Any = ()
        if self.coverage_penalty_weight:
            news = average_alignments(cell_state)
            attention = state.accumulated_attention_probs + news * (~finished[..., None]).astype(news.dtype)
            coverage = coverage_penalty(attention) * finished.astype(news.dtype)
            scores = scores + (self.coverage_penalty_weight * coverage)[..., None]

        best, places = jax.lax.top_k(scores.reshape(scores.shape[0], -1), self.beam_width)
        parents, ids = (places // vocab).astype(jnp.int32), (places % vocab).astype(jnp.int32)

        def inherit(x: Array) -> Array:
            if x.ndim < 2:
                return x
            index = parents.reshape(parents.shape + (1,) * (x.ndim - 2))
            return jnp.take_along_axis(x, index, axis=1)

        was_finished = inherit(finished)
        next_state = BeamSearchDecoderState(
            cell_state=map_rows(inherit, cell_state),
            log_probs=jnp.take_along_axis(log_probs.reshape(places.shape[0], -1), places, axis=1),
            finished=was_finished | (ids == constants.end_token),
            lengths=inherit(state.lengths) + (~was_finished).astype(jnp.int32),
            accumulated_attention_probs=jax.tree.map(inherit, attention),
        )
        shown = scores if self.output_all_scores else best
        return BeamSearchDecoderOutput(shown, ids, parents), next_state

    def _length_penalty(self, lengths: Int[Array, "*candidates"], dtype: DTypeLike) -> Array:
        precision = jnp.float32 if self.length_penalty_precision == "tensorflow" else dtype
        weight = jnp.asarray(self.length_penalty_weight, precision)
        penalty = (5 + lengths.astype(precision)) ** weight / jnp.asarray(6, precision) ** weight
        return penalty.astype(dtype)

    def _split(self, x: Any) -> Any:
        if jnp.ndim(x) == 0:
            return x
        return x.reshape(-1, self.beam_width, *x.shape[1:])


def average_alignments(state: Any) -> Float[Array, "batch beam memory"]:
    """The mean of the alignments in a cell's state, [batch, beam, memory].

    Raises:
        ValueError: if neither the state nor, if it is a tuple, an entry of it has `alignments`.
    """
    parts = state if isinstance(state, tuple) and not hasattr(state, "alignments") else (state,)
    attending = [part for part in parts if hasattr(part, "alignments")]
    if not attending:
        raise ValueError(
            "BeamSearchDecoder: coverage_penalty_weight needs a cell that attends, but no part of the "
            "state has alignments; expected an AttentionWrapper, or coverage_penalty_weight=0.0"
        )
    averages = [jnp.mean(jnp.stack(jax.tree.leaves(part.alignments)), axis=0) for part in attending]
    return jnp.mean(jnp.stack(averages), axis=0)


def coverage_penalty(attention: Float[Array, "batch beam memory"]) -> Float[Array, "batch beam"]:
    """sum over the memory of log(min(attention, 1)), a position without attention counted as covered.

    The gradient at 1 is that of `tf.minimum`, 1, where `jnp.minimum` gives 0.5.
    """
    uncovered = (attention != 0) & (attention <= 1)
    return jnp.sum(jnp.log(jnp.where(uncovered, attention, 1.0)), axis=-1)


def _merge(x: Array) -> Array:
    return x if x.ndim < 2 else x.reshape(-1, *x.shape[2:])


def _first_float(state: Any) -> DTypeLike:
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return jnp.result_type(leaf)
    raise ValueError("BeamSearchDecoder: initial_state has no floating-point array")


def _reorder_histories(
    cell_state: Any, parents: Int[Array, "steps batch beam"], lengths: Int[Array, "batch beam"]
) -> Any:
    """The state with every `alignment_history` [steps, batch * beam, ...] in the order of the beams."""

    def reorder(history: Array) -> Array:
        missing = history.shape[0] - parents.shape[0]
        if missing < 0:
            raise ValueError(
                f"BeamSearchDecoder: alignment_history has {history.shape[0]} steps, expected at least "
                f"maximum_iterations = {parents.shape[0]}. Maybe maximum_steps of the state is too small, "
                "or reorder_tensor_arrays should be False"
            )
        return gather_tree_from_array(history, jnp.pad(parents, ((0, missing), (0, 0), (0, 0))), lengths)

    def visit(part: Any) -> Any:
        if not has_history(part):
            return part
        return part._replace(alignment_history=jax.tree.map(reorder, part.alignment_history))

    def has_history(part: Any) -> bool:
        return hasattr(part, "alignment_history")

    return jax.tree.map(visit, cell_state, is_leaf=has_history)
