"""Every operation that TensorFlow runs eagerly, noted as it runs, with the line of code that made it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.live_diagnosis.places import find_place, is_own

READERS = frozenset({"numpy", "_numpy", "__array__", "__float__", "__int__", "__iter__", "__format__"})
"""The methods by which the value of a tensor or variable leaves TensorFlow."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation that was run. Tensors go by number.

    Args:
        type: as `MatMul`.
        inputs: the numbers of the tensors that it read.
        outputs: the numbers of those that it gave.
        place: the line of the person's code.
        is_recorded: whether a tape recorded it.
        phase: which part of the diagnosis ran it; see `Recording.phase`.
    """

    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    place: str
    is_recorded: bool
    phase: int


@dataclass(frozen=True)
class Read:
    """The value of a tensor, by its number, taken as NumPy: by a line, or by `tf.numpy_function` for it."""

    tensor: int
    place: str
    for_function: bool
    phase: int


@dataclass(frozen=True)
class LayerCall:
    """A call of a Keras layer, and which operations ran within it: `operations[start:end]`."""

    layer: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: Any
    start: int
    end: int
    phase: int


@dataclass
class Recording:
    """What was run.

    Args:
        operations: in the order in which they ran, so that what an operation reads was made before it.
        tensors: every tensor by its number, kept alive so that the numbers stay theirs.
        reads: of values as NumPy.
        calls: of layers, in the order in which they ended.
        phase: the part that runs now. 0 is import and construction, from 1 on the runs of the port.
    """

    operations: list[Operation] = field(default_factory=list)
    tensors: dict[int, Any] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    calls: list[LayerCall] = field(default_factory=list)
    phase: int = 0

    def in_phase(self, phase: int) -> list[Operation]:
        """The operations of a part."""
        return [operation for operation in self.operations if operation.phase == phase]


def number_of(tensor: Any) -> int | None:
    """What tells an eager tensor from all others; None for what is none."""
    return getattr(tensor, "_id", None) if hasattr(tensor, "numpy") else None


@contextlib.contextmanager
def record_operations() -> Iterator[Recording]:
    """Note what is run within the context."""
    recording = Recording()
    with (
        _noting_operations(recording),
        _noting_reads(recording),
        _noting_functions(recording),
        _noting_calls(recording),
    ):
        yield recording


@contextlib.contextmanager
def _noting_operations(recording: Recording) -> Iterator[None]:
    # There is no public way to see what runs eagerly; tf.debugging's dumps are made with this one.
    from tensorflow.python.eager import record
    from tensorflow.python.framework import op_callbacks

    def note(
        op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        del attrs, op_name
        if graph is not None:
            return
        recorded = record.could_possibly_record() or _is_in_custom_gradient()
        place = find_place()
        for handle, number in _find_hidden_reads(recording, inputs):
            recording.operations.append(
                Operation("ReadVariableOp", (handle,), (number,), place, recorded, recording.phase)
            )
        numbers = []
        for tensors in (inputs, outputs):
            recording.tensors.update((tensor._id, tensor) for tensor in tensors)
            numbers.append(tuple(tensor._id for tensor in tensors))
        name = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
        recording.operations.append(Operation(name, numbers[0], numbers[1], place, recorded, recording.phase))

    op_callbacks.add_op_callback(note)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(note)


def _find_hidden_reads(recording: Recording, inputs: Any) -> Iterator[tuple[int, int]]:
    """Reads of variables that TensorFlow does in C++, where an operation is given a variable for a tensor.

    Gives the numbers of the handle and of the value. The variable is an argument of the function that calls
    the operation.
    """
    unknown = [tensor for tensor in inputs if tensor._id not in recording.tensors]
    frame: FrameType | None = sys._getframe(2) if unknown else None
    while frame is not None and "gen_" not in frame.f_code.co_filename:
        if is_own(frame.f_code.co_filename):
            return
        frame = frame.f_back
    if frame is None:
        return
    given = [
        part
        for value in frame.f_locals.values()
        for part in (value if isinstance(value, list | tuple) else [value])
        if hasattr(part, "handle") and hasattr(part, "read_value")
    ]
    for variable in given:
        value = np.asarray(variable)
        for tensor in unknown:
            if tensor.shape == value.shape and np.array_equal(np.asarray(tensor), value):
                yield variable.handle._id, tensor._id
                unknown = [other for other in unknown if other is not tensor]
                break


def _is_in_custom_gradient() -> bool:
    """The tape leaves out what runs within a custom gradient, and records the whole as one operation."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "_eager_mode_decorator":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _noting_reads(recording: Recording) -> Iterator[None]:
    """Note whose values the person's own code takes as NumPy."""
    tensorflow = import_tensorflow()
    owner = next((kind for kind in type(tensorflow.constant(0.0)).__mro__ if "_numpy" in vars(kind)), None)
    if owner is None:
        yield
        return
    before = vars(owner)["_numpy"]

    def read(tensor: Any) -> Any:
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_name in READERS:
            frame = frame.f_back
        if frame is not None and is_own(frame.f_code.co_filename):
            recording.tensors[tensor._id] = tensor
            recording.reads.append(Read(tensor._id, find_place(), False, recording.phase))
        return before(tensor)

    owner._numpy = read
    try:
        yield
    finally:
        owner._numpy = before


@contextlib.contextmanager
def _noting_functions(recording: Recording) -> Iterator[None]:
    """Note what `tf.numpy_function` is given, which runs eagerly without an operation of its own."""
    from tensorflow.python.ops import script_ops

    before = getattr(script_ops, "py_func_common", None)
    if before is None:
        yield
        return

    def call(func: Any, inp: Any, *arguments: Any, **options: Any) -> Any:
        for tensor in inp if isinstance(inp, list | tuple) else [inp]:
            if (number := number_of(tensor)) is not None:
                recording.tensors[number] = tensor
                recording.reads.append(Read(number, find_place(), True, recording.phase))
        return before(func, inp, *arguments, **options)

    script_ops.py_func_common = call
    try:
        yield
    finally:
        script_ops.py_func_common = before


@contextlib.contextmanager
def _noting_calls(recording: Recording) -> Iterator[None]:
    tensorflow = import_tensorflow()
    owner = tensorflow.keras.layers.Layer
    before = owner.__call__

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        start = len(recording.operations)
        result = before(layer, *arguments, **options)
        end = len(recording.operations)
        recording.calls.append(LayerCall(layer, arguments, options, result, start, end, recording.phase))
        return result

    owner.__call__ = call
    try:
        yield
    finally:
        owner.__call__ = before
