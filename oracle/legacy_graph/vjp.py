"""The vector-Jacobian product of a TF1 graph, built in a plain graph, where `tf.gradients` is at home."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.completion import complete_graph
from oracle.legacy_graph.contexts import LoopSettings, rebuild_contexts
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.frames import EXITS, ControlFlow, Frame, describe
from oracle.legacy_graph.graph import read_graph
from oracle.legacy_graph.model_file import FLOATING


@dataclass(frozen=True)
class Backward:
    """A graph of gradients.

    Args:
        graph_def: the graph; it computes the forward pass again.
        upstream: of every floating output key, the placeholder of its gradient.
        gradients: of every source (`input/KEY`, `variable/NAME`), the tensor, or None if nothing
            connects it to an output.
        control_flow: the loops and conds of the forward graph.
        added: the nodes that were added to it.
    """

    graph_def: Any
    upstream: Mapping[str, str]
    gradients: Mapping[str, str | None]
    control_flow: ControlFlow
    added: tuple[str, ...]


def build_backward(
    extract: Extract, *, settings: Mapping[str, LoopSettings], seams: Sequence[str] = ()
) -> Backward:
    """Build the gradients of every floating output with respect to every floating input and variable.

    Args:
        extract: the forward graph.
        settings: of loops that have some.
        seams: tensors of the completed graph, as `rnn/transpose:0`, whose gradients are wanted too, under
            `seam/NAME`, and which are kept in the graph.

    Raises:
        GraphError: G303 if the loops are malformed, G201 if an operation has no gradient, G208 if a loop
            cannot end, G209 if a loop's gradient was switched off by its author.
    """
    tf = import_tensorflow()
    v1 = tf.compat.v1
    where = extract.where
    graph_def = v1.GraphDef()
    graph_def.CopyFrom(extract.graph_def)
    control_flow, added = complete_graph(graph_def, where=where)
    check_loops(control_flow, settings, where=where)
    _check_outputs(control_flow, extract)
    nodes = read_graph(graph_def.SerializeToString(), where=where)
    graph = tf.Graph()
    with graph.as_default():
        import_graph(graph_def, where=where)
        rebuild_contexts(graph, nodes, control_flow, settings)
        outputs, upstream = [], {}
        for index, (key, name) in enumerate(extract.outputs.items()):
            output = _find_output(graph, name, key, where)
            if output.dtype.as_datatype_enum in FLOATING:
                outputs.append(output)
                placeholder = v1.placeholder(output.dtype, None, f"upstream_{index}")
                upstream[key] = placeholder
        if not outputs:
            raise GraphError("G201", f"{where}: none of its outputs is floating, so there is no gradient")
        # A loaded SavedModel stands in zeros of size 1 for the gradient of an output that nobody used.
        weights = [
            tf.broadcast_to(weight, tf.shape(output))
            for weight, output in zip(upstream.values(), outputs, strict=True)
        ]
        sources = find_sources(graph, extract)
        sources.update({f"seam/{name}": graph.get_tensor_by_name(name) for name in seams})
        try:
            with v1_control_flow():
                gradients = tf.gradients(outputs, list(sources.values()), grad_ys=weights)
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            AssertionError,
            tf.errors.OpError,
        ) as error:
            kind = "" if isinstance(error, LookupError) else f"TensorFlow raises {type(error).__name__}: "
            raise GraphError(
                "G201",
                f"{where}: {kind}{' '.join(str(error).split())[:300]}; export a model whose outputs do not "
                "need it",
            ) from error
        found: dict[str, str | None] = {}
        for index, ((key, source), gradient) in enumerate(zip(sources.items(), gradients, strict=True)):
            if gradient is None:
                found[key] = None
                continue
            dense = tf.convert_to_tensor(gradient)
            dense = tf.reshape(dense, tf.shape(source))
            found[key] = tf.identity(dense, f"gradient_{index}").name
    return Backward(
        strip_graph(graph.as_graph_def(), [*found.values(), *seams]),
        {key: placeholder.op.name for key, placeholder in upstream.items()},
        found,
        control_flow,
        added,
    )


@contextlib.contextmanager
def v1_control_flow() -> Iterator[None]:
    """Let TensorFlow build TF1's loops and TensorArrays, which the gradients of TF1's loops are made of."""
    v1 = import_tensorflow().compat.v1
    was_enabled = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        if was_enabled:
            v1.enable_control_flow_v2()


def _find_output(graph: Any, name: str, key: str, where: str) -> Any:
    try:
        return graph.get_tensor_by_name(name)
    except KeyError as error:
        count = len(graph.get_operation_by_name(name.partition(":")[0]).outputs)
        raise GraphError(
            "G305",
            f"{where}: the output {key!r} is {name!r}, whose operation has {count} outputs",
        ) from error


def _check_outputs(control_flow: ControlFlow, extract: Extract) -> None:
    """Only what has left its loop, and is not in one branch of a cond alone, is an output."""
    nodes = {node.name: node.op for node in extract.graph_def.node}
    for key, tensor in extract.outputs.items():
        name = tensor.partition(":")[0]
        context = control_flow.contexts[name]
        if nodes[name] in EXITS and isinstance(context, Frame):
            context = control_flow.parent(context)
        if context is not None:
            raise GraphError(
                "G305", f"{extract.where}: the output {key!r} is within {describe(context)}; name one outside"
            )


def find_sources(graph: Any, extract: Extract) -> dict[str, Any]:
    """The floating inputs and variables: `input/KEY` and `variable/NAME`."""
    places = {f"input/{key}": name for key, name in extract.inputs.items()}
    places.update({f"variable/{variable.name}": variable.placeholder for variable in extract.variables})
    tensors = {key: graph.get_tensor_by_name(f"{name}:0") for key, name in places.items()}
    return {key: tensor for key, tensor in tensors.items() if tensor.dtype.as_datatype_enum in FLOATING}


def check_loops(control_flow: ControlFlow, settings: Mapping[str, LoopSettings], *, where: str) -> None:
    """Refuse loops that have no gradient.

    Raises:
        GraphError: G208 or G209.
    """
    for frame, loop in control_flow.loops.items():
        if not loop.is_bounded:
            raise GraphError(
                "G208",
                f"{where}: the loop {frame!r} goes on while {loop.condition!r} holds, which nothing in it "
                "changes: it never ends; export it with a condition that does",
            )
        if not settings.get(frame, LoopSettings()).back_prop:
            raise GraphError(
                "G209",
                f"{where}: the loop {frame!r} was built with back_prop=False, and TF1 gives it no gradient "
                "either; build it with back_prop=True",
            )


def import_graph(graph_def: Any, *, where: str, prefix: str = "", **arguments: Any) -> Any:
    """`tf.graph_util.import_graph_def`, its refusals in one line.

    Raises:
        GraphError: G202.
    """
    tf = import_tensorflow()
    try:
        return tf.graph_util.import_graph_def(graph_def, name=prefix, **arguments)
    except (ValueError, tf.errors.OpError) as error:
        text = " ".join(str(error).split())[:300]
        raise GraphError("G202", f"{where}: TensorFlow cannot import the graph: {text}") from error


def strip_graph(graph_def: Any, tensors: Any) -> Any:
    """What some tensors need of a graph, without colocation, which may name what was cut off."""
    v1 = import_tensorflow().compat.v1
    names = [name.partition(":")[0] for name in tensors if name is not None]
    stripped = v1.graph_util.extract_sub_graph(graph_def, names)
    for node in stripped.node:
        if "_class" in node.attr:
            del node.attr["_class"]
    return stripped
