"""Faults in what a cell computes: the cell of the port is one that is written out, and wrong."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.snippets import SEEDED_ENCODER, TRANSPOSED, gru_cell, lstm_cell

KERAS_CELL = "self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)"
SEEDED = "self.cell = SeededCell(units, dtype=self.dtype_policy)"
DECODER_CELLS = "self.cells = [cell(2 * spec.units, dtype=dtype) for _ in range(spec.layers)]"
SEEDED_CELLS = "self.cells = [SeededCell(2 * spec.units, dtype=dtype) for _ in range(spec.layers)]"
ENCODER_LAYERS = """            tf.keras.layers.Bidirectional(
                layer(spec.units, return_sequences=True, return_state=True, dtype=dtype),
                merge_mode="concat",
                dtype=dtype,
            )
            for _ in range(spec.layers)"""
SEEDED_LAYERS = """            make_layer(SeededCell, spec, dtype) for _ in range(spec.layers)"""

PAIR_ENCODER, PAIR_DECODER = Edit(KERAS_CELL, SEEDED, 0), Edit(KERAS_CELL, SEEDED, 1)
TRANSLATOR_DECODER = Edit(DECODER_CELLS, SEEDED_CELLS)
TRANSLATOR_ENCODER = Edit(ENCODER_LAYERS, SEEDED_LAYERS)


def _in_pair(name: str, cell: str, *causes: str, decoder: bool = True) -> Fault:
    """A cell of `explicit_state`, the decoder's or the encoder's."""
    edit, place = (PAIR_DECODER, "decoder/cell") if decoder else (PAIR_ENCODER, "encoder/cell")
    subjects = ("pair", "pair-wide")
    return Fault(name, "cells", "explicit_state", subjects, (edit,), causes, (place,), addition=cell)


def _in_decoder(name: str, cell: str, *causes: str, subjects: tuple[str, ...]) -> Fault:
    """Every cell of a translator's decoder."""
    edits, places = (TRANSLATOR_DECODER,), ("decoder/cells_0",)
    return Fault(name, "cells", "attention_nmt", subjects, edits, causes, places, addition=cell)


def _in_encoder(name: str, cell: str, *causes: str, subjects: tuple[str, ...]) -> Fault:
    """Every cell of a translator's encoder."""
    edits, places = (TRANSLATOR_ENCODER,), ("encoder/layers_0",)
    addition = cell + SEEDED_ENCODER
    return Fault(name, "cells", "attention_nmt", subjects, edits, causes, places, addition=addition)


def _in_loop(name: str, edit: Edit, place: str, *causes: str) -> Fault:
    """A cell of TF1's."""
    return Fault(name, "cells", "dynamic_rnn", ("loop", "loop-lengths"), (edit,), causes, (place,))


LSTMS, GRUS = ("luong", "bahdanau-monotonic-2"), ("luong-gru", "bahdanau-gru-2")
_RESET_BEFORE = "x[2] + tf.matmul(r * h, kernels[2]) + bias[1][2]"

FAULTS = (
    _in_pair("forget-bias-missing", lstm_cell(forget="f - 1.0"), "C201"),
    _in_pair("forget-bias-twice", lstm_cell(forget="f + 1.0"), "C202"),
    _in_pair("encoder-forget-bias-twice", lstm_cell(forget="f + 1.0"), "C202", decoder=False),
    _in_pair("gates-of-tf1", lstm_cell(order="i, g, f, o"), "C203"),
    _in_pair("encoder-gates-of-onnx", lstm_cell(order="i, o, f, g"), "C203", decoder=False),
    _in_pair("hard-sigmoid", lstm_cell(gate="tf.keras.activations.hard_sigmoid"), "C206"),
    _in_pair("relu", lstm_cell(activation="tf.nn.relu"), "C207"),
    _in_pair("encoder-softsign", lstm_cell(activation="tf.nn.softsign"), "C207", decoder=False),
    _in_pair("recurrent-transposed", lstm_cell(recurrent=TRANSPOSED.format(count=4)), "C208"),
    _in_pair(
        "encoder-recurrent-transposed",
        lstm_cell(recurrent=TRANSPOSED.format(count=4)),
        "C208",
        decoder=False,
    ),
    _in_pair("bias-twice", lstm_cell(bias="2.0 * self.bias"), "C210"),
    _in_pair("bias-missing", lstm_cell(bias="0.0 * self.bias"), "C211"),
    _in_pair("encoder-bias-missing", lstm_cell(bias="0.0 * self.bias"), "C211", decoder=False),
    Fault(
        "cells-tied",
        "cells",
        "explicit_state",
        ("pair",),
        (
            PAIR_DECODER,
            Edit(
                "self.optimizer = tf.keras.optimizers.Adam(1e-3)",
                "self.decoder.cell.other = [self.encoder.cell]\n"
                "        self.optimizer = tf.keras.optimizers.Adam(1e-3)",
            ),
        ),
        ("C209",),
        ("decoder/cell",),
        addition=lstm_cell(recurrent="self.other[0].recurrent_kernel", bias="self.other[0].bias"),
    ),
    _in_loop(
        "loop-forget-bias-missing",
        Edit("forget_bias=spec.decoder.forget_bias", "forget_bias=0.0"),
        "decoder/cell",
        "C201",
    ),
    _in_loop(
        "loop-forget-bias-twice",
        Edit("forget_bias=spec.encoder.forget_bias", "forget_bias=2 * spec.encoder.forget_bias"),
        "encoder/cell",
        "C202",
    ),
    _in_loop(
        "loop-relu",
        Edit(
            "forget_bias=spec.decoder.forget_bias",
            "forget_bias=spec.decoder.forget_bias, activation=tf.nn.relu",
        ),
        "decoder/cell",
        "C207",
    ),
    _in_decoder(
        "translator-forget-bias-twice",
        lstm_cell(forget="f + 1.0"),
        "C202",
        subjects=LSTMS,
    ),
    _in_decoder("translator-gates-of-tf1", lstm_cell(order="i, g, f, o"), "C203", subjects=LSTMS),
    _in_decoder("gru-gates-of-tf1", gru_cell(order="r, z, n"), "C203", subjects=GRUS),
    _in_decoder("gru-reset-before", gru_cell(candidate=_RESET_BEFORE), "C204", subjects=GRUS),
    _in_decoder("gru-update-exchanged", gru_cell(mixed="(1.0 - z) * h + z * n"), "C205", subjects=GRUS),
    _in_decoder(
        "gru-hard-sigmoid", gru_cell(gate="tf.keras.activations.hard_sigmoid"), "C206", subjects=GRUS
    ),
    _in_decoder(
        "gru-recurrent-transposed",
        gru_cell(recurrent=TRANSPOSED.format(count=3)),
        "C208",
        subjects=GRUS,
    ),
    _in_encoder("encoder-gru-reset-before", gru_cell(candidate=_RESET_BEFORE), "C204", subjects=GRUS),
    _in_encoder("encoder-gru-relu", gru_cell(activation="tf.nn.relu"), "C207", subjects=GRUS),
    _in_encoder(
        "encoder-hard-sigmoid",
        lstm_cell(gate="tf.keras.activations.hard_sigmoid"),
        "C206",
        subjects=LSTMS,
    ),
    _in_encoder(
        "encoder-lstm-transposed",
        lstm_cell(recurrent=TRANSPOSED.format(count=4)),
        "C208",
        subjects=LSTMS,
    ),
)
