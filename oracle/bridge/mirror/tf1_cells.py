"""The cells of `tf.compat.v1.nn.rnn_cell`, their wrappers, and TF 2's wrappers of the same names."""

from __future__ import annotations

from typing import Any

from jax_models.cell_wrappers import DeviceWrapper, DropoutWrapper, MultiRNNCell, ResidualWrapper
from jax_models.cells import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell
from jax_models.rnn import dynamic_rnn
from oracle.bridge import cell_layouts
from oracle.bridge.layout import Layout
from oracle.bridge.mirror.activations import activation_of, read_activation
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.pieces import (
    Call,
    Piece,
    StateForm,
    cell_call,
    single_state,
    stacked_state,
    tf1_lstm_state,
)
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known

V1 = "compat.v1.nn.rnn_cell"


@known(f"{V1}.BasicRNNCell")
def mirror_basic_rnn(cell: Any, context: Context) -> Piece:
    """`BasicRNNCell`."""
    units = int(cell._num_units)
    options = {"units": units, "activation": read_activation(cell._activation, context.path)}
    variables = context.variables(cell, {"kernel": "_kernel", "bias": "_bias"})
    layout = cell_layouts.tf1_basic_rnn(_rows(variables["kernel"]) - units, units)
    module = BasicRNNCell(units, activation=activation_of(cell._activation, context.path))
    return _piece(module, options, variables, layout, single_state())


@known(f"{V1}.BasicLSTMCell")
def mirror_basic_lstm(cell: Any, context: Context) -> Piece:
    """`BasicLSTMCell`."""
    _check_state(cell, context)
    units = int(cell._num_units)
    options = {
        "units": units,
        "forget_bias": float(cell._forget_bias),
        "activation": read_activation(cell._activation, context.path),
    }
    variables = context.variables(cell, {"kernel": "_kernel", "bias": "_bias"})
    layout = cell_layouts.tf1_lstm_cell(_rows(variables["kernel"]) - units, units)
    activation = activation_of(cell._activation, context.path)
    module = BasicLSTMCell(units, options["forget_bias"], activation=activation)
    return _piece(module, options, variables, layout, tf1_lstm_state())


@known(f"{V1}.LSTMCell")
def mirror_lstm(cell: Any, context: Context) -> Piece:
    """`LSTMCell`, with peepholes, projection and clips."""
    _check_state(cell, context)
    if cell._num_unit_shards is not None or cell._num_proj_shards is not None:
        refuse(context.path, "its kernels are split into shards", "make it without num_unit_shards")
    units, projected = int(cell._num_units), None if cell._num_proj is None else int(cell._num_proj)
    options = {
        "units": units,
        "use_peepholes": bool(cell._use_peepholes),
        "cell_clip": None if cell._cell_clip is None else float(cell._cell_clip),
        "num_proj": projected,
        "proj_clip": None if cell._proj_clip is None else float(cell._proj_clip),
        "forget_bias": float(cell._forget_bias),
    }
    names = {"kernel": "_kernel", "bias": "_bias"}
    if options["use_peepholes"]:
        names |= {f"w_{gate}_diag": f"_w_{gate}_diag" for gate in "ifo"}
    if projected is not None:
        names["projection/kernel"] = "_proj_kernel"
    variables = context.variables(cell, names)
    features = _rows(variables["kernel"]) - (units if projected is None else projected)
    layout = cell_layouts.tf1_lstm_cell(
        features, units, num_proj=projected, use_peepholes=options["use_peepholes"]
    )
    module = LSTMCell(**options, activation=activation_of(cell._activation, context.path))
    options["activation"] = read_activation(cell._activation, context.path)
    return _piece(module, options, variables, layout, tf1_lstm_state())


@known(f"{V1}.GRUCell")
def mirror_gru(cell: Any, context: Context) -> Piece:
    """`GRUCell`."""
    units = int(cell._num_units)
    options = {"units": units, "activation": read_activation(cell._activation, context.path)}
    names = {
        f"{part}/{name}": f"_{scope}_{name}" for part, scope in _GRU_SCOPES for name in ("kernel", "bias")
    }
    variables = context.variables(cell, names)
    layout = cell_layouts.tf1_gru(_rows(variables["gates/kernel"]) - units, units)
    module = GRUCell(units, activation=activation_of(cell._activation, context.path))
    return _piece(module, options, variables, layout, single_state())


_GRU_SCOPES = (("gates", "gate"), ("candidate", "candidate"))


@known(f"{V1}.MultiRNNCell")
def mirror_multi(stack: Any, context: Context) -> Piece:
    """`MultiRNNCell`. One cell in several places, as in `[cell] * 2`, has one set of weights."""
    _check_state(stack, context)
    children = tuple(
        context.cell(cell, f"cells/{i}", leaves=f"cells_{i}") for i, cell in enumerate(stack._cells)
    )
    forms = [child.piece.state for child in children]
    form = stacked_state(forms)  # pyright: ignore[reportArgumentType]
    module = MultiRNNCell(tuple(child.piece.module for child in children))
    return _wrapper(module, {}, children, form)


@known(f"{V1}.DropoutWrapper", "nn.RNNCellDropoutWrapper")
def mirror_dropout(wrapper: Any, context: Context) -> Piece:
    """`DropoutWrapper`. What it drops is data, `dropout_masks`, where a keep probability is below 1."""
    child = context.cell(wrapper.cell, "cell")
    options: dict[str, Any] = {}
    for name in ("input_keep_prob", "output_keep_prob", "state_keep_prob"):
        value = getattr(wrapper, f"_{name}")
        if not isinstance(value, (int, float)):
            refuse(context.path, f"its {name} is a symbol, not a number", "give it a number")
        options[name] = float(value)
    options["variational_recurrent"] = bool(wrapper._variational_recurrent)
    visitor = wrapper._dropout_state_filter
    if (
        getattr(visitor, "__name__", "") != "_default_dropout_state_filter_visitor"
        and options["state_keep_prob"] < 1
    ):
        refuse(
            context.path,
            "its dropout_state_filter_visitor is your own",
            "give the masks of the state as data",
        )
    return _wrapper(DropoutWrapper(child.piece.module, **options), options, (child,), child.piece.state)


@known(f"{V1}.ResidualWrapper", "nn.RNNCellResidualWrapper")
def mirror_residual(wrapper: Any, context: Context) -> Piece:
    """`ResidualWrapper`, with the sum that is its default."""
    if wrapper._residual_fn is not None:
        refuse(
            context.path,
            "its residual_fn is a function of your own",
            "derive a class from ResidualWrapper and register it with @oracle.mirrors, on "
            "jax_models.tf1.ResidualWrapper(cell, residual_fn)",
        )
    child = context.cell(wrapper.cell, "cell")
    return _wrapper(ResidualWrapper(child.piece.module), {}, (child,), child.piece.state)


@known(f"{V1}.DeviceWrapper", "nn.RNNCellDeviceWrapper")
def mirror_device(wrapper: Any, context: Context) -> Piece:
    """`DeviceWrapper`."""
    child = context.cell(wrapper.cell, "cell")
    options = {"device": str(wrapper._device)}
    return _wrapper(DeviceWrapper(child.piece.module, **options), options, (child,), child.piece.state)


def _piece(
    module: Any, options: dict[str, Any], variables: dict[str, Any], layout: Layout, form: StateForm
) -> Piece:
    return Piece(
        module,
        variables,
        layout,
        options=options,
        state=form,
        call=cell_call(form),
        methods={"dynamic_rnn": _loop(form), "zero_state": _zero_state(form)},
    )


def _wrapper(module: Any, options: dict[str, Any], children: Any, form: StateForm | None) -> Piece:
    assert form is not None
    return Piece(
        module,
        children=children,
        options=options,
        state=form,
        call=cell_call(form),
        methods={"dynamic_rnn": _loop(form), "zero_state": _zero_state(form)},
    )


def _loop(form: StateForm) -> Call:
    """`tf.compat.v1.nn.dynamic_rnn(cell, inputs, ...)`: the outputs, and the final state in TF1's form."""

    def call(
        bound: Any,
        inputs: Any,
        sequence_length: Any = None,
        initial_state: Any = None,
        time_major: bool = False,
        **dropout: Any,
    ) -> Any:
        outputs, state = dynamic_rnn(
            bound,
            inputs,
            sequence_length=sequence_length,
            initial_state=None if initial_state is None else form.to_ours(initial_state),
            time_major=time_major,
            **dropout,
        )
        return outputs, form.to_port(state)

    return call


def _zero_state(form: StateForm) -> Call:
    return lambda bound, batch_size, dtype: form.to_port(bound.zero_state(batch_size, dtype))


def _check_state(cell: Any, context: Context) -> None:
    if not cell._state_is_tuple:
        refuse(context.path, "state_is_tuple=False joins the state into one array", "set state_is_tuple=True")


def _rows(variable: Any) -> int:
    return int(variable.shape[0])
