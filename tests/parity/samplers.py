"""Parity of `jax_models.sampler` and `jax_models.scheduled_sampler`, most of it through `BasicDecoder`.

What TensorFlow drew at random is read from the ids it returns, and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models import sampler as ours
from jax_models.decoder import BasicDecoder
from jax_models.scheduled_sampler import (
    ScheduledEmbeddingTrainingSampler,
    ScheduledOutputTrainingSampler,
)
from tests.parity.decoders import OPTIONS, SIZES, draw_lengths, keep_batch
from tests.parity.decoding import LSTMState, Model, hold_together, states
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

VOCAB, FEATURES = 4, 3

INFERENCE = {
    "batch": st.sampled_from([1, 3]),
    "units": st.sampled_from([2, 5]),
    "steps": st.sampled_from([1, 5]),
    "impute_finished": st.booleans(),
    "seed": st.integers(0, 2**16),
}


class Decoding:
    """A decoder run by both sides: what differs between the samplers is passed to `pair`."""

    def __init__(self, config: Config, *, vocab: int | None = VOCAB, features: int = FEATURES) -> None:
        self.config, self.batch = config, config["batch"]
        self.rng = np.random.default_rng(config["seed"])
        self.model = Model(self.rng, features, config["units"], vocab=vocab)
        self.time_major = config.get("output_time_major", False)
        steps = config.get("steps", config.get("maximum_iterations"))
        self.options = {"maximum_iterations": steps, "output_time_major": self.time_major}
        self.options["impute_finished"] = config["impute_finished"]
        self.given = {name: self.rng.normal(size=(self.batch, config["units"])) for name in "ch"}
        self.sample_ids: Any = None

    def pair(
        self,
        make_tf: Callable[[Any], tuple[Any, Any, dict[str, Any]]],
        make_jax: Callable[[Any], tuple[Any, Any, dict[str, Any]]],
    ) -> Pair:
        """`make_*` gets the arrays, and returns the sampler, the decoder's first argument and the others."""

        def run_tf(x: Any) -> dict[str, Any]:
            sampler, inputs, arguments = make_tf(x)
            decoder = tfa.seq2seq.BasicDecoder(
                self.model.tf_cell, sampler, self.model.tf_output_layer, dtype="float64", **self.options
            )
            output, (h, c), lengths = decoder(inputs, initial_state=[x["h"], x["c"]], **arguments)
            output = keep_batch(output, self.batch, self.time_major)
            ids = output.sample_id.numpy()
            # Steps, batch: what replays the run.
            self.sample_ids = jnp.asarray(ids if self.time_major else np.swapaxes(ids, 0, 1))
            return {**output._asdict(), **states("state", c, h), "lengths": lengths}

        def run_jax(leaves: Any, x: Any) -> dict[str, Any]:
            sampler, inputs, arguments = make_jax(x)
            decoder = BasicDecoder(
                self.model.cell,
                sampler,
                self.model.output_layer,
                output_time="steps_run",
                **self.options,
            )
            output, state, lengths = decoder.apply(
                {"params": leaves}, inputs, initial_state=LSTMState(x["c"], x["h"]), **arguments
            )
            return {**output._asdict(), **states("state", state.c, state.h), "lengths": lengths}

        return hold_together(
            self.config["seed"], given=self.given, model=self.model, run_tf=run_tf, run_jax=run_jax
        )


@parity(
    "tfa.seq2seq.TrainingSampler",
    configurations=st.fixed_dictionaries(
        SIZES | {"time_major": st.booleans(), "limit": st.sampled_from([None, "sequence_length", "mask"])}
    ),
)
def training_sampler(config: Config) -> Pair:
    """The sampler by itself, so that the inputs after the end are seen."""
    rng = np.random.default_rng(config["seed"])
    batch, time = config["batch"], config["time"]
    lengths = draw_lengths(rng, config)
    mask = np.arange(time) < lengths[:, None]
    limits = {
        None: {},
        "sequence_length": {"sequence_length": lengths},
        "mask": {"mask": mask.T if config["time_major"] else mask},
    }[config["limit"]]
    axes = (time, batch) if config["time_major"] else (batch, time)
    given = {
        "inputs": rng.normal(size=(*axes, config["units"])),
        "outputs": rng.normal(size=(time, batch, VOCAB)),
    }
    steps = time if config["limit"] is None else int(lengths.max())

    def run_tf(x: Any) -> dict[str, Any]:
        sampler = tfa.seq2seq.TrainingSampler(time_major=config["time_major"])
        finished, inputs = sampler.initialize(x["inputs"], **limits)
        results = {"finished": finished, "inputs": inputs}
        for t in range(steps):
            ids = sampler.sample(t, x["outputs"][t], ())
            finished, inputs, _ = sampler.next_inputs(tf.constant(t), x["outputs"][t], (), ids)
            results |= {f"{t}/finished": finished, f"{t}/inputs": inputs, f"{t}/ids": ids}
        return results

    def run_jax(_: Any, x: Any) -> dict[str, Any]:
        sampler = ours.TrainingSampler(time_major=config["time_major"])
        arguments = {name: jnp.asarray(limit) for name, limit in limits.items()}
        finished, inputs, feed = sampler.initialize(x["inputs"], **arguments)
        results = {"finished": finished, "inputs": inputs}
        for t in range(steps):
            now = feed.at(t)
            ids = sampler.sample(t, x["outputs"][t], (), now)
            finished, inputs, _ = sampler.next_inputs(t, x["outputs"][t], (), ids, now)
            results |= {f"{t}/finished": finished, f"{t}/inputs": inputs, f"{t}/ids": ids}
        return results

    return hold_together(config["seed"], given=given, model=None, run_tf=run_tf, run_jax=run_jax)


SCHEDULED = SIZES | OPTIONS | {"probability": st.sampled_from([0.0, 0.5, 1.0]), "own_function": st.booleans()}


@parity(
    "tfa.seq2seq.ScheduledEmbeddingTrainingSampler",
    configurations=st.fixed_dictionaries(SCHEDULED | {"replay": st.sampled_from(["ids", "choices and ids"])}),
)
def scheduled_embedding(config: Config) -> Pair:
    decoding = Decoding(config)
    rng, probability = decoding.rng, config["probability"]
    lengths = draw_lengths(rng, config)
    decoding.given |= {
        "inputs": rng.normal(size=(config["batch"], config["time"], FEATURES)),
        "embedding": rng.normal(size=(VOCAB, FEATURES)),
    }
    tf.random.set_seed(config["seed"])

    def make_tf(x: Any) -> Any:
        own = (lambda ids: 2 * tf.gather(x["embedding"], ids)) if config["own_function"] else None
        sampler = tfa.seq2seq.ScheduledEmbeddingTrainingSampler(probability, embedding_fn=own)
        return sampler, x["inputs"], {"sequence_length": lengths, "embedding": x["embedding"]}

    def make_jax(x: Any) -> Any:
        own = (lambda ids: 2 * x["embedding"][ids]) if config["own_function"] else None
        sampler = ScheduledEmbeddingTrainingSampler(probability, embedding_fn=own)
        arguments = {"sample_ids": decoding.sample_ids, "embedding": x["embedding"]}
        if config["replay"] == "choices and ids":
            arguments["choices"] = decoding.sample_ids >= 0
            arguments["sample_ids"] = jnp.maximum(decoding.sample_ids, 0)
        return sampler, x["inputs"], {"sequence_length": jnp.asarray(lengths), **arguments}

    return decoding.pair(make_tf, make_jax)


@parity(
    "tfa.seq2seq.ScheduledOutputTrainingSampler",
    configurations=st.fixed_dictionaries(SCHEDULED | {"auxiliary": st.sampled_from([0, 2])}),
)
def scheduled_output(config: Config) -> Pair:
    extra = config["auxiliary"]
    decoding = Decoding(config, features=VOCAB + extra)
    rng, probability = decoding.rng, config["probability"]
    lengths = draw_lengths(rng, config)
    shape = (config["batch"], config["time"])
    decoding.given["inputs"] = rng.normal(size=(*shape, VOCAB))
    if extra:
        decoding.given["auxiliary_inputs"] = rng.normal(size=(*shape, extra))
    tf.random.set_seed(config["seed"])

    def arguments(x: Any) -> dict[str, Any]:
        return {"auxiliary_inputs": x["auxiliary_inputs"]} if extra else {}

    def make_tf(x: Any) -> Any:
        sampler = tfa.seq2seq.ScheduledOutputTrainingSampler(
            probability, next_inputs_fn=tf.tanh if config["own_function"] else None
        )
        return sampler, x["inputs"], {"sequence_length": lengths, **arguments(x)}

    def make_jax(x: Any) -> Any:
        sampler = ScheduledOutputTrainingSampler(
            probability, next_inputs_fn=jnp.tanh if config["own_function"] else None
        )
        # Where a row is imputed its id is 0, and its choice is not known: the next step is imputed too.
        replay = {"choices": decoding.sample_ids != 0, "sequence_length": jnp.asarray(lengths)}
        return sampler, x["inputs"], {**replay, **arguments(x)}

    return decoding.pair(make_tf, make_jax)


def embedding_arguments(decoding: Decoding) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start tokens and end token for both sides; the embedding is added to the given arrays."""
    decoding.given["embedding"] = decoding.rng.normal(size=(VOCAB, FEATURES))
    start = decoding.rng.integers(0, VOCAB, decoding.batch).astype(np.int32)
    return (
        {"start_tokens": start, "end_token": 0},
        {"start_tokens": jnp.asarray(start), "end_token": 0},
    )


@parity(
    "tfa.seq2seq.GreedyEmbeddingSampler",
    configurations=st.fixed_dictionaries(INFERENCE | {"own_function": st.booleans()}),
)
def greedy_embedding(config: Config) -> Pair:
    decoding = Decoding(config)
    for_tf, for_jax = embedding_arguments(decoding)

    def make_tf(x: Any) -> Any:
        own = (lambda ids: 2 * tf.gather(x["embedding"], ids)) if config["own_function"] else None
        return tfa.seq2seq.GreedyEmbeddingSampler(own), x["embedding"], for_tf

    def make_jax(x: Any) -> Any:
        own = (lambda ids: 2 * x["embedding"][ids]) if config["own_function"] else None
        return ours.GreedyEmbeddingSampler(own), x["embedding"], for_jax

    return decoding.pair(make_tf, make_jax)


@parity(
    "tfa.seq2seq.SampleEmbeddingSampler",
    configurations=st.fixed_dictionaries(
        INFERENCE | {"temperature": st.sampled_from([None, 0.5, 3.0]), "own_function": st.booleans()}
    ),
)
def sample_embedding(config: Config) -> Pair:
    decoding = Decoding(config)
    for_tf, for_jax = embedding_arguments(decoding)
    tf.random.set_seed(config["seed"])

    def make_tf(x: Any) -> Any:
        own = (lambda ids: 2 * tf.gather(x["embedding"], ids)) if config["own_function"] else None
        sampler = tfa.seq2seq.SampleEmbeddingSampler(own, softmax_temperature=config["temperature"])
        return sampler, x["embedding"], for_tf

    def make_jax(x: Any) -> Any:
        own = (lambda ids: 2 * x["embedding"][ids]) if config["own_function"] else None
        sampler = ours.SampleEmbeddingSampler(own, softmax_temperature=config["temperature"])
        return sampler, x["embedding"], {**for_jax, "sample_ids": decoding.sample_ids}

    return decoding.pair(make_tf, make_jax)


@parity(
    "tfa.seq2seq.InferenceSampler",
    configurations=st.fixed_dictionaries(
        INFERENCE | {"own_function": st.booleans(), "ends": st.sampled_from(["never", "by value"])}
    ),
)
def inference(config: Config) -> Pair:
    """Regression: the samples are the outputs, and gradients flow through the inputs fed back."""
    decoding = Decoding(config, vocab=FEATURES)
    decoding.given["start"] = decoding.rng.normal(size=(config["batch"], FEATURES))
    bound = 0.5 if config["ends"] == "by value" else np.inf
    shapes = (FEATURES,)

    def make_tf(x: Any) -> Any:
        sampler = tfa.seq2seq.InferenceSampler(
            sample_fn=lambda outputs: outputs,
            sample_shape=shapes,
            sample_dtype=tf.float64,
            end_fn=lambda samples: samples[:, 0] > bound,
            next_inputs_fn=tf.tanh if config["own_function"] else None,
        )
        return sampler, x["start"], {}

    def make_jax(x: Any) -> Any:
        sampler = ours.InferenceSampler(
            sample_fn=lambda outputs: outputs,
            sample_shape=shapes,
            sample_dtype=jnp.float64,
            end_fn=lambda samples: samples[:, 0] > bound,
            next_inputs_fn=jnp.tanh if config["own_function"] else None,
        )
        return sampler, x["start"], {}

    return decoding.pair(make_tf, make_jax)


@parity("tfa.seq2seq.CustomSampler", configurations=st.fixed_dictionaries(INFERENCE))
def custom(config: Config) -> Pair:
    """A sampler that changes the state, too: the parts that no other sampler has."""
    decoding = Decoding(config, vocab=FEATURES)
    decoding.given["start"] = decoding.rng.normal(size=(config["batch"], FEATURES))
    lengths = decoding.rng.integers(0, 5, config["batch"]).astype(np.int32)

    def make_tf(x: Any) -> Any:
        sampler = tfa.seq2seq.CustomSampler(
            initialize_fn=lambda inputs: (tf.constant(lengths) == 0, inputs),
            sample_fn=lambda time, outputs, state: tf.argmin(outputs, -1, output_type=tf.int32),
            next_inputs_fn=lambda time, outputs, state, sample_ids: (
                time + 1 >= lengths,
                outputs * tf.cast(time, tf.float64) + tf.cast(sample_ids, tf.float64)[:, None],
                [state[0] * 0.5, state[1]],
            ),
        )
        return sampler, x["start"], {}

    def make_jax(x: Any) -> Any:
        sampler = ours.CustomSampler(
            initialize_fn=lambda inputs: (jnp.asarray(lengths) == 0, inputs),
            sample_fn=lambda time, outputs, state: jnp.argmin(outputs, -1).astype(jnp.int32),
            next_inputs_fn=lambda time, outputs, state, sample_ids: (
                time + 1 >= jnp.asarray(lengths),
                outputs * time + sample_ids[:, None],
                state._replace(h=state.h * 0.5),
            ),
        )
        return sampler, x["start"], {}

    return decoding.pair(make_tf, make_jax)


class TfCountdown(tfa.seq2seq.Sampler):
    """A subclass of the abstract sampler: it feeds the outputs back until a row's count is over."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    @property
    def batch_size(self) -> int:
        return len(self.counts)

    @property
    def sample_ids_shape(self) -> Any:
        return tf.TensorShape([])

    @property
    def sample_ids_dtype(self) -> Any:
        return tf.int32

    def initialize(self, inputs: Any) -> Any:
        return tf.constant(self.counts <= 0), inputs

    def sample(self, time: Any, outputs: Any, state: Any) -> Any:
        return tf.argmax(outputs, -1, output_type=tf.int32)

    def next_inputs(self, time: Any, outputs: Any, state: Any, sample_ids: Any) -> Any:
        return time + 1 >= self.counts, outputs, state


class Countdown(ours.Sampler):
    """The same, in JAX."""

    counts: Any

    def initialize(self, inputs: Any, **kwargs: Any) -> Any:
        return self.counts <= 0, inputs, ours.Feed()

    def sample(self, time: Any, outputs: Any, state: Any, feed: Any) -> Any:
        return jnp.argmax(outputs, -1).astype(jnp.int32)

    def next_inputs(self, time: Any, outputs: Any, state: Any, sample_ids: Any, feed: Any) -> Any:
        return time + 1 >= self.counts, outputs, state


@parity("tfa.seq2seq.Sampler", configurations=st.fixed_dictionaries(INFERENCE))
def subclass(config: Config) -> Pair:
    decoding = Decoding(config, vocab=FEATURES)
    decoding.given["start"] = decoding.rng.normal(size=(config["batch"], FEATURES))
    counts = decoding.rng.integers(0, 6, config["batch"]).astype(np.int32)
    return decoding.pair(
        lambda x: (TfCountdown(counts), x["start"], {}),
        lambda x: (Countdown(jnp.asarray(counts)), x["start"], {}),
    )
