"""Faults of one edit: gradients cut within a cell, pairs of faults, and what no cause describes."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Family, Fault
from oracle.selftest.faults.handoff import GIVEN, PAIR_CALL
from oracle.selftest.faults.loss import PAIR_LOSS
from oracle.selftest.faults.precision import CELL, OUTPUTS, SEEDED
from oracle.selftest.snippets import lstm_cell


def _other(
    name: str,
    old: str,
    new: str,
    *places: str,
    module: str = "explicit_state",
    subjects: tuple[str, ...] = ("pair", "pair-wide"),
    addition: str = "",
    occurrence: int | None = None,
    backward: bool = False,
    causes: tuple[str, ...] = (),
    family: Family = "uncatalogued",
) -> Fault:
    """One edit."""
    edits = (Edit(old, new, occurrence),)
    return Fault(
        name,
        family,
        module,
        subjects,
        edits,
        causes,
        places,
        addition=addition,
        backward=backward,
        together=family == "pairs",
    )


_STOPPED = "c, h = (tf.stop_gradient(states[1]), tf.stop_gradient(states[0]))"

FAULTS = (
    _other(
        "time-truncated",
        CELL,
        SEEDED,
        # The adjoint of a step's state, what a step takes over from the one before, and the first from the
        # encoder.
        "decoder/cell/h",
        "decoder/cell/c",
        "decoder/cell/state",
        "handoff",
        addition=lstm_cell(given=_STOPPED),
        occurrence=1,
        backward=True,
        causes=("C601", "C607"),
        family="pairs",
    ),
    _other(
        "encoder-time-truncated",
        CELL,
        SEEDED,
        "encoder/cell/h",
        "encoder/cell/c",
        "encoder/cell/state",
        addition=lstm_cell(given=_STOPPED),
        occurrence=0,
        backward=True,
        causes=("C607",),
        family="seams",
    ),
    _other(
        "kernel-without-gradient",
        CELL,
        SEEDED,
        "gradient/encoder/cell/kernel",
        "encoder/cell/weights",
        addition=lstm_cell(kernel="tf.stop_gradient(self.kernel)"),
        occurrence=0,
        backward=True,
        causes=("C631",),
        family="seams",
    ),
    Fault(
        "exchanged-and-halved",
        "pairs",
        "explicit_state",
        ("pair", "pair-wide"),
        (
            Edit(PAIR_CALL, PAIR_CALL.replace("=state", "=state[::-1]")),
            Edit(PAIR_LOSS, f"0.5 * {PAIR_LOSS}"),
        ),
        ("C102", "C502"),
        # The first of the two; what goes into the loss is wrong already.
        GIVEN,
        together=True,
    ),
    Fault(
        "zeros-and-forget-bias",
        "pairs",
        "explicit_state",
        ("pair", "pair-wide"),
        (
            Edit(PAIR_CALL, PAIR_CALL.replace("=state", "=None")),
            Edit(CELL, SEEDED, 0),
        ),
        ("C101", "C202"),
        # The first of the two; the state that would be handed over is wrong already.
        ("encoder/cell",),
        addition=lstm_cell(forget="f + 1.0"),
        together=True,
    ),
    _other(
        "output-gate-missing",
        CELL,
        SEEDED,
        "decoder/cell",
        addition=lstm_cell(output="activation(c)"),
        occurrence=1,
    ),
    _other(
        "gates-coupled",
        CELL,
        SEEDED,
        "encoder/cell",
        addition=lstm_cell(forget="-i"),
        occurrence=0,
    ),
    _other(
        "projection-tanh",
        OUTPUTS,
        OUTPUTS.replace("self.projection(decoded)", "tf.tanh(self.projection(decoded))"),
        # Behind the layer, whose own output is right.
        "output/prediction",
    ),
    _other(
        "target-gradient-lost",
        'targets = swap_batch_and_time(batch["target"])',
        'targets = tf.stop_gradient(swap_batch_and_time(batch["target"]))',
        "batch/target",
        backward=True,
        causes=("C608",),
        family="seams",
    ),
    _other(
        "repeated-tokens-counted-once",
        "{name: dense_gradient(gradient) for name, gradient in part.items()} for part in gradients",
        "{name: last_of_each(gradient) for name, gradient in part.items()} for part in gradients",
        # Both tables, each of right adjoints.
        "gradient/encoder/embedding",
        "encoder/embedding/weights",
        "gradient/decoder/embedding",
        "decoder/embedding/weights",
        module="attention_nmt",
        subjects=("luong", "bahdanau-gru-2"),
        backward=True,
        causes=("C634",),
        family="gradient",
        addition='''
def last_of_each(gradient):
    """A sparse gradient made dense, a repeated row put over the one before instead of added to it."""
    if not isinstance(gradient, tf.IndexedSlices):
        return dense_gradient(gradient)
    empty = tf.zeros(gradient.dense_shape, gradient.values.dtype)
    return tf.tensor_scatter_nd_update(empty, gradient.indices[:, None], gradient.values)
''',
    ),
    _other(
        "loss-of-root",
        PAIR_LOSS,
        f"tf.sqrt({PAIR_LOSS})",
        "loss",
    ),
    _other(
        "output-shape-exchanged",
        "return outputs.rnn_output, state",
        "return tf.reshape(tf.transpose(outputs.rnn_output, [1, 0, 2]), tf.shape(outputs.rnn_output)), state",
        # The cell is right; what the decoder gives, and what reads it, are not.
        "output/decoder",
        "projection/input",
    ),
    _other(
        "gradient-of-nan",
        PAIR_LOSS,
        f"{PAIR_LOSS} + tf.reduce_sum(tf.where(outputs > 1e9, tf.math.log(0.0 * outputs), 0.0 * outputs))",
        # The adjoint that the loss gives.
        "loss",
        "projection/output",
        backward=True,
    ),
    _other(
        "mechanism-hard",
        "return mechanism(attention.units, **{scaled: attention.scaled}, dtype=dtype)",
        'return mechanism(attention.units, **{scaled: attention.scaled}, dtype=dtype, mode="hard")',
        "decoder/attention_mechanism",
        module="attention_nmt",
        subjects=("luong-monotonic", "bahdanau-monotonic-2"),
    ),
)
