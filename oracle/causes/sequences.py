"""C3: lengths, directions and the order of steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Tensors, cause
from oracle.causes.turning import (
    backward_cells,
    decoder_cells,
    encoder_cells,
    is_translator,
    turn_cells,
)
from oracle.knobs import CellKnobs, Knobs
from oracle.spec import EncoderDecoder


def has_source_lengths(spec: ModelSpec, batch: Tensors) -> bool:
    """Whether a row of the source is shorter than the others."""
    return "source_length" in batch and bool((batch["source_length"] < batch["source"].shape[1]).any())


def has_target_lengths(spec: ModelSpec, batch: Tensors) -> bool:
    """Whether a row of an `EncoderDecoder`'s target ends before the others."""
    steps = batch["target"].shape[1] - 1
    return isinstance(spec, EncoderDecoder) and spec.lengths and bool((batch["target_length"] < steps).any())


@cause(
    "C301",
    title="the source's lengths are ignored",
    sentence="the encoder reads past the ends of the rows: the source's lengths are ignored by {setting}",
    remedy="Pass `mask=tf.sequence_mask(source_length, tf.shape(source)[1])` to the Keras layer, or "
    "`sequence_length=source_length` to `dynamic_rnn`.",
    applies=has_source_lengths,
    wrong="outputs, *state = encoder(embedded)",
    right="mask = tf.sequence_mask(source_length, tf.shape(source)[1])\n"
    "outputs, *state = encoder(embedded, mask=mask)",
)
def ignore_source_lengths(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every row read to the end of the longest."""
    time = batch["source"].shape[1]
    full = np.full(len(batch["source"]), time, np.int32)
    for name, paths in _source_groups(knobs):
        yield Setting(name, _read_lengths(knobs, paths, full))


@cause(
    "C302",
    title="the source's lengths are off by one",
    sentence="the source's lengths are {setting} in the encoder",
    remedy="Count the tokens that are read, the end token among them if it is fed, the padding not: "
    "`tf.reduce_sum(tf.cast(source != pad, tf.int32), 1)`.",
    applies=lambda spec, batch: "source_length" in batch,
)
def shift_source_lengths(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """One step less, or one more."""
    time = batch["source"].shape[1]
    for by, name in ((-1, "one too short"), (1, "one too long")):
        lengths = np.clip(batch["source_length"] + by, 0, time).astype(np.int32)
        yield Setting(name, _read_lengths(knobs, encoder_cells(knobs), lengths))


@cause(
    "C303",
    title="the target's lengths are ignored",
    sentence="the decoder goes on past the ends of the rows: the target's lengths are ignored",
    remedy="Pass `sequence_length=target_length` to the decoder, and keep the states of rows that have ended "
    "(`impute_finished=True`), or a mask to the Keras layer.",
    applies=has_target_lengths,
)
def ignore_target_lengths(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every row decoded to the end of the longest."""
    full = np.full(len(batch["target"]), batch["target"].shape[1] - 1, np.int32)
    yield Setting("", turn_cells(knobs, decoder_cells(knobs), lengths=full))


@cause(
    "C304",
    title="the target's lengths are off by one",
    sentence="the target's lengths are {setting} in the decoder",
    remedy="The decoder makes one step fewer than the target has tokens, since it starts from the first.",
    applies=has_target_lengths,
)
def shift_target_lengths(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """One step less, or one more."""
    steps = batch["target"].shape[1] - 1
    for by, name in ((-1, "one too short"), (1, "one too long")):
        lengths = np.clip(batch["target_length"] + by, 0, steps).astype(np.int32)
        yield Setting(name, turn_cells(knobs, decoder_cells(knobs), lengths=lengths))


@cause(
    "C305",
    title="outputs past the end of a row are not zero",
    sentence="the outputs past the end of a row repeat its last one, where they should be zero, in {setting}",
    remedy="Make the Keras layer with `zero_output_for_mask=True` (`tf.keras.layers.RNN`); `dynamic_rnn` and "
    "a `Bidirectional` layer give zeros.",
    applies=lambda spec, batch: has_source_lengths(spec, batch) or has_target_lengths(spec, batch),
)
def repeat_last_output(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The last output for zeros, or zeros for the last one."""
    ahead = tuple(path for path in encoder_cells(knobs) if path not in backward_cells(knobs))
    # Keras' backward layer has the padding first, where there is no output yet to be repeated.
    groups = {
        ahead: "the encoder's forward direction",
        encoder_cells(knobs): "the encoder",
        decoder_cells(knobs): "the decoder",
    }
    for paths, name in groups.items():
        if all(
            (cell.lengths >= np.shape(cell.order_in)[1]).all()
            for cell in (knobs.cells[path] for path in paths)
        ):
            continue
        turned = {path: knobs.cells[path]._replace(zero_past=0.0) for path in paths}
        yield Setting(name, knobs._replace(cells={**knobs.cells, **turned}))


@cause(
    "C311",
    title="a direction is not reversed",
    sentence="the backward direction is wrong: {setting}",
    remedy="Reverse what the backward layer reads, each row up to its own length, and its outputs back: "
    "`tf.reverse_sequence(x, lengths, seq_axis=1)` before and after; `Bidirectional` does both.",
    applies=is_translator,
)
def leave_direction(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Inputs, outputs or both not reversed, or reversed with the padding."""
    ahead = _ahead(batch)
    whole = ahead[:, ::-1].copy()
    right = np.asarray(knobs.cells[backward_cells(knobs)[0]].order_in)
    # Keras' layer that goes backwards puts the padding first.
    time = ahead.shape[1]
    rolled = ((ahead - (time - batch["source_length"][:, None])) % time).astype(np.int32)
    reads = {"": right, "what it reads is not reversed": ahead}
    gives = {
        "": right,
        "its outputs are not reversed back": ahead,
        "its outputs are not reversed back, and begin with the padding": rolled,
        "its outputs are reversed with the padding": whole,
    }
    for read, order_in in reads.items():
        for given, order_out in gives.items():
            name = ", and ".join(part for part in (read, given) if part)
            if name:
                turned = turn_cells(knobs, backward_cells(knobs), order_in=order_in, order_out=order_out)
                yield Setting(name, turned)


@cause(
    "C312",
    title="the reversal takes the padding with it",
    sentence="the source is reversed with its padding, so that the backward direction "
    "takes the padding for the row's beginning",
    remedy="Use `tf.reverse_sequence(x, lengths, seq_axis=1)`, which leaves the padding where it is, in "
    "place of `tf.reverse(x, [1])`; or pass the mask to `Bidirectional`.",
    applies=lambda spec, batch: is_translator(spec) and has_source_lengths(spec, batch),
)
def reverse_padding(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The padding taken for the row's beginning, up to its length or to the end."""
    behind = _ahead(batch)[:, ::-1].copy()
    turned = turn_cells(knobs, backward_cells(knobs), order_in=behind, order_out=behind)
    yield Setting("", turned)
    full = np.full(len(behind), behind.shape[1], np.int32)
    yield Setting("", turn_cells(turned, backward_cells(knobs), lengths=full))


@cause(
    "C313",
    title="the source is read from its end",
    sentence="the encoder reads the source from its end: {setting}",
    remedy="Leave `go_backwards=True` or `source[:, ::-1]` out where the model is meant to read forward.",
)
def reverse_source(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Forward cells, or all of the lowest layer, fed in reverse, with or without the padding."""
    ahead = _ahead(batch)
    whole = ahead[:, ::-1].copy()
    lengths = batch.get("source_length", np.full(len(ahead), ahead.shape[1]))[:, None]
    rows = np.where(ahead < lengths, lengths - 1 - ahead, ahead).astype(np.int32)
    paths = tuple(path for path in encoder_cells(knobs) if path not in backward_cells(knobs))
    for name, order in (("padding and all", whole), ("each row up to its length", rows)):
        yield Setting(name, turn_cells(knobs, paths, order_in=order))
        yield Setting(f"{name}, outputs put back", turn_cells(knobs, paths, order_in=order, order_out=order))
        # What is reversed before the encoder gets it is read the wrong way round by both directions.
        lowest = {
            path: cell._replace(order_in=np.take_along_axis(order, np.asarray(cell.order_in), axis=1))
            for path, cell in knobs.cells.items()
            if path.startswith("encoder/layers_0/")
        }
        if lowest:
            yield Setting(f"{name}, in both directions", knobs._replace(cells={**knobs.cells, **lowest}))


@cause(
    "C321",
    title="impute_finished",
    sentence="rows that have ended keep their state and give zeros (`impute_finished=True`)",
    remedy="Leave `impute_finished` out of the decoder if the original has none. It changes final states and "
    "outputs past the ends, not the gradient of a masked loss.",
    applies=lambda spec, batch: (
        is_translator(spec) and bool((batch["target_length"] < batch["target"].shape[1] - 1).any())
    ),
)
def impute_finished(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """States kept past the ends, emitted outputs zero."""
    lengths = batch["target_length"].astype(np.int32)
    yield Setting("", turn_cells(knobs, decoder_cells(knobs), lengths=lengths))


@cause(
    "C322",
    title="the decoder does not stop with its longest row",
    sentence="the decoder goes on to the end of the padded target, past its longest row",
    remedy="It changes outputs past every row's end and final states only. `tfa.seq2seq.dynamic_decode` ends "
    "with the longest row if it is given `sequence_length`.",
    applies=lambda spec, batch: (
        is_translator(spec) and bool(batch["target_length"].max() < batch["target"].shape[1] - 1)
    ),
)
def decode_to_the_end(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every step of the target."""
    yield Setting(
        "", knobs._replace(steps_lengths=np.full_like(knobs.steps_lengths, batch["target"].shape[1] - 1))
    )


def _source_groups(knobs: Knobs) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The encoder's cells: all, the forward ones, each alone."""
    paths = encoder_cells(knobs)
    behind = backward_cells(knobs)
    groups = {
        "the encoder": paths,
        "the forward direction": tuple(path for path in paths if path not in behind),
        **{path: (path,) for path in paths},
    }
    seen = set()
    for name, group in groups.items():
        # The backward direction alone is reversed with its padding: that is C312.
        if group and group not in seen and group != behind:
            seen.add(group)
            yield name, group


def _read_lengths(knobs: Knobs, paths: tuple[str, ...], lengths: np.ndarray) -> Knobs:
    """Cells that take the rows for so long; backward ones begin at that end."""
    behind = set(backward_cells(knobs)) & set(paths)
    ahead = tuple(path for path in paths if path not in behind)
    knobs = turn_cells(knobs, ahead, lengths=lengths)
    if not behind:
        return knobs
    cell: CellKnobs = knobs.cells[next(iter(behind))]
    steps = np.arange(np.shape(cell.order_in)[1])[None]
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps).astype(np.int32)
    return turn_cells(knobs, tuple(behind), lengths=lengths, order_in=order, order_out=order)


def _ahead(batch: Tensors) -> np.ndarray:
    rows, time = batch["source"].shape[:2]
    return np.tile(np.arange(time, dtype=np.int32), (rows, 1))
