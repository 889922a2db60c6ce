"""The layouts of the recurrent cells of TF1, `tf.contrib.rnn` and `tfa.rnn`, beside those of `layouts`.

On the oracle's side every cell has `kernel` [features, gates*units], `recurrent_kernel` [outputs,
gates*units] and mostly `bias` [gates*units], the gates of an LSTM in the order i, f, g, o and those of a
GRU z, r, h. TF1 stacks the two kernels, rows [inputs; h], and has orders of its own. The names of the
variables are those below the cell's scope. Each layout was measured against outputs and gradients of
the real objects in float64.
"""

from __future__ import annotations

from collections.abc import Mapping

from oracle.bridge.layout import Block, Layout, whole
from oracle.bridge.layouts import LSTM_GATES, TF1_LSTM_GATES, gate_columns

Shapes = dict[str, tuple[int, ...]]

CONTRIB_GATE_SCOPES = {"i": "input", "f": "forget", "g": "transform", "o": "output"}
"""The scopes of the norms of `tf.contrib.rnn.LayerNormBasicLSTMCell`."""


def tf1_basic_rnn(features: int, units: int) -> Layout:
    """`tf.compat.v1.nn.rnn_cell.BasicRNNCell`: one kernel [features+units, units] and a bias."""
    blocks = [*_stacked_rows("kernel", features, units, (0, units), (0, units))]
    blocks.append(whole("bias", "bias", (units,)))
    leaves = {"kernel": (features, units), "recurrent_kernel": (units, units), "bias": (units,)}
    return Layout(leaves, {"kernel": (features + units, units), "bias": (units,)}, tuple(blocks))


def tf1_gru(features: int, units: int) -> Layout:
    """`tf.compat.v1.nn.rnn_cell.GRUCell`: `gates`, r before u, and `candidate`, a kernel and bias each.

    Its u is the z of Keras and of the oracle.
    """
    places = {
        "z": ("gates", gate_columns("rz", "z", units)),
        "r": ("gates", gate_columns("rz", "r", units)),
        "h": ("candidate", (0, units)),
    }
    blocks = []
    for gate, (scope, there) in places.items():
        here = gate_columns("zrh", gate, units)
        blocks += _stacked_rows(f"{scope}/kernel", features, units, here, there)
        blocks.append(Block("bias", (here,), f"{scope}/bias", (there,)))
    leaves = {
        "kernel": (features, 3 * units),
        "recurrent_kernel": (units, 3 * units),
        "bias": (3 * units,),
    }
    variables = {
        "gates/kernel": (features + units, 2 * units),
        "gates/bias": (2 * units,),
        "candidate/kernel": (features + units, units),
        "candidate/bias": (units,),
    }
    return Layout(leaves, variables, tuple(blocks))


def tf1_lstm_cell(
    features: int, units: int, *, num_proj: int | None = None, use_peepholes: bool = False
) -> Layout:
    """`tf.compat.v1.nn.rnn_cell.LSTMCell`: gates i, j, f, o; peepholes `w_*_diag`; `projection/kernel`.

    Without either it is `tf1_lstm`, which serves `BasicLSTMCell` too.
    """
    outputs = units if num_proj is None else num_proj
    blocks = _tf1_lstm_kernels(features, units, outputs)
    leaves: Shapes = {
        "kernel": (features, 4 * units),
        "recurrent_kernel": (outputs, 4 * units),
        "bias": (4 * units,),
    }
    variables: Shapes = {"kernel": (features + outputs, 4 * units), "bias": (4 * units,)}
    for gate in LSTM_GATES:
        here, there = gate_columns(LSTM_GATES, gate, units), gate_columns(TF1_LSTM_GATES, gate, units)
        blocks.append(Block("bias", (here,), "bias", (there,)))
    renamed: dict[str, tuple[str, tuple[int, ...]]] = {}
    if use_peepholes:
        renamed |= {f"peephole_{gate}": (f"w_{gate}_diag", (units,)) for gate in "ifo"}
    if num_proj is not None:
        renamed["projection_kernel"] = ("projection/kernel", (units, num_proj))
    return _with_renamed(leaves, variables, blocks, renamed)


def contrib_layer_norm_lstm(features: int, units: int, *, layer_norm: bool = True) -> Layout:
    """`tf.contrib.rnn.LayerNormBasicLSTMCell`: gates i, j, f, o; a bias, or a gamma and beta a gate."""
    blocks = _tf1_lstm_kernels(features, units, units)
    leaves: Shapes = {"kernel": (features, 4 * units), "recurrent_kernel": (units, 4 * units)}
    variables: Shapes = {"kernel": (features + units, 4 * units)}
    if not layer_norm:
        leaves["bias"] = variables["bias"] = (4 * units,)
    for gate in LSTM_GATES:
        here, there = gate_columns(LSTM_GATES, gate, units), gate_columns(TF1_LSTM_GATES, gate, units)
        if not layer_norm:
            blocks.append(Block("bias", (here,), "bias", (there,)))
            continue
        for leaf, name in (("gate_norm/scale", "gamma"), ("gate_norm/bias", "beta")):
            variable = f"{CONTRIB_GATE_SCOPES[gate]}/{name}"
            blocks.append(Block(leaf, (here,), variable, ((0, units),)))
            leaves[leaf], variables[variable] = (4 * units,), (units,)
    renamed = {}
    if layer_norm:
        renamed["state_norm/scale"] = ("state/gamma", (units,))
        renamed["state_norm/bias"] = ("state/beta", (units,))
    return _with_renamed(leaves, variables, blocks, renamed)


def tfa_layer_norm_lstm(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tfa.rnn.LayerNormLSTMCell`: Keras' LSTM, with a gamma and beta of each product and of c."""
    shapes = _keras_shapes(features, units, 4 * units, use_bias=use_bias)
    for norm, size in (("kernel_norm", 4 * units), ("recurrent_norm", 4 * units), ("state_norm", units)):
        shapes[f"{norm}/scale"] = (f"{norm}/gamma", (size,))
        shapes[f"{norm}/bias"] = (f"{norm}/beta", (size,))
    return _with_renamed({}, {}, [], shapes)


def tfa_layer_norm_simple_rnn(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tfa.rnn.LayerNormSimpleRNNCell`: Keras' SimpleRNN and a `gamma`."""
    shapes = _keras_shapes(features, units, units, use_bias=use_bias)
    return _with_renamed({}, {}, [], shapes | {"norm/scale": ("gamma", (units,))})


def tfa_nas(features: int, units: int, *, projection: int | None = None, use_bias: bool = False) -> Layout:
    """`tfa.rnn.NASCell`: eight parts a kernel, in the order of the paper; `projection_weights`."""
    outputs = units if projection is None else projection
    shapes = _keras_shapes(features, outputs, 8 * units, use_bias=use_bias)
    if projection is not None:
        shapes["projection_kernel"] = ("projection_weights", (units, projection))
    return _with_renamed({}, {}, [], shapes)


def tfa_esn(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tfa.rnn.ESNCell`, whose variables are not trainable."""
    return _with_renamed({}, {}, [], _keras_shapes(features, units, units, use_bias=use_bias))


def tfa_peephole_lstm(features: int, units: int, *, use_bias: bool = True) -> Layout:
    """`tfa.rnn.PeepholeLSTMCell`: Keras' LSTM and three peepholes."""
    shapes = _keras_shapes(features, units, 4 * units, use_bias=use_bias)
    for gate, name in (("i", "input"), ("f", "forget"), ("o", "output")):
        shapes[f"peephole_{gate}"] = (f"{name}_gate_peephole_weights", (units,))
    return _with_renamed({}, {}, [], shapes)


def _tf1_lstm_kernels(features: int, units: int, outputs: int) -> list[Block]:
    blocks = []
    for gate in LSTM_GATES:
        here, there = gate_columns(LSTM_GATES, gate, units), gate_columns(TF1_LSTM_GATES, gate, units)
        blocks += _stacked_rows("kernel", features, outputs, here, there)
    return blocks


def _stacked_rows(
    variable: str, features: int, outputs: int, here: tuple[int, int], there: tuple[int, int]
) -> list[Block]:
    """The columns `here` of the two kernels are the columns `there` of one, rows [inputs; h]."""
    below = (features, features + outputs)
    return [
        Block("kernel", ((0, features), here), variable, ((0, features), there)),
        Block("recurrent_kernel", ((0, outputs), here), variable, (below, there)),
    ]


def _keras_shapes(
    features: int, outputs: int, columns: int, *, use_bias: bool
) -> dict[str, tuple[str, tuple[int, ...]]]:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "kernel": ("kernel", (features, columns)),
        "recurrent_kernel": ("recurrent_kernel", (outputs, columns)),
    }
    if use_bias:
        shapes["bias"] = ("bias", (columns,))
    return shapes


def _with_renamed(
    leaves: Shapes,
    variables: Shapes,
    blocks: list[Block],
    renamed: Mapping[str, tuple[str, tuple[int, ...]]],
) -> Layout:
    """The layout of the blocks and of leaves that are whole variables of other names."""
    for leaf, (variable, shape) in renamed.items():
        leaves[leaf] = variables[variable] = shape
        blocks.append(whole(leaf, variable, shape))
    return Layout(leaves, variables, tuple(blocks))
