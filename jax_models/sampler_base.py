"""What all samplers share: the form of a sampler, and the feed that its steps read.

Source: `tfa.seq2seq.Sampler` of TensorFlow Addons 0.23.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int


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


def expand_like(rows: Array, x: Array) -> Array:
    """Append axes of size 1 until `rows` has the rank of `x`."""
    return rows.reshape(rows.shape + (1,) * (x.ndim - rows.ndim))


def swap_batch_time(x: Array) -> Array:
    """Time-major from batch-major, or the reverse."""
    return jnp.swapaxes(x, 0, 1)
