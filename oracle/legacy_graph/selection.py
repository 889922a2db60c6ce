"""Which part of a model file is meant: a signature, or the inputs and outputs of a graph without one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from oracle.bridge.formats.damage import DamageError
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.graph import Graph, Tensor, parse_tensor, read_graph
from oracle.legacy_graph.loops import find_consumers
from oracle.legacy_graph.model_file import MetaGraph, ModelFile, Port

SINKS = frozenset({"Assert", "NoOp", "SaveV2", "RestoreV2", "MergeV2Checkpoints"})
"""What nobody reads and yet is no output."""


@dataclass(frozen=True)
class Selection:
    """What is to be repaired.

    Args:
        file: where it comes from.
        meta_graph: the graph.
        graph: its nodes.
        signature: the signature's name, or None.
        inputs: the inputs by key.
        outputs: the outputs by key.
    """

    file: ModelFile
    meta_graph: MetaGraph
    graph: Graph
    signature: str | None
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


def select(
    file: ModelFile,
    *,
    signature: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Selection:
    """Choose a signature, or the placeholders and the results of a graph that has none.

    Args:
        file: a model file.
        signature: which signature; need not be given if there is one only.
        inputs: tensors to take for inputs where there is no signature; by default every placeholder.
        outputs: tensors to take for outputs; by default every floating result that nothing reads.

    Raises:
        GraphError: G304 if there are several signatures, or none of that name; G305 if a tensor is not
            in the graph.
    """
    offered = [(meta, name) for meta in file.meta_graphs for name in meta.signatures]
    named = any(meta.signatures for meta in file.meta_graphs) and not (inputs or outputs)
    if named:
        meta, name = _choose_signature(file, offered, signature)
        graph = read_graph(meta.graph, where=file.path)
        chosen = meta.signatures[name]
        _check_ports(file.path, graph, {**chosen.inputs, **chosen.outputs})
        return Selection(file, meta, graph, name, chosen.inputs, chosen.outputs)
    if signature is not None:
        raise GraphError(
            "G304", f"{file.path}: no signature {signature!r}, for it has none; name its outputs instead"
        )
    if len(file.meta_graphs) > 1:
        raise GraphError("G304", f"{file.path}: {len(file.meta_graphs)} graphs and no signature among them")
    meta = next(iter(file.meta_graphs))
    graph = read_graph(meta.graph, where=file.path)
    ins = list(inputs) or [node.name for node in graph.nodes.values() if node.op == "Placeholder"]
    outs = list(outputs) or list(_find_results(graph))
    if not outs:
        raise GraphError("G305", f"{file.path}: no floating result in the graph; name its outputs")
    ports = {name.removesuffix(":0"): Port(_tensor_name(name, file.path)) for name in ins}
    results = {name.removesuffix(":0"): Port(_tensor_name(name, file.path)) for name in outs}
    _check_ports(file.path, graph, {**ports, **results})
    if not inputs:
        needed = find_ancestors(graph, [parse_tensor(port.tensor)[0] for port in results.values()])
        ports = {key: port for key, port in ports.items() if parse_tensor(port.tensor)[0] in needed}
    return Selection(file, meta, graph, None, ports, results)


def find_ancestors(graph: Graph, names: Iterable[str]) -> set[str]:
    """The nodes that some nodes need, themselves among them."""
    found, pending = set(), list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        node = graph.nodes[name]
        pending += [source for source, _ in node.inputs]
        pending += node.controls
    return found


def _choose_signature(
    file: ModelFile, offered: list[tuple[MetaGraph, str]], wanted: str | None
) -> tuple[MetaGraph, str]:
    names = list(dict.fromkeys(name for _, name in offered))
    if wanted is None and len(names) > 1:
        raise GraphError(
            "G304", f"{file.path}: {len(names)} signatures ({', '.join(names)}); say which with --signature"
        )
    found = [(meta, name) for meta, name in offered if wanted in (None, name)]
    if not found:
        near = difflib.get_close_matches(str(wanted), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise GraphError("G304", f"{file.path}: no signature {wanted!r}; {hint}")
    # A Hub module has a graph for training beside the one with no tags, which is for inference.
    return min(found, key=lambda item: ("train" in item[0].tags, len(item[0].tags)))


def _find_results(graph: Graph) -> Iterable[str]:
    """Nodes that nothing reads and that give numbers. Their dtype is said by an attribute, mostly `T`."""
    consumers = find_consumers(graph)
    read = {name for name, _ in consumers} | {name for node in graph.nodes.values() for name in node.controls}
    for node in graph.nodes.values():
        if node.name in read or node.op in SINKS or not node.inputs:
            continue
        types = [node.number(key) for key in ("dtype", "DstT", "T") if node.number(key) is not None]
        if types and types[0] in (1, 2, 19, 14):
            yield node.name


def _tensor_name(text: str, where: str) -> str:
    try:
        name, index = parse_tensor(text)
    except DamageError as error:
        raise GraphError("G305", f"{where}: {error}; give a name as `scope/name:0`") from error
    return f"{name}:{index}"


def _check_ports(where: str, graph: Graph, ports: Mapping[str, Port]) -> None:
    for key, port in ports.items():
        name = as_tensor(port, where=where)[0]
        if name not in graph.nodes:
            near = difflib.get_close_matches(name, graph.nodes, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see `oracle diagnose`"
            raise GraphError("G305", f"{where}: {key!r} is {name!r}, which is not in the graph; {hint}")


def as_tensor(port: Port, *, where: str) -> Tensor:
    """The tensor of a port.

    Raises:
        GraphError: if it is a sparse or composite one.
    """
    if not port.tensor:
        raise GraphError(
            "G305", f"{where}: it has a sparse or composite input or output, which is not supported"
        )
    try:
        return parse_tensor(port.tensor)
    except DamageError as error:
        raise GraphError("G305", f"{where}: {error}") from error
