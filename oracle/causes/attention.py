"""C4: what the decoder attends to, and how."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Tensors, cause
from oracle.causes.sequences import has_source_lengths
from oracle.causes.turning import is_stacked, is_translator, turn_attention
from oracle.knobs import Knobs
from oracle.spec import AttentionNMT


@cause(
    "C401",
    title="the memory's mask is missing",
    sentence="the padding of the source is attended to: the memory has no mask",
    remedy="Pass `memory_sequence_length=source_length` to the attention mechanism.",
    applies=lambda spec, batch: is_translator(spec) and has_source_lengths(spec, batch),
    wrong="tfa.seq2seq.LuongAttention(units, memory=encoded)",
    right="tfa.seq2seq.LuongAttention(units, memory=encoded, memory_sequence_length=source_length)",
)
def leave_out_mask(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every step attended to."""
    full = np.full(len(batch["source"]), batch["source"].shape[1], np.int32)
    yield Setting("", turn_attention(knobs, memory_lengths=full))


@cause(
    "C402",
    title="the memory's mask is off by one",
    sentence="the memory's lengths are {setting}",
    remedy="`memory_sequence_length` counts every step that the encoder reads, the end token among them.",
    applies=is_translator,
)
def shift_mask(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """One step less, or one more."""
    time = batch["source"].shape[1]
    for by, name in ((-1, "one too short"), (1, "one too long")):
        lengths = np.clip(batch["source_length"] + by, 1, time).astype(np.int32)
        yield Setting(name, turn_attention(knobs, memory_lengths=lengths))


@cause(
    "C403",
    title="the scores' scale or normalisation is missing",
    sentence="the attention's scores are not scaled or normalised",
    remedy="Make Luong's with `scale=True`, Bahdanau's with `normalize=True`, and load the weight "
    "`attention_g` (and `attention_b`).",
    applies=lambda spec, batch: isinstance(spec, AttentionNMT) and spec.attention.scaled,
)
def leave_out_scale(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """No g, and no norm of v."""
    yield Setting("", turn_attention(knobs, scaled=0.0))


@cause(
    "C404",
    title="the scores are divided by the root of a width",
    sentence="the attention's scores are divided by sqrt({setting})",
    remedy="tfa's mechanisms do not divide by sqrt(depth), as a Transformer's does. Use "
    "`tfa.seq2seq.LuongAttention`, or leave the division out.",
    applies=is_translator,
)
def divide_scores(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """By the depth of the mechanism, or another width that is taken for it."""
    assert isinstance(spec, AttentionNMT)
    for width in dict.fromkeys((spec.attention.units, 2 * spec.units, spec.units, batch["source"].shape[1])):
        yield Setting(str(width), turn_attention(knobs, divisor=np.sqrt(float(width))))


@cause(
    "C405",
    title="the previous state is the query",
    sentence="the attention is queried by the state before the step, not by the cell's output",
    remedy="`AttentionWrapper` runs the cell first and attends with its output (Luong's order); attending "
    "first is Bahdanau's original order, and `tf.contrib.legacy_seq2seq`'s.",
    applies=is_translator,
)
def query_with_previous(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Attend, then run the cell."""
    yield Setting("", turn_attention(knobs, previous_query=1.0))


@cause(
    "C406",
    title="input feeding is missing",
    sentence="the attention is not fed to the next step's input",
    remedy="`AttentionWrapper` feeds it by concatenation: leave `cell_input_fn` at its default.",
    applies=is_translator,
    wrong="AttentionWrapper(cell, mechanism, cell_input_fn=lambda inputs, attention: inputs)",
    right="AttentionWrapper(cell, mechanism)",
)
def leave_out_feeding(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Zeros in its place."""
    yield Setting("", turn_attention(knobs, feeding=0.0))


@cause(
    "C407",
    title="the cell's output is used in place of the attention",
    sentence="the output layer reads the cell's output, not the attention",
    remedy="Make the wrapper with `output_attention=True` (the default).",
    applies=lambda spec, batch: (
        isinstance(spec, AttentionNMT) and spec.attention.layer_units in (None, 2 * spec.units)
    ),
)
def output_cell(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """`output_attention=False`."""
    yield Setting("", turn_attention(knobs, output_attention=0.0))


@cause(
    "C411",
    title="the memory is of a wrong encoder layer",
    sentence="the decoder attends to {setting}, not to the top one's outputs",
    remedy="Pass the outputs of the last layer as the memory.",
    applies=is_stacked,
)
def attend_to_layer(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """A lower layer, or the sum or mean of all; the encoder gives the top layer's, or those."""
    assert isinstance(spec, AttentionNMT)
    ones = np.ones(spec.layers)
    mixtures = {
        **{f"the outputs of encoder layer {i}": np.eye(spec.layers)[i] for i in range(spec.layers - 1)},
        "the sum of all layers' outputs": ones,
        "the mean of all layers' outputs": ones / spec.layers,
    }
    for name, layers in mixtures.items():
        turned = turn_attention(knobs, memory_layers=layers)
        yield Setting(name, turned)
        yield Setting(f"{name}, which the encoder gives", turned._replace(encoder_layers=layers))


@cause(
    "C412",
    title="the output is of a wrong decoder layer",
    sentence="the decoder's output is that of {setting}, not of the top layer",
    remedy="Take the outputs of the last cell of the stack.",
    applies=is_stacked,
)
def output_layer(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """A lower layer."""
    assert isinstance(spec, AttentionNMT)
    for layer in range(spec.layers - 1):
        yield Setting(f"layer {layer}", knobs._replace(decoder_layers=np.eye(spec.layers)[layer]))


@cause(
    "C413",
    title="rows attend to the memory of other rows",
    sentence="the rows' memories are mixed up: {setting}",
    remedy="Tile memory, lengths and states in the same order, `tfa.seq2seq.tile_batch` (each row k times in "
    "sequence), never `tf.tile` (all rows k times over); and shuffle source and target together.",
    applies=lambda spec, batch: is_translator(spec) and len(batch["source"]) > 1,
)
def mix_rows(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Rolled, reversed, or tiled in the other order."""
    rows = len(batch["source"])
    numbers = np.arange(rows, dtype=np.int32)
    orders = {
        "each row attends to the memory of the one before it": np.roll(numbers, 1),
        "each row attends to the memory of the one after it": np.roll(numbers, -1),
        "they are in reverse order": numbers[::-1].copy(),
        "every row attends to the memory of the first": np.zeros_like(numbers),
    }
    for beams in range(2, rows):
        if rows % beams == 0:
            orders[f"of {beams} beams, tiled in the wrong order"] = (
                numbers.reshape(beams, -1).T.ravel().copy()
            )
    seen = set()
    for name, order in orders.items():
        if order.tobytes() not in seen:
            seen.add(order.tobytes())
            yield Setting(name, turn_attention(knobs, memory_rows=order))
