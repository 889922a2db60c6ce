"""Scheduled sampling: training samplers that now and then feed the decoder its own output.

Sources: `tfa.seq2seq.Scheduled*TrainingSampler` of TensorFlow Addons 0.23; Bengio et al. (2015),
"Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_models.checks import Kind, check_array, check_callable, check_choice, check_key, check_number
from jax_models.embedding_sampler import check_table, check_vocabulary, look_up
from jax_models.sampler import TrainingSampler
from jax_models.sampler_base import Constants, Feed, expand_like, swap_batch_time


class ScheduledEmbeddingTrainingSampler(TrainingSampler):
    """Teacher forcing that sometimes reads the embedding of a sampled id instead of the data.

    As `tfa.seq2seq.ScheduledEmbeddingTrainingSampler`: at each step each row draws, with
    `sampling_probability`, whether to sample an id from softmax(outputs); a row that does not has the
    sample id -1. Gradients reach the embedding rows that were read, and not the logits that chose them.

    Attributes:
        sampling_probability: a scalar, or a vector [batch] with `vector_probability="per_row"`.
        embedding_fn: maps ids [batch] to inputs [batch, ...]; without it `initialize` needs `embedding`.
        vector_probability: TensorFlow documents a vector of probabilities but draws [batch, batch] of
            them and fails at the first step: "tensorflow" refuses a vector, "per_row" gives each row
            its own probability.
    """

    sampling_probability: Any
    embedding_fn: Callable[..., Any] | None = None
    vector_probability: Literal["tensorflow", "per_row"] = "tensorflow"

    def __post_init__(self) -> None:
        _check_fields(self.sampling_probability, self.vector_probability)
        check_callable("sampler: embedding_fn", self.embedding_fn)
        super().__post_init__()

    def initialize(
        self,
        inputs: Any,
        *,
        sequence_length: Int[Array, " batch"] | None = None,
        mask: Bool[Array, "rows columns"] | None = None,
        embedding: Float[Array, "vocab depth"] | None = None,
        key: Any = None,
        choices: Bool[Array, "steps batch"] | None = None,
        sample_ids: Int[Array, "steps batch"] | None = None,
    ) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished`, the inputs of step 0 and the feed.

        Args:
            inputs: a pytree of arrays, as for `TrainingSampler.initialize`.
            sequence_length: as there.
            mask: as there.
            embedding: the matrix to read, unless there is an `embedding_fn`, which has precedence.
            key: the JAX key of all draws that are not given.
            choices: [steps, batch], True where the row samples: replays the schedule.
            sample_ids: [steps, batch]: replays the ids. Without `choices`, -1 says "not sampled", so
                that the ids that a TensorFlow run recorded replay it whole.
        """
        if self.embedding_fn is None and embedding is None:
            raise ValueError("sampler: give an embedding, or make the sampler with an embedding_fn")
        if key is None and sample_ids is None:
            raise ValueError("sampler: give a key, or the sample_ids [steps, batch] of a recorded run")
        check_key("sampler: key", key)
        if self.embedding_fn is None:
            embedding = check_table("sampler", embedding)
        finished, first, feed = super().initialize(inputs, sequence_length=sequence_length, mask=mask)
        _check_probability(self.sampling_probability, finished.shape[0], self.vector_probability)
        rows = feed.rows._replace(
            choices=_fit_rows("choices", choices, feed.rows.finished, "boolean"),
            sample_ids=_fit_rows("sample_ids", sample_ids, feed.rows.finished, "integer"),
        )
        return finished, first, Feed(rows, Constants(embedding=embedding, key=key))

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """Sampled ids as int32, -1 where the row did not sample."""
        rows, key = feed.rows, feed.constants.key
        outputs = check_array("sampler: outputs", outputs, ("batch", "vocab"), "float")
        check_vocabulary("sampler", outputs, None if self.embedding_fn else feed.constants.embedding)
        if rows.sample_ids is not None and rows.choices is None:
            return rows.sample_ids.astype(jnp.int32)
        choice_key, id_key = (None, None) if key is None else jax.random.split(jax.random.fold_in(key, time))
        choices = rows.choices
        if choices is None:
            choices = _draw_choices(choice_key, self.sampling_probability, outputs.shape[0])
        ids = rows.sample_ids
        if ids is None:
            ids = jax.random.categorical(id_key, jax.lax.stop_gradient(outputs), axis=-1)
        return jnp.where(choices, ids, -1).astype(jnp.int32)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """The embedding of the sampled ids where there are any, else the data."""
        finished, base, state = super().next_inputs(time, outputs, state, sample_ids, feed)
        sampled = sample_ids > -1
        looked_up = look_up(self.embedding_fn, feed.constants.embedding, jnp.where(sampled, sample_ids, 0))
        use = expand_like(sampled & ~jnp.all(finished), base)
        return finished, jnp.where(use, looked_up.astype(base.dtype), base), state


class ScheduledOutputTrainingSampler(TrainingSampler):
    """Teacher forcing that sometimes reads the decoder's own output instead of the data.

    As `tfa.seq2seq.ScheduledOutputTrainingSampler`. The sample ids are 1 where a row reads its output
    and 0 elsewhere. Gradients flow through the outputs that are fed back.

    Attributes:
        sampling_probability: a scalar, or a vector [batch] with `vector_probability="per_row"`.
        next_inputs_fn: maps outputs to inputs; the identity if None.
        vector_probability: "tensorflow" refuses a vector: TensorFlow draws [batch, batch] choices of
            it, which fails, or silently mixes single elements of the inputs when there is a
            `next_inputs_fn`. "per_row" gives each row its own probability.
    """

    sampling_probability: Any
    next_inputs_fn: Callable[..., Any] | None = None
    vector_probability: Literal["tensorflow", "per_row"] = "tensorflow"

    def __post_init__(self) -> None:
        _check_fields(self.sampling_probability, self.vector_probability)
        check_callable("sampler: next_inputs_fn", self.next_inputs_fn)
        super().__post_init__()

    def initialize(
        self,
        inputs: Any,
        *,
        sequence_length: Int[Array, " batch"] | None = None,
        mask: Bool[Array, "rows columns"] | None = None,
        auxiliary_inputs: Any = None,
        key: Any = None,
        choices: Bool[Array, "steps batch"] | None = None,
    ) -> tuple[Bool[Array, " batch"], Any, Feed]:
        """Return `finished`, the inputs of step 0 and the feed.

        Args:
            inputs: an array, as for `TrainingSampler.initialize`.
            sequence_length: as there.
            mask: as there.
            auxiliary_inputs: [batch, time, extra] (axes swapped with `time_major`), concatenated to
                the inputs and to the outputs that are fed back.
            key: the JAX key of the draws.
            choices: [steps, batch], True where the row reads its output: replays the schedule.
        """
        if key is None and choices is None:
            raise ValueError("sampler: give a key, or the choices [steps, batch] of a recorded run")
        check_key("sampler: key", key)
        auxiliary = auxiliary_inputs
        if auxiliary is not None:
            axes = jnp.shape(jax.tree.leaves(inputs)[0])[:-1]
            hint = "The leading axes of the inputs"
            auxiliary = jax.tree.map(
                lambda x: check_array("sampler: auxiliary_inputs", x, (*axes, "extra"), "float", hint=hint),
                auxiliary,
            )
            inputs = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), inputs, auxiliary)
            auxiliary = auxiliary if self.time_major else jax.tree.map(swap_batch_time, auxiliary)
            auxiliary = jax.tree.map(lambda x: jnp.concatenate([x[1:], x[-1:]]), auxiliary)
        finished, first, feed = super().initialize(inputs, sequence_length=sequence_length, mask=mask)
        _check_probability(self.sampling_probability, finished.shape[0], self.vector_probability)
        rows = feed.rows._replace(
            choices=_fit_rows("choices", choices, feed.rows.finished, "boolean"),
            auxiliary_inputs=auxiliary,
        )
        return finished, first, Feed(rows, Constants(key=key))

    def sample(self, time: Any, outputs: Any, state: Any, feed: Feed) -> Int[Array, " batch"]:
        """1 where the row reads its output at the next step, else 0, as int32."""
        choices = feed.rows.choices
        if choices is None:
            key = jax.random.fold_in(feed.constants.key, time)
            choices = _draw_choices(key, self.sampling_probability, outputs.shape[0])
        return choices.astype(jnp.int32)

    def next_inputs(
        self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Feed
    ) -> tuple[Bool[Array, " batch"], Any, Any]:
        """The outputs (and auxiliary inputs) where the row samples, else the data."""
        finished, base, state = super().next_inputs(time, outputs, state, sample_ids, feed)
        fed_back = outputs if self.next_inputs_fn is None else self.next_inputs_fn(outputs)
        if feed.rows.auxiliary_inputs is not None:
            fed_back = jnp.concatenate([fed_back, feed.rows.auxiliary_inputs], axis=-1)
        if fed_back.shape != base.shape:
            raise ValueError(
                f"sampler: the outputs fed back have shape {fed_back.shape}, the inputs {base.shape}. "
                "Maybe next_inputs_fn must project them?"
            )
        use = expand_like((sample_ids != 0) & ~jnp.all(finished), base)
        return finished, jnp.where(use, fed_back, base), state


def _draw_choices(key: Any, probability: Any, batch: int) -> Bool[Array, " batch"]:
    """One Bernoulli draw a row."""
    return jax.random.bernoulli(key, jnp.asarray(probability), (batch,))


def _check_fields(probability: Any, vector_probability: Any) -> None:
    check_choice("sampler: vector_probability", vector_probability, ("tensorflow", "per_row"))
    name, expected = "sampler: sampling_probability", "a probability in [0, 1]"
    check_number(name, probability, expected, holds=lambda p: (p >= 0) & (p <= 1), scalar=False)


def _check_probability(probability: Any, batch: int, vector_probability: str) -> None:
    """Raise ValueError unless the probability is a scalar, or one a row where that is asked for."""
    shape = jnp.shape(probability)
    if shape == () or (shape == (batch,) and vector_probability == "per_row"):
        return
    raise ValueError(
        f"sampler: sampling_probability has shape {shape}, expected a scalar"
        + (f" or ({batch},)" if vector_probability == "per_row" else "")
        + ". TensorFlow draws [batch, batch] choices of a vector and fails or mixes elements; "
        'vector_probability="per_row" draws one choice a row.'
    )


def _fit_rows(name: str, rows: Any, like: Bool[Array, "steps batch"], kind: Kind) -> Any:
    """Pad or cut recorded rows [steps, batch] to the steps of the data, which may be more or fewer."""
    if rows is None:
        return None
    steps, batch = like.shape
    rows = check_array(f"sampler: {name}", rows, ("steps", batch), kind)
    return jnp.pad(rows, ((0, max(0, steps - rows.shape[0])), (0, 0)))[:steps]
