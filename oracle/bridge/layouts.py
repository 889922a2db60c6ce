"""The layouts of the objects that people train: LSTM cells of TF1, Keras and Flax, and dense layers.

On the oracle's side an LSTM has the leaves `kernel` [features, 4*units], `recurrent_kernel`
[units, 4*units] and `bias` [4*units], the gates in the order i, f, g, o, and a `forget_bias` that is
added at run time. Sources: the TF 1.15 `rnn_cell` documentation, the Keras `LSTM` weight layout and
Flax's `LSTMCell`, each measured by comparing outputs and gradients in float64.
"""

from __future__ import annotations

from oracle.bridge.layout import Block, Layout, whole

LSTM_GATES = "ifgo"
"""The order of an LSTM's gates on the oracle's side (g is TF1's j and Keras' c)."""

TF1_LSTM_GATES = "igfo"


def dense(features: int, units: int) -> Layout:
    """`tf.compat.v1.layers.Dense`, `tf.keras.layers.Dense` and `flax.linen.Dense`, which agree."""
    shapes = {"kernel": (features, units), "bias": (units,)}
    return Layout(shapes, shapes, tuple(whole(name, name, shape) for name, shape in shapes.items()))


def tf1_lstm(features: int, units: int) -> Layout:
    """`tf.compat.v1.nn.rnn_cell.BasicLSTMCell` and `LSTMCell`: one kernel [features+units, 4*units].

    The rows are those of [inputs; h], the gates are in the order i, j, f, o, and `forget_bias` is
    added at run time, as the oracle does.
    """
    blocks = []
    for gate in LSTM_GATES:
        column = gate_columns(LSTM_GATES, gate, units)
        tf1_column = gate_columns(TF1_LSTM_GATES, gate, units)
        blocks += [
            Block("kernel", ((0, features), column), "kernel", ((0, features), tf1_column)),
            Block(
                "recurrent_kernel",
                ((0, units), column),
                "kernel",
                ((features, features + units), tf1_column),
            ),
            Block("bias", (column,), "bias", (tf1_column,)),
        ]
    variables = {"kernel": (features + units, 4 * units), "bias": (4 * units,)}
    return Layout(lstm_leaves(features, units), variables, tuple(blocks))


def keras_lstm(features: int, units: int, *, forget_bias: float) -> Layout:
    """`tf.keras.layers.LSTMCell` and `LSTM`: gates i, f, c, o, the forget bias stored in the bias."""
    shapes = lstm_leaves(features, units)
    blocks = [
        whole("kernel", "kernel", shapes["kernel"]),
        whole("recurrent_kernel", "recurrent_kernel", shapes["recurrent_kernel"]),
    ]
    for gate in LSTM_GATES:
        column = gate_columns(LSTM_GATES, gate, units)
        shift = forget_bias if gate == "f" else 0.0
        blocks.append(Block("bias", (column,), "bias", (column,), shift=shift))
    return Layout(shapes, shapes, tuple(blocks))


def flax_lstm(features: int, units: int, *, forget_bias: float) -> Layout:
    """`flax.linen.LSTMCell` and `OptimizedLSTMCell`: a matrix for each gate, the bias on the h side."""
    blocks, variables = [], {}
    for gate in LSTM_GATES:
        column = gate_columns(LSTM_GATES, gate, units)
        shift = forget_bias if gate == "f" else 0.0
        all_units = (0, units)
        blocks += [
            Block("kernel", ((0, features), column), f"i{gate}/kernel", ((0, features), all_units)),
            Block("recurrent_kernel", (all_units, column), f"h{gate}/kernel", (all_units, all_units)),
            Block("bias", (column,), f"h{gate}/bias", (all_units,), shift=shift),
        ]
        variables |= {
            f"i{gate}/kernel": (features, units),
            f"h{gate}/kernel": (units, units),
            f"h{gate}/bias": (units,),
        }
    return Layout(lstm_leaves(features, units), variables, tuple(blocks))


def lstm_leaves(features: int, units: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an LSTM's leaves on the oracle's side."""
    return {
        "kernel": (features, 4 * units),
        "recurrent_kernel": (units, 4 * units),
        "bias": (4 * units,),
    }


def gate_columns(order: str, gate: str, units: int) -> tuple[int, int]:
    """The columns that `gate` takes in a matrix whose gates stand in `order`."""
    position = order.index(gate)
    return position * units, (position + 1) * units
