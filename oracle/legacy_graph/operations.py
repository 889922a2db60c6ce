"""Which operations a graph may have to be a function of its inputs and variables."""

from __future__ import annotations

from typing import Any

from oracle.legacy_graph.errors import GraphError

STATEFUL = frozenset(
    {
        "Assert",
        "Print",
        "PrintV2",
        "Placeholder",
        "VariableV2",
        "Variable",
        "VarHandleOp",
        "ReadVariableOp",
        "ResourceGather",
        "VariableShape",
        "StackV2",
        "StackPushV2",
        "StackPopV2",
    }
)
"""Stateful operations that do no harm."""

PASSING = frozenset({"RefEnter", "RefExit", "RefIdentity", "RefMerge", "RefNextIteration", "RefSwitch"})
"""What takes a reference to a variable only to pass it on."""

REASONS = (
    (("Random", "Multinomial", "TruncatedNormal", "ParameterizedTruncated", "StatefulRandom"), "G204"),
    (("HashTable", "MutableHashTable", "LookupTable", "InitializeTable", "MutableDenseHashTable"), "G205"),
    (("PyFunc", "EagerPyFunc"), "G206"),
    (("ReadFile", "MatchingFiles"), "G203"),
    (("StackPop", "TensorArrayGrad"), "G201"),
)

TEXTS = {
    "G201": "belongs to a gradient through a loop, which the graph computes itself, and whose own derivative "
    "TF1 takes for 0; name outputs before that gradient, with --output",
    "G202": "is not known to this TensorFlow; import the library that defines it first, or export the model "
    "without it",
    "G203": "changes or keeps state, or reads files; a signature that does cannot be repaired: export one "
    "for inference",
    "G204": "draws random numbers, and the backward pass would draw others; export the model for inference, "
    "with dropout and sampling off",
    "G205": "needs a lookup table; export a signature that begins after the lookup, with ids for inputs",
    "G206": "calls Python code that is not in the file; export the model without it",
    "G207": "calls a function; graphs of TensorFlow 2 are not repaired: give the TF1 model behind it",
}


def check_operations(graph_def: Any, *, where: str) -> None:
    """Refuse operations that no repaired model could have.

    Raises:
        GraphError: with the code of the reason.
    """
    from tensorflow.python.framework import op_def_registry

    for node in graph_def.node:
        code = None
        definition = op_def_registry.get(node.op)
        if definition is None:
            known = {function.signature.name for function in graph_def.library.function}
            code = "G207" if node.op in known else "G202"
        elif node.op in ("PartitionedCall", "StatefulPartitionedCall", "SymbolicGradient", "RemoteCall"):
            code = "G207"
        else:
            for prefixes, reason in REASONS:
                if node.op.startswith(prefixes):
                    code = reason
            writes = any(argument.is_ref for argument in definition.input_arg) and node.op not in PASSING
            if code is None and (writes or (definition.is_stateful and not _is_harmless(node.op))):
                code = "G203"
        if code is not None:
            raise GraphError(code, f"{where}: node {node.name!r} ({node.op}) {TEXTS[code]}")


def _is_harmless(op: str) -> bool:
    return op in STATEFUL or op.startswith("TensorArray")
