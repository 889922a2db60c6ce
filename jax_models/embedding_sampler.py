"""Samplers that read the embedding of what was emitted: greedily, or drawn at random.

Sources: `tfa.seq2seq.GreedyEmbeddingSampler` and `SampleEmbeddingSampler` of TensorFlow Addons 0.23.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jax_models.checks import check_array, check_callable, check_key, check_number, read_if_known
from jax_models.sampler_base import Constants, Feed, Sampler


class GreedyEmbeddingSampler(Sampler):
    """Feeds back the embedding of the most probable id, as `tfa.seq2seq.GreedyEmbeddingSampler`.

    TensorFlow's object keeps the embedding of its first `initialize` and silently uses it ever after;
    this one has no memory: to replay that, pass the first embedding again.
    """

    embedding_fn: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        check_callable(f"{type(self).__name__}: embedding_fn", self.embedding_fn)
        super().__post_init__()

    def initialize(
        self,
        inputs: Float[Array, "vocab depth"] | None,
        *,
        start_tokens: Int[Array, " batch"],
        end_token: Any,
    ) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished` (all False), the embedded start tokens and the feed.

        Args:
            inputs: the embedding matrix; ignored, as in TensorFlow, if there is an `embedding_fn`.
            start_tokens: [batch].
            end_token: the id, a scalar, that ends a row.
        """
        table = inputs if self.embedding_fn is None else None
        start_tokens = check_tokens("sampler", start_tokens, table)
        constants = start_with_tokens(self.embedding_fn, inputs, start_tokens, end_token)
        finished = jnp.zeros(start_tokens.shape, bool)
        return finished, constants.start_inputs, Feed((), constants)

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """The argmax of the outputs [batch, vocab], as int32."""
        self._check_outputs(outputs, feed)
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """The embedding of the ids; a row is finished whose id is the end token."""
        constants = feed.constants
        finished = sample_ids == constants.end_token
        looked_up = look_up(self.embedding_fn, constants.embedding, sample_ids)
        return finished, jnp.where(jnp.all(finished), constants.start_inputs, looked_up), state

    def _check_outputs(self, outputs: Any, feed: Feed) -> None:
        check_array("sampler: outputs", outputs, ("batch", "vocab"), "float")
        check_vocabulary("sampler", outputs, feed.constants.embedding if self.embedding_fn is None else None)


class SampleEmbeddingSampler(GreedyEmbeddingSampler):
    """Feeds back the embedding of an id drawn from softmax(outputs / temperature).

    As `tfa.seq2seq.SampleEmbeddingSampler`. No gradient reaches the outputs through the draw.
    """

    softmax_temperature: Any = None

    def __post_init__(self) -> None:
        if self.softmax_temperature is not None:
            name, expected = "sampler: softmax_temperature", "a number above 0, or None"
            check_number(name, self.softmax_temperature, expected, holds=lambda t: t > 0)
        super().__post_init__()

    def initialize(
        self,
        inputs: Float[Array, "vocab depth"] | None,
        *,
        start_tokens: Int[Array, " batch"],
        end_token: Any,
        key: Any = None,
        sample_ids: Int[Array, "steps batch"] | None = None,
    ) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """As `GreedyEmbeddingSampler.initialize`, and where the ids come from.

        Args:
            inputs: the embedding matrix, or None with an `embedding_fn`.
            start_tokens: [batch].
            end_token: the id, a scalar, that ends a row.
            key: the JAX key of the draws.
            sample_ids: [steps, batch], the ids of a recorded run, which are replayed.
        """
        if (key is None) == (sample_ids is None):
            raise ValueError("sampler: give either a key or the sample_ids [steps, batch] of a run")
        check_key("sampler: key", key)
        if sample_ids is not None:
            shape = ("steps", *np.shape(start_tokens))
            sample_ids = check_array("sampler: sample_ids", sample_ids, shape, "integer")
        finished, first, feed = super().initialize(inputs, start_tokens=start_tokens, end_token=end_token)
        rows = () if sample_ids is None else sample_ids.astype(jnp.int32)
        return finished, first, Feed(rows, feed.constants._replace(key=key))

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """The recorded ids of this step, or ids drawn from the outputs [batch, vocab], as int32."""
        self._check_outputs(outputs, feed)
        if feed.constants.key is None:
            return feed.rows
        logits = jax.lax.stop_gradient(outputs)
        if self.softmax_temperature is not None:
            logits = logits / self.softmax_temperature
        key = jax.random.fold_in(feed.constants.key, time)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def start_with_tokens(
    embedding_fn: Callable[..., Any] | None, embedding: Any, start_tokens: Any, end_token: Any
) -> Constants:
    """What an embedding sampler reads at each step. `start_tokens` may have any shape.

    Raises:
        TypeError: if `end_token` is no integer.
        ValueError: without an embedding, or if `end_token` is not a scalar.
    """
    if embedding_fn is None and embedding is None:
        raise ValueError("sampler: give an embedding matrix, or make the sampler with an embedding_fn")
    hint = "One id, for all rows"
    end_token = check_array("sampler: end_token", end_token, (), "integer", hint=hint)
    start_inputs = look_up(embedding_fn, embedding, start_tokens)
    return Constants(embedding, jnp.asarray(end_token, jnp.int32), start_inputs)


def look_up(embedding_fn: Callable[..., Any] | None, embedding: Any, ids: Array) -> Array:
    """The inputs that the ids stand for."""
    return jnp.asarray(embedding)[ids] if embedding_fn is None else embedding_fn(ids)


def check_tokens(owner: str, start_tokens: Any, embedding: Any, *, hint: str = "") -> Array:
    """The start tokens [batch], which lie in the embedding's table, if there is one and they are known.

    Raises:
        TypeError: on another dtype.
        ValueError: on another shape of either, or an id outside the table.
    """
    known = read_if_known(start_tokens)
    start_tokens = check_array(f"{owner}: start_tokens", start_tokens, ("batch",), "integer", hint=hint)
    if embedding is not None:
        table = check_table(owner, embedding)
        if known is not None and known.size and not (known.min() >= 0 and known.max() < len(table)):
            raise ValueError(
                f"{owner}: start_tokens reach from {known.min()} to {known.max()}, expected ids of the "
                f"embedding of shape {list(table.shape)}"
            )
    return start_tokens


def check_table(owner: str, embedding: Any) -> Array:
    """The embedding matrix [vocab, depth].

    Raises:
        TypeError: if it has no floats.
        ValueError: on another shape.
    """
    hint = "Maybe you passed ids or a layer: its matrix is meant"
    return check_array(f"{owner}: embedding", embedding, ("vocab", "depth"), "float", hint=hint)


def check_vocabulary(owner: str, logits: Array, embedding: Any) -> None:
    """Raise ValueError unless there is a row of the embedding (if that is known) for each of the logits."""
    if embedding is not None and logits.shape[-1] != len(embedding):
        raise ValueError(
            f"{owner}: the logits have shape {list(logits.shape)} and the embedding {list(embedding.shape)}, "
            f"expected as many logits as rows. Maybe the decoder's output_layer is missing, or should have "
            f"{len(embedding)} units"
        )
