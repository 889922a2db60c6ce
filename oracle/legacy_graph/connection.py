"""Where the connection from a source to the outputs is lost, when the gradient is None."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oracle.legacy_graph.model_file import FLOATING

STOPS = frozenset({"StopGradient", "PreventGradient", "PyFunc", "PyFuncStateless", "EagerPyFunc"})


def describe_break(source: Any, outputs: Iterable[Any]) -> str:
    """Why no gradient gets from `outputs` to `source`, tensors of one graph, in words.

    Named is the operation farthest along the graph that a change of the source reaches by a
    differentiable path and that passes none on, though an output depends on it.
    """
    needed = _find_ancestors(outputs)
    if source.op not in needed:
        return "no output depends on it"
    breaks: dict[Any, None] = {}
    seen, pending = {source.ref()}, [source]
    for tensor in pending:
        for operation in tensor.consumers():
            if operation not in needed:
                continue
            passed = [
                output for output in operation.outputs if output.dtype.base_dtype.as_datatype_enum in FLOATING
            ]
            if not passed or not _has_gradient(operation):
                breaks[operation] = None
                continue
            for output in passed:
                if output.ref() not in seen:
                    seen.add(output.ref())
                    pending.append(output)
    if not breaks:
        return "its gradient ends in an operation that gives none for this input"
    last = list(breaks)[-1]
    more = f", and {len(breaks) - 1} more" if len(breaks) > 1 else ""
    return f"the connection is lost at {last.name!r} ({last.type}){more}"


def _has_gradient(operation: Any) -> bool:
    from tensorflow.python.framework import ops

    if operation.type in STOPS:
        return False
    try:
        return ops.get_gradient_function(operation) is not None
    except LookupError:
        return False


def _find_ancestors(outputs: Iterable[Any]) -> set[Any]:
    found: set[Any] = set()
    pending = [output.op for output in outputs]
    while pending:
        operation = pending.pop()
        if operation not in found:
            found.add(operation)
            pending += [tensor.op for tensor in operation.inputs]
    return found
