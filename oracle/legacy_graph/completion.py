"""The nodes that gradients need and a pruned graph lacks: exits, pivots, a `Switch` for each branch."""

from __future__ import annotations

from typing import Any

from oracle.legacy_graph.frames import Branch, ControlFlow, find_control_flow
from oracle.legacy_graph.graph import Graph, Tensor, parse_tensor, read_graph
from oracle.legacy_graph.loops import find_consumers, find_loops, is_loop_switch, pass_identities


def complete_graph(graph_def: Any, *, where: str) -> tuple[ControlFlow, tuple[str, ...]]:
    """Add to a GraphDef what its loops and conds lack. Returns its control flow and the nodes added.

    What the graph computes stays the same: a loop's `Switch` and `Exit` that nobody reads, the
    `Identity` in its body, a cond's pivots, and a second `Switch` where one serves both branches of a cond.

    Raises:
        GraphError: as `find_control_flow`.
    """
    before = {node.name for node in graph_def.node}
    _split_switches(graph_def, where)
    _add_loop_switches(graph_def, where)
    graph = _read(graph_def, where)
    control_flow = find_control_flow(graph, where=where)
    for loop in control_flow.loops.values():
        for variable in loop.variables:
            if variable.exit is None and variable.switch is not None:
                _add_node(graph_def, f"{variable.switch}/added_exit", "Exit", [variable.switch], graph)
        if loop.variables[0].body is None:
            switch = loop.variables[0].switch
            _add_node(graph_def, f"{switch}/added_identity", "Identity", [f"{switch}:1"], graph)
    pivots = find_pivots(graph, control_flow)
    for branch in control_flow.branches:
        if branch not in pivots:
            _add_pivot(graph_def, branch, graph)
    added = tuple(node.name for node in graph_def.node if node.name not in before)
    return find_control_flow(_read(graph_def, where), where=where), added


def find_pivots(graph: Graph, control_flow: ControlFlow) -> dict[Branch, str]:
    """Of every branch, the `Identity` of its predicate that is alive in it alone, unless it was pruned."""
    pivots: dict[Branch, str] = {}
    for node in graph.nodes.values():
        context = control_flow.contexts[node.name]
        if node.op != "Identity" or not node.inputs:
            continue
        if not isinstance(context, Branch) or context in pivots:
            continue
        switch = graph.nodes[node.inputs[0][0]]
        if switch.op != "Switch" or node.inputs[0][1] != context.side or is_loop_switch(switch, graph):
            continue
        if {pass_identities(graph, tensor) for tensor in switch.inputs} == {context.predicate}:
            pivots[context] = node.name
    return pivots


def _split_switches(graph_def: Any, where: str) -> None:
    """Give every branch of a cond a `Switch` of its own, as `tf.cond` does; an optimizer may join them."""
    graph = _read(graph_def, where)
    consumers = find_consumers(graph)
    nodes = {node.name: node for node in graph_def.node}
    for node in graph.nodes.values():
        if node.op != "Switch" or is_loop_switch(node, graph) or node.inputs[0] == node.inputs[1]:
            continue
        if not (consumers.get((node.name, 0)) and consumers.get((node.name, 1))):
            continue
        copy = graph_def.node.add()
        copy.CopyFrom(nodes[node.name])
        copy.name = _free_name(f"{node.name}/added_switch", graph)
        for reader in consumers[node.name, 1]:
            for index, text in enumerate(nodes[reader].input):
                if not text.startswith("^") and parse_tensor(text) == (node.name, 1):
                    nodes[reader].input[index] = f"{copy.name}:1"


def _add_loop_switches(graph_def: Any, where: str) -> None:
    """Give every loop variable that only the condition reads the `Switch` that was pruned."""
    graph = _read(graph_def, where)
    for loop in find_loops(graph, find_consumers(graph), where=where).values():
        for variable in loop.variables:
            if variable.switch is None:
                inputs = [variable.merge, loop.condition]
                _add_node(graph_def, f"{variable.merge}/added_switch", "Switch", inputs, graph)


def _add_pivot(graph_def: Any, branch: Branch, graph: Graph) -> None:
    predicate = _text(branch.predicate)
    base = f"{branch.predicate[0]}/added_pivot_{branch.side}"
    switch = _add_node(graph_def, f"{base}/Switch", "Switch", [predicate, predicate], graph, dtype=10)
    _add_node(graph_def, base, "Identity", [f"{switch}:1" if branch.side else switch], graph, dtype=10)


def _add_node(
    graph_def: Any, name: str, op: str, inputs: list[str], graph: Graph, *, dtype: int | None = None
) -> str:
    node = graph_def.node.add()
    node.name, node.op = _free_name(name, graph), op
    node.input.extend(inputs)
    if dtype is None:
        dtype = graph.nodes[parse_tensor(inputs[0])[0]].number("T")
    node.attr["T"].type = dtype
    return node.name


def _free_name(name: str, graph: Graph) -> str:
    number, free = 0, name
    while free in graph.nodes:
        number += 1
        free = f"{name}_{number}"
    return free


def _text(tensor: Tensor) -> str:
    return f"{tensor[0]}:{tensor[1]}" if tensor[1] else tensor[0]


def _read(graph_def: Any, where: str) -> Graph:
    return read_graph(graph_def.SerializeToString(), where=where)
