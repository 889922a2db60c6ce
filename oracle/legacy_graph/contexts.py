"""TensorFlow's WhileContext and CondContext objects, made anew for a graph that lost them.

`tf.gradients` asks every operation of a TF1 loop for the Python object of its loop, and fails with
`'NoneType' object has no attribute 'outer_context'` where there is none. The objects are made as
`import_meta_graph` makes them, from a WhileContextDef or CondContextDef (`control_flow.proto`), which
here is derived from the graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.completion import find_pivots
from oracle.legacy_graph.frames import Branch, Context, ControlFlow, Frame
from oracle.legacy_graph.graph import Graph


@dataclass(frozen=True)
class LoopSettings:
    """What a loop was asked for that its graph does not say.

    Args:
        back_prop: False if its author switched its gradient off.
        swap_memory: whether steps may be kept in the host's memory.
        parallel_iterations: how many steps may run at a time.
    """

    back_prop: bool = True
    swap_memory: bool = False
    parallel_iterations: int | None = None


def read_settings(meta_graph: Any) -> dict[str, LoopSettings]:
    """The settings of a MetaGraph's loops, by frame, from its collection `while_context`."""
    tf = import_tensorflow()
    from tensorflow.core.protobuf import control_flow_pb2

    found: dict[str, LoopSettings] = {}

    def read(context: Any) -> None:
        if hasattr(context, "parallel_iterations"):
            found[context.context_name] = LoopSettings(
                context.back_prop, context.swap_memory, context.parallel_iterations
            )
        for nested in context.nested_contexts:
            kind = nested.WhichOneof("ctxt")
            if kind:
                read(getattr(nested, kind))

    for name, proto in (
        (tf.compat.v1.GraphKeys.WHILE_CONTEXT, control_flow_pb2.WhileContextDef),
        (tf.compat.v1.GraphKeys.COND_CONTEXT, control_flow_pb2.CondContextDef),
    ):
        for value in meta_graph.collection_def[name].bytes_list.value:
            read(proto.FromString(value))
    return found


def define_contexts(
    tf_graph: Any,
    graph: Graph,
    control_flow: ControlFlow,
    settings: Mapping[str, LoopSettings],
) -> list[Any]:
    """A ControlFlowContextDef for every outermost loop and cond, the inner ones nested in it.

    Args:
        tf_graph: a `tf.Graph` into which `graph` was imported without a prefix.
        graph: the nodes, completed by `complete_graph`.
        control_flow: their loops and conds.
        settings: of loops that have some.
    """
    from tensorflow.core.protobuf import control_flow_pb2

    children: defaultdict[Context, list[Frame | Branch]] = defaultdict(list)
    for context in [*map(Frame, control_flow.loops), *control_flow.branches]:
        children[control_flow.parent(context)].append(context)
    members: defaultdict[Context, list[str]] = defaultdict(list)
    for name, context in control_flow.contexts.items():
        members[context].append(name)

    pivots = find_pivots(graph, control_flow)

    def define(context: Frame | Branch) -> Any:
        whole = control_flow_pb2.ControlFlowContextDef()
        if isinstance(context, Frame):
            definition = whole.while_ctxt
            _define_loop(definition, control_flow, context, settings.get(context.name, LoopSettings()))
        else:
            definition = whole.cond_ctxt
            _define_branch(definition, context, pivots[context])
        for name in members[context]:
            outputs = [output.name for output in tf_graph.get_operation_by_name(name).outputs]
            if isinstance(context, Branch) and graph.nodes[name].op == "Switch":
                outputs = [outputs[context.side]]
            definition.values_def.values.extend(outputs or [name])
        for outside, inside in _find_external(graph, control_flow, context, members[context]).items():
            definition.values_def.values.append(outside)
            definition.values_def.external_values[outside] = inside
        for child in children[context]:
            inner = define(child)
            definition.nested_contexts.append(inner)
            # What a loop gives, and all that a cond holds, counts as seen in the context around it.
            if isinstance(child, Frame):
                definition.values_def.values.extend(inner.while_ctxt.loop_exit_names)
            else:
                known = {*definition.values_def.values, *inner.cond_ctxt.values_def.external_values}
                definition.values_def.values.extend(
                    value for value in inner.cond_ctxt.values_def.values if value not in known
                )
        return whole

    return [define(context) for context in children[None]]


def rebuild_contexts(
    tf_graph: Any,
    graph: Graph,
    control_flow: ControlFlow,
    settings: Mapping[str, LoopSettings],
) -> None:
    """Give the operations of `tf_graph` the contexts that they lost; then `tf.gradients` works."""
    from tensorflow.python.ops import control_flow_ops

    with tf_graph.as_default():
        for definition in define_contexts(tf_graph, graph, control_flow, settings):
            control_flow_ops.from_control_flow_context_def(definition)


def _define_loop(definition: Any, control_flow: ControlFlow, context: Frame, settings: LoopSettings) -> None:
    loop = control_flow.loops[context.name]
    first = loop.variables[0]
    definition.context_name = context.name
    definition.parallel_iterations = settings.parallel_iterations or loop.parallel_iterations
    definition.back_prop = settings.back_prop
    definition.swap_memory = settings.swap_memory
    definition.pivot_name = f"{loop.condition}:0"
    definition.pivot_for_pred_name = f"{first.merge}:0"
    definition.pivot_for_body_name = f"{first.body}:0"
    definition.loop_exit_names.extend(f"{variable.exit}:0" for variable in loop.variables)
    definition.loop_enter_names.extend(f"{variable.enter}:0" for variable in loop.variables)


def _define_branch(definition: Any, context: Branch, pivot: str) -> None:
    name, index = context.predicate
    definition.context_name = f"{pivot}/rebuilt_cond"
    definition.pred_name = f"{name}:{index}"
    definition.pivot_name = f"{pivot}:0"
    definition.branch = context.side


def _find_external(
    graph: Graph, control_flow: ControlFlow, context: Frame | Branch, names: list[str]
) -> dict[str, str]:
    """The tensors from outside, and what stands for each within: an `Enter`, or one side of a `Switch`."""
    external = {}
    constants = set() if isinstance(context, Branch) else {*control_flow.loops[context.name].constants}
    if isinstance(context, Branch):
        predicate = f"{context.predicate[0]}:{context.predicate[1]}"
        external[predicate] = predicate
    for name in names:
        node = graph.nodes[name]
        if name in constants:
            inside = f"{name}:0"
        elif isinstance(context, Branch) and node.op == "Switch":
            inside = f"{name}:{context.side}"
        else:
            continue
        source, index = node.inputs[0]
        external.setdefault(f"{source}:{index}", inside)
    return external
