"""The same graph in float64, so that the witness can tell a wrong gradient from a rounded one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.graph import parse_tensor
from oracle.legacy_graph.variable_reads import CARRIERS

SINGLE, DOUBLE = 1, 2

COARSE = frozenset({SINGLE, 14, 19})
"""float32, bfloat16 and float16."""


def make_precise(extract: Extract) -> Extract:
    """Every float of a forward graph made float64: attributes, constants, placeholders, variables.

    Whether TensorFlow has float64 kernels for it shows when it runs.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework import op_def_registry

    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(extract.graph_def)
    fixed = _find_fixed(graph_def, op_def_registry)
    for node in graph_def.node:
        if node.name in fixed:
            continue
        definition = op_def_registry.get(node.op)
        for attribute in definition.attr if definition is not None else ():
            # A default that was left out would stay float32.
            if attribute.default_value.type == SINGLE and attribute.name not in node.attr:
                node.attr[attribute.name].type = SINGLE
        for value in node.attr.values():
            _convert(tf, value)
    variables = tuple(
        replace(variable, value=variable.value.astype(np.float64))
        if variable.value.dtype.name in ("float32", "float16", "bfloat16")
        else variable
        for variable in extract.variables
    )
    return replace(extract, graph_def=graph_def, variables=variables)


def _find_fixed(graph_def: Any, registry: Any) -> set[str]:
    """What only passes on a tensor that is float32 in every model, as a TensorArray's flow."""
    fixed: set[tuple[str, int]] = set()
    for node in graph_def.node:
        definition = registry.get(node.op)
        for index, output in enumerate(definition.output_arg if definition is not None else ()):
            if output.type == SINGLE and not output.type_attr:
                fixed.add((node.name, index))
    carriers: set[str] = set()
    size = -1
    while size < len(carriers):
        size = len(carriers)
        for node in graph_def.node:
            sources = {parse_tensor(text) for text in node.input if not text.startswith("^")}
            if node.op in CARRIERS and (sources & fixed) and node.name not in carriers:
                carriers.add(node.name)
                fixed |= {(node.name, 0), (node.name, 1)} if node.op == "Switch" else {(node.name, 0)}
    return carriers


def _convert(tf: Any, value: Any) -> None:
    kind = value.WhichOneof("value")
    if kind == "type" and value.type in COARSE:
        value.type = DOUBLE
    elif kind == "tensor" and value.tensor.dtype in COARSE:
        array = tf.make_ndarray(value.tensor).astype(np.float64)
        value.tensor.CopyFrom(tf.make_tensor_proto(array, tf.float64, array.shape))
    elif kind == "list":
        for index, dtype in enumerate(value.list.type):
            if dtype in COARSE:
                value.list.type[index] = DOUBLE
