"""Parity of `jax_models.beam_search` and `jax_models.beam_search_ops`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.beam_search import BeamSearchDecoder
from jax_models.beam_search_ops import gather_tree, gather_tree_from_array, tile_batch
from tests.parity.decoding import AttentionModel, LSTMState, Model, hold_together, states
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

END = 0
DEPTH = 3

BEAMS = {
    "batch": st.sampled_from([1, 3]),
    "beam": st.sampled_from([1, 2, 6]),
    "vocab": st.sampled_from([2, 5]),
    "units": st.sampled_from([2, 5]),
    "steps": st.sampled_from([1, 4]),
    "sharpness": st.sampled_from([0.3, 2.0]),
    "seed": st.integers(0, 2**16),
}
BEAM_OPTIONS = {
    # The powers 1 and 2 are exact in float32, on both sides.
    "length_penalty_weight": st.sampled_from([0.0, 1.0, 2.0, 0.6]),
    "output_all_scores": st.booleans(),
    "output_time_major": st.booleans(),
    "embedding_fn": st.booleans(),
    "float64_penalties": st.booleans(),
}


class Nudged(BeamSearchDecoder):
    """TensorFlow's length penalty is float32 whatever the logits are, and its power is off by a last bit
    for some lengths in some places of an array. This is what such a bit does.
    """

    def _length_penalty(self, lengths: Any, dtype: Any) -> Any:
        return super()._length_penalty(lengths, dtype) * (1 + float(np.finfo(np.float32).eps))


@contextlib.contextmanager
def float64_penalties(apply: bool) -> Iterator[None]:
    """Let TensorFlow's penalties, which it casts to float32 by name, be float64 like all the rest."""
    if not apply:
        yield
        return
    with mock.patch.object(tf, "float32", tf.float64):
        yield


BEAM_SEARCHES = st.fixed_dictionaries(BEAMS | BEAM_OPTIONS)


@parity("tfa.seq2seq.BeamSearchDecoderState", configurations=BEAM_SEARCHES)
@parity("tfa.seq2seq.BeamSearchDecoderOutput", configurations=BEAM_SEARCHES)
@parity("tfa.seq2seq.FinalBeamSearchDecoderOutput", configurations=BEAM_SEARCHES)
@parity("tfa.seq2seq.BeamSearchDecoder", configurations=BEAM_SEARCHES)
def beam_search_decoder(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    batch, beam, vocab, units = (config[name] for name in ("batch", "beam", "vocab", "units"))
    model = Model(rng, DEPTH, units, vocab=vocab)
    given = {
        "embedding": config["sharpness"] * rng.normal(size=(vocab, DEPTH)),
        "c": rng.normal(size=(batch, units)),
        "h": rng.normal(size=(batch, units)),
    }
    start_tokens = rng.integers(0, vocab, batch).astype(np.int32)
    names = ("length_penalty_weight", "output_all_scores", "output_time_major")
    options = {name: config[name] for name in names} | {"maximum_iterations": config["steps"]}
    weight = config["length_penalty_weight"]
    in_float64 = config["float64_penalties"] and weight != 0

    def run_tf(x: Any) -> dict[str, Any]:
        with float64_penalties(in_float64):
            return run_tf_as_it_is(x)

    def run_tf_as_it_is(x: Any) -> dict[str, Any]:
        embedding = x["embedding"]
        embedding_fn = (lambda ids: tf.gather(2 * embedding, ids)) if config["embedding_fn"] else None
        decoder = tfa.seq2seq.BeamSearchDecoder(
            model.tf_cell,
            beam,
            embedding_fn=embedding_fn,
            output_layer=model.tf_output_layer,
            dtype="float64",
            **options | ({"length_penalty_weight": tf.constant(weight, tf.float64)} if in_float64 else {}),
        )
        output, state, lengths = decoder(
            None if embedding_fn else embedding,
            start_tokens=start_tokens,
            end_token=END,
            initial_state=[tfa.seq2seq.tile_batch(x[name], beam) for name in "hc"],
        )
        h, c = state.cell_state
        return name_results(output, state, states("state", c, h), lengths)

    def run_jax(leaves: Any, x: Any, decoder_class: Any = BeamSearchDecoder) -> dict[str, Any]:
        embedding = x["embedding"]
        embedding_fn = (lambda ids: 2 * embedding[ids]) if config["embedding_fn"] else None
        decoder = decoder_class(
            model.cell,
            beam,
            embedding_fn=embedding_fn,
            output_layer=model.output_layer,
            length_penalty_precision="logits" if in_float64 else "tensorflow",
            output_time="steps_run",
            **options,
        )
        output, state, lengths = decoder.apply(
            {"params": leaves},
            None if embedding_fn else embedding,
            start_tokens=jnp.asarray(start_tokens),
            end_token=END,
            initial_state=tile_batch(LSTMState(x["c"], x["h"]), beam),
        )
        cell = state.cell_state
        return name_results(output, state, states("state", cell.c, cell.h), lengths)

    return hold_together(
        config["seed"],
        given=given,
        model=model,
        run_tf=run_tf,
        run_jax=run_jax,
        noise_from=(lambda leaves, x: run_jax(leaves, x, Nudged))
        if weight == 0.6 and not in_float64
        else None,
    )


def name_results(output: Any, state: Any, cell_state: dict[str, Any], lengths: Any) -> dict[str, Any]:
    """Name all that a beam search returns."""
    named = {
        "predicted_ids": output.predicted_ids,
        **{f"step/{k}": v for k, v in output.beam_search_decoder_output._asdict().items()},
        **cell_state,
        "lengths": lengths,
        "state/log_probs": state.log_probs,
        "state/lengths": state.lengths,
        "state/finished": state.finished,
    }
    if not isinstance(state.accumulated_attention_probs, tuple):
        named["state/accumulated_attention_probs"] = state.accumulated_attention_probs
    return named


class Attending(nn.Module):
    """A beam search whose cell attends to a memory."""

    decoder: BeamSearchDecoder

    def __call__(self, x: Any, lengths: Any, **options: Any) -> Any:
        wrapper: Any = self.decoder.cell
        beam, steps = self.decoder.beam_width, self.decoder.maximum_iterations
        memories = wrapper.setup_memory(
            tile_batch(x["memory"], beam), memory_sequence_length=tile_batch(lengths, beam)
        )
        cell_state = tile_batch(LSTMState(x["c"], x["h"]), beam)
        kept = steps if wrapper.alignment_history else None
        state = wrapper.initial_state(cell_state, memories, maximum_steps=kept)
        return self.decoder(x["embedding"], initial_state=state, **options)


ATTENDING = {
    "batch": st.sampled_from([1, 3]),
    "beam": st.sampled_from([1, 3]),
    "steps": st.sampled_from([1, 4]),
    "units": st.sampled_from([2, 5]),
    "seed": st.integers(0, 2**16),
    "coverage_penalty_weight": st.sampled_from([0.0, 0.2, 1.0]),
    "float64_penalties": st.booleans(),
    "alignment_history": st.booleans(),
    "reorder_tensor_arrays": st.booleans(),
}


@parity(
    "tfa.seq2seq.BeamSearchDecoder of tfa.seq2seq.AttentionWrapper",
    configurations=st.fixed_dictionaries(ATTENDING),
)
def attending_beam_search(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    batch, beam, units, steps = (config[name] for name in ("batch", "beam", "units", "steps"))
    vocab, depth, time = 4, 2, 3
    # TensorFlow multiplies the alignments with a float32 mask, which fails in float64.
    weight = config["coverage_penalty_weight"]
    in_float64 = weight != 0 and config["float64_penalties"]
    float32 = weight != 0 and not in_float64
    dtype = "float32" if float32 else "float64"
    model = AttentionModel(
        rng,
        DEPTH,
        units,
        vocab=vocab,
        depth=depth,
        alignment_history=config["alignment_history"],
        dtype=dtype,
        # A saturated softmax would leave nothing of its float32 gradient, 1 - p, but rounding.
        spread=0.5,
    )
    given = {
        "embedding": rng.normal(size=(vocab, DEPTH)),
        "memory": rng.normal(size=(batch, time, depth)),
        "c": rng.normal(size=(batch, units)),
        "h": rng.normal(size=(batch, units)),
    }
    given = {name: array.astype(dtype) for name, array in given.items()}
    lengths = rng.integers(1, time + 1, batch).astype(np.int32)
    start_tokens = rng.integers(0, vocab, batch).astype(np.int32)
    options = {name: config[name] for name in ("coverage_penalty_weight", "reorder_tensor_arrays")}
    options["maximum_iterations"] = steps

    def run_tf(x: Any) -> dict[str, Any]:
        with float64_penalties(in_float64):
            return run_tf_as_it_is(x)

    def run_tf_as_it_is(x: Any) -> dict[str, Any]:
        tile = tfa.seq2seq.tile_batch
        model.tf_mechanism.setup_memory(
            tile(x["memory"], beam), memory_sequence_length=tile(tf.constant(lengths), beam)
        )
        state = model.tf_wrapper.get_initial_state(batch_size=batch * beam, dtype=dtype)
        state = state.clone(cell_state=[tile(x[name], beam) for name in "hc"])
        decoder = tfa.seq2seq.BeamSearchDecoder(
            model.tf_wrapper,
            beam,
            output_layer=model.tf_output_layer,
            dtype=dtype,
            **options | ({"coverage_penalty_weight": tf.constant(weight, tf.float64)} if in_float64 else {}),
        )
        output, state, final_lengths = decoder(
            x["embedding"], start_tokens=start_tokens, end_token=END, initial_state=state
        )
        inner = state.cell_state
        cell = states("state", inner.cell_state[1], inner.cell_state[0])
        history = inner.alignment_history
        if config["alignment_history"]:
            cell["alignment_history"] = history if tf.is_tensor(history) else history.stack()
        cell |= {"attention": inner.attention, "alignments": inner.alignments}
        return name_results(output, state, cell, final_lengths)

    def run_jax(leaves: Any, x: Any) -> dict[str, Any]:
        wrapped = {name: leaf for name, leaf in leaves.items() if name != "output_layer"}
        decoder = BeamSearchDecoder(
            model.wrapper, beam, output_layer=model.output_layer, output_time="steps_run", **options
        )
        output, state, final_lengths = Attending(decoder).apply(
            {"params": {"decoder": {"cell": wrapped, "output_layer": leaves["output_layer"]}}},
            x,
            jnp.asarray(lengths),
            start_tokens=jnp.asarray(start_tokens),
            end_token=END,
        )
        inner = state.cell_state
        cell = states("state", inner.cell_state.c, inner.cell_state.h)
        if config["alignment_history"]:
            # TensorFlow's is as long as the loop.
            steps_run = output.beam_search_decoder_output.scores.shape[1]
            cell["alignment_history"] = inner.alignment_history[:steps_run]
        cell |= {"attention": inner.attention, "alignments": inner.alignments}
        return name_results(output, state, cell, final_lengths)

    return hold_together(
        config["seed"], given=given, model=model, run_tf=run_tf, run_jax=run_jax, float32=float32
    )


TREES = {
    "time": st.sampled_from([1, 4]),
    "batch": st.sampled_from([1, 3]),
    "beam": st.sampled_from([1, 3]),
    "seed": st.integers(0, 2**16),
}


def draw_tree(config: Config) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """A generator, ids in which the end token is frequent, and parents: [time, batch, beam]."""
    rng = np.random.default_rng(config["seed"])
    shape = (config["time"], config["batch"], config["beam"])
    ids = rng.integers(0, 4, shape).astype(np.int32)
    return rng, ids, rng.integers(0, config["beam"], shape).astype(np.int32)


@parity(
    "tfa.seq2seq.gather_tree",
    configurations=st.fixed_dictionaries(TREES | {"end_token": st.integers(0, 4)}),
)
def gather_tree_parity(config: Config) -> Pair:
    rng, ids, parents = draw_tree(config)
    lengths = rng.integers(0, config["time"] + 2, config["batch"]).astype(np.int32)
    end = config["end_token"]
    # Both of TensorFlow's implementations: the kernel, and the graph it falls back on.
    from tensorflow_addons.seq2seq.beam_search_decoder import _gather_tree

    kernel = tfa.seq2seq.gather_tree(ids, parents, lengths, end).numpy()
    graph = _gather_tree(*(tf.constant(x) for x in (ids, parents, lengths)), tf.constant(end)).numpy()
    ours = np.asarray(gather_tree(jnp.asarray(ids), jnp.asarray(parents), jnp.asarray(lengths), end))
    return Pair(tf={"kernel": kernel, "graph": graph}, jax={"kernel": ours, "graph": ours})


@parity(
    "tfa.seq2seq.gather_tree_from_array",
    configurations=st.fixed_dictionaries(
        TREES | {"merged": st.booleans(), "depth": st.sampled_from([(), (2,), (2, 3)])}
    ),
)
def gather_tree_from_array_parity(config: Config) -> Pair:
    rng, _, parents = draw_tree(config)
    time, batch, beam = parents.shape
    lengths = rng.integers(0, time + 1, (batch, beam)).astype(np.int32)
    rows = (batch * beam,) if config["merged"] else (batch, beam)
    given = {"t": rng.normal(size=(time, *rows, *config["depth"]))}
    return hold_together(
        config["seed"],
        given=given,
        model=None,
        run_tf=lambda x: {"t": tfa.seq2seq.gather_tree_from_array(x["t"], parents, lengths)},
        run_jax=lambda _, x: {
            "t": gather_tree_from_array(x["t"], jnp.asarray(parents), jnp.asarray(lengths))
        },
    )


@parity(
    "tfa.seq2seq.tile_batch",
    configurations=st.fixed_dictionaries(
        {
            "batch": st.sampled_from([1, 3]),
            "multiplier": st.sampled_from([1, 2, 5]),
            "depth": st.sampled_from([(), (2,), (2, 3)]),
            "seed": st.integers(0, 2**16),
        }
    ),
)
def tile_batch_parity(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    given = {name: rng.normal(size=(config["batch"], *config["depth"])) for name in "ab"}

    def tile(function: Any, x: Any) -> dict[str, Any]:
        tiled = function((x["a"], [x["b"]]), config["multiplier"])
        return {"a": tiled[0], "b": tiled[1][0]}

    return hold_together(
        config["seed"],
        given=given,
        model=None,
        run_tf=lambda x: tile(tfa.seq2seq.tile_batch, x),
        run_jax=lambda _, x: tile(tile_batch, x),
    )
