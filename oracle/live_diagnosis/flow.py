"""Which tensors depend on which, in what was recorded."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from oracle.frameworks import import_tensorflow
from oracle.live_diagnosis.recording import Operation, Recording

SHAPES = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "VariableShape", "VarIsInitializedOp"}
)
"""What depends on the shape of its input alone. A function of such a thing is no function of the values."""

HELD = frozenset({"StopGradient", "PreventGradient"})

STEPS = frozenset({"Round", "Rint", "Floor", "Ceil", "FloorDiv"})
"""What has a gradient by name that is always None."""

PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def follow(operations: Iterable[Operation], sources: Iterable[int]) -> set[int]:
    """The tensors that depend on the values of `sources`, these among them."""
    reached = set(sources)
    for operation in operations:
        if operation.type not in SHAPES and not reached.isdisjoint(operation.inputs):
            reached.update(operation.outputs)
    return reached


def trace_back(operations: Sequence[Operation], targets: Iterable[int]) -> set[int]:
    """The tensors on whose values `targets` depend, these among them."""
    needed = set(targets)
    for operation in reversed(operations):
        if operation.type not in SHAPES and not needed.isdisjoint(operation.outputs):
            needed.update(operation.inputs)
    return needed


def is_floating(recording: Recording, number: int) -> bool:
    """Whether a tensor's dtype is one that gradients pass through."""
    dtype = recording.tensors[number].dtype
    return bool(dtype.is_floating or dtype.is_complex)


def passes(recording: Recording, operation: Operation, *, python: bool) -> bool:
    """Whether the gradient passes an operation.

    Args:
        recording: that it is in.
        operation: which.
        python: whether Python code passes it on; `tf.py_function` does if its own body has a gradient.
    """
    if not operation.is_recorded or operation.type in HELD:
        return False
    if operation.type in PYTHON:
        return python and operation.type == "EagerPyFunc"
    if not any(is_floating(recording, number) for number in operation.outputs):
        return False
    return has_gradient(operation.type)


@functools.cache
def has_gradient(op_type: str) -> bool:
    """Whether TensorFlow has a gradient for a type of operation. Calls of functions are taken to have one."""
    import_tensorflow()
    from tensorflow.python.framework import op_def_registry, ops

    if op_type in STEPS:
        return False
    if op_def_registry.get(op_type) is None:
        return True
    try:
        return ops.gradient_registry.lookup(op_type) is not None
    except LookupError:
        return False
