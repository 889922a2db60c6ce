"""Parity of `jax_models.decoder`: `BasicDecoder`, `BaseDecoder`, `Decoder`, `dynamic_decode`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.decoder import BaseDecoder, BasicDecoder, Decoder, dynamic_decode
from jax_models.sampler import Feed, TrainingSampler
from tests.parity.decoding import LSTMState, Model, hold_together, states
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

SIZES = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 4]),
    "units": st.sampled_from([2, 5]),
    "seed": st.integers(0, 2**16),
}
OPTIONS = {
    "impute_finished": st.booleans(),
    "output_time_major": st.booleans(),
    "maximum_iterations": st.sampled_from([None, 2, 6]),
}


def draw_lengths(rng: np.random.Generator, config: Config) -> np.ndarray:
    """Lengths from 0 to full."""
    return rng.integers(0, config["time"] + 1, config["batch"]).astype(np.int32)


def steps_of(lengths: np.ndarray, maximum_iterations: int | None) -> int:
    """How many steps TensorFlow's loop runs."""
    longest = int(lengths.max())
    return longest if maximum_iterations is None else min(longest, maximum_iterations)


def keep_batch(output: Any, batch: int, time_major: bool) -> Any:
    """Give the sample ids of no steps their batch axis: TensorFlow's have shape [0] then."""
    if output.sample_id.shape.rank > 1:
        return output
    return output._replace(sample_id=tf.zeros((0, batch) if time_major else (batch, 0), tf.int32))


@parity(
    "tfa.seq2seq.BasicDecoderOutput",
    configurations=st.fixed_dictionaries(
        SIZES
        | OPTIONS
        | {"lengths": st.just("sequence_length"), "vocab": st.just(3), "time_major": st.just(False)}
    ),
)
@parity(
    "tfa.seq2seq.BasicDecoder",
    configurations=st.fixed_dictionaries(
        SIZES
        | OPTIONS
        | {
            "lengths": st.sampled_from([None, "sequence_length", "mask"]),
            "vocab": st.sampled_from([None, 3]),
            "time_major": st.booleans(),
        }
    ),
)
def basic_decoder(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    batch, time, units, features = config["batch"], config["time"], config["units"], 3
    model = Model(rng, features, units, vocab=config["vocab"])
    axes = (time, batch) if config["time_major"] else (batch, time)
    lengths = draw_lengths(rng, config)
    mask = np.arange(time) < lengths[:, None]
    limits = {
        None: {},
        "sequence_length": {"sequence_length": lengths},
        "mask": {"mask": mask.T if config["time_major"] else mask},
    }[config["lengths"]]
    options = {name: config[name] for name in OPTIONS}
    given = {
        "inputs": rng.normal(size=(*axes, features)),
        "h": rng.normal(size=(batch, units)),
        "c": rng.normal(size=(batch, units)),
    }

    def run_tf(x: Any) -> dict[str, Any]:
        sampler = tfa.seq2seq.TrainingSampler(time_major=config["time_major"])
        decoder = tfa.seq2seq.BasicDecoder(
            model.tf_cell, sampler, model.tf_output_layer, dtype="float64", **options
        )
        output, (h, c), lengths = decoder(x["inputs"], initial_state=[x["h"], x["c"]], **limits)
        output = keep_batch(output, batch, config["output_time_major"])
        return {**output._asdict(), **states("state", c, h), "lengths": lengths}

    def run_jax(leaves: Any, x: Any) -> dict[str, Any]:
        sampler = TrainingSampler(time_major=config["time_major"])
        decoder = BasicDecoder(model.cell, sampler, model.output_layer, output_time="steps_run", **options)
        output, state, lengths = decoder.apply(
            {"params": leaves},
            x["inputs"],
            initial_state=LSTMState(x["c"], x["h"]),
            **{name: jnp.asarray(limit) for name, limit in limits.items()},
        )
        return {**output._asdict(), **states("state", state.c, state.h), "lengths": lengths}

    return hold_together(config["seed"], given=given, model=model, run_tf=run_tf, run_jax=run_jax)


class TfWalk(tfa.seq2seq.Decoder):
    """A decoder that is no layer: it walks along [batch, rows, 2] states, some of its rows end."""

    def __init__(self, x: Any, lengths: np.ndarray, own: bool) -> None:
        self.x, self.lengths, self.own = x, lengths, own

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def output_size(self) -> Any:
        return {"sum": tf.TensorShape([2]), "first": tf.TensorShape([])}

    @property
    def output_dtype(self) -> Any:
        return {"sum": tf.float64, "first": tf.float64}

    @property
    def tracks_own_finished(self) -> bool:
        return self.own

    def initialize(self, name: Any = None) -> Any:
        state = (self.x["state"], tf.zeros((), tf.float64))
        return tf.constant(self.lengths == 0), self.x["inputs"], state

    def step(self, time: Any, inputs: Any, state: Any, training: Any = None, name: Any = None) -> Any:
        rows, count = state
        rows = tf.sin(rows + inputs[:, None, :])
        outputs = {"sum": tf.reduce_sum(rows, 1), "first": rows[:, 0, 0] * (count + 1)}
        following = outputs["sum"] * self.x["weights"]
        return outputs, (rows, count + 1), following, _ends_at(time, self.lengths, self.own)

    def finalize(self, outputs: Any, final_state: Any, sequence_lengths: Any) -> Any:
        return {**outputs, "first": 3 * outputs["first"]}, final_state


class Walk(Decoder):
    """The same, in JAX."""

    x: Any
    lengths: Any
    own: bool

    @property
    def tracks_own_finished(self) -> bool:
        return self.own

    def initialize(self, *args: Any, **kwargs: Any) -> Any:
        state = (self.x["state"], jnp.zeros((), self.x["state"].dtype))
        return jnp.asarray(self.lengths == 0), self.x["inputs"], state, Feed()

    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> Any:
        rows, count = state
        rows = jnp.sin(rows + inputs[:, None, :])
        outputs = {"sum": jnp.sum(rows, 1), "first": rows[:, 0, 0] * (count + 1)}
        following = outputs["sum"] * self.x["weights"]
        return outputs, (rows, count + 1), following, _ends_at(time, self.lengths, self.own)

    def finalize(self, outputs: Any, final_state: Any, sequence_lengths: Any, feed: Feed) -> Any:
        return {**outputs, "first": 3 * outputs["first"]}, final_state


def _ends_at(time: Any, lengths: np.ndarray, own: bool) -> Any:
    # A decoder that tracks its own says what is finished; another may say only what finishes now.
    return time + 1 >= lengths if own else time + 1 == lengths


WALKS = {
    "batch": st.sampled_from([1, 2]),
    "rows": st.just(2),
    "own": st.booleans(),
    "impute_finished": st.booleans(),
    "output_time_major": st.booleans(),
    "maximum_iterations": st.sampled_from([2, 5]),
    "seed": st.integers(0, 2**16),
}


@parity("tfa.seq2seq.Decoder", configurations=st.fixed_dictionaries(WALKS))
@parity("tfa.seq2seq.dynamic_decode", configurations=st.fixed_dictionaries(WALKS))
def walk(config: Config) -> Pair:
    """States of rank 3 with as many rows as the batch, on which TensorFlow lays its mask wrongly."""
    rng = np.random.default_rng(config["seed"])
    batch = config["batch"]
    lengths = rng.integers(0, 4, batch).astype(np.int32)
    given = {
        "state": rng.normal(size=(batch, config["rows"], 2)),
        "inputs": rng.normal(size=(batch, 2)),
        "weights": rng.normal(size=(2,)),
    }
    options = {name: config[name] for name in OPTIONS}
    own = config["own"]

    def name(result: Any) -> dict[str, Any]:
        outputs, (rows, count), final_lengths = result
        return {**outputs, "rows": rows, "count": count, "lengths": final_lengths}

    def run_tf(x: Any) -> dict[str, Any]:
        named = name(tfa.seq2seq.dynamic_decode(TfWalk(x, lengths, own), **options))
        if not tf.size(named["first"]):
            named["first"] = tf.zeros(named["sum"].shape[:2], tf.float64)
        return named

    def run_jax(_: Any, x: Any) -> dict[str, Any]:
        decoder = Walk(x, lengths, own)

        def decode(decoder: Walk) -> Any:
            return dynamic_decode(decoder, output_time="steps_run", **options)

        return name(nn.apply(decode, decoder)({}))

    return hold_together(config["seed"], given=given, model=None, run_tf=run_tf, run_jax=run_jax)


class TfDouble(tfa.seq2seq.BaseDecoder):
    """A decoder that is a layer: it doubles its state for a number of steps."""

    @property
    def batch_size(self) -> int:
        return self._batch

    @property
    def output_size(self) -> Any:
        return tf.TensorShape([2])

    @property
    def output_dtype(self) -> Any:
        return tf.float64

    def initialize(self, inputs: Any, initial_state: Any = None, counts: Any = None) -> Any:
        self._batch, self._counts, self._factor = len(counts), counts, inputs
        return tf.constant(counts == 0), initial_state, initial_state

    def step(self, time: Any, inputs: Any, state: Any, training: Any = None) -> Any:
        state = tf.tanh(2 * state + inputs * self._factor)
        return state, state, -state, time + 1 >= self._counts


class Double(BaseDecoder):
    """The same, in JAX."""

    def initialize(self, inputs: Any, *, initial_state: Any = None, counts: Any = None) -> Any:
        return counts == 0, initial_state, initial_state, Feed((), (inputs, counts))

    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> Any:
        factor, counts = feed.constants
        state = jnp.tanh(2 * state + inputs * factor)
        return state, state, -state, time + 1 >= counts


@parity("tfa.seq2seq.BaseDecoder", configurations=st.fixed_dictionaries(WALKS))
def double(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    counts = rng.integers(0, 4, config["batch"]).astype(np.int32)
    given = {"factor": rng.normal(size=(2,)), "state": rng.normal(size=(config["batch"], 2))}
    options = {name: config[name] for name in OPTIONS}

    def name(result: Any) -> dict[str, Any]:
        return dict(zip(("output", "state", "lengths"), result, strict=True))

    def run_tf(x: Any) -> dict[str, Any]:
        decoder = TfDouble(dtype="float64", **options)
        return name(decoder(x["factor"], initial_state=x["state"], counts=counts))

    def run_jax(_: Any, x: Any) -> dict[str, Any]:
        decoder = Double(output_time="steps_run", **options)
        return name(decoder.apply({}, x["factor"], initial_state=x["state"], counts=jnp.asarray(counts)))

    return hold_together(config["seed"], given=given, model=None, run_tf=run_tf, run_jax=run_jax)
