"""The `dynamic_rnn` loops of a graph: which cells they run over, and which tensors go in and come out.

Cells are recognised by their variables' names and shapes, the rest by how TF1's `dynamic_rnn` joins its
nodes: it reads its inputs from one TensorArray, writes its outputs to another, and carries a counter, the
time and the cells' states. What is read here is a claim, which the forward pass has to confirm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.completion import complete_graph
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.frames import ControlFlow, Frame
from oracle.legacy_graph.graph import Graph, Node, Tensor, read_graph
from oracle.legacy_graph.loops import Consumers, Loop, LoopVariable, find_consumers
from oracle.legacy_graph.model_file import FLOATING

LSTMS = frozenset({"tf1_lstm", "tf1_lstm_cell"})
LAYOUTS = LSTMS | {"tf1_gru", "tf1_basic_rnn"}
"""The layouts of the cells that Flax rebuilds."""

CARRIERS = frozenset({"Identity", "Enter"})

SHAPES = frozenset({"Shape", "Size", "Rank"})
"""What reads a tensor and passes no gradient to it."""


@dataclass(frozen=True)
class Cell:
    """A recognised cell.

    Args:
        kind: what it is called.
        scope: where its variables are.
        layout: the name of their layout.
        sizes: the layout's sizes.
        variables: for each variable of the layout, its node.
        forget_bias: what the graph adds to the forget gate; None of a cell that has none.
    """

    kind: str
    scope: str
    layout: str
    sizes: Mapping[str, Any]
    variables: Mapping[str, str]
    forget_bias: float | None


@dataclass(frozen=True)
class Recurrence:
    """A loop of recognised cells. Tensors are named as `rnn/transpose:0`; inputs and outputs are time-major.

    Args:
        frame: the loop's frame.
        cells: from the first to the last.
        inputs: what it reads, [time, batch, features].
        outputs: what it gives, [time, batch, units]; None if nobody reads it.
        lengths: the rows' lengths; None if it has none.
        initial: the states that it begins with, an LSTM's c before its h.
        final: the states that it ends with.
        alone: those of `inputs` and `initial` that nothing else takes a gradient from.
    """

    frame: str
    cells: tuple[Cell, ...]
    inputs: str
    outputs: str | None
    lengths: str | None
    initial: tuple[str, ...]
    final: tuple[str, ...]
    alone: frozenset[str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor but the lengths."""
        ends = () if self.outputs is None else (self.outputs,)
        return (self.inputs, *ends, *self.initial, *self.final)


@dataclass(frozen=True)
class Recurrences:
    """What was found in a graph.

    Args:
        found: the loops that were recognised.
        others: of every other loop, why it was not.
        readers: of every variable of their cells, the frames that read it; None stands for
            whatever else does.
    """

    found: tuple[Recurrence, ...]
    others: Mapping[str, str]
    readers: Mapping[str, frozenset[str | None]]


class _UnrecognisedError(Exception):
    """Why a loop is not one of these."""


def find_recurrences(extract: Extract) -> Recurrences:
    """Read every loop of a forward graph, completed as for its gradient. Runs nothing."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(extract.graph_def)
    flow, _ = complete_graph(graph_def, where=extract.where)
    reader = _Reader(tf, graph_def, flow, extract)
    found, others = [], {}
    for frame, loop in flow.loops.items():
        try:
            found.append(reader.read(loop))
        except _UnrecognisedError as reason:
            others[frame] = str(reason)
    held = {name for one in found for cell in one.cells for name in cell.variables.values()}
    return Recurrences(tuple(found), others, {name: frozenset(reader.find_readers(name)) for name in held})


class _Reader:
    """A graph in which loops are read."""

    def __init__(self, tf: Any, graph_def: Any, flow: ControlFlow, extract: Extract) -> None:
        self._tf, self._flow = tf, flow
        self._graph: Graph = read_graph(graph_def.SerializeToString(), where=extract.where)
        self._consumers: Consumers = find_consumers(self._graph)
        self._definitions = {node.name: node for node in graph_def.node}
        self._shapes = {one.placeholder: one.value.shape for one in extract.variables}
        self._ends = set(extract.outputs.values())

    def read(self, loop: Loop) -> Recurrence:
        if self._flow.parents[loop.frame] is not None:
            raise _UnrecognisedError("it lies in another loop or in a cond")
        inside = [
            self._graph.nodes[name]
            for name, context in self._flow.contexts.items()
            if context == Frame(loop.frame)
        ]
        cells = self._read_cells(loop, inside)
        (read,) = self._find_one(inside, "TensorArrayReadV3")
        scatter = self._graph.nodes[self._find_root(read.inputs[2])[0]]
        if scatter.op != "TensorArrayScatterV3":
            raise _UnrecognisedError("what it reads is not the whole of one tensor")
        inputs = scatter.inputs[2]
        kept, array = [], None
        for variable in loop.variables:
            source = self._find_root(self._graph.nodes[variable.enter].inputs[0])
            if self._graph.nodes[source[0]].op == "TensorArrayV3":
                if array is not None:
                    raise _UnrecognisedError("it writes to several TensorArrays")
                array = variable
            elif self._graph.nodes[variable.enter].number("T") in FLOATING:
                kept.append(variable)
        sizes = [2 if cell.layout in LSTMS else 1 for cell in cells]
        if len(kept) != sum(sizes):
            raise _UnrecognisedError(f"it carries {len(kept)} states, and its cells have {sum(sizes)}")
        initial = [self._graph.nodes[variable.enter].inputs[0] for variable in kept]
        alone = [tensor for tensor in (inputs, *initial) if self._is_alone(tensor)]
        return Recurrence(
            loop.frame,
            cells,
            _text(inputs),
            None if array is None else self._find_outputs(array),
            self._find_lengths(inside),
            tuple(map(_text, initial)),
            tuple(f"{variable.exit}:0" for variable in kept),
            frozenset(map(_text, alone)),
        )

    def find_readers(self, name: str) -> set[str | None]:
        """The frames that a variable enters; None stands for whatever else reads it."""
        readers: set[str | None] = set()
        for reader in self._consumers.get((name, 0), ()):
            node = self._graph.nodes[reader]
            if node.op == "Enter":
                readers.add(node.text("frame_name"))
            else:
                readers |= self.find_readers(reader) if node.op == "Identity" else {None}
        return readers

    def _read_cells(self, loop: Loop, inside: list[Node]) -> tuple[Cell, ...]:
        from oracle.bridge.recognition import recognise

        roots = (self._find_root((enter, 0))[0] for enter in loop.constants)
        shapes = {name: shape for name in roots if (shape := self._find_shape(name)) is not None}
        parts = [part for part in recognise(shapes) if part.scope and part.layout != "array"]
        if not parts:
            raise _UnrecognisedError("no cell is recognised in it")
        for part in parts:
            if part.layout not in LAYOUTS or part.doubt:
                raise _UnrecognisedError(f"{part.kind} ({part.scope}) is no cell of TF1 that is rebuilt")
        parts.sort(key=lambda part: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", part.scope)])
        return tuple(
            Cell(
                part.kind,
                part.scope,
                str(part.layout),
                part.sizes,
                part.variables,
                self._find_forget_bias(part.variables["kernel"], inside) if part.layout in LSTMS else None,
            )
            for part in parts
        )

    def _find_forget_bias(self, kernel: str, inside: Iterable[Node]) -> float:
        """The constant that is added to the third of the four parts of what the kernel gives."""
        product = [
            node for node in inside if node.op == "MatMul" and self._find_root(node.inputs[1])[0] == kernel
        ]
        tensors = [(node.name, 0) for node in product]
        for op in ("BiasAdd", "Split"):
            tensors = [(name, 0) for tensor in tensors for name in self._find_consumers(tensor, {op})]
        added = [
            tensor
            for name, _ in tensors
            for reader in self._find_consumers((name, 2), {"Add", "AddV2"})
            for tensor in self._graph.nodes[reader].inputs
            if tensor != (name, 2)
        ]
        if len(added) != 1 or (value := self._find_value(added[0])) is None or value.size != 1:
            raise _UnrecognisedError("its forget bias is not found")
        return float(value.reshape(()))

    def _find_consumers(self, tensor: Tensor, ops: set[str]) -> list[str]:
        return [name for name in self._consumers.get(tensor, ()) if self._graph.nodes[name].op in ops]

    def _find_outputs(self, array: LoopVariable) -> str | None:
        readers = self._consumers.get((str(array.exit), 0), ())
        gathers = [name for name in readers if self._graph.nodes[name].op == "TensorArrayGatherV3"]
        others = [name for name in readers if self._graph.nodes[name].op != "TensorArraySizeV3"]
        if len(gathers) > 1 or len(others) > len(gathers):
            raise _UnrecognisedError("its outputs are not read as one tensor")
        return f"{gathers[0]}:0" if gathers else None

    def _find_lengths(self, inside: list[Node]) -> str | None:
        found = {self._find_root(node.inputs[1]) for node in inside if node.op == "GreaterEqual"}
        if len(found) > 1:
            raise _UnrecognisedError("it compares the time with several tensors")
        if any(self._flow.contexts[name] is not None for name, _ in found):
            raise _UnrecognisedError("it compares the time with what is not known before it")
        return _text(found.pop()) if found else None

    def _find_one(self, nodes: Iterable[Node], op: str) -> list[Node]:
        found = [node for node in nodes if node.op == op]
        if len(found) != 1:
            raise _UnrecognisedError(f"it has {len(found)} {op}, not one")
        return found

    def _find_root(self, tensor: Tensor) -> Tensor:
        """Where a tensor comes from, past what only carries it."""
        while (node := self._graph.nodes[tensor[0]]).op in CARRIERS:
            tensor = node.inputs[0]
        return tensor

    def _find_shape(self, name: str) -> tuple[int, ...] | None:
        node = self._definitions[name]
        if node.op == "Const" and node.attr["dtype"].type in FLOATING:
            return tuple(size.size for size in node.attr["value"].tensor.tensor_shape.dim) or None
        return self._shapes.get(name)

    def _find_value(self, tensor: Tensor) -> np.ndarray | None:
        node = self._definitions[self._find_root(tensor)[0]]
        return self._tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def _is_alone(self, tensor: Tensor) -> bool:
        readers = [name for name in self._consumers[tensor] if self._graph.nodes[name].op not in SHAPES]
        return len(readers) == 1 and _text(tensor) not in self._ends


def _text(tensor: Tensor) -> str:
    return f"{tensor[0]}:{tensor[1]}"
