"""The parts of every TF1 loop: its variables, its condition, and what enters it unchanged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.graph import Graph, Node, Tensor

ONE_INPUT = frozenset({"NextIteration", "RefNextIteration", "Exit", "RefExit", "LoopCond"})

Consumers = Mapping[Tensor, list[str]]
"""Of every tensor, the nodes that read it."""


@dataclass(frozen=True)
class LoopVariable:
    """A value that a loop carries from step to step, as the names of the nodes that carry it.

    Args:
        enter: brings the first value in.
        merge: gives the first or the next.
        switch: sends it into the body, output 1, or out, output 0; None if it was pruned because only the
            condition reads the value.
        body: the `Identity` that the body reads it from, or None if an optimizer took it away.
        next_iteration: brings the next value.
        exit: the last value, or None if it was pruned because nobody reads it.
    """

    enter: str
    merge: str
    switch: str | None
    body: str | None
    next_iteration: str
    exit: str | None


@dataclass(frozen=True)
class Loop:
    """A loop.

    Args:
        frame: its frame's name.
        condition: its `LoopCond`.
        variables: what it carries, in the graph's order.
        constants: the `Enter`s of what it reads and does not change.
        parallel_iterations: how many steps may run at a time.
        is_bounded: False if its condition cannot change from step to step.
    """

    frame: str
    condition: str
    variables: tuple[LoopVariable, ...]
    constants: tuple[str, ...]
    parallel_iterations: int
    is_bounded: bool


def find_consumers(graph: Graph) -> Consumers:
    """Of every tensor that is read, the nodes that read it."""
    consumers: defaultdict[Tensor, list[str]] = defaultdict(list)
    for node in graph.nodes.values():
        for tensor in node.inputs:
            consumers[tensor].append(node.name)
    return consumers


def is_loop_merge(node: Node, graph: Graph) -> bool:
    """Whether a `Merge` is where a loop goes round."""
    return any(graph.nodes[name].op in ("NextIteration", "RefNextIteration") for name, _ in node.inputs)


def is_loop_switch(node: Node, graph: Graph) -> bool:
    """Whether a `Switch` decides if a loop goes on, rather than which branch of a cond is taken."""
    return len(node.inputs) == 2 and graph.nodes[node.inputs[1][0]].op == "LoopCond"


def find_loops(graph: Graph, consumers: Consumers, *, where: str) -> dict[str, Loop]:
    """The loops by their frames' names.

    Raises:
        GraphError: if a loop lacks a part.
    """
    enters: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        if node.op in ("Enter", "RefEnter"):
            frame = node.text("frame_name")
            if not frame or len(node.inputs) != 1:
                raise _malformed(where, node, "names no frame" if not frame else "does not read one value")
            enters.setdefault(frame, []).append(node)
        elif node.op in ("Switch", "RefSwitch") and len(node.inputs) != 2:
            raise _malformed(where, node, "does not read a value and a predicate")
        elif node.op in ONE_INPUT and len(node.inputs) != 1:
            raise _malformed(where, node, "does not read one value")
    loops = {frame: _read_loop(frame, nodes, graph, consumers, where) for frame, nodes in enters.items()}
    _check_strays(graph, loops, where)
    return loops


def _read_loop(frame: str, enters: list[Node], graph: Graph, consumers: Consumers, where: str) -> Loop:
    variables, constants, conditions = [], [], {}
    for enter in enters:
        merges = [graph.nodes[name] for name in consumers.get((enter.name, 0), ())]
        merges = [node for node in merges if node.op in ("Merge", "RefMerge") and is_loop_merge(node, graph)]
        if enter.number("is_constant"):
            constants.append(enter.name)
            continue
        if len(merges) != 1:
            raise _malformed(
                where, enter, f"is read by {len(merges)} Merge of the loop {frame!r}, not by one"
            )
        variable, condition = _read_variable(enter, merges[0], graph, consumers, where)
        variables.append(variable)
        if condition is not None:
            conditions[condition] = None
    if len(conditions) != 1:
        raise GraphError(
            "G303",
            f"{where}: the loop {frame!r} has {len(variables)} loop variables and {len(conditions)} "
            "conditions "
            "instead of at least one and one; export the graph anew",
        )
    (condition,) = conditions
    return Loop(
        frame,
        condition,
        tuple(variables),
        tuple(constants),
        enters[0].number("parallel_iterations") or 10,
        _can_end(graph, condition, variables),
    )


def _read_variable(
    enter: Node, merge: Node, graph: Graph, consumers: Consumers, where: str
) -> tuple[LoopVariable, str | None]:
    sources = [name for name, _ in merge.inputs]
    backs = [name for name in sources if graph.nodes[name].op in ("NextIteration", "RefNextIteration")]
    if len(sources) != 2 or len(backs) != 1:
        raise _malformed(where, merge, "does not read one Enter and one NextIteration")
    readers = [graph.nodes[name] for name in consumers.get((merge.name, 0), ())]
    switches = [
        node for node in readers if node.op in ("Switch", "RefSwitch") and is_loop_switch(node, graph)
    ]
    if not switches:
        return LoopVariable(enter.name, merge.name, None, None, backs[0], None), None
    if len(switches) != 1 or switches[0].inputs[0] != (merge.name, 0):
        raise _malformed(where, merge, f"is read by {len(switches)} Switch on a LoopCond, not by one")
    (switch,) = switches
    exits = _find_exits(graph, consumers, switch)
    if len(exits) > 1:
        raise _malformed(where, switch, f"is read by {len(exits)} Exit")
    bodies = [
        n for n in consumers.get((switch.name, 1), ()) if graph.nodes[n].op in ("Identity", "RefIdentity")
    ]
    variable = LoopVariable(
        enter.name,
        merge.name,
        switch.name,
        bodies[0] if bodies else None,
        backs[0],
        exits[0] if exits else None,
    )
    return variable, switch.inputs[1][0]


def _find_exits(graph: Graph, consumers: Consumers, switch: Node) -> list[str]:
    """What takes a loop variable out; in the loop of a gradient an `Identity` comes before it."""
    found, pending, seen = [], [switch.name], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for reader in consumers.get((name, 0), ()):
            if graph.nodes[reader].op in ("Exit", "RefExit"):
                found.append(reader)
            elif graph.nodes[reader].op in ("Identity", "RefIdentity"):
                pending.append(reader)
    return found


def _can_end(graph: Graph, condition: str, variables: list[LoopVariable]) -> bool:
    """False if the condition depends on nothing that a step changes."""
    unchanging = {
        variable.merge
        for variable in variables
        if pass_identities(graph, graph.nodes[variable.next_iteration].inputs[0]) == (variable.switch, 1)
    }
    merges = {variable.merge for variable in variables} - unchanging
    seen, pending = set(), [condition]
    while pending:
        node = graph.nodes[pending.pop()]
        if node.name in merges or _is_changeable(node):
            return True
        if node.name in seen or node.op in ("Enter", "RefEnter"):
            continue
        seen.add(node.name)
        pending += [name for name, _ in node.inputs]
    return False


def _is_changeable(node: Node) -> bool:
    """Whether an operation may give another result though its inputs are the same."""
    return node.op.startswith(("Random", "Read", "Stateful", "PyFunc", "Queue", "Iterator")) or node.op in (
        "Multinomial",
        "VariableV2",
        "TensorArrayReadV3",
    )


def pass_identities(graph: Graph, tensor: Tensor) -> Tensor:
    """The tensor that a chain of `Identity` repeats."""
    seen = set()
    while graph.nodes[tensor[0]].op == "Identity" and graph.nodes[tensor[0]].inputs and tensor not in seen:
        seen.add(tensor)
        tensor = graph.nodes[tensor[0]].inputs[0]
    return tensor


def _check_strays(graph: Graph, loops: Mapping[str, Loop], where: str) -> None:
    """No part of a loop may be left that belongs to none."""
    known = {
        part
        for loop in loops.values()
        for variable in loop.variables
        for part in (variable.switch, variable.next_iteration, variable.exit, loop.condition)
    }
    for node in graph.nodes.values():
        is_part = node.op in ("NextIteration", "RefNextIteration", "Exit", "RefExit", "LoopCond")
        if (
            is_part or (node.op in ("Switch", "RefSwitch") and is_loop_switch(node, graph))
        ) and node.name not in known:
            raise _malformed(where, node, "is part of a loop whose other parts are missing")


def _malformed(where: str, node: Node, what: str) -> GraphError:
    return GraphError("G303", f"{where}: node {node.name!r} ({node.op}) {what}; export the graph anew")
