"""Faults in a translator's encoder: its directions, its layers, and the order of a stack."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.faults.lengths import SETUP
from oracle.selftest.places import JOINED, MEMORY
from oracle.selftest.snippets import by_hand

BACKWARD = "encoder/layers_0/backward/cell"
CUT = (
    "encoder/layers_0/forward/cell/h",
    "encoder/layers_0/backward/cell/h",
    "encoder/layers_1/forward/cell/input",
    "encoder/layers_1/backward/cell/input",
)
"""Where no gradient comes back from the upper layer: the adjoints of the lower one, and what reads it."""
LAYER_CALL = "outputs, *parts = layer(outputs, mask=mask)"
RETURN = "        return outputs, states\n"
EMBEDDED = 'memory, states = self.encoder(embedded["source"], source_length)'
STACK = "tf.keras.layers.StackedRNNCells(list(self.cells), dtype=dtype)"
TWO, BOTH = ("bahdanau-gru-2", "bahdanau-monotonic-2"), ("luong", "bahdanau-gru-2")

_FORWARD_TWICE = (
    "flags = layer.backward_layer.go_backwards\n"
    "            layer.backward_layer.go_backwards = False\n"
    "            {}\n"
    "            layer.backward_layer.go_backwards = flags"
)
_REPEATING = "layer.forward_layer.zero_output_for_mask = layer.backward_layer.zero_output_for_mask = False"
_REVERSED = "tf.concat([ahead_outputs, behind_outputs], -1)"


def _run(name: str, code: str, *causes: str, places: tuple[str, ...]) -> Fault:
    """The line that runs a layer."""
    return Fault(name, "encoder", "attention_nmt", BOTH, (Edit(LAYER_CALL, code),), causes, places)


def _memory(name: str, keep: str) -> Fault:
    """The memory of another layer, or of several; the encoder gives the top layer's."""
    return Fault(
        name,
        "stack",
        "attention_nmt",
        TWO,
        (
            Edit(LAYER_CALL, f"{LAYER_CALL}\n            {keep}"),
            Edit(SETUP, SETUP.replace("(memory,", "(Kept.outputs,"), 0),
        ),
        ("C411",),
        MEMORY,
        addition='''
class Kept:
    """What the decoder is to attend to."""

    outputs = None
''',
    )


FAULTS = (
    # The cells are right, and their outputs are joined wrongly.
    _run("backward-outputs-not-reversed", by_hand(joined=_REVERSED), "C311", places=(JOINED,)),
    _run(
        "backward-reads-forward",
        _FORWARD_TWICE.format(by_hand(joined=_REVERSED)),
        "C311",
        places=(BACKWARD,),
    ),
    _run(
        "backward-reads-forward-joined-reversed", _FORWARD_TWICE.format(by_hand()), "C311", places=(BACKWARD,)
    ),
    # No mask is at once a length that is ignored and a reversal of the padding.
    _run("backward-reads-padding", by_hand(behind="outputs"), "C301", "C312", places=(BACKWARD,)),
    _run(
        "outputs-repeat-past-end",
        f"{_REPEATING}\n            {LAYER_CALL}",
        "C305",
        # What reads the outputs leaves out what is past the end.
        places=("output/encoder",),
    ),
    # The cell runs past the end, where its state is handed over and its outputs are not zero.
    _run(
        "forward-reads-padding",
        by_hand(ahead="outputs"),
        "C301",
        places=(
            "encoder/layers_0/forward/cell",
            "handoff",
            "decoder/cells_0/state_h",
            "decoder/cells_0/state_c",
            "state/encoder",
            "output/encoder",
        ),
    ),
    Fault(
        "source-reversed",
        "encoder",
        "attention_nmt",
        ("luong", "luong-gru"),
        (
            Edit(
                EMBEDDED,
                'flipped = tf.reverse_sequence(embedded["source"], source_length, 1)\n'
                "            memory, states = self.encoder(flipped, source_length)",
            ),
        ),
        ("C313",),
        ("encoder/layers_0",),
    ),
    Fault(
        "series-reversed",
        "encoder",
        "explicit_state",
        ("pair", "pair-wide"),
        (Edit("self.encoder(self.cast(inputs), initial", "self.encoder(self.cast(inputs)[::-1], initial"),),
        ("C313",),
        ("encoder/cell",),
    ),
    Fault(
        "outputs-joined-wrong-way",
        "uncatalogued",
        "attention_nmt",
        BOTH,
        (
            Edit(
                LAYER_CALL, by_hand(joined="tf.concat([tf.reverse(behind_outputs, [1]), ahead_outputs], -1)")
            ),
        ),
        (),
        (JOINED,),
    ),
    _memory("memory-of-bottom-layer", "Kept.outputs = outputs if not states else Kept.outputs"),
    _memory("memory-of-all-layers", "Kept.outputs = outputs if not states else Kept.outputs + outputs"),
    Fault(
        "encoder-gives-bottom-layer",
        "stack",
        "attention_nmt",
        TWO,
        (
            Edit(LAYER_CALL, f"{LAYER_CALL}\n            first = outputs if not states else first"),
            Edit(RETURN, "        return first, states\n"),
        ),
        ("C411",),
        # What the encoder gives, and what is made of it.
        (*MEMORY, "output/encoder"),
    ),
    Fault(
        "output-of-bottom-cell",
        "stack",
        "attention_nmt",
        TWO,
        (Edit(STACK, "SeededStack(list(self.cells), dtype=dtype)"),),
        ("C412",),
        # Both read the output of the stack, whose cells are right.
        ("decoder/attention_mechanism/query", "decoder/attention_layer/input"),
        addition='''
class SeededStack(tf.keras.layers.StackedRNNCells):
    """A stack that gives the output of its first cell."""

    def call(self, inputs, states, **options):
        _, following = super().call(inputs, states, **options)
        first = following[0]
        return (first[0] if isinstance(first, (list, tuple)) else first), following
''',
    ),
    Fault(
        "encoder-layers-stopped",
        "pairs",
        "attention_nmt",
        TWO,
        (Edit(LAYER_CALL, "outputs, *parts = layer(tf.stop_gradient(outputs), mask=mask)"),),
        ("C605", "C606"),
        CUT,
        backward=True,
        together=True,
    ),
    Fault(
        "upper-encoder-layer-stopped",
        "seams",
        "attention_nmt",
        TWO,
        (
            Edit(
                LAYER_CALL,
                "outputs, *parts = layer(tf.stop_gradient(outputs) if states else outputs, mask=mask)",
            ),
        ),
        ("C606",),
        CUT,
        backward=True,
    ),
)
