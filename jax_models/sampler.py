"""Samplers: what a decoder emits at a step, and what it reads at the next.

TensorFlow's samplers keep the inputs, the embedding and the random generator inside the object. Here
`initialize` returns them as a `Feed`, and every later call takes the feed back, so that a sampler is
configuration only. Randomness is a key, or the choices and ids of a recorded run.

Sources: `tfa.seq2seq.*Sampler` of TensorFlow Addons 0.23, whose names and defaults these are; Bengio et
al. (2015), "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks".
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int


class Feed(NamedTuple):
    """What a step reads besides its inputs and state.

    `rows` is a pytree of arrays [steps, ...] of which step t reads row t, `constants` a pytree that
    all steps read whole. A step is handed the feed with its own row only.
    """

    rows: Any = ()
    constants: Any = ()

    def at(self, time: Any) -> Feed:
        """The feed of one step."""
        return self._replace(rows=jax.tree.map(lambda row: row[time], self.rows))


class TrainingRows(NamedTuple):
    """The rows of the training samplers: [steps, batch, ...] each, or None."""

    inputs: Any
    finished: Bool[Array, "*steps batch"]
    choices: Bool[Array, "*steps batch"] | None = None
    sample_ids: Int[Array, "*steps batch"] | None = None
    auxiliary_inputs: Any = None


class Constants(NamedTuple):
    """What a sampler was given once: an embedding matrix, the end token, the first inputs, a key."""

    embedding: Any = None
    end_token: Any = None
    start_inputs: Any = None
    key: Any = None


class Sampler(nn.Module, metaclass=abc.ABCMeta):
    """The interface of `tfa.seq2seq.Sampler`, with the state passed in and out.

    A subclass says how to begin (`initialize`), what a step emits (`sample`) and what the next step
    reads (`next_inputs`). The batch size is that of the `finished` which `initialize` returns.
    """

    @abc.abstractmethod
    def initialize(self, inputs: Any, **kwargs: Any) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished` [batch], the first inputs [batch, ...] and the feed of all steps."""

    @abc.abstractmethod
    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Any:
        """Return the `sample_ids` [batch, *sample_ids_shape] of step `time`."""

    @abc.abstractmethod
    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """Return `finished` [batch], the inputs of step `time + 1` and the state."""

    @property
    def sample_ids_shape(self) -> tuple[int, ...]:
        """The shape of one row's sample."""
        return ()

    @property
    def sample_ids_dtype(self) -> DTypeLike:
        """The dtype of the samples."""
        return jnp.int32


class CustomSampler(Sampler):
    """A sampler made of three functions, as `tfa.seq2seq.CustomSampler`.

    `initialize_fn(inputs, **kwargs)` returns `(finished, next_inputs)`; `sample_fn(time, outputs,
    state)` returns the sample ids; `next_inputs_fn(time, outputs, state, sample_ids)` returns
    `(finished, next_inputs, next_state)`. They are called by keyword, and must be JAX-traceable.

    TensorFlow's object keeps the batch size of its first `initialize`; this one keeps nothing.
    """

    initialize_fn: Callable[..., Any]
    sample_fn: Callable[..., Any]
    next_inputs_fn: Callable[..., Any]
    sample_ids_shape: tuple[int, ...] = ()
    sample_ids_dtype: DTypeLike = jnp.int32

    def initialize(self, inputs: Any, **kwargs: Any) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Call `initialize_fn`."""
        finished, next_inputs = self.initialize_fn(inputs, **kwargs)
        return finished, next_inputs, Feed()

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Any:
        """Call `sample_fn`."""
        return self.sample_fn(time=time, outputs=outputs, state=state)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """Call `next_inputs_fn`."""
        return self.next_inputs_fn(time=time, outputs=outputs, state=state, sample_ids=sample_ids)


class TrainingSampler(Sampler, kw_only=True):
    """Reads its inputs from the data (teacher forcing), as `tfa.seq2seq.TrainingSampler`.

    Inputs are [batch, time, ...], or [time, batch, ...] with `time_major`. The sample ids are the
    argmax of the outputs. A row that is finished goes on reading its padded inputs until all rows are
    finished, as in TensorFlow; only then are the inputs zero.
    """

    time_major: bool = False

    def initialize(
        self,
        inputs: Any,
        *,
        sequence_length: Int[Array, " batch"] | None = None,
        mask: Bool[Array, "rows columns"] | None = None,
    ) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished`, the inputs of step 0 and the feed.

        Args:
            inputs: a pytree of arrays [batch, time, ...].
            sequence_length: [batch]; without it, nor a mask, every row has full length.
            mask: [batch, time], True first and False after, as an alternative to the lengths; its
                axes are swapped with `time_major`.

        Raises:
            ValueError: on lengths and a mask together, a mask that is not padded on the right, lengths
                past the inputs' time axis, shapes that do not fit.
        """
        rows = inputs if self.time_major else jax.tree.map(swap_batch_time, inputs)
        time, batch = _leading_axes(rows)
        lengths = self._lengths(time, batch, sequence_length, mask)
        end = jnp.max(lengths)

        def shift(x: Array) -> Array:
            following = jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
            alive = jnp.arange(1, time + 1) < end
            return jnp.where(expand_like(alive, following), following, jnp.zeros_like(following))

        first = jax.tree.map(lambda x: jnp.where(end > 0, x[0], jnp.zeros_like(x[0])), rows)
        finished = jnp.arange(1, time + 1)[:, None] >= lengths
        return lengths == 0, first, Feed(TrainingRows(jax.tree.map(shift, rows), finished))

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, "batch ..."]:
        """The argmax of the outputs' last axis, as int32."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """The inputs of the next step, read from the data."""
        return feed.rows.finished, feed.rows.inputs, state

    def _lengths(
        self,
        time: int,
        batch: int,
        sequence_length: Int[Array, " batch"] | None,
        mask: Bool[Array, "rows columns"] | None,
    ) -> Int[Array, " batch"]:
        if sequence_length is not None and mask is not None:
            raise ValueError("sampler: sequence_length and mask were both given; give one")
        if sequence_length is not None:
            if sequence_length.shape != (batch,):
                raise ValueError(
                    f"sampler: sequence_length has shape {sequence_length.shape}, expected [batch] = "
                    f"({batch},). Maybe time_major should be {not self.time_major}?"
                )
            known = read_if_known(sequence_length)
            if known is not None and known.max(initial=0) > time:
                raise ValueError(f"sampler: a sequence_length of {known.max()} for {time} time steps")
            return sequence_length
        if mask is not None:
            expected = (time, batch) if self.time_major else (batch, time)
            if mask.shape != expected:
                raise ValueError(
                    f"sampler: mask has shape {mask.shape}, expected {expected}. "
                    f"Maybe time_major should be {not self.time_major}?"
                )
            by_row = mask.T if self.time_major else mask
            known = read_if_known(by_row)
            if known is not None and np.any(known[:, 1:] & ~known[:, :-1]):
                raise ValueError("sampler: mask is not padded on the right: True follows False in a row")
            return jnp.sum(by_row, axis=1).astype(jnp.int32)
        return jnp.full((batch,), time, jnp.int32)


class GreedyEmbeddingSampler(Sampler):
    """Feeds back the embedding of the most probable id, as `tfa.seq2seq.GreedyEmbeddingSampler`.

    TensorFlow's object keeps the embedding of its first `initialize` and silently uses it ever after;
    this one has no memory: to replay that, pass the first embedding again.
    """

    embedding_fn: Callable[..., Any] | None = None

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
        constants = start_with_tokens(self.embedding_fn, inputs, start_tokens, end_token)
        finished = jnp.zeros(start_tokens.shape, bool)
        return finished, constants.start_inputs, Feed((), constants)

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """The argmax of the outputs [batch, vocab], as int32."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """The embedding of the ids; a row is finished whose id is the end token."""
        constants = feed.constants
        finished = sample_ids == constants.end_token
        looked_up = look_up(self.embedding_fn, constants.embedding, sample_ids)
        return finished, jnp.where(jnp.all(finished), constants.start_inputs, looked_up), state


class SampleEmbeddingSampler(GreedyEmbeddingSampler):
    """Feeds back the embedding of an id drawn from softmax(outputs / temperature).

    As `tfa.seq2seq.SampleEmbeddingSampler`. No gradient reaches the outputs through the draw.
    """

    softmax_temperature: Any = None

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
        if sample_ids is not None and sample_ids.shape[1:] != start_tokens.shape:
            raise ValueError(
                f"sampler: sample_ids has shape {sample_ids.shape}, expected [steps, batch] with the "
                f"batch of start_tokens, {start_tokens.shape}"
            )
        finished, first, feed = super().initialize(inputs, start_tokens=start_tokens, end_token=end_token)
        rows = () if sample_ids is None else sample_ids.astype(jnp.int32)
        return finished, first, Feed(rows, feed.constants._replace(key=key))

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """The recorded ids of this step, or ids drawn from the outputs [batch, vocab], as int32."""
        if feed.constants.key is None:
            return feed.rows
        logits = jax.lax.stop_gradient(outputs)
        if self.softmax_temperature is not None:
            logits = logits / self.softmax_temperature
        key = jax.random.fold_in(feed.constants.key, time)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


class InferenceSampler(Sampler):
    """Feeds back what `sample_fn` makes of the outputs, as `tfa.seq2seq.InferenceSampler`.

    `sample_fn(outputs)` returns the samples [batch, *sample_shape], `end_fn(samples)` which rows end
    with them, `next_inputs_fn(samples)` the next inputs: the samples themselves without it. With a
    differentiable `sample_fn` (regression) gradients flow through the inputs that are fed back.
    """

    sample_fn: Callable[..., Any]
    sample_shape: tuple[int, ...]
    sample_dtype: DTypeLike
    end_fn: Callable[..., Any]
    next_inputs_fn: Callable[..., Any] | None = None

    def initialize(self, inputs: Any) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished` (all False), the start inputs [batch, ...] and an empty feed."""
        return jnp.zeros(inputs.shape[:1], bool), inputs, Feed()

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Any:
        """Call `sample_fn`."""
        return self.sample_fn(outputs)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """Call `next_inputs_fn` and `end_fn`."""
        following = sample_ids if self.next_inputs_fn is None else self.next_inputs_fn(sample_ids)
        return self.end_fn(sample_ids), following, state

    @property
    def sample_ids_shape(self) -> tuple[int, ...]:
        """The shape of one row's sample."""
        return self.sample_shape

    @property
    def sample_ids_dtype(self) -> DTypeLike:
        """The dtype of the samples."""
        return self.sample_dtype


def start_with_tokens(
    embedding_fn: Callable[..., Any] | None, embedding: Any, start_tokens: Any, end_token: Any
) -> Constants:
    """What an embedding sampler reads at each step. `start_tokens` may have any shape.

    Raises:
        ValueError: without an embedding, or if `end_token` is not a scalar.
    """
    if embedding_fn is None and embedding is None:
        raise ValueError("sampler: give an embedding matrix, or make the sampler with an embedding_fn")
    if jnp.shape(end_token) != ():
        raise ValueError(f"sampler: end_token has shape {jnp.shape(end_token)}, expected a scalar")
    start_inputs = look_up(embedding_fn, embedding, start_tokens)
    return Constants(embedding, jnp.asarray(end_token, jnp.int32), start_inputs)


def look_up(embedding_fn: Callable[..., Any] | None, embedding: Any, ids: Array) -> Array:
    """The inputs that the ids stand for."""
    return embedding[ids] if embedding_fn is None else embedding_fn(ids)


def expand_like(rows: Array, x: Array) -> Array:
    """Append axes of size 1 until `rows` has the rank of `x`."""
    return rows.reshape(rows.shape + (1,) * (x.ndim - rows.ndim))


def read_if_known(x: Any) -> np.ndarray | None:
    """The value of an array outside tracing, None of a tracer."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


def swap_batch_time(x: Array) -> Array:
    """Time-major from batch-major, or the reverse."""
    if x.ndim < 2:
        raise ValueError(f"sampler: inputs have shape {x.shape}, expected [batch, time, ...]")
    return jnp.swapaxes(x, 0, 1)


def _leading_axes(rows: Any) -> tuple[int, int]:
    shapes = {x.shape[:2] for x in jax.tree.leaves(rows)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"sampler: the inputs' leading axes are {sorted(shapes)}, expected one pair")
    time, batch = shapes.pop()
    if time == 0:
        raise ValueError("sampler: the inputs have no time step")
    return time, batch
