"""Faults in lengths of rows: ignored, off by one, or of one pass alone."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.places import MEMORY

SOURCE = 'sequence_length=batch.get("source_length"),'
TARGET = 'sequence_length=batch.get("target_length"),'
MASK = "mask = tf.sequence_mask(source_length, embedded.shape[1])"
SETUP = "self.attention_mechanism.setup_memory(memory, memory_sequence_length=source_length)"
STEPS = '"sequence_length": target_length}'
ALL = ("luong", "bahdanau-gru-2", "luong-monotonic", "bahdanau-monotonic-2")


def _loop(name: str, old: str, lengths: str, cause: str) -> Fault:
    """Lengths of TF1's loop over the encoder or the decoder."""
    edit = Edit(old, f"sequence_length={lengths},")
    place = "encoder/cell" if old == SOURCE else "decoder/cell"
    return Fault(name, "lengths", "dynamic_rnn", ("loop-lengths",), (edit,), (cause,), (place,))


def _encoder(name: str, mask: str, cause: str) -> Fault:
    """The mask of a translator's encoder."""
    edits, places = (Edit(MASK, f"mask = {mask}"),), ("encoder/layers_0",)
    return Fault(name, "lengths", "attention_nmt", ("luong", "bahdanau-gru-2"), edits, (cause,), places)


def _memory(name: str, options: str, cause: str, *places: str) -> Fault:
    """The lengths of the attention's memory."""
    edits = (Edit(SETUP, f"self.attention_mechanism.setup_memory(memory{options})", 0),)
    return Fault(name, "attention", "attention_nmt", ALL, edits, (cause,), places)


FAULTS = (
    _loop("source-length-ignored", SOURCE, "None", "C301"),
    _loop("target-length-ignored", TARGET, "None", "C303"),
    _loop(
        "source-length-short",
        SOURCE,
        'tf.maximum(batch["source_length"] - 1, 0)',
        "C302",
    ),
    _loop(
        "source-length-long",
        SOURCE,
        'tf.minimum(batch["source_length"] + 1, source.shape[1])',
        "C302",
    ),
    _loop(
        "target-length-short",
        TARGET,
        'tf.maximum(batch["target_length"] - 1, 0)',
        "C304",
    ),
    _encoder("encoder-mask-missing", "None", "C301"),
    _encoder(
        "encoder-mask-short",
        "tf.sequence_mask(tf.maximum(source_length - 1, 1), embedded.shape[1])",
        "C302",
    ),
    # The encoder's outputs are zero past the ends, so that the memory is right without the mask, too.
    _memory("memory-mask-missing", "", "C401", "decoder/attention_mechanism/alignments"),
    # The mask sets steps of the memory itself to zero.
    _memory(
        "memory-mask-short", ", memory_sequence_length=tf.maximum(source_length - 1, 1)", "C402", *MEMORY
    ),
    Fault(
        "impute-finished",
        "lengths",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (
            Edit(
                "self.wrapper, tfa.seq2seq.TrainingSampler(), self.output_layer, dtype=dtype",
                "self.wrapper, tfa.seq2seq.TrainingSampler(), self.output_layer, dtype=dtype, "
                "impute_finished=True",
            ),
        ),
        ("C321",),
        # The step after a row's end is fed what stays, and starts from it.
        ("decoder/cells_0", "feeding"),
    ),
    Fault(
        "decoder-length-short",
        "uncatalogued",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit(STEPS, '"sequence_length": target_length - 1}', 0),),
        (),
        # The step that is missing.
        ("decoder/cells_0",),
    ),
)
