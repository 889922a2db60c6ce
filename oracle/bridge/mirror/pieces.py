"""A piece: the Flax counterpart of one live object, and how weights, calls and states pass between them.

A mirror function makes a piece of an object; the pieces of a model form a tree. Everything that is called
with a `bound` module runs within `flax.linen.apply`: it is the piece's module with its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import numpy as np

from jax_models.attention_state import AttentionWrapperState
from jax_models.cell_base import LSTMState
from jax_models.keras_stack import flatten_keras_states, unflatten_keras_states
from oracle.bridge.layout import Layout, whole
from oracle.errors import BridgeError

Call = Callable[..., Any]
"""`result = call(bound, *args, **kwargs)`, with the arguments and results of the live object."""


@dataclass(frozen=True)
class StateForm:
    """How a cell's state looks to TensorFlow, and to `jax_models`.

    Args:
        to_ours: from TensorFlow's structure.
        to_port: the inverse.
        width: how many arrays TensorFlow's structure holds, side by side.
    """

    to_ours: Callable[[Any], Any]
    to_port: Callable[[Any], Any]
    width: int = 1


@dataclass(frozen=True)
class Child:
    """A piece within a piece.

    Args:
        piece: the piece.
        leaves: where its leaves lie in the parent's, `cell` or `cells_0`; also its name.
        attribute: the attribute of the live object that holds it, as in `layers/0`.
        bind: its bound module, of the parent's; None if it is the attribute `leaves`.
    """

    piece: Piece
    leaves: str
    attribute: str = ""
    bind: Callable[[Any], Any] | None = None

    def bind_from(self, bound: Any) -> Any:
        """The child's bound module, given the parent's."""
        if self.bind is not None:
            return self.bind(bound)
        for name in self.leaves.split("/"):
            bound = getattr(bound, name)
        return bound


@dataclass(frozen=True)
class Piece:
    """The Flax counterpart of one live object.

    Args:
        module: a Flax module. If it is a cell of `jax_models`, called as `state, output = cell(state,
            inputs)`, it can stand in wrappers, loops and decoders.
        variables: the variables that the object holds itself, by the names that `layout` has for them.
        layout: how these hold the module's leaves; by default each leaf is the variable of its name.
        children: the pieces within.
        kind: the public name of the object's class.
        options: its configuration, for the spec.
        call: what the object's own call computes; None if it cannot be mirrored, for the reason `refusal`.
        methods: further functions, by name, called like `call`.
        state: the form of the state of a cell, and of the states that a loop around one returns.
        mask: the mask that a Keras layer hands on, `mask(bound, inputs, mask)`; None: none.
        takes_mask: whether `call` has a keyword `mask`.
        keeps_numpy: whether `call` is given NumPy arrays as they are, with values that JAX does not trace.
        refusal: why there is no call.
        notes: what a person should know, such as a regulariser that adds a term to the port's loss.
    """

    module: nn.Module
    variables: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    children: tuple[Child, ...] = ()
    kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    call: Call | None = None
    methods: Mapping[str, Call] = field(default_factory=dict)
    state: StateForm | None = None
    mask: Call | None = None
    takes_mask: bool = False
    keeps_numpy: bool = False
    refusal: str = ""
    notes: tuple[str, ...] = ()

    def own_layout(self) -> Layout:
        """The layout of the variables that the object holds itself.

        Raises:
            BridgeError: if it is of other variables than are given.
        """
        if self.layout is None:
            shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
            return Layout(shapes, shapes, tuple(whole(name, name, shape) for name, shape in shapes.items()))
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        wanted = {name: tuple(shape) for name, shape in self.layout.variables.items()}
        if shapes != wanted:
            raise BridgeError(
                f"mirror: {self.kind}: its variables are {shapes}, but its layout is of {wanted}; the object "
                "was changed, or the layout is another's"
            )
        return self.layout

    def walk(self, leaves: str = "", attributes: str = "") -> Iterator[tuple[str, str, Piece]]:
        """The piece and all within it, each with the path of its leaves and of its attributes."""
        yield leaves, attributes, self
        for child in self.children:
            yield from child.piece.walk(
                f"{leaves}{child.leaves}/", f"{attributes}{child.attribute or child.leaves}/"
            )


def single_state() -> StateForm:
    """One array, which Keras also takes and gives as a list of one."""

    def to_ours(state: Any) -> Any:
        return state[0] if isinstance(state, (list, tuple)) and len(state) == 1 else state

    return StateForm(to_ours, lambda state: state)


def lstm_state(order: str) -> StateForm:
    """An `LSTMState`, which the port has as a list in the given order: `hc` (Keras) or `ch` (tfa's NAS)."""

    def to_ours(state: Any) -> LSTMState:
        if isinstance(state, LSTMState):
            return state
        if not isinstance(state, (list, tuple)) or len(state) != 2:
            raise BridgeError(
                f"mirror: an LSTM's state is a list of two arrays, not {describe_arrays(state)}"
            )
        return LSTMState(**dict(zip(order, state, strict=True)))

    return StateForm(to_ours, lambda state: [getattr(state, name) for name in order], 2)


def tf1_lstm_state() -> StateForm:
    """TF1's `LSTMStateTuple(c, h)`, which has the fields of `LSTMState`."""
    form = lstm_state("ch")
    return StateForm(form.to_ours, lambda state: state, 2)


def stacked_state(forms: Sequence[StateForm]) -> StateForm:
    """The states of a stack's cells: a tuple of each cell's, or all their arrays in one flat list."""

    def to_ours(state: Any) -> tuple[Any, ...]:
        if not isinstance(state, (list, tuple)):
            raise BridgeError(f"mirror: a stack's state is a tuple, not {describe_arrays(state)}")
        width = sum(form.width for form in forms)
        if len(state) != len(forms) or (len(state) == width != len(forms)):
            if len(state) != width:
                raise BridgeError(
                    f"mirror: a stack's state has {len(state)} items; expected one for each of {len(forms)} "
                    f"cells, or {width} arrays"
                )
            arrays, state = iter(state), []
            for form in forms:
                taken = [next(arrays) for _ in range(form.width)]
                state.append(taken if form.width > 1 else taken[0])
        return tuple(form.to_ours(part) for form, part in zip(forms, state, strict=True))

    def to_port(state: Any) -> tuple[Any, ...]:
        return tuple(form.to_port(part) for form, part in zip(forms, state, strict=True))

    return StateForm(to_ours, to_port, sum(form.width for form in forms))


def wrapper_state(cell: StateForm) -> StateForm:
    """An `AttentionWrapperState`, whose `cell_state` has the wrapped cell's form."""

    def convert(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def apply(state: Any) -> Any:
            if not isinstance(state, AttentionWrapperState):
                raise BridgeError(
                    f"mirror: the state of an AttentionWrapper is a {type(state).__name__}; expected what "
                    "its `initial_state(memories, cell_state=...)` gives"
                )
            return state._replace(cell_state=function(state.cell_state))

        return apply

    return StateForm(convert(cell.to_ours), convert(cell.to_port))


def cell_call(form: StateForm) -> Call:
    """The call of a Keras cell: `output, new_states = cell(inputs, states)`."""

    def call(bound: Any, inputs: Any, states: Any, training: bool | None = None, **options: Any) -> Any:
        del training
        new, output = bound(form.to_ours(states), inputs, **options)
        new = form.to_port(new)
        nested = isinstance(states, (list, tuple)) and not isinstance(states, AttentionWrapperState)
        return output, [new] if nested and not isinstance(new, (list, tuple)) else new

    return call


def default_state(module: nn.Module) -> StateForm:
    """The form of a user's cell: the arrays of its zero state, in Keras' order, in a list."""
    zeros = module.zero_state(1, np.float32)  # pyright: ignore[reportAttributeAccessIssue]
    arrays = flatten_keras_states(zeros)
    if len(arrays) == 1:
        return single_state()

    def to_ours(state: Any) -> Any:
        return state if isinstance(state, LSTMState) else unflatten_keras_states(list(state), like=zeros)

    return StateForm(to_ours, flatten_keras_states, len(arrays))


def describe_arrays(value: Any) -> str:
    """What a wrong argument is, with its shape, for a message."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {list(shape)}"
