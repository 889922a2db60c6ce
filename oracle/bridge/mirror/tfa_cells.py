"""The cells of `tfa.rnn`."""

from __future__ import annotations

from typing import Any

from jax_models.layer_norm_cells import LayerNormLSTMCell, LayerNormSimpleRNNCell
from jax_models.tfa_cells import ESNCell, NASCell, PeepholeLSTMCell
from oracle.bridge import cell_layouts
from oracle.bridge.layout import Layout
from oracle.bridge.mirror.activations import read_activation
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_cells import read_cell
from oracle.bridge.mirror.pieces import Piece, cell_call, lstm_state, single_state
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known


@known("tfa.rnn.LayerNormLSTMCell")
def mirror_layer_norm_lstm(cell: Any, context: Context) -> Piece:
    """`tfa.rnn.LayerNormLSTMCell`, whose three norms share one epsilon."""
    options = read_cell(cell, context)
    del options["implementation"]
    norms = (cell.kernel_norm, cell.recurrent_norm, cell.state_norm)
    epsilons = {float(norm.epsilon) for norm in norms}
    if len(epsilons) != 1 or any(not (norm.scale and norm.center) for norm in norms):
        refuse(context.path, "its norms were changed after they were made", "leave them as they were made")
    options["norm_epsilon"] = epsilons.pop()
    layout = cell_layouts.tfa_layer_norm_lstm(_features(cell, context), cell.units, use_bias=cell.use_bias)
    return _piece(LayerNormLSTMCell(**options), options, cell, layout, context, order="hc")


@known("tfa.rnn.LayerNormSimpleRNNCell")
def mirror_layer_norm_simple_rnn(cell: Any, context: Context) -> Piece:
    """`tfa.rnn.LayerNormSimpleRNNCell`, whose gamma is its norm's."""
    options = read_cell(cell, context, gated=False)
    norm = cell.layernorm
    if not norm.scale or norm.center:
        refuse(context.path, "its norm was changed after it was made", "leave it as it was made")
    options["layernorm_epsilon"] = float(norm.epsilon)
    layout = cell_layouts.tfa_layer_norm_simple_rnn(
        _features(cell, context), cell.units, use_bias=cell.use_bias
    )
    attributes = {name: name for name in layout.variables} | {"gamma": "layernorm/gamma"}
    module = LayerNormSimpleRNNCell(**options)
    return _piece(module, options, cell, layout, context, attributes=attributes)


@known("tfa.rnn.NASCell")
def mirror_nas(cell: Any, context: Context) -> Piece:
    """`tfa.rnn.NASCell`, whose state is [c, m]."""
    options = {
        "units": int(cell.units),
        "projection": None if cell.projection is None else int(cell.projection),
        "use_bias": bool(cell.use_bias),
    }
    layout = cell_layouts.tfa_nas(_features(cell, context), **options)
    return _piece(NASCell(**options), options, cell, layout, context, order="ch")


@known("tfa.rnn.ESNCell")
def mirror_esn(cell: Any, context: Context) -> Piece:
    """`tfa.rnn.ESNCell`, of which nothing is trained."""
    options = {
        "units": int(cell.units),
        "connectivity": float(cell.connectivity),
        "leaky": float(cell.leaky),
        "spectral_radius": float(cell.spectral_radius),
        "use_norm2": bool(cell.use_norm2),
        "use_bias": bool(cell.use_bias),
        "activation": read_activation(cell.activation, context.path),
    }
    layout = cell_layouts.tfa_esn(_features(cell, context), cell.units, use_bias=options["use_bias"])
    return _piece(ESNCell(**options), options, cell, layout, context)


@known("tfa.rnn.PeepholeLSTMCell")
def mirror_peephole_lstm(cell: Any, context: Context) -> Piece:
    """`tfa.rnn.PeepholeLSTMCell`."""
    options = read_cell(cell, context)
    layout = cell_layouts.tfa_peephole_lstm(_features(cell, context), cell.units, use_bias=cell.use_bias)
    return _piece(PeepholeLSTMCell(**options), options, cell, layout, context, order="hc")


def _features(cell: Any, context: Context) -> int:
    return int(context.variables(cell, ("kernel",))["kernel"].shape[0])


def _piece(
    module: Any,
    options: dict[str, Any],
    cell: Any,
    layout: Layout,
    context: Context,
    *,
    order: str = "h",
    attributes: dict[str, str] | None = None,
) -> Piece:
    variables = context.variables(cell, attributes or {name: name for name in layout.variables})
    form = single_state() if order == "h" else lstm_state(order)
    return Piece(module, variables, layout, options=options, state=form, call=cell_call(form))
