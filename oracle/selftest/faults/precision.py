"""Faults in precision, a tensor or every product rounded to another dtype; and dropout that is left on."""

from __future__ import annotations

from dataclasses import replace

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.faults.handoff import ENCODER_CALL, GIVEN, PAIR_CALL
from oracle.selftest.snippets import lstm_cell

OUTPUTS = "outputs = decoded if self.projection is None else self.projection(decoded)"
CELL = "self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)"
SEEDED = "self.cell = SeededCell(units, dtype=self.dtype_policy)"
DECODED = "outputs, state, _ = self.decoder(inputs, **options)"
PRECISION = ("precision",)
"""What is expected of a rounding: that the explanation is one of precision, whichever code it has."""


def _round(name: str, dtype: str, where: str) -> Fault:
    """A tensor rounded to another dtype and back, as a layer of another policy does."""
    edits = {
        "encoder": (
            Edit(ENCODER_CALL, ENCODER_CALL.replace("self.cast(inputs)", "through(self.cast(inputs))")),
        ),
        "outputs": (Edit(OUTPUTS, OUTPUTS.replace("(decoded)", "(through(decoded))")),),
        "state": (Edit(PAIR_CALL, PAIR_CALL.replace("=state", "=[through(part) for part in state]")),),
    }[where]
    places = {"encoder": ("encoder/cell/input",), "outputs": ("projection/input",), "state": GIVEN}[where]
    addition = f'''
def through(tensor):
    """A tensor as it comes out of a layer that computes in another dtype."""
    return tf.cast(tf.cast(tensor, tf.{dtype}), tensor.dtype)
'''
    hidden = "the rounding is float32's own" if dtype == "float32" else ""
    return Fault(
        name,
        "precision",
        "explicit_state",
        ("pair", "pair-wide"),
        edits,
        PRECISION,
        places,
        addition=addition,
        hides_in_float32=hidden,
    )


def _dropped(name: str, mask: str, cause: str) -> Fault:
    """Dropout left on, over the decoder's outputs."""
    edit = Edit(DECODED, f"{DECODED}\n        kept = outputs.rnn_output\n        kept = {mask}")
    back = Edit("        return outputs.rnn_output, state\n", "        return kept, state\n")
    return Fault(
        name,
        "dropout",
        "explicit_state",
        ("pair", "pair-wide"),
        (edit, back),
        (cause,),
        # The cell is right; what the decoder gives, and what reads it, are not.
        ("output/decoder", "projection/input"),
    )


def _round_products(name: str, dtype: str) -> Fault:
    """Every matrix product's inputs rounded, as accelerators do."""
    cell = lstm_cell(
        given="h, c = through(states[0]), states[1]\n        inputs = through(inputs)",
        kernel="through(self.kernel)",
        recurrent="through(self.recurrent_kernel)",
    )
    rounded = _round(name, dtype, "outputs")
    edits = (*rounded.edits, Edit(CELL, SEEDED, 0), Edit(CELL, SEEDED, 0))
    return replace(rounded, edits=edits, addition=rounded.addition + cell, places=("encoder/cell",))


_MASK = "tf.nn.experimental.stateless_dropout(kept, 0.4, seed=[7, 8]{})"

FAULTS = (
    _round_products("products-in-bfloat16", "bfloat16"),
    _round_products("products-in-float16", "float16"),
    _round_products("products-in-float32", "float32"),
    _round("inputs-in-float16", "float16", "encoder"),
    _round("outputs-in-bfloat16", "bfloat16", "outputs"),
    _round("outputs-in-float32", "float32", "outputs"),
    _round("state-in-float32", "float32", "state"),
    _round("state-in-float16", "float16", "state"),
    _dropped("dropout-left-on", _MASK.format(""), "C701"),
    _dropped("dropout-mask-shared", _MASK.format(", noise_shape=[1, *kept.shape[1:]]"), "C702"),
)
