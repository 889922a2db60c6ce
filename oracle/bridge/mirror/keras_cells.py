"""The recurrent cells of Keras, and stacks of cells."""

from __future__ import annotations

from typing import Any

import jax_models.keras_layers as ours
from oracle.bridge import keras_layouts
from oracle.bridge.layout import Layout
from oracle.bridge.mirror.activations import read_activation
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.pieces import Piece, cell_call, lstm_state, single_state, stacked_state
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known


@known("keras.layers.SimpleRNNCell")
def mirror_simple_rnn_cell(cell: Any, context: Context) -> Piece:
    """`tf.keras.layers.SimpleRNNCell`."""
    options = read_cell(cell, context, gated=False)
    variables = read_weights(cell, context)
    layout = keras_layouts.keras_simple_rnn_cell(
        features_of(variables), cell.units, use_bias=options["use_bias"]
    )
    return cell_piece(ours.SimpleRNNCell(**options), options, variables, layout)


@known("keras.layers.LSTMCell", "compat.v1.keras.layers.LSTMCell")
def mirror_lstm_cell(cell: Any, context: Context) -> Piece:
    """`tf.keras.layers.LSTMCell`, of Keras 2 or of TF1's Keras: they differ in their defaults only."""
    options = read_cell(cell, context)
    variables = read_weights(cell, context)
    layout = keras_layouts.keras_lstm_cell(features_of(variables), cell.units, use_bias=options["use_bias"])
    return cell_piece(ours.LSTMCell(**options), options, variables, layout)


@known("keras.layers.GRUCell", "compat.v1.keras.layers.GRUCell")
def mirror_gru_cell(cell: Any, context: Context) -> Piece:
    """`tf.keras.layers.GRUCell`, with `reset_after` or without."""
    options = read_cell(cell, context) | {"reset_after": bool(cell.reset_after)}
    variables = read_weights(cell, context)
    layout = keras_layouts.keras_gru_cell(
        features_of(variables), cell.units, use_bias=options["use_bias"], reset_after=options["reset_after"]
    )
    return cell_piece(ours.GRUCell(**options), options, variables, layout)


@known("keras.layers.StackedRNNCells")
def mirror_stacked_cells(stack: Any, context: Context) -> Piece:
    """`tf.keras.layers.StackedRNNCells`, of any cells."""
    if getattr(stack, "reverse_state_order", False):
        refuse(context.path, "reverse_state_order=True is deprecated and mostly fails", "set it to False")
    children = tuple(
        context.cell(cell, f"cells/{i}", leaves=f"cells_{i}") for i, cell in enumerate(stack.cells)
    )
    form = stacked_state([child.piece.state for child in children])  # pyright: ignore[reportArgumentType]
    module = ours.StackedRNNCells(tuple(child.piece.module for child in children))
    return Piece(module, children=children, state=form, call=cell_call(form))


def read_cell(cell: Any, context: Context, *, gated: bool = True) -> dict[str, Any]:
    """The options that the cells of Keras have in common, as they are on the object."""
    options: dict[str, Any] = {
        "units": int(cell.units),
        "activation": read_activation(cell.activation, context.path),
        "use_bias": bool(cell.use_bias),
        "dropout": float(cell.dropout),
        "recurrent_dropout": float(cell.recurrent_dropout),
    }
    if gated:
        gate = read_activation(cell.recurrent_activation, context.path, name="recurrent_activation")
        options |= {"recurrent_activation": gate, "implementation": int(cell.implementation)}
    return options


def read_weights(cell: Any, context: Context) -> dict[str, Any]:
    """A Keras cell's kernels, and its bias if it has one."""
    names = ("kernel", "recurrent_kernel", "bias") if cell.use_bias else ("kernel", "recurrent_kernel")
    return context.variables(cell, names)


def features_of(variables: dict[str, Any]) -> int:
    """The width of the inputs, as the kernel has it."""
    return int(variables["kernel"].shape[0])


def cell_piece(module: Any, options: dict[str, Any], variables: dict[str, Any], layout: Layout) -> Piece:
    """The piece of a cell whose state is one array, or Keras' [h, c]."""
    form = single_state() if isinstance(module.state_size, int) else lstm_state("hc")
    return Piece(module, variables, layout, options=options, state=form, call=cell_call(form))
