"""Small faults: one row of a weight's gradient, one element, one row of the batch, one token."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.faults.cells import PAIR_ENCODER
from oracle.selftest.faults.gradient import NMT_STEP, PAIR_STEP
from oracle.selftest.faults.handoff import GIVEN, PAIR_CALL
from oracle.selftest.faults.lengths import MASK, SETUP, SOURCE
from oracle.selftest.faults.loss import NMT_LOSS
from oracle.selftest.snippets import lstm_cell

ROW_SIZES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10)
"""By how much a row of a gradient is too large."""

FLOAT32_LIMIT = 1e-6
"""From here down, float32's own noise is as large as the fault."""

NUDGE = '''
def nudge(tensor, place, size):
    """A tensor, one row or element of it larger by a part of itself."""
    part = tensor[place]
    return tf.tensor_scatter_nd_update(tensor, [list(place)], [part * (1.0 + size)])


def nudge_one(gradients, name, place, size):
    """Gradients by name, one of them nudged."""
    if gradients[name] is None:
        return gradients
    return {**gradients, name: nudge(gradients[name], place, size)}
'''


def _hides(size: float) -> str:
    return "float32's own error is as large" if size <= FLOAT32_LIMIT else ""


def _of_gradient(name: str, leaf: str, place: str, size: float, subjects: tuple[str, ...]) -> Fault:
    """One row or element of one weight's gradient. An element is small beside the largest of its tensor."""
    translator = leaf.startswith("decoder/embedding") or "attention" in leaf or "layers" in leaf
    if translator:
        module, old = "attention_nmt", NMT_STEP
        new = NMT_STEP.replace("of_variables", f'nudge_one(of_variables, "{leaf}", {place}, {size})')
    else:
        module, old = "explicit_state", PAIR_STEP
        new = f'nudge_one({PAIR_STEP[:-1]}, "{leaf}", {place}, {size}),'
    layer = leaf.rpartition("/")[0].replace("/layers/0/forward_layer", "/layers_0/forward")
    return Fault(
        name,
        "small",
        module,
        subjects,
        (Edit(old, new),),
        (),
        # The gradient itself, and the account of it: it is no sum over right adjoints.
        (f"gradient/{layer}", f"{layer}/weights"),
        addition=NUDGE,
        backward=True,
        hides_in_float32=_hides(size / 100 if ", " in place else size),
        number=size,
    )


def _forward(
    name: str,
    module: str,
    subjects: tuple[str, ...],
    edits: tuple[Edit, ...],
    *places: str,
    addition: str = "",
    size: float | None = None,
    causes: tuple[str, ...] = (),
) -> Fault:
    """Something small in the forward pass."""
    return Fault(
        name,
        "small",
        module,
        subjects,
        edits,
        causes,
        places,
        addition=addition,
        hides_in_float32="" if size is None else _hides(size),
        number=size,
    )


def _one_row(lengths: str) -> str:
    """Lengths in which that of row 1 is one less; one more if it is at most 1."""
    return f"tf.tensor_scatter_nd_add({lengths}, [[1]], [tf.where({lengths}[1] > 1, -1, 1)])"


_SOURCE_LENGTH = 'batch["source_length"]'
_LOSS = '''
def seeded_loss(logits, target, lengths, *others, **options):
    """The loss, the logits of one token of the vocabulary larger by a part of themselves."""
    factors = tf.tensor_scatter_nd_add(tf.ones(logits.shape[-1:], logits.dtype), [[2]], [{size}])
    return masked_loss(logits * factors, target, lengths, *others, **options)
'''

FAULTS = (
    *(
        _of_gradient(
            f"row-of-gradient-by-{size:.0e}", "encoder/cell/kernel", "(1,)", size, ("pair", "pair-wide")
        )
        for size in ROW_SIZES
    ),
    *(
        _of_gradient(
            f"element-of-gradient-by-{size:.0e}",
            "decoder/cell/recurrent_kernel",
            "(1, 2)",
            size,
            ("pair", "pair-wide"),
        )
        for size in (1e-1, 1e-2, 1e-4, 1e-6)
    ),
    *(
        _of_gradient(
            f"row-of-embedding-by-{size:.0e}",
            "decoder/embedding/embeddings",
            "(1,)",
            size,
            ("luong", "bahdanau-wide"),
        )
        for size in (1e-2, 1e-4, 1e-6)
    ),
    _of_gradient(
        "row-of-embedding-lost", "decoder/embedding/embeddings", "(1,)", -1.0, ("luong", "bahdanau-wide")
    ),
    _of_gradient(
        "row-of-encoder-by-1e-06",
        "encoder/layers/0/forward_layer/cell/kernel",
        "(0,)",
        1e-6,
        ("luong", "bahdanau-gru-2"),
    ),
    *(
        _forward(
            f"weight-in-cell-by-{size:.0e}",
            "explicit_state",
            ("pair", "pair-wide"),
            (PAIR_ENCODER,),
            "encoder/cell",
            addition=NUDGE + lstm_cell(kernel=f"nudge(self.kernel, (0, 1), {size})"),
            size=size,
        )
        for size in (1e-2, 1e-4, 1e-6)
    ),
    *(
        _forward(
            f"token-logits-by-{size:.0e}",
            "attention_nmt",
            ("luong", "bahdanau-wide"),
            (Edit(NMT_LOSS, "loss = seeded_loss("),),
            "loss",
            addition=_LOSS.format(size=size),
            size=size,
        )
        for size in (1e-2, 1e-4, 1e-6)
    ),
    _forward(
        "length-of-one-row-short",
        "dynamic_rnn",
        ("loop-lengths",),
        (Edit(SOURCE, f"sequence_length={_one_row(_SOURCE_LENGTH)},"),),
        "encoder/cell",
    ),
    _forward(
        "mask-of-one-row-short",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit(MASK, MASK.replace("source_length,", f"{_one_row('source_length')},")),),
        "encoder/layers_0",
    ),
    _forward(
        "memory-of-one-row-short",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit(SETUP, SETUP.replace("=source_length", f"={_one_row('source_length')}"), 0),),
        # A shorter row is so in the memory; a longer one, in the alignments alone.
        "memory",
        "decoder/attention_mechanism",
    ),
    _forward(
        "state-of-one-row-lost",
        "explicit_state",
        ("pair", "pair-wide"),
        (
            Edit(
                PAIR_CALL,
                PAIR_CALL.replace(
                    "=state", "=[tf.tensor_scatter_nd_update(s, [[1]], [tf.zeros_like(s[1])]) for s in state]"
                ),
            ),
        ),
        *GIVEN,
    ),
)
