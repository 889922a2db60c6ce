"""Samplers: what a decoder emits at a step, and what it reads at the next.

TensorFlow's samplers keep the inputs, the embedding and the random generator inside the object. Here
`initialize` returns them as a `Feed`, and every later call takes the feed back, so that a sampler is
configuration only. Randomness is a key, or the choices and ids of a recorded run.

Sources: `tfa.seq2seq.*Sampler` of TensorFlow Addons 0.23, whose names and defaults these are; Bengio et
al. (2015), "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int

from jax_models.checks import (
    check_array,
    check_callable,
    check_lengths,
    check_size,
    read_if_known,
)
from jax_models.embedding_sampler import GreedyEmbeddingSampler, SampleEmbeddingSampler
from jax_models.sampler_base import Constants, Feed, Sampler, TrainingRows, expand_like, swap_batch_time

__all__ = [
    "Constants",
    "CustomSampler",
    "Feed",
    "GreedyEmbeddingSampler",
    "InferenceSampler",
    "SampleEmbeddingSampler",
    "Sampler",
    "TrainingRows",
    "TrainingSampler",
]


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

    def __post_init__(self) -> None:
        for name in ("initialize_fn", "sample_fn", "next_inputs_fn"):
            check_callable(f"CustomSampler: {name}", getattr(self, name), optional=False)
        super().__post_init__()

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
            TypeError: on lengths that are no integers, or a mask that is not boolean.
            ValueError: on lengths and a mask together, a mask that is not padded on the right, lengths
                below 0 or past the inputs' time axis, shapes that do not fit.
        """
        inputs = jax.tree.map(_check_inputs, inputs)
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
        hint = (
            f"The inputs have {time} steps of {batch} rows. Maybe time_major should be {not self.time_major}?"
        )
        if sequence_length is not None:
            name = "sampler: sequence_length"
            return check_lengths(name, sequence_length, (batch,), at_most=time, hint=hint)
        if mask is not None:
            expected = (time, batch) if self.time_major else (batch, time)
            known = read_if_known(mask)
            mask = check_array("sampler: mask", mask, expected, "boolean", hint=hint)
            if known is not None:
                known = known.T if self.time_major else known
                if np.any(known[:, 1:] & ~known[:, :-1]):
                    raise ValueError("sampler: mask is not padded on the right: True follows False in a row")
            return jnp.sum(mask, axis=0 if self.time_major else 1).astype(jnp.int32)
        return jnp.full((batch,), time, jnp.int32)


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

    def __post_init__(self) -> None:
        for name in ("sample_fn", "end_fn"):
            check_callable(f"InferenceSampler: {name}", getattr(self, name), optional=False)
        check_callable("InferenceSampler: next_inputs_fn", self.next_inputs_fn)
        for size in self.sample_shape:
            check_size("InferenceSampler: sample_shape", size)
        super().__post_init__()

    def initialize(self, inputs: Any) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished` (all False), the start inputs [batch, ...] and an empty feed."""
        inputs = check_array("InferenceSampler: inputs", inputs, ("batch", ...))
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


def _check_inputs(x: Any) -> Array:
    x = check_array("sampler: inputs", x, ("batch", "time", ...), hint="With time_major, time first")
    if jnp.issubdtype(x.dtype, jnp.floating):
        hint = "Maybe the features axis is missing"
        check_array("sampler: inputs", x, ("batch", "time", "features", ...), hint=hint)
    return x


def _leading_axes(rows: Any) -> tuple[int, int]:
    shapes = {x.shape[:2] for x in jax.tree.leaves(rows)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"sampler: the inputs' leading axes are {sorted(shapes)}, expected one pair")
    time, batch = shapes.pop()
    if time == 0:
        raise ValueError("sampler: the inputs have no time step")
    return time, batch
