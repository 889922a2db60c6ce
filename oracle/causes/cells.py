"""C2: what a cell computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Tensors, cause
from oracle.causes.turning import group_cells, is_gru, is_lstm, number_gates, turn_groups
from oracle.knobs import CELL_ACTIVATIONS, CellKnobs, Knobs
from oracle.spec import EncoderDecoder

_LSTM_ORDERS = {
    "i, f, o, g": "i, f, o, g",
    "i, g, f, o": "i, g, f, o (TensorFlow 1's)",
    "i, o, f, g": "i, o, f, g (ONNX')",
    "f, i, g, o": "f, i, g, o",
}


@cause(
    "C201",
    title="the forget bias is missing",
    sentence="the forget bias is missing in {setting}",
    remedy="TF1's `BasicLSTMCell` adds `forget_bias=1.0` at run time; Keras keeps it in the bias "
    "(`unit_forget_bias=True`). When weights are carried over, add 1 to the forget gate's part of the bias.",
    applies=is_lstm,
    wrong="keras_cell.set_weights([kernel, recurrent_kernel, tf1_bias])",
    right="bias[units : 2 * units] += 1.0  # the forget gate\n"
    "keras_cell.set_weights([kernel, recurrent_kernel, bias])",
)
def leave_out_forget_bias(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The forget gate without what it should get."""
    yield from turn_groups(knobs, lambda cell: {"forget_bias": cell.forget_bias - _forget_bias(spec, cell)})


@cause(
    "C202",
    title="the forget bias is added twice",
    sentence="the forget bias is added twice in {setting}",
    remedy="It is in the bias already: make the cell with `forget_bias=0.0`, or initialise the bias with "
    "`unit_forget_bias=False`.",
    applies=is_lstm,
)
def double_forget_bias(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The forget gate with it once more."""
    yield from turn_groups(knobs, lambda cell: {"forget_bias": cell.forget_bias + _forget_bias(spec, cell)})


@cause(
    "C203",
    title="the gates are in another order",
    sentence="the gates are in another order: {setting}",
    remedy="Keras keeps an LSTM's gates as i, f, c, o and a GRU's as z, r, h; TF1's `BasicLSTMCell` has "
    "i, g, f, o and its `GRUCell` r, z. Reorder the columns of kernel, recurrent kernel and bias alike.",
)
def permute_gates(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every order of the gates, of each group of cells; of one cell of many, the likely ones."""
    for group, paths in group_cells(knobs):
        count = number_gates(knobs.cells[paths[0]])
        names = "ifgo" if count == 4 else "zrh"
        for order in itertools.permutations(range(count)):
            if order == tuple(range(count)) or (len(paths) == 1 < len(knobs.cells) - 1 and _is_odd(order)):
                continue
            # Gate g reads the block in which the port's order has it.
            order_name = ", ".join(names[gate] for gate in order)
            blocks = np.eye(count)[np.argsort(order)]
            cells = {
                path: knobs.cells[path]._replace(gates=blocks @ np.asarray(knobs.cells[path].gates))
                for path in paths
            }
            shown = _LSTM_ORDERS.get(order_name, order_name)
            yield Setting(f"{group} reads {shown}", knobs._replace(cells={**knobs.cells, **cells}))
            if any(np.any(cell.forget_bias) for cell in cells.values()):
                # Where the forget bias is in Keras' bias, it goes with its block.
                moved = {
                    path: cell._replace(forget_bias=blocks @ cell.forget_bias) for path, cell in cells.items()
                }
                name = f"{group} reads {shown}, the forget bias with them"
                yield Setting(name, knobs._replace(cells={**knobs.cells, **moved}))


@cause(
    "C204",
    title="the reset gate is applied on the other side of the product",
    sentence="the reset gate acts {setting}",
    remedy="TF2's `GRU` has `reset_after=True`, TF1's and cuDNN-free ones `reset_after=False`: make the "
    "layer as the weights were trained.",
    applies=is_gru,
)
def move_reset(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """(r * h) @ R for r * (h @ R), or the other way."""
    first = next(iter(knobs.cells.values()))
    where = "before" if float(first.reset_after) else "after"
    named = f"{where} the recurrent product in {{group}}"
    yield from turn_groups(knobs, lambda cell: {"reset_after": 1.0 - cell.reset_after}, named=named)


@cause(
    "C205",
    title="the update gate is exchanged",
    sentence="the update gate works the other way round in {setting}: h' = (1 - z) * h + z * n",
    remedy="Keras computes h' = z * h + (1 - z) * n; of a paper or another framework that has it the other "
    "way negate the update gate's columns of the kernels and the bias.",
    applies=is_gru,
)
def exchange_update(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """z and 1 - z exchanged."""
    yield from turn_groups(knobs, lambda cell: {"update_exchanged": 1.0 - cell.update_exchanged})


@cause(
    "C206",
    title="hard_sigmoid in place of sigmoid",
    sentence="the gates of {setting} use hard_sigmoid, not sigmoid",
    remedy="Make the layer with `recurrent_activation='sigmoid'`; Keras 1 and "
    "`tf.compat.v1.keras.layers.LSTM` "
    "default to `hard_sigmoid`.",
    wrong="tf.compat.v1.keras.layers.LSTM(units)",
    right='tf.keras.layers.LSTM(units, recurrent_activation="sigmoid")',
)
def harden_sigmoid(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The piecewise linear one."""
    yield from turn_groups(knobs, lambda cell: {"hard_sigmoid": 1.0})


@cause(
    "C207",
    title="another activation",
    sentence="another activation: {setting}",
    remedy="Make the cell with `activation='tanh'`.",
)
def change_activation(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """relu and the others for tanh."""
    for number, name in enumerate(CELL_ACTIVATIONS[1:], start=1):
        weights = np.eye(len(CELL_ACTIVATIONS))[number]
        named = f"{name} for tanh in {{group}}"
        yield from turn_groups(knobs, lambda cell, w=weights: {"activation": w}, named=named)


@cause(
    "C208",
    title="the recurrent kernel is transposed",
    sentence="each square block of the recurrent kernel is transposed in {setting}",
    remedy="TensorFlow multiplies `h @ recurrent_kernel`; PyTorch and others keep `weight_hh` transposed. "
    "Transpose each gate's block when weights are carried over.",
)
def transpose_recurrent(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """R^T for R."""
    yield from turn_groups(knobs, lambda cell: {"transposed": 1.0})


@cause(
    "C209",
    title="two cells share their weights",
    sentence="two cells are one object: {setting}",
    remedy="Make a cell of its own for each place: `[make_cell() for _ in range(n)]`, not `[cell] * n`.",
    wrong="cells = [tf.keras.layers.LSTMCell(units)] * 2",
    right="cells = [tf.keras.layers.LSTMCell(units) for _ in range(2)]",
)
def share_cells(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The later one with the earlier one's weights."""
    for pair in knobs.share:
        later, _, earlier = pair.partition("<-")
        name = f"{later} computes with the weights of {earlier}"
        yield Setting(name, knobs._replace(share={**knobs.share, pair: np.float64(1.0)}))


@cause(
    "C210",
    title="the bias is counted twice",
    sentence="the bias is counted twice in {setting}",
    remedy="Add it once: of cuDNN's two biases Keras keeps the sum (LSTM), or both (GRU, `reset_after`).",
)
def double_bias(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Two times the bias."""
    yield from _scale_bias(knobs, spec, 2.0)


@cause(
    "C211",
    title="the bias is missing",
    sentence="the bias is missing in {setting}",
    remedy="Make the cell with `use_bias=True`, and load the bias.",
)
def leave_out_bias(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """No bias."""
    yield from _scale_bias(knobs, spec, 0.0)


def _is_odd(order: tuple[int, ...]) -> bool:
    """Whether an order is neither a known one nor two gates exchanged."""
    moved = sum(gate != place for place, gate in enumerate(order))
    return moved > 2 and ", ".join("ifgo"[gate] for gate in order) not in _LSTM_ORDERS


def _scale_bias(knobs: Knobs, spec: ModelSpec, scale: float) -> Iterator[Setting]:
    # Where a forget bias is in Keras' bias, it is scaled with it.
    if isinstance(spec, EncoderDecoder):
        yield from turn_groups(
            knobs,
            lambda cell: {"bias_scale": scale, "forget_bias": scale * cell.forget_bias},
            named="{group}, the forget bias in it",
        )
    yield from turn_groups(knobs, lambda cell: {"bias_scale": scale})


def _forget_bias(spec: ModelSpec, cell: CellKnobs) -> Any:
    """What a cell's forget bias is: of a Keras cell, which keeps it in the bias, 1."""
    if isinstance(spec, EncoderDecoder):
        return cell.forget_bias
    return np.eye(len(cell.gates))[1]
