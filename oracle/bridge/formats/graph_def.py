"""Frozen graphs: a GraphDef whose variables were turned into constants. The graph is never run.

Sources: `graph.proto`, `node_def.proto`, `attr_value.proto`, `function.proto`, `saved_model.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.bridge.formats.tensors import read_tensor
from oracle.bridge.formats.wire import BYTES, as_message, as_text, read_fields

CONSTANT = "a constant of the graph"
"""How a note on one begins."""


@dataclass
class Graph:
    """What matters of a graph.

    Args:
        nodes: how many nodes it has, those of its functions among them.
        constants: the names of its constants and their messages.
        reads: of each constant, the nodes that only pass it on.
    """

    nodes: int = 0
    constants: dict[str, memoryview] = field(default_factory=dict)
    reads: dict[str, list[str]] = field(default_factory=dict)


def read_frozen_graph(data: memoryview) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The constants that were variables, sorted by name, and notes on the others.

    A frozen variable is a constant that an `Identity` reads, `kernel` by `kernel/read` or by a
    `ReadVariableOp` that was. Where an optimizer of graphs took those away, every constant of floating
    numbers that has an axis is taken for one.

    Raises:
        DamageError: if it is no GraphDef, or a constant contradicts itself.
    """
    graph = scan_graph(data)
    if not graph.nodes:
        raise DamageError("it holds no node of a graph")
    budget = Budget(len(data))
    arrays, notes = {}, {}
    for name, message in graph.constants.items():
        array = read_tensor(message, budget, name)
        if array is None:
            notes[name] = f"{CONSTANT}, no numbers"
        else:
            arrays[name] = array
    variables = {name for name in arrays if any(map(_is_read, graph.reads.get(name, ())))}
    if not variables:
        variables = {name for name, array in arrays.items() if array.ndim and _is_floating(array)}
    for name in arrays.keys() - variables:
        notes[name] = f"{CONSTANT}, {arrays[name].dtype} {list(arrays[name].shape)}"
    named = {_shorten(name): arrays[name] for name in sorted(variables)}
    if len(named) < len(variables):
        named = {name: arrays[name] for name in sorted(variables)}
    return named, dict(sorted(notes.items()))


def scan_graph(data: memoryview) -> Graph:
    """Find the constants of a GraphDef and of the functions in its library.

    Raises:
        DamageError: if it is no GraphDef.
    """
    graph = Graph()
    for number, kind, value in read_fields(data):
        if number == 1 and kind == BYTES:
            _scan_node(as_message(value), graph, "")
        elif number == 2 and kind == BYTES:
            for inner, _, function in read_fields(as_message(value)):
                if inner == 1:
                    _scan_function(as_message(function), graph)
    return graph


def find_graphs(data: memoryview) -> Iterator[memoryview]:
    """The graphs of a SavedModel's `saved_model.pb`.

    Raises:
        DamageError: if it is none.
    """
    for number, kind, value in read_fields(data):
        if number == 2 and kind == BYTES:
            for inner, _, graph in read_fields(as_message(value)):
                if inner == 2:
                    yield as_message(graph)


def _scan_function(data: memoryview, graph: Graph) -> None:
    nodes, name = [], ""
    for number, _, value in read_fields(data):
        if number == 1:
            names = [as_text(text) for inner, _, text in read_fields(as_message(value)) if inner == 1]
            name = names[-1] if names else ""
        elif number == 3:
            nodes.append(as_message(value))
    for node in nodes:
        _scan_node(node, graph, f"{name}/")


def _scan_node(data: memoryview, graph: Graph, scope: str) -> None:
    graph.nodes += 1
    name, operation, inputs, tensor = "", "", [], None
    for number, _, value in read_fields(data):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            operation = as_text(value)
        elif number == 3:
            inputs.append(as_text(value))
        elif number == 5:
            tensor = _find_value(as_message(value)) or tensor
    if not operation:
        raise DamageError("it holds a node without an operation")
    if operation == "Const" and tensor is not None:
        if scope + name in graph.constants:
            raise DamageError(f"two of its nodes are called {scope + name!r}")
        graph.constants[scope + name] = tensor
    elif operation == "Identity" and inputs:
        source = inputs[0].split(":")[0]
        graph.reads.setdefault(scope + source, []).append(scope + name)


def _find_value(data: memoryview) -> memoryview | None:
    """The tensor of an attribute `value`; None of any other."""
    key, attribute = "", None
    for number, _, value in read_fields(data):
        if number == 1:
            key = as_text(value)
        elif number == 2:
            attribute = as_message(value)
    if key != "value" or attribute is None:
        return None
    for number, _, value in read_fields(attribute):
        if number == 8:
            return as_message(value)
    return None


def _is_read(name: str) -> bool:
    return name.endswith("/read") or "ReadVariableOp" in name.rpartition("/")[2]


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float8_e5m2", "float8_e4m3fn")


def _shorten(name: str) -> str:
    """The name of a variable that TF2 froze under the operation that read it."""
    return name.removesuffix("/ReadVariableOp/resource")
