"""Bad input is refused by name, as a user sees it: without the import hook that the other tests run under.

Each case is a call and what its error must say: the argument, and what it was.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models import keras_layers as keras
from jax_models import seq2seq, tf1, tfa_cells
from jax_models.attention import hardmax
from tests.jax_models.refusal import refused, unchecked

pytestmark = pytest.mark.jax

BATCH, TIME, FEATURES, UNITS, VOCAB = 3, 5, 2, 4, 7
KEY = jax.random.key(0)
INPUTS = jnp.ones((BATCH, TIME, FEATURES))
STEP = INPUTS[:, 0]
TABLE = jnp.ones((VOCAB, FEATURES))
TOKENS = jnp.array([1, 2, 3])
H = jnp.ones((BATCH, UNITS))
P = jnp.full((BATCH, TIME), 0.5)


def run(module: Any, *arguments: Any, method: Any = None, **named: Any) -> Any:
    return module.init(KEY, *arguments, method=method, **named)


class Loop(nn.Module):
    """A loop of TF1's around a cell."""

    loop: Any
    cell: nn.Module
    other: nn.Module | None = None

    @nn.compact
    def __call__(self, inputs: Any, **options: Any) -> Any:
        cells = (self.cell,) if self.other is None else (self.cell, self.other)
        return self.loop(*cells, inputs, **options)


def loop(inputs: Any = INPUTS, cell: Any = None, **options: Any) -> Any:
    return run(Loop(tf1.dynamic_rnn, cell or tf1.GRUCell(UNITS)), inputs, **options)


def both(inputs: Any = INPUTS, **options: Any) -> Any:
    cells = tf1.GRUCell(UNITS), tf1.GRUCell(UNITS)
    return run(Loop(tf1.bidirectional_dynamic_rnn, *cells), inputs, **options)


def unrolled(inputs: Any = None, **options: Any) -> Any:
    steps = list(jnp.swapaxes(INPUTS, 0, 1)) if inputs is None else inputs
    return run(Loop(tf1.static_rnn, tf1.GRUCell(UNITS)), steps, **options)


def attend(
    query: Any = H, memory: Any = INPUTS, mechanism: Any = seq2seq.LuongAttention, **options: Any
) -> Any:
    return run(mechanism(UNITS), memory, query, method="attend", **options)


def train(inputs: Any = INPUTS, **options: Any) -> Any:
    return seq2seq.TrainingSampler().initialize(inputs, **options)


def decode(sampler: Any, *arguments: Any, vocab: int | None = VOCAB, **options: Any) -> Any:
    cell = tf1.BasicLSTMCell(UNITS)
    layer = None if vocab is None else nn.Dense(vocab)
    decoder = seq2seq.BasicDecoder(cell, sampler, layer, maximum_iterations=3)
    return run(decoder, *arguments, initial_state=cell.zero_state(BATCH, jnp.float32), **options)


def greedy(embedding: Any = TABLE, *, vocab: int | None = VOCAB, **options: Any) -> Any:
    arguments = {"start_tokens": TOKENS, "end_token": 0} | options
    return decode(seq2seq.GreedyEmbeddingSampler(), embedding, vocab=vocab, **arguments)


def search(embedding: Any = TABLE, *, vocab: int | None = VOCAB, state: Any = None, **options: Any) -> Any:
    cell = tf1.BasicLSTMCell(UNITS)
    layer = None if vocab is None else nn.Dense(vocab)
    decoder = seq2seq.BeamSearchDecoder(cell, 2, output_layer=layer, maximum_iterations=3)
    state = cell.zero_state(2 * BATCH, jnp.float32) if state is None else state
    arguments = {"start_tokens": TOKENS, "end_token": 0, "initial_state": state} | options
    return run(decoder, embedding, **arguments)


def lose(**change: Any) -> Any:
    logits = jnp.ones((BATCH, TIME, VOCAB))
    return seq2seq.sequence_loss(
        **{"logits": logits, "targets": jnp.ones((BATCH, TIME), int), "weights": P} | change
    )


def wrap(**options: Any) -> seq2seq.AttentionWrapper:
    cell = options.pop("cell", tf1.BasicLSTMCell(UNITS))
    return seq2seq.AttentionWrapper(cell, seq2seq.LuongAttention(UNITS), **options)


class Attending(nn.Module):
    """One step of a wrapper."""

    options: Any

    @nn.compact
    def __call__(self, inputs: Any, **start: Any) -> Any:
        wrapper = wrap(**self.options)
        memories = start.pop("memories", None) or wrapper.setup_memory(INPUTS)
        state = wrapper.zero_state(BATCH, jnp.float32, memories=memories, **start)
        return wrapper(state, inputs)


def step_wrapper(inputs: Any = STEP, *, history: bool = False, **start: Any) -> Any:
    return run(Attending({"alignment_history": history}), inputs, **start)


FLOATS = jnp.array([1.0, 2.0, 3.0])
BOOLEANS = jnp.array([True, False, True])
NEGATIVE = jnp.array([-1, 2, 3])
SIZED = {
    "BasicRNNCell": tf1.BasicRNNCell,
    "BasicLSTMCell": tf1.BasicLSTMCell,
    "LSTMCell": tf1.LSTMCell,
    "GRUCell": tf1.GRUCell,
    "LayerNormBasicLSTMCell": tf1.LayerNormBasicLSTMCell,
    "keras SimpleRNNCell": keras.SimpleRNNCell,
    "keras LSTMCell": keras.LSTMCell,
    "keras GRUCell": keras.GRUCell,
    "NASCell": tfa_cells.NASCell,
    "ESNCell": tfa_cells.ESNCell,
    "PeepholeLSTMCell": tfa_cells.PeepholeLSTMCell,
    "LayerNormLSTMCell": tfa_cells.LayerNormLSTMCell,
    "LayerNormSimpleRNNCell": tfa_cells.LayerNormSimpleRNNCell,
}
LAYERS = {"SimpleRNN": keras.SimpleRNN, "LSTM": keras.LSTM, "GRU": keras.GRU, "Dense": keras.Dense}
MECHANISMS = {
    "LuongAttention": seq2seq.LuongAttention,
    "BahdanauAttention": seq2seq.BahdanauAttention,
    "LuongMonotonicAttention": seq2seq.LuongMonotonicAttention,
    "BahdanauMonotonicAttention": seq2seq.BahdanauMonotonicAttention,
}


@pytest.mark.parametrize("units", [0, -1, 2.5, None, True, "3"], ids=str)
@pytest.mark.parametrize("name", [*SIZED, *LAYERS, *MECHANISMS])
def test_units(name: str, units: Any) -> None:
    with refused("units is .*, expected an int of at least 1"):
        (SIZED | LAYERS | MECHANISMS)[name](units=units)


@pytest.mark.parametrize("name", [*SIZED, *LAYERS, *MECHANISMS])
def test_param_dtype(name: str) -> None:
    with refused("param_dtype is .*int32.*, expected a dtype of floating-point"):
        (SIZED | LAYERS | MECHANISMS)[name](units=2, param_dtype=jnp.int32)


@pytest.mark.parametrize("name", SIZED)
def test_a_step_of_a_cell(name: str) -> None:
    cell = SIZED[name](UNITS)
    state = cell.zero_state(BATCH, jnp.float32)
    with refused(r"inputs has shape \[3, 2\] and dtype int32, expected .* of floats.*Embedding"):
        run(cell, state, STEP.astype(int))
    with refused(r"inputs is an array of shape \[3\].*\[batch, time, features\]"):
        run(cell, state, STEP[:, 0])
    with refused(r"inputs is an array of shape \[3, 5, 2\]"):
        run(cell, state, INPUTS)
    with refused(r"state has an array of shape \[3, 4\]; expected \[1, 4\]"):
        run(cell, state, STEP[:1])
    with refused(r"state has shape \[3, 4\] and dtype int32"):
        run(cell, jax.tree.map(lambda x: x.astype(int), state), STEP)
    with refused("dtype of the zero state is .*int"):
        cell.zero_state(BATCH, int)
    with refused("batch of the zero state is -1"):
        cell.zero_state(-1, jnp.float32)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_a_layer(name: str) -> None:
    layer = LAYERS[name](units=UNITS)
    for inputs in (INPUTS[:, 0], INPUTS[..., None]):
        with refused(rf"{name}: inputs has shape .*, expected \[batch, time, features\] of floats"):
            run(layer, inputs)
    with refused(rf"{name}: inputs has shape \[3, 5, 2\] and dtype int32, expected"):
        run(layer, INPUTS.astype(int))
    with refused(r"mask has shape \[3, 5\] and dtype float32, expected \[3, 5\] of booleans"):
        run(layer, INPUTS, mask=P)
    with refused(r"mask has shape \[3, 4\]"):
        run(layer, INPUTS, mask=jnp.ones((BATCH, 4), bool))
    state = layer.bind(run(layer, INPUTS)).get_cell().zero_state(BATCH, jnp.float32)
    with refused(r"initial_state.* dtype int32"):
        run(layer, INPUTS, initial_state=jax.tree.map(lambda x: x.astype(int), state))
    with refused("key is 3, expected one JAX key"):
        run(layer, INPUTS, training=True, key=3)
    with refused("activation is 'tahn'"):
        LAYERS[name](units=2, activation="tahn")
    with refused("dropout is -0.1"):
        LAYERS[name](units=2, dropout=-0.1)


LOOPS = {"dynamic_rnn": loop, "bidirectional_dynamic_rnn": both, "static_rnn": unrolled}


@pytest.mark.parametrize("name", LOOPS)
def test_lengths_and_inputs_of_a_loop(name: str) -> None:
    call = LOOPS[name]
    for lengths, said in (
        (NEGATIVE, r"sequence_length is \[-1, +2, +3\], expected every length to be at least 0"),
        (FLOATS, "sequence_length has .* dtype float32, expected .* of integers"),
        (BOOLEANS, "sequence_length has .* dtype bool"),
        (jnp.ones((BATCH, 1), int), r"sequence_length has shape \[3, 1\]"),
        ("three", "sequence_length is a str"),
        ({"a": 1}, "sequence_length is a dict"),
    ):
        with refused(f"{name}: {said}"):
            call(sequence_length=lengths)
    with refused("key is 3"):
        call(key=3)


def test_inputs_of_the_loops() -> None:
    with refused(r"dynamic_rnn: inputs has shape \[3, 2\].*expected \[batch, time, features\]"):
        loop(STEP)
    with refused("dynamic_rnn: inputs has .* dtype int32"):
        loop(INPUTS.astype(int))
    with refused("a step made state .*float32.* of .*bfloat16.*Maybe the inputs"):
        loop(INPUTS.astype(jnp.bfloat16))
    with refused(r"static_rnn: inputs\[0\] has .* dtype int32"):
        unrolled([STEP.astype(int)])
    with refused(r"static_rnn: inputs\[1\] has shape \[3, 1\]"):
        unrolled([STEP, STEP[:, :1]])
    with refused("sequence_length is .*, expected every length to be at least 0 and at most 5"):
        both(sequence_length=jnp.array([1, 2, 6]))
    with refused("cell is GRUCell itself"):
        tf1.dynamic_rnn(tf1.GRUCell, INPUTS)
    with refused("cell is a Dense, expected a cell"):
        tf1.dynamic_rnn(nn.Dense(3), INPUTS)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism(name: str) -> None:
    mechanism = MECHANISMS[name]
    for query in (H[:, None], H[:2], H[:1], H.astype(int), H[0]):
        with refused(r"query has shape .*, expected \[3, query\] of floats"):
            attend(query, mechanism=mechanism)
    for memory in (INPUTS.astype(int), INPUTS > 0, INPUTS[0], INPUTS[..., None]):
        with refused(r"memory has shape .*, expected \[batch, memory, depth\] of floats"):
            attend(memory=memory, mechanism=mechanism)
    for lengths in (NEGATIVE, FLOATS, BOOLEANS, jnp.ones((2,), int), jnp.ones((3, 1), int)):
        with refused("memory_sequence_length "):
            attend(memory_sequence_length=lengths, mechanism=mechanism)
    for mask in (P, jnp.ones((BATCH, TIME), int), jnp.ones((BATCH, 4), bool)):
        with refused(r"memory_mask has .*expected \[3, 5\] of booleans"):
            attend(memory_mask=mask, mechanism=mechanism)
    with refused("memory is a .*, expected an AttentionMemory.*setup_memory"):
        run(mechanism(UNITS), INPUTS, H, P)
    with refused("key is 3"):
        attend(mechanism=mechanism, key=3)
    with refused("zero_length is 'no'"):
        run(mechanism(UNITS), INPUTS, zero_length="no", method="setup_memory")
    with refused(r"memory_sequence_length is \[-1, +2\]"):
        mechanism(UNITS, memory_sequence_length=jnp.array([-1, 2]))
    with refused("constructor_lengths is 'no'"):
        mechanism(UNITS, constructor_lengths="no")


def test_negative_lengths_are_refused_with_attend_uniformly_too() -> None:
    with refused(r"memory_sequence_length is \[-1, +2, +3\], expected every length to be at least 0"):
        options = {"memory_sequence_length": NEGATIVE, "zero_length": "attend_uniformly"}
        run(seq2seq.LuongAttention(UNITS), INPUTS, method="setup_memory", **options)


SAMPLERS = {
    "embedding": seq2seq.ScheduledEmbeddingTrainingSampler,
    "output": seq2seq.ScheduledOutputTrainingSampler,
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("probability", [1.5, -0.5, float("nan"), "half", True, None], ids=str)
def test_sampling_probability(name: str, probability: Any) -> None:
    with refused(r"sampling_probability is .*, expected a probability in \[0, 1\]"):
        SAMPLERS[name](probability)


EMBEDDING = seq2seq.ScheduledEmbeddingTrainingSampler(0.5)
MASK = jnp.ones((BATCH, TIME), bool)

CASES: dict[str, tuple[Any, str]] = {
    # Samplers.
    "negative lengths": (lambda: train(sequence_length=NEGATIVE), r"sequence_length is \[-1, +2, +3\]"),
    "long lengths": (lambda: train(sequence_length=TOKENS + 5), "at least 0 and at most 5"),
    "float lengths": (lambda: train(sequence_length=FLOATS), "sequence_length has .*dtype float32"),
    "bool lengths": (lambda: train(sequence_length=BOOLEANS), "sequence_length has .*dtype bool"),
    "int mask": (lambda: train(mask=MASK.astype(int)), "mask has .*dtype int32, expected .*booleans"),
    "listed mask": (lambda: train(mask=[[False, True, True, True, True]] * 3), "mask is not padded"),
    "rank 2 floats": (lambda: train(INPUTS[..., 0]), "sampler: inputs has .*features axis"),
    "rank 2 floats in a decoder": (
        lambda: decode(seq2seq.TrainingSampler(), INPUTS[..., 0]),
        "sampler: inputs has .*features axis",
    ),
    "a scalar": (lambda: train(1.0), r"sampler: inputs has shape \[\]"),
    "temperature 0": (lambda: seq2seq.SampleEmbeddingSampler(None, 0), "softmax_temperature is 0"),
    "temperature -1": (lambda: seq2seq.SampleEmbeddingSampler(None, -1.0), "softmax_temperature is -1"),
    "embedding_fn": (lambda: seq2seq.GreedyEmbeddingSampler(TABLE), "embedding_fn is an array"),
    "embedding of scheduled sampling": (
        lambda: EMBEDDING.initialize(INPUTS, embedding=TOKENS, key=KEY),
        r"embedding has shape \[3\] and dtype int32",
    ),
    "key of scheduled sampling": (
        lambda: EMBEDDING.initialize(INPUTS, embedding=TABLE, key=3),
        "sampler: key is 3",
    ),
    "choices": (
        lambda: EMBEDDING.initialize(INPUTS, embedding=TABLE, key=KEY, choices=jnp.ones((TIME, BATCH))),
        "choices has .* dtype float32",
    ),
    "sample_ids": (
        lambda: EMBEDDING.initialize(INPUTS, embedding=TABLE, sample_ids=jnp.ones((TIME, BATCH))),
        "sample_ids has .* dtype float32",
    ),
    "auxiliary_inputs": (
        lambda: seq2seq.ScheduledOutputTrainingSampler(0.5).initialize(
            INPUTS, key=KEY, auxiliary_inputs=INPUTS[:, :2]
        ),
        r"auxiliary_inputs has shape \[3, 2, 2\]",
    ),
    "functions": (lambda: seq2seq.CustomSampler(1, 2, 3), "initialize_fn is 1, expected a function"),
    "sample_fn": (
        lambda: seq2seq.InferenceSampler(None, (2,), jnp.float32, lambda x: x),
        "sample_fn is None",
    ),
    "start inputs": (
        lambda: seq2seq.InferenceSampler(jnp.tanh, (2,), jnp.float32, jnp.tanh).initialize(None),
        "InferenceSampler: inputs is None",
    ),
    # Decoders.
    "no output layer": (lambda: greedy(vocab=None), r"logits .*\[3, 4\].*\[7, 2\].*output_layer is missing"),
    "narrow output layer": (lambda: greedy(vocab=3), "output_layer"),
    "no output layer of a scheduled sampler": (
        lambda: decode(EMBEDDING, INPUTS, vocab=None, embedding=TABLE, key=KEY),
        "output_layer",
    ),
    "no output layer of a beam search": (lambda: search(vocab=None), "output_layer is missing"),
    "wide output layer of a beam search": (
        lambda: search(TABLE[:3], vocab=9, start_tokens=TOKENS - 1),
        "output_layer",
    ),
    "float start_tokens": (lambda: greedy(start_tokens=FLOATS), "start_tokens has .* dtype float32"),
    "rank 2 start_tokens": (lambda: greedy(start_tokens=TOKENS[:, None]), "start_tokens has shape"),
    "unknown start_tokens": (lambda: greedy(start_tokens=TOKENS + 4), "start_tokens reach from 5 to 7"),
    "negative start_tokens": (lambda: search(start_tokens=TOKENS - 3), "start_tokens reach from -2 to 0"),
    "float end_token": (lambda: greedy(end_token=1.0), "end_token has .* dtype float32"),
    "end_token of a search": (lambda: search(end_token=FLOATS), "end_token has shape"),
    "int table": (lambda: greedy(TABLE.astype(int)), "embedding has .*dtype int32"),
    "rank 1 table": (lambda: search(TABLE[:, 0]), r"embedding has shape \[7\]"),
    "no sampler": (lambda: seq2seq.BasicDecoder(tf1.GRUCell(2), None), "sampler is None"),
    "output_layer": (
        lambda: seq2seq.BasicDecoder(tf1.GRUCell(2), EMBEDDING, 5),
        "output_layer is 5, expected a function",
    ),
    "iterations": (
        lambda: seq2seq.BasicDecoder(tf1.GRUCell(2), EMBEDDING, maximum_iterations=2.5),
        "maximum_iterations is 2.5, expected an int",
    ),
    "negative iterations": (
        lambda: seq2seq.BasicDecoder(tf1.GRUCell(2), EMBEDDING, maximum_iterations=-1),
        "maximum_iterations is -1",
    ),
    "loop": (lambda: seq2seq.BasicDecoder(tf1.GRUCell(2), EMBEDDING, loop="for"), "loop is 'for'"),
    "a sampler for a decoder": (lambda: seq2seq.dynamic_decode(EMBEDDING), "decoder is a Scheduled"),
    "beam 0": (lambda: seq2seq.BeamSearchDecoder(tf1.GRUCell(2), 0), "beam_width is 0"),
    "beam 2.5": (lambda: seq2seq.BeamSearchDecoder(tf1.GRUCell(2), 2.5), "beam_width is 2.5"),
    "penalty": (
        lambda: seq2seq.BeamSearchDecoder(tf1.GRUCell(2), 2, length_penalty_weight="no"),
        "length_penalty_weight is 'no'",
    ),
    "multiplier": (lambda: seq2seq.tile_batch(STEP, 0), "multiplier is 0"),
    "float multiplier": (lambda: seq2seq.tile_batch(STEP, 2.0), "multiplier is 2.0"),
    "float ids": (
        lambda: seq2seq.gather_tree(jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2), int), jnp.array([1]), 0),
        "step_ids has .*dtype float32",
    ),
    "float parents": (
        lambda: seq2seq.gather_tree(jnp.ones((1, 1, 2), int), jnp.ones((1, 1, 2)), jnp.array([1]), 0),
        "parent_ids has .*dtype float32",
    ),
    "lengths of beams": (
        lambda: seq2seq.gather_tree_from_array(
            jnp.ones((1, 2)), jnp.zeros((1, 1, 2), int), jnp.array([[-1, 1]])
        ),
        "sequence_length is",
    ),
    # Attention.
    "no mechanism": (
        lambda: seq2seq.AttentionWrapper(tf1.GRUCell(2), []),
        "attention_mechanism is empty",
    ),
    "layer without units": (lambda: wrap(attention_layer=nn.Dense(0)), "attention_layer: features is 0"),
    "no memories": (
        lambda: wrap().initial_state(None, None),
        "memories holds a NoneType",
    ),
    "finished of a step": (
        lambda: decode(
            seq2seq.InferenceSampler(lambda x: x, (VOCAB,), jnp.float32, lambda x: x > 0), jnp.ones((3, 7))
        ),
        r"decoder: finished, of a step, has shape \[3, 7\]",
    ),
    "unbound cell": (lambda: tf1.dynamic_rnn(tf1.GRUCell(4), INPUTS), "GRUCell without parameters"),
    "masks of a layer": (
        lambda: run(keras.LSTM(units=2, dropout=0.5), INPUTS, training=True, dropout_masks=INPUTS),
        "dropout_masks is a .*, expected DropoutMasks",
    ),
    "empty search": (lambda: search(start_tokens=TOKENS[:0]), "start_tokens is empty"),
    "layer size": (lambda: wrap(attention_layer_size=0), "attention_layer_size is 0"),
    "cell of a wrapper": (lambda: wrap(cell=nn.Dense(2)), "cell is a Dense"),
    "cell_input_fn": (lambda: wrap(cell_input_fn=None), "cell_input_fn is None"),
    "rank 3 inputs of a wrapper": (
        lambda: step_wrapper(INPUTS),
        r"AttentionWrapper: inputs has shape \[3, 5",
    ),
    "batch of a wrapper": (lambda: step_wrapper(STEP[:1]), r"AttentionWrapper: inputs has shape \[1, 2\]"),
    "ids for a wrapper": (lambda: step_wrapper(TOKENS), "AttentionWrapper: inputs has shape"),
    "steps": (lambda: step_wrapper(history=True, maximum_steps=0), "maximum_steps is 0"),
    "memories": (lambda: step_wrapper(memories=(INPUTS,)), "memories holds a .*setup_memory"),
    "noise": (lambda: step_wrapper(noise=P), r"noise has shape \[3, 5\]"),
    "sigmoid_noise": (lambda: seq2seq.LuongMonotonicAttention(2, sigmoid_noise=-1.0), "sigmoid_noise is -1"),
    "int probabilities": (
        lambda: seq2seq.monotonic_attention(P.astype(int), P, "hard"),
        "p_choose_i has .*dtype int32",
    ),
    "previous": (lambda: seq2seq.monotonic_attention(P, P[:, :3], "hard"), "previous_attention has shape"),
    "int cumprod": (lambda: seq2seq.safe_cumprod(TOKENS), "x has .*dtype int32"),
    "int hardmax": (lambda: hardmax(TOKENS), "logits has .*dtype int32"),
    "scalar hardmax": (lambda: hardmax(jnp.float32(1)), r"logits has shape \[\]"),
    # Losses.
    "int logits": (lambda: lose(logits=jnp.ones((BATCH, TIME, VOCAB), int)), "logits has .*dtype int32"),
    "float targets": (lambda: lose(targets=P), r"targets has shape \[3, 5\] and dtype float32.*integers"),
    "int distributions": (
        lambda: lose(targets=jnp.ones((BATCH, TIME, VOCAB), int)),
        r"targets has shape \[3, 5, 7\] and dtype int32.*floats",
    ),
    "bool weights": (lambda: lose(weights=MASK), "weights has .*dtype bool.*astype"),
    "own loss": (lambda: lose(softmax_loss_function="mine"), "softmax_loss_function is 'mine'"),
    # Cells, layers and their wrappers.
    "projection": (lambda: tf1.LSTMCell(2, num_proj=0), "num_proj is 0"),
    "projection of NAS": (lambda: tfa_cells.NASCell(2, projection=-1), "projection is -1"),
    "connectivity": (lambda: tfa_cells.ESNCell(2, connectivity=1.5), "connectivity is 1.5"),
    "epsilon": (lambda: tfa_cells.LayerNormLSTMCell(2, norm_epsilon=-1), "norm_epsilon is -1"),
    "forget_bias": (lambda: tf1.BasicLSTMCell(2, forget_bias="one"), "forget_bias is 'one'"),
    "activation": (lambda: tf1.GRUCell(2, activation="tanh"), "activation is 'tanh', expected a function"),
    "cells": (lambda: tf1.MultiRNNCell([nn.Dense(2)]), "one of cells is a Dense"),
    "one cell": (lambda: tf1.MultiRNNCell(tf1.GRUCell(2)), "cells is a GRUCell"),
    "wrapped": (lambda: tf1.ResidualWrapper(None), "cell is a NoneType"),
    "keep_prob": (lambda: tf1.DropoutWrapper(tf1.GRUCell(2), "most"), "input_keep_prob is 'most'"),
    "layer": (lambda: keras.Bidirectional(keras.LSTMCell(2)), "layer is a LSTMCell"),
    "Embedding": (lambda: keras.Embedding(0, 2), "input_dim is 0"),
    "Embedding's width": (lambda: keras.Embedding(2, -1), "output_dim is -1"),
    "bool ids": (lambda: run(keras.Embedding(3, 2), BOOLEANS), "ids has .*dtype bool"),
    "ids for Dense": (lambda: run(keras.Dense(2), jnp.ones((2, 2), int)), "Dense: inputs has .*int32"),
    "ids for Masking": (lambda: keras.Masking()(jnp.ones((2, 2), int)), "Masking: inputs has .*int32"),
    "mask_reset": (
        lambda: keras.choose_dropout_masks(
            keras.LSTMCell(2, dropout=0.5), KEY, 2, 3, jnp.float32, training=True, mask_reset="no"
        ),
        "mask_reset is 'no'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named(case: str) -> None:
    call, message = CASES[case]
    with refused(message):
        call()


def test_lists_and_numpy_arrays_are_arrays() -> None:
    lengths, mask = [1, 2, 5], [[True, True, False, False, False]] * 3
    with unchecked():
        finished, _, _ = train(np.asarray(INPUTS), sequence_length=lengths)
        assert finished.tolist() == [False] * 3
        assert train(mask=mask)[0].tolist() == [False] * 3
        attend(memory_sequence_length=lengths)
        attend(memory_mask=mask)
        attend(np.asarray(H), np.asarray(INPUTS))
        run(keras.LSTM(units=2), np.asarray(INPUTS), mask=mask)
        lose(targets=[[0] * TIME] * BATCH)
        for call in LOOPS.values():
            call(sequence_length=lengths)


def test_what_is_not_known_before_tracing_is_let_through() -> None:
    """Under `jit` a length is a tracer: shapes and dtypes are checked all the same."""

    def lengths_of(lengths: Any) -> Any:
        return train(sequence_length=lengths)[0]

    with unchecked():
        assert jax.jit(lengths_of)(TOKENS).shape == (BATCH,)
        constant = jax.jit(lambda: lengths_of(np.array([1, 2, 3])))()
        assert constant.shape == (BATCH,)
        seq2seq.ScheduledOutputTrainingSampler(0.5)
        jax.jit(lambda p: seq2seq.ScheduledOutputTrainingSampler(p).initialize(INPUTS, key=KEY)[0])(0.5)
    with refused("sequence_length has .*dtype float32"):
        jax.jit(lengths_of)(FLOATS)
    with refused(r"sequence_length is \[-1"):
        jax.jit(lambda: lengths_of(np.array([-1, 2, 3])))()
