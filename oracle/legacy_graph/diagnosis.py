"""What in a model file keeps it from being differentiated. Nothing is run, nor TensorFlow imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.wire import as_message, read_fields
from oracle.legacy_graph.codes import CODES
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.frames import ControlFlow, Frame, describe, find_control_flow
from oracle.legacy_graph.graph import Graph, Node, read_graph
from oracle.legacy_graph.loops import Loop
from oracle.legacy_graph.model_file import FLOATING, MetaGraph, ModelFile, read_model_file, read_shape

RESOURCE = 20
"""The dtype of a handle, as of a resource variable."""

PASSING = frozenset({"Identity", "Enter", "RefEnter", "Switch", "RefSwitch", "ReadVariableOp", "RefIdentity"})


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Args:
        code: its code.
        where: the file, and the node, loop or variable in it.
        what: what is there.
        remedy: the shortest remedy.
        is_note: whether it needs no remedy.
    """

    code: str
    where: str
    what: str
    remedy: str
    is_note: bool = False


def diagnose(path: str | os.PathLike[str]) -> list[Finding]:
    """What a SavedModel's, GraphDef's or MetaGraph's graphs hold that has no gradient, and why.

    A checkpoint is looked at through the `.meta` file beside it.

    Raises:
        GraphError: if there is no graph, or it is damaged.
    """
    file = read_model_file(_find_graph(Path(path)))
    findings: list[Finding] = []
    for meta in file.meta_graphs:
        tags = f" ({', '.join(meta.tags) or 'no tags'})" if len(file.meta_graphs) > 1 else ""
        findings += _diagnose_graph(file, meta, f"{file.path}{tags}")
    return findings


def _find_graph(path: Path) -> Path:
    """The graph beside a checkpoint's prefix, or the path itself."""
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if prefix.name and prefix.with_name(f"{prefix.name}.index").is_file() and not path.is_dir():
        meta = prefix.with_name(f"{prefix.name}.meta")
        if meta.is_file():
            return meta
        raise GraphError(
            "G310", f"{prefix}: a checkpoint with no graph beside it ({meta.name}); give its graph"
        )
    return path


def _diagnose_graph(file: ModelFile, meta: MetaGraph, where: str) -> Iterator[Finding]:
    graph = read_graph(meta.graph, where=file.path)
    remedy = f"oracle repair {file.path} DST"
    for name, ops in graph.functions.items():
        if ops & {"Enter", "Exit", "RefEnter"}:
            place = f"{where}: function {name!r}"
            if graph.custom_gradients:
                what = "it holds TF1 loops, and the model custom gradients, as a repaired one does"
                yield Finding("G003", place, what, "none, unless a gradient raises", is_note=True)
            else:
                yield Finding("G003", place, "it holds TF1 loops", CODES["G003"].remedy)
    flow = find_control_flow(graph, where=file.path)
    shapes = _find_variables(graph)
    if not shapes and flow.loops:
        remedy += " --trainable REGEX"
    gradients = {
        context.name
        for node in graph.nodes.values()
        if node.op in ("StackPop", "StackPopV2") and isinstance(context := flow.contexts[node.name], Frame)
    }
    for loop in flow.loops.values():
        what = _describe_loop(graph, flow, loop)
        if file.kind == "MetaGraph" and meta.loops:
            what += "; its collections keep the contexts, which import_meta_graph alone reads"
        place = f"{where}: loop {loop.frame!r}"
        if loop.frame in gradients:
            yield Finding("G001", place, f"{what}; it computes a gradient", "none", is_note=True)
        else:
            yield Finding("G001", place, what, remedy)
        if not loop.is_bounded:
            yield Finding(
                "G208",
                f"{where}: loop {loop.frame!r}",
                f"nothing in it changes its condition {loop.condition!r}: it never ends",
                CODES["G208"].remedy,
            )
    around = {context for parent in flow.parents.values() for context in flow.path(parent)}
    lone = [
        branch
        for branch in flow.branches
        if branch not in around and not any(isinstance(context, Frame) for context in flow.path(branch))
    ]
    with_resource = {
        flow.contexts[node.name]
        for node in graph.nodes.values()
        if node.op == "Switch" and node.number("T") == RESOURCE
    }
    for predicate in dict.fromkeys(branch.predicate for branch in lone):
        place, what = f"{where}: node {predicate[0]!r}", f"a cond on {predicate[0]!r}, outside loops"
        if any(branch in with_resource for branch in lone if branch.predicate == predicate):
            yield Finding("G006", place, f"{what}, which reads resource variables", remedy)
        else:
            yield Finding("G005", place, what, CODES["G005"].remedy, is_note=True)
    references = [name for name in shapes if graph.nodes[name].op in ("VariableV2", "Variable")]
    if references and file.kind == "SavedModel" and not meta.is_tf2:
        yield Finding(
            "G002",
            f"{where}: variable {references[0]!r}",
            f"{len(references)} reference variables, which tf.saved_model.load leaves out of .variables",
            remedy,
        )
    if file.kind == "GraphDef" and not shapes:
        frozen = list(_find_frozen(graph))
        if frozen:
            shown = ", ".join(frozen[:4]) + ", ..." * (len(frozen) > 4)
            what = f"{len(frozen)} constants that were variables ({shown})"
            yield Finding(
                "G004",
                f"{where}: constant {frozen[0]!r}",
                what,
                f"oracle repair {file.path} DST --trainable REGEX",
                is_note=True,
            )


def _describe_loop(graph: Graph, flow: ControlFlow, loop: Loop) -> str:
    inner = [name for name, parent in flow.parents.items() if Frame(loop.frame) in flow.path(parent)]
    conds = {branch.predicate for branch in flow.branches if Frame(loop.frame) in flow.path(branch)}
    pruned = sum(variable.exit is None for variable in loop.variables)
    parts = [f"{len(loop.variables)} loop variables, {len(loop.constants)} values from outside"]
    parent = flow.parents[loop.frame]
    if parent is not None:
        parts.append(f"in {describe(parent)}")
    if inner:
        parts.append(f"loops within: {len(inner)}")
    if conds:
        parts.append(f"conds within: {len(conds)}")
    if pruned:
        parts.append(f"exits pruned: {pruned}")
    cells = _recognise_cells(graph, loop)
    if cells:
        parts.append(f"cells: {', '.join(cells)}")
    return "; ".join(parts)


def _recognise_cells(graph: Graph, loop: Loop) -> list[str]:
    """What the variables that a loop reads are, by their names and shapes."""
    from oracle.bridge.recognition import recognise

    shapes = {}
    for enter in loop.constants:
        root = _find_root(graph, graph.nodes[enter])
        shape = _shape(root)
        if shape is not None and (len(shape) or root.op != "Const") and _is_floating(root):
            shapes[root.name] = shape
    parts = [part for part in recognise(shapes) if part.scope and part.layout != "array"]
    kinds = [f"{part.kind} ({part.scope})" for part in parts]
    return list(dict.fromkeys(kinds))


def _find_root(graph: Graph, node: Node) -> Node:
    seen = set()
    while node.op in PASSING and node.inputs and node.name not in seen:
        seen.add(node.name)
        node = graph.nodes[node.inputs[0][0]]
    return node


def _find_variables(graph: Graph) -> Mapping[str, tuple[int, ...]]:
    found = {}
    for node in graph.nodes.values():
        if node.op in ("VariableV2", "Variable", "VarHandleOp"):
            found[node.name] = _shape(node) or ()
    return found


def _find_frozen(graph: Graph) -> Iterator[str]:
    for node in graph.nodes.values():
        if node.op == "Identity" and node.inputs and node.name.endswith("/read"):
            source = graph.nodes[node.inputs[0][0]]
            if source.op == "Const" and _is_floating(source):
                yield source.name


def _is_floating(node: Node) -> bool:
    return node.number("dtype") in FLOATING


def _shape(node: Node) -> tuple[int, ...] | None:
    """The whole shape of a variable or constant; None if a size is not known."""
    shape = None
    try:
        if node.op == "Const":
            for number, _, value in read_fields(node.attributes.get("value", memoryview(b""))):
                if number == 8:
                    shape = ()
                    for inner, _, message in read_fields(as_message(value)):
                        if inner == 2:
                            shape = read_shape(as_message(message))
        elif node.op in ("VariableV2", "Variable", "VarHandleOp"):
            for number, _, value in read_fields(node.attributes.get("shape", memoryview(b""))):
                if number == 7:
                    shape = read_shape(as_message(value))
    except DamageError:
        return None
    if shape is None or any(size is None for size in shape):
        return None
    return tuple(size for size in shape if size is not None)


def render_findings(findings: Sequence[Finding], *, verbose: bool = False) -> str:
    """Findings as text, a paragraph each."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.code} {'note: ' if finding.is_note else ''}{CODES[finding.code].title}")
        lines.append(f"    where   {finding.where}")
        lines.append(f"    what    {finding.what}")
        lines.append(f"    remedy  {finding.remedy}")
        if verbose:
            lines.append(f"    why     {CODES[finding.code].why}")
    return "".join(f"{line}\n" for line in lines)
