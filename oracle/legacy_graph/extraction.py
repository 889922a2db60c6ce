"""The forward graph on its own: what the outputs need, with placeholders for inputs and variables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.graph import read_graph
from oracle.legacy_graph.model_file import FLOATING, SavedVariable
from oracle.legacy_graph.operations import check_operations
from oracle.legacy_graph.selection import Selection, as_tensor, find_ancestors
from oracle.legacy_graph.values import read_values
from oracle.legacy_graph.variable_reads import VARIABLES, replace_variables

MAXIMUM_ELEMENTS = 2**29
"""Of one constant or input: a graph's file holds no more than 2 GiB."""


@dataclass(frozen=True)
class Variable:
    """A variable of the repaired model.

    Args:
        name: its name, that of its node.
        placeholder: the node that stands for it in the forward graph.
        value: its value.
        is_trainable: whether the model's author trained it, or it was lifted on request.
    """

    name: str
    placeholder: str
    value: np.ndarray
    is_trainable: bool


@dataclass(frozen=True)
class Extract:
    """A forward graph without variables: everything it depends on is fed.

    Args:
        where: what it comes from, for messages.
        graph_def: the graph.
        inputs: of every input key, the placeholder's name.
        outputs: of every output key, the tensor's name.
        variables: the variables.
    """

    where: str
    graph_def: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    variables: tuple[Variable, ...]


def extract(selection: Selection, *, trainable: str | None = None) -> Extract:
    """Cut the forward graph out, and read its variables' values.

    Args:
        selection: which signature of which file.
        trainable: a regular expression; frozen constants whose names match it become variables.

    Raises:
        GraphError: if the graph needs what no function of its inputs can have (tables, queues, random
            numbers, assignments), an operation is unknown, or a value is missing.
    """
    tf = import_tensorflow()
    where = selection.file.path
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(bytes(selection.meta_graph.graph))
    except Exception as error:  # protobuf's DecodeError, whose class moved between versions
        raise GraphError("G301", f"{where}: not a graph ({error}); copy it again") from error
    clear_placement(graph_def)
    inputs = _cut_inputs(tf, graph_def, selection)
    _keep_ancestors(graph_def, selection, inputs)
    check_operations(graph_def, where=where)
    _check_sizes(graph_def, where)
    _refuse_complex(tf, graph_def, [*inputs.values()], where)
    lifted = _lift_constants(graph_def, trainable, selection) if trainable is not None else {}
    known = selection.meta_graph.variables
    variables = []
    names = [node.name for node in graph_def.node if node.op in VARIABLES]
    values = read_values(selection.file, [known.get(name, SavedVariable(name, True, name)) for name in names])
    placeholders = replace_variables(graph_def, values, where=where)
    for name in names:
        # A graph without collections does not say what was trained.
        was_trained = known[name].is_trainable if name in known else not known
        is_trainable = was_trained and values[name].dtype.name in FLOATING.values()
        variables.append(Variable(name, placeholders[name], values[name], is_trainable))
    for name, value in lifted.items():
        variables.append(Variable(name, name, value, True))
    outputs = {
        key: ":".join(map(str, as_tensor(port, where=where))) for key, port in selection.outputs.items()
    }
    return Extract(where, graph_def, inputs, outputs, tuple(variables))


def _check_sizes(graph_def: Any, where: str) -> None:
    """A constant may be written as one element and a shape, which bounds its size by nothing."""
    for node in graph_def.node:
        if node.op not in ("Const", "Placeholder"):
            continue
        is_constant = node.op == "Const"
        shape = node.attr["value"].tensor.tensor_shape if is_constant else node.attr["shape"].shape
        sizes = [size.size for size in shape.dim]
        if math.prod(abs(size) for size in sizes) > MAXIMUM_ELEMENTS:
            raise GraphError(
                "G301",
                f"{where}: node {node.name!r} ({node.op}) claims the shape {sizes}; export the graph anew",
            )


def _refuse_complex(tf: Any, graph_def: Any, inputs: list[str], where: str) -> None:
    """Gradients are built of real numbers only; a complex source would be left without one."""
    for node in graph_def.node:
        dtype = node.attr["dtype"].type if node.name in inputs or node.op in VARIABLES else 0
        if dtype and tf.as_dtype(dtype).is_complex:
            raise GraphError(
                "G201",
                f"{where}: node {node.name!r} ({node.op}) is {tf.as_dtype(dtype).name}, and gradients are "
                "built of real inputs and variables only; export its real and imaginary parts",
            )


def clear_placement(graph_def: Any) -> None:
    """Forget on which devices a graph ran and what compiled it, which need not be here."""
    for node in graph_def.node:
        node.device = ""
        for attribute in list(node.attr):
            # Not all that begins with an underscore: one says which gradient an operation has.
            if attribute.startswith(("_class", "_output_shapes", "_Xla", "_xla", "_tpu")):
                del node.attr[attribute]


def _cut_inputs(tf: Any, graph_def: Any, selection: Selection) -> dict[str, str]:
    """Put a placeholder of its own in the place of every input."""
    nodes = {node.name: node for node in graph_def.node}
    places = {}
    for key, port in selection.inputs.items():
        name, index = as_tensor(port, where=selection.file.path)
        node = nodes[name]
        twin = next((other for other, place in places.items() if place == name), None)
        if twin is not None:
            raise GraphError(
                "G305",
                f"{selection.file.path}: the inputs {twin!r} and {key!r} are one tensor, {port.tensor!r}, "
                "whose gradient cannot be told apart; name the inputs and outputs yourself",
            )
        places[key] = name
        if node.op == "Placeholder" and not index:
            continue
        if index or not port.dtype:
            raise GraphError(
                "G305",
                f"{selection.file.path}: the input {key!r} is {port.tensor!r}, a {node.op} and no "
                "placeholder, "
                "which can only be an input of a signature, as its first output; name another",
            )
        shape = None if port.shape is None else tf.TensorShape(port.shape).as_proto()
        node.Clear()
        node.name, node.op = name, "Placeholder"
        node.attr["dtype"].type = port.dtype
        if shape is not None:
            node.attr["shape"].shape.CopyFrom(shape)
    return places


def _keep_ancestors(graph_def: Any, selection: Selection, inputs: Mapping[str, str]) -> None:
    where = selection.file.path
    graph = read_graph(graph_def.SerializeToString(), where=where)
    ends = [as_tensor(port, where=where)[0] for port in selection.outputs.values()]
    needed = find_ancestors(graph, [*ends, *inputs.values()])
    for name in needed:
        if graph.nodes[name].op in ("Placeholder", "PlaceholderV2") and name not in inputs.values():
            raise GraphError(
                "G305",
                f"{where}: the outputs need the placeholder {name!r}, which is no input of the "
                "signature; name "
                "the inputs and outputs yourself",
            )
    kept = [node for node in graph_def.node if node.name in needed]
    del graph_def.node[:]
    graph_def.node.extend(kept)


def _lift_constants(graph_def: Any, pattern: str, selection: Selection) -> dict[str, np.ndarray]:
    """Make placeholders of the floating constants that a pattern matches. Returns their values."""
    tf = import_tensorflow()
    where = selection.file.path
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise GraphError("G306", f"--trainable {pattern!r} is no regular expression ({error})") from error
    candidates = [
        node
        for node in graph_def.node
        if node.op == "Const" and node.attr["dtype"].type in FLOATING and not node.input
    ]
    values = {}
    for node in candidates:
        if not expression.search(node.name):
            continue
        try:
            value = tf.make_ndarray(node.attr["value"].tensor)
        except (TypeError, ValueError) as error:
            raise GraphError("G301", f"{where}: the constant {node.name!r} is damaged ({error})") from error
        values[node.name] = value
        dtype = node.attr["dtype"].type
        name = node.name
        node.Clear()
        node.name, node.op = name, "Placeholder"
        node.attr["dtype"].type = dtype
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    if not values:
        large = [node.name for node in candidates if node.attr["value"].tensor.tensor_shape.dim]
        raise GraphError(
            "G306",
            f"{where}: --trainable {pattern!r} matches no floating constant outside loops; there are "
            f"{', '.join(sorted(large)[:20]) or 'none'}",
        )
    return values
