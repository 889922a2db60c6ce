"""A call of a mirrored part, as the port makes it and as the reference does: what goes in and what comes out.

Arrays go by name: `input`, `initial_state/0`, `mask`; `output`, `output/1`. Both sides name them alike,
since a mirror's `apply` has the signature of the live object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

APPLY, SETUP_MEMORY = "apply", "setup_memory"
"""The calls that both sides have: of the object itself, and of an attention mechanism's memory."""

WATCHED = (APPLY, SETUP_MEMORY, "dynamic_rnn")
"""The calls of a reference which a port has, too."""

STATES = ("initial_state", "cell_state")
"""The arguments that are states."""

MASKS = ("mask", "memory_mask")
MEMORY_LENGTHS = "memory_sequence_length"
LENGTHS = ("sequence_length", MEMORY_LENGTHS)
"""The arguments that say which steps count."""

_ALIASES = {"inputs": "input", "states": "initial_state", "state": "initial_state", "memory": "input"}

OUTPUT = "output"

_STATE_FIELDS = ("cell_state", "attention")


@dataclass(frozen=True)
class Call:
    """A call of a part.

    Args:
        part: the attribute path of the object.
        method: `apply`, `setup_memory` or `dynamic_rnn`.
        number: which of the part's calls of that method, from 0.
        arguments: the arrays that go in, by name. What is absent is None to the object.
        outputs: the arrays that come out.
        argument_adjoints: dL/d(argument) of the floating-point ones; None where no gradient arrives.
        output_adjoints: dL/d(output).
        given: the port's positional and keyword arguments as NumPy, in their own structure.
        training: what the call was told of training; None if nothing.
        is_recorded: of the port's, whether a tape was there to record it.
    """

    part: str
    method: str
    number: int
    arguments: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    argument_adjoints: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    output_adjoints: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    given: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    training: bool | None = None
    is_recorded: bool = True

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells a call from all others, on both sides alike."""
        return self.part, self.method, self.number


Label = str | tuple[str, ...]
"""The name of an argument; of one that is a list of the inputs and states, the name of each item."""


def label_arguments(
    signature: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, skip: int
) -> tuple[tuple[Label, ...], dict[str, Label]]:
    """The names of the positional and of the keyword arguments of a call.

    A recurrent layer's states may stand behind its inputs in one list; they are named as states all the same.

    Args:
        signature: a function with the parameters; None if nothing is known of them.
        args: the positional arguments.
        kwargs: the others.
        skip: how many parameters of the function come before the arguments.
    """
    names: list[str] = []
    if signature is not None:
        parameters = list(inspect.signature(signature).parameters.values())[skip:]
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    first = names[0] if names else "input_0"

    def label(name: str, value: Any) -> Label:
        if name != first:
            return _ALIASES.get(name, name)
        has_states = "initial_state" in names and isinstance(value, (list, tuple)) and len(value) > 1
        if has_states and kwargs.get("initial_state") is None:
            count = len(value) - 1
            names_of = (
                [f"initial_state/{number}" for number in range(count)] if count > 1 else ["initial_state"]
            )
            return ("input", *names_of)
        return "input"

    positional = tuple(
        label(names[number] if number < len(names) else f"input_{number}", value)
        for number, value in enumerate(args)
    )
    return positional, {name: label(name, value) for name, value in kwargs.items()}


def map_arrays(structure: Any, label: Label, function: Callable[[str, Any], Any]) -> Any:
    """A structure of lists, tuples and dictionaries with other arrays: `function(name, array)` of each.

    Args:
        structure: with arrays in it; all else stays.
        label: its name, to which the path within it is added.
        function: gives what stands in an array's place.
    """
    if isinstance(label, tuple):
        return [map_arrays(item, name, function) for item, name in zip(structure, label, strict=True)]
    if isinstance(structure, Mapping):
        return {name: map_arrays(value, f"{label}/{name}", function) for name, value in structure.items()}
    if hasattr(structure, "_fields"):
        fields = structure._fields
        # Of an attention wrapper's state a caller decides two parts; the rest follows.
        kept = _STATE_FIELDS if set(_STATE_FIELDS) <= set(fields) else fields
        changed = {name: map_arrays(getattr(structure, name), f"{label}/{name}", function) for name in kept}
        return structure._replace(**changed)
    if isinstance(structure, (list, tuple)):
        if structure and all(isinstance(item, (bool, int)) for item in structure):
            # Lengths as a list of numbers: noted as an array, and passed on as they are.
            function(label, np.asarray(structure))
            return structure
        # Keras takes one state as it is, or in a list.
        names = [label] if len(structure) == 1 else [f"{label}/{number}" for number in range(len(structure))]
        items = [map_arrays(item, name, function) for item, name in zip(structure, names, strict=True)]
        return items if isinstance(structure, list) else tuple(items)
    if hasattr(structure, "shape") and hasattr(structure, "dtype"):
        return function(label, structure)
    return structure


def map_arguments(
    labels: tuple[tuple[Label, ...], dict[str, Label]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    function: Callable[[str, Any], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with other arrays."""
    positional, named = labels
    return (
        tuple(map_arrays(value, label, function) for value, label in zip(args, positional, strict=True)),
        {name: map_arrays(value, named[name], function) for name, value in kwargs.items()},
    )


def is_state(name: str) -> bool:
    """Whether an argument's name is of a state."""
    return any(part in STATES for part in name.split("/"))


def is_float(array: Any) -> bool:
    """Whether an array has floating-point numbers."""
    return np.dtype(array.dtype).kind == "f"
