"""The recurrent layers of Keras: `SimpleRNN`, `LSTM`, `GRU`, `RNN` over any cell, and `Bidirectional`."""

from __future__ import annotations

from typing import Any

import jax_models.keras_layers as ours
from oracle.bridge.mirror.activations import read_activation
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.pieces import Call, Child, Piece, StateForm
from oracle.bridge.mirror.refusals import MirrorError, refuse
from oracle.bridge.mirror.registry import known
from oracle.errors import BridgeError

LOOP_OPTIONS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "time_major",
    "unroll",
    "zero_output_for_mask",
)


@known("keras.layers.SimpleRNN")
def mirror_simple_rnn(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.SimpleRNN`."""
    return _mirror_layer(layer, context, ours.SimpleRNN, ours.SimpleRNNCell)


@known("keras.layers.LSTM")
def mirror_lstm(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.LSTM` of TF 2."""
    return _mirror_layer(layer, context, ours.LSTM, ours.LSTMCell, **_read_kernel(layer, context))


@known("keras.layers.GRU")
def mirror_gru(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.GRU` of TF 2."""
    return _mirror_layer(layer, context, ours.GRU, ours.GRUCell, **_read_kernel(layer, context))


@known("compat.v1.keras.layers.LSTM")
def mirror_v1_lstm(layer: Any, context: Context) -> Piece:
    """`tf.compat.v1.keras.layers.LSTM`, which drops its inputs by one mask for all steps."""
    return _mirror_layer(layer, context, ours.LSTM, ours.LSTMCell, dropout_every_step=False)


@known("compat.v1.keras.layers.GRU")
def mirror_v1_gru(layer: Any, context: Context) -> Piece:
    """`tf.compat.v1.keras.layers.GRU`."""
    return _mirror_layer(layer, context, ours.GRU, ours.GRUCell, dropout_every_step=False)


@known("keras.layers.RNN")
def mirror_rnn(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.RNN`, over any cell that can be mirrored."""
    cell = context.cell(layer.cell, "cell")
    loop = _read_loop(layer, context)
    return _piece(ours.RNN(cell=cell.piece.module, **loop), cell, loop, context.path)


@known("keras.layers.Bidirectional")
def mirror_bidirectional(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Bidirectional`, with every merge mode and a backward layer of its own."""
    children = (
        context.child(layer.forward_layer, "forward_layer", leaves="forward"),
        context.child(layer.backward_layer, "backward_layer", leaves="backward"),
    )
    forms = []
    for child, live in zip(children, (layer.forward_layer, layer.backward_layer), strict=True):
        if not isinstance(child.piece.module, ours.SimpleRNN | ours.LSTM | ours.GRU | ours.RNN):
            refuse(
                f"{context.path}/{child.attribute}",
                f"Bidirectional around a {type(live).__name__} cannot be mirrored",
                "give it a recurrent layer of Keras",
            )
        if live.zero_output_for_mask != live.return_sequences:
            refuse(
                f"{context.path}/{child.attribute}",
                "zero_output_for_mask was changed after Bidirectional had set it to return_sequences",
                "leave it as it is",
            )
        for name in ("return_sequences", "return_state"):
            if getattr(layer, name) != getattr(live, name):
                refuse(
                    f"{context.path}/{child.attribute}",
                    f"its {name} is {getattr(live, name)}, but that of the Bidirectional around it is "
                    f"{getattr(layer, name)}",
                    "give it to the layer before Bidirectional is made",
                )
        assert child.piece.state is not None
        forms.append(child.piece.state)
    if layer.forward_layer.go_backwards == layer.backward_layer.go_backwards:
        refuse(
            context.path,
            f"both of its layers have go_backwards={layer.forward_layer.go_backwards}, so both read in one "
            "direction",
            "leave go_backwards as Bidirectional sets it",
        )
    ahead, behind = (child.piece.module for child in children)
    options = {"merge_mode": layer.merge_mode}
    module = ours.Bidirectional(ahead, behind, layer.merge_mode)  # pyright: ignore[reportArgumentType]
    return Piece(
        module,
        children=children,
        options=options,
        call=_call_bidirectional(forms, context.path, returns_state=bool(layer.return_state)),
        takes_mask=True,
        mask=_mask_bidirectional(layer, forms),
    )


def _mirror_layer(layer: Any, context: Context, make: Any, cell_class: type, **options: Any) -> Piece:
    cell = context.cell(layer.cell, "cell")
    if type(cell.piece.module) is not cell_class:
        refuse(
            f"{context.path}/cell",
            f"the {type(layer).__name__}'s cell was replaced by a {type(layer.cell).__name__}",
            "use tf.keras.layers.RNN around a cell of your own",
        )
    loop = _read_loop(layer, context)
    return _piece(make(**loop, **cell.piece.options, **options), cell, loop, context.path)


def _read_loop(layer: Any, context: Context) -> dict[str, Any]:
    if layer.stateful:
        refuse(
            context.path,
            "stateful=True keeps a state in variables between calls, of which a call's arguments say nothing",
            "set stateful=False and pass initial_state",
        )
    return {name: bool(getattr(layer, name)) for name in LOOP_OPTIONS}


def _read_kernel(layer: Any, context: Context) -> dict[str, Any]:
    """Whether Keras computes the layer in its fused form, which was decided when the layer was made."""
    fused = bool(layer._could_use_gpu_kernel)
    cell = layer.cell
    if fused:
        found = (
            read_activation(cell.activation, context.path),
            read_activation(cell.recurrent_activation, context.path),
        )
        # The fused form has tanh and sigmoid written into it.
        if found != ("tanh", "sigmoid") or not cell.use_bias or layer.unroll or cell.recurrent_dropout:
            refuse(
                context.path,
                f"an option of the {type(layer).__name__} was changed after it was made, which its fused "
                "form does not see",
                "give the options to the constructor",
            )
    return {"dropout_every_step": fused and not cell.recurrent_dropout}


def _piece(module: Any, cell: Child, loop: dict[str, Any], path: str) -> Piece:
    form = cell.piece.state
    assert form is not None
    return Piece(
        module,
        children=(cell,),
        options=loop,
        call=_call_layer(form, path, returns_state=loop["return_state"]),
        state=form,
        takes_mask=True,
        mask=_mask_layer(form, loop),
    )


def _call_layer(form: StateForm, path: str, *, returns_state: bool) -> Call:
    """`layer(inputs, mask, training, initial_state)` gives outputs, or [outputs, *states]."""

    def call(
        bound: Any,
        inputs: Any,
        mask: Any = None,
        training: bool | None = None,
        initial_state: Any = None,
        constants: Any = None,
        **dropout: Any,
    ) -> Any:
        inputs, initial_state = split_inputs(inputs, initial_state)
        _check_constants(constants)
        result = _run(
            bound,
            path,
            inputs,
            mask=first_mask(mask),
            initial_state=None if initial_state is None else form.to_ours(initial_state),
            training=bool(training),
            **dropout,
        )
        if not returns_state:
            return result
        outputs, state = result
        return [outputs, *list_state(form.to_port(state))]

    return call


def _call_bidirectional(forms: list[StateForm], path: str, *, returns_state: bool) -> Call:
    def call(
        bound: Any,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        initial_state: Any = None,
        constants: Any = None,
        **dropout: Any,
    ) -> Any:
        inputs, initial_state = split_inputs(inputs, initial_state)
        _check_constants(constants)
        states = None
        if initial_state is not None:
            half = len(initial_state) // 2
            states = tuple(
                form.to_ours(part)
                for form, part in zip(forms, (initial_state[:half], initial_state[half:]), strict=True)
            )
        result = _run(
            bound,
            path,
            inputs,
            mask=first_mask(mask),
            initial_state=states,
            training=bool(training),
            **dropout,
        )
        merged, finals = result if returns_state else (result, ())
        outputs = list(merged) if isinstance(merged, tuple) else [merged]
        for form, final in zip(forms, finals, strict=False):
            outputs += list_state(form.to_port(final))
        return outputs if len(outputs) > 1 else outputs[0]

    return call


def _run(bound: Any, path: str, inputs: Any, **options: Any) -> Any:
    try:
        return bound(inputs, **options)
    except ValueError as error:
        raise MirrorError(f"mirror: {path}: {error}") from error


def split_inputs(inputs: Any, initial_state: Any) -> tuple[Any, Any]:
    """Keras takes the states as `initial_state`, or behind the inputs in one list."""
    if isinstance(inputs, (list, tuple)) and len(inputs) > 1 and initial_state is None:
        return inputs[0], list(inputs[1:])
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        return inputs[0], initial_state
    return inputs, initial_state


def first_mask(mask: Any) -> Any:
    """The mask of the sequence, of those of all that stands in one list with it."""
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def list_state(state: Any) -> list[Any]:
    """A state as the tail of the list that a Keras layer returns."""
    return list(state) if isinstance(state, (list, tuple)) else [state]


def _check_constants(constants: Any) -> None:
    if constants is not None:
        raise BridgeError(
            "mirror: a recurrent layer's `constants` cannot be mirrored; join them to the inputs"
        )


def _mask_layer(form: StateForm, loop: dict[str, Any]) -> Call:
    def mask(bound: Any, inputs: Any, mask: Any) -> Any:
        del bound, inputs
        handed = first_mask(mask) if loop["return_sequences"] else None
        return [handed, *[None] * form.width] if loop["return_state"] else handed

    return mask


def _mask_bidirectional(layer: Any, forms: list[StateForm]) -> Call:
    sequences, states, apart = layer.return_sequences, layer.return_state, layer.merge_mode is None

    def mask(bound: Any, inputs: Any, mask: Any) -> Any:
        del bound, inputs
        handed = [first_mask(mask) if sequences else None] * (2 if apart else 1)
        handed += [None] * (sum(form.width for form in forms) if states else 0)
        return handed if len(handed) > 1 else handed[0]

    return mask
