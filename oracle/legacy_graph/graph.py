"""A GraphDef as nodes: read from its bytes, without TensorFlow, and nothing in it is run.

Sources: `graph.proto`, `node_def.proto`, `attr_value.proto`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.wire import BYTES, as_message, as_number, as_text, read_fields
from oracle.legacy_graph.errors import GraphError

MAXIMUM_NODES = 1_000_000
"""More than any model that was ever saved; a file that claims more is refused."""

MAXIMUM_NAME = 4096

Tensor = tuple[str, int]
"""A node's name and which of its outputs."""


@dataclass(frozen=True)
class Node:
    """An operation of a graph.

    Args:
        name: its name, unique in the graph.
        op: its type, as `MatMul`.
        inputs: the tensors it reads.
        controls: the nodes it waits for.
        attributes: the messages of its attributes.
    """

    name: str
    op: str
    inputs: tuple[Tensor, ...]
    controls: tuple[str, ...]
    attributes: Mapping[str, memoryview]

    def text(self, attribute: str) -> str:
        """The attribute that is a string; empty if there is none, or it is damaged."""
        with contextlib.suppress(DamageError):
            return _last_text(self.attributes.get(attribute), 2)
        return ""

    def number(self, attribute: str) -> int | None:
        """The attribute that is an integer, a boolean or a type; None if there is none, or it is damaged."""
        found = None
        with contextlib.suppress(DamageError):
            for field, _, value in read_fields(self.attributes.get(attribute, memoryview(b""))):
                if field in (3, 5, 6):
                    found = as_number(value)
        return found


@dataclass(frozen=True)
class Graph:
    """The nodes of a graph, by name and in their order, and what its functions are made of.

    Args:
        nodes: the nodes.
        functions: of every function in its library, the types of its operations.
        custom_gradients: how many custom gradients were saved with its functions.
    """

    nodes: Mapping[str, Node]
    functions: Mapping[str, frozenset[str]]
    custom_gradients: int = 0


def read_graph(data: memoryview | bytes, *, where: str) -> Graph:
    """The nodes of a GraphDef.

    Raises:
        GraphError: if it is no GraphDef, two nodes share a name, or an input is not in it.
    """
    nodes: dict[str, Node] = {}
    functions, custom_gradients = {}, 0
    try:
        for number, kind, value in read_fields(memoryview(data)):
            if number == 1 and kind == BYTES:
                node = _read_node(as_message(value))
                if node.name in nodes:
                    raise DamageError(f"two of its nodes are called {node.name!r}")
                nodes[node.name] = node
                if len(nodes) > MAXIMUM_NODES:
                    raise DamageError(f"it has more than {MAXIMUM_NODES} nodes")
            elif number == 2 and kind == BYTES:
                functions.update(_read_library(as_message(value)))
                custom_gradients += sum(inner == 3 for inner, _, _ in read_fields(as_message(value)))
    except DamageError as error:
        raise GraphError(
            "G301", f"{where}: not a graph ({error}); copy it again, or export it anew"
        ) from error
    if not nodes:
        raise GraphError("G301", f"{where}: not a graph (it holds no node); give a GraphDef")
    for node in nodes.values():
        for name in (*(name for name, _ in node.inputs), *node.controls):
            if name not in nodes:
                raise GraphError(
                    "G302",
                    f"{where}: node {node.name!r} ({node.op}) reads {name!r}, which is not in the graph; it "
                    "was cut or edited: export it anew",
                )
    return Graph(nodes, functions, custom_gradients)


def _read_node(data: memoryview) -> Node:
    name = op = ""
    inputs: list[Tensor] = []
    controls: list[str] = []
    attributes: dict[str, memoryview] = {}
    for number, _, value in read_fields(data):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            op = as_text(value)
        elif number == 3:
            text = as_text(value)
            if text.startswith("^"):
                controls.append(text[1:])
            else:
                inputs.append(parse_tensor(text))
        elif number == 5:
            attributes.update(_read_entry(as_message(value)))
    if not op or not name:
        raise DamageError(f"a node in it has no {'name' if op else 'operation'}")
    if len(name) > MAXIMUM_NAME:
        raise DamageError(f"a node's name has {len(name)} characters")
    if not (name.isprintable() and op.isprintable()):
        raise DamageError(f"{name[:80]!r} ({op[:80]!r}) is no name of a node")
    return Node(name, op, tuple(inputs), tuple(controls), attributes)


def parse_tensor(text: str) -> Tensor:
    """A tensor's name, as `while/Switch:1`, taken apart.

    Raises:
        DamageError: if it is none.
    """
    name, colon, index = text.partition(":")
    if not name or (colon and not (index.isascii() and index.isdigit() and len(index) < 7)):
        raise DamageError(f"{text!r} is not the name of a tensor")
    return name, int(index or 0)


def _read_entry(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    key, entry = "", memoryview(b"")
    for number, _, value in read_fields(data):
        if number == 1:
            key = as_text(value)
        elif number == 2:
            entry = as_message(value)
    yield key, entry


def _read_library(data: memoryview) -> Iterator[tuple[str, frozenset[str]]]:
    for number, _, function in read_fields(data):
        if number != 1:
            continue
        name, ops = "", set()
        for inner, _, value in read_fields(as_message(function)):
            if inner == 1:
                name = _last_text(as_message(value), 1)
            elif inner == 3:
                ops.add(_last_text(as_message(value), 2))
        yield name, frozenset(ops)


def _last_text(data: memoryview | None, field: int) -> str:
    text = ""
    for number, _, value in read_fields(data if data is not None else memoryview(b"")):
        if number == field:
            text = as_text(value)
    return text
