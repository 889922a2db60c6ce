"""Source that faults add to ports: cells and mechanisms written out, with one thing in them to be changed.

Each with nothing changed computes what TensorFlow's own does; `tests/mutations` holds them to it.
"""

from __future__ import annotations


def lstm_cell(
    *,
    order: str = "i, f, g, o",
    forget: str = "f",
    recurrent: str = "self.recurrent_kernel",
    bias: str = "self.bias",
    kernel: str = "self.kernel",
    gate: str = "tf.sigmoid",
    activation: str = "tf.tanh",
    given: str = "h, c = states",
    output: str = "gate(o) * activation(c)",
    then: str = "",
) -> str:
    """`SeededCell`, an LSTM cell. Each argument is an expression, by default the right one."""
    return f'''
class SeededCell(tf.keras.layers.LSTMCell):
    """An LSTM cell written out."""

    def call(self, inputs, states, training=None):
        {given}
        gate, activation = {gate}, {activation}
        sums = tf.matmul(inputs, {kernel}) + tf.matmul(h, {recurrent}) + {bias}
        {order} = tf.split(sums, 4, axis=-1)
        c = gate({forget}) * c + gate(i) * activation(g)
        h = {output}
        {then or "pass"}
        return h, [h, c]
'''


def gru_cell(
    *,
    order: str = "z, r, n",
    candidate: str = "x[2] + r * (tf.matmul(h, kernels[2]) + bias[1][2])",
    mixed: str = "z * h + (1.0 - z) * n",
    gate: str = "tf.sigmoid",
    activation: str = "tf.tanh",
    recurrent: str = "self.recurrent_kernel",
) -> str:
    """`SeededCell`, a GRU cell with `reset_after`. Each argument is an expression."""
    return f'''
class SeededCell(tf.keras.layers.GRUCell):
    """A GRU cell written out."""

    def call(self, inputs, states, training=None):
        h = states[0] if isinstance(states, (list, tuple)) else states
        gate, activation = {gate}, {activation}
        bias = [tf.split(part, 3, axis=-1) for part in tf.unstack(self.bias)]
        x = tf.split(tf.matmul(inputs, self.kernel), 3, axis=-1)
        x = [part + added for part, added in zip(x, bias[0])]
        kernels = tf.split({recurrent}, 3, axis=-1)
        gates = [gate(x[k] + tf.matmul(h, kernels[k]) + bias[1][k]) for k in range(2)]
        {order.rpartition(",")[0]} = gates
        n = activation({candidate})
        h = {mixed}
        return h, [h] if isinstance(states, (list, tuple)) else h
'''


TRANSPOSED = (
    "tf.concat([tf.transpose(block) for block in tf.split(self.recurrent_kernel, {count}, axis=-1)], -1)"
)
"""Each square block of a recurrent kernel transposed."""

SEEDED_ENCODER = '''
def make_layer(cell, spec, dtype):
    """A bidirectional layer over cells of a class."""
    options = {"return_sequences": True, "return_state": True, "dtype": dtype}
    return tf.keras.layers.Bidirectional(
        tf.keras.layers.RNN(cell(spec.units, dtype=dtype), **options),
        backward_layer=tf.keras.layers.RNN(cell(spec.units, dtype=dtype), go_backwards=True, **options),
        merge_mode="concat",
        dtype=dtype,
    )
'''
"""An encoder's layer over `SeededCell`s, which Keras' fused layers cannot take."""


def by_hand(
    *, ahead: str = "outputs, mask=mask", behind: str = "outputs, mask=mask", joined: str = ""
) -> str:
    """The encoder's line that runs a layer, its two directions run by hand and their outputs joined.

    Args:
        ahead: what the forward layer is called with.
        behind: what the backward layer is called with.
        joined: what the outputs are then.
    """
    joined = joined or "tf.concat([ahead_outputs, tf.reverse(behind_outputs, [1])], -1)"
    return (
        f"ahead_outputs, *ahead_state = layer.forward_layer({ahead})\n"
        f"            behind_outputs, *behind_state = layer.backward_layer({behind})\n"
        f"            outputs = {joined}\n"
        "            parts = [*ahead_state, *behind_state]"
    )


def mechanism(body: str) -> str:
    """`seed_mechanism`, which gives a mechanism's class one other method of scoring.

    Args:
        body: the lines of the method, of `self`, `query` and `state`; `score` is what they must bind.
    """
    lines = "\n".join(f"            {line}" for line in body.strip().splitlines())
    return f'''
from tensorflow_addons.seq2seq import attention_wrapper as scoring


def seed_mechanism(mechanism):
    """The class of a mechanism with a score of its own."""

    class SeededMechanism(mechanism):
        """The mechanism, its score written out."""

        def _calculate_attention(self, query, state):
{lines}
            alignments = self.probability_fn(score, state)
            return alignments, alignments

    return SeededMechanism
'''


LUONG_SCORE = "score = scoring._luong_score(query, self.keys, {scale})"
BAHDANAU_SCORE = """
asked = self.query_layer(query)
score = scoring._bahdanau_score(asked, self.keys, self.attention_v, attention_g={g}, attention_b={b})
"""
"""The scores of the two kinds of mechanism; a monotonic one adds `self.attention_score_bias`."""
