"""Placeholders in the place of variables, of both kinds that TF1 has: references and resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.graph import parse_tensor

VARIABLES = frozenset({"VariableV2", "Variable", "VarHandleOp"})

CARRIERS = {
    "Enter",
    "Identity",
    "Switch",
    "Merge",
    "NextIteration",
    "Exit",
    "RefEnter",
    "RefIdentity",
    "RefSwitch",
}
"""What only passes a variable on."""

RESOURCE = 20


def replace_variables(graph_def: Any, values: Mapping[str, np.ndarray], *, where: str) -> dict[str, str]:
    """Feed what was read from variables. Returns the placeholder of every variable, by its name.

    A resource's placeholder is its value, so what carried the resource carries the value, and what read
    it repeats it: the results are the same.

    Raises:
        GraphError: G203 if a variable is used by anything but reads, G307 if a value has another shape or
            dtype than the graph says.
    """
    tf = import_tensorflow()
    dtypes: dict[str, int] = {}
    for node in graph_def.node:
        if node.op not in VARIABLES:
            continue
        value = values[node.name]
        dtype = node.attr["dtype"].type
        declared = tf.TensorShape(node.attr["shape"].shape)
        if tf.as_dtype(dtype).as_numpy_dtype != value.dtype or not declared.is_compatible_with(value.shape):
            raise GraphError(
                "G307",
                f"{where}: the variable {node.name!r} is {tf.as_dtype(dtype).name} {declared} in the "
                "graph and "
                f"{value.dtype} {list(value.shape)} in the checkpoint; they are not of one model",
            )
        if node.op == "VarHandleOp":
            dtypes[node.name] = dtype
        name = node.name
        node.Clear()
        node.name, node.op = name, "Placeholder"
        node.attr["dtype"].type = dtype
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    _replace_references(graph_def)
    _replace_resources(graph_def, dtypes, where)
    return {name: name for name in values}


def _replace_references(graph_def: Any) -> None:
    """A value goes in by Enter, a reference by RefEnter; the variables are values now."""
    for node in graph_def.node:
        if node.op in ("RefEnter", "RefIdentity", "RefSwitch", "RefMerge", "RefExit", "RefNextIteration"):
            node.op = node.op.removeprefix("Ref")


def _replace_resources(graph_def: Any, dtypes: dict[str, int], where: str) -> None:
    pending = True
    while pending:
        pending = False
        for node in graph_def.node:
            sources = [parse_tensor(text)[0] for text in node.input if not text.startswith("^")]
            found = [dtypes[source] for source in sources if source in dtypes]
            if found and node.op in CARRIERS and node.name not in dtypes:
                dtypes[node.name] = found[0]
                pending = True
    for node in graph_def.node:
        if node.name in dtypes and node.op in CARRIERS and node.attr["T"].type == RESOURCE:
            node.attr["T"].type = dtypes[node.name]
            continue
        sources = [parse_tensor(text)[0] for text in node.input if not text.startswith("^")]
        if not any(source in dtypes for source in sources) or node.name in dtypes:
            continue
        dtype = next(dtypes[source] for source in sources if source in dtypes)
        if node.op == "ReadVariableOp":
            _become(node, "Identity", {"T": dtype})
        elif node.op == "ResourceGather":
            if node.attr["batch_dims"].i:
                raise _refuse(node, where)
            axis = graph_def.node.add()
            axis.name, axis.op = f"{node.name}/added_axis", "Const"
            axis.attr["dtype"].type = 3
            axis.attr["value"].tensor.dtype = 3
            axis.attr["value"].tensor.tensor_shape.SetInParent()
            axis.attr["value"].tensor.int_val.append(0)
            # Within a loop a constant must wait for something of that loop.
            axis.input.append(f"^{sources[0]}")
            indices = node.attr["Tindices"].type
            _become(node, "GatherV2", {"Tparams": dtype, "Tindices": indices, "Taxis": 3})
            node.input.insert(2, axis.name)
        elif node.op == "VariableShape":
            out = node.attr["out_type"].type or 3
            _become(node, "Shape", {"T": dtype, "out_type": out})
        else:
            raise _refuse(node, where)


def _become(node: Any, op: str, types: Mapping[str, int]) -> None:
    node.op = op
    for key in list(node.attr):
        if not key.startswith("_"):
            del node.attr[key]
    for key, dtype in types.items():
        node.attr[key].type = dtype


def _refuse(node: Any, where: str) -> GraphError:
    return GraphError(
        "G203",
        f"{where}: node {node.name!r} ({node.op}) does more with a variable than read it; a signature that "
        "changes variables cannot be repaired: export one for inference",
    )
