"""A port run once more, eagerly, with the calls of its parts tapped: arguments, outputs and adjoints.

The adjoints are those that the port's own tape gives. Everything that is replaced for it is put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracle.bridge.mirror.counterfactual.calls import (
    APPLY,
    OUTPUT,
    SETUP_MEMORY,
    Call,
    label_arguments,
    map_arguments,
    map_arrays,
)
from oracle.bridge.mirror.counterfactual.tensors import (
    as_array,
    find_signature,
    flatten_tensors,
    is_copied,
    mask_of,
    replaced,
    replaced_in,
    takes_mask,
    to_numpy,
)
from oracle.bridge.mirror.port_loss import make_loss
from oracle.bridge.mirror.run_port_side import PortRun
from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort, split_gradients, split_outputs
from oracle.steps.leaves import nest_leaves

DYNAMIC_RNN = "dynamic_rnn"


@dataclass(frozen=True)
class Tapped:
    """What a tapped run gives.

    Args:
        calls: in the order in which they ended.
        loss: the loss.
        gradients: of the leaves.
        of_tape: the same as the tape gave them, whatever the train step did to them afterwards.
        differentiated: whether a tape was asked for gradients at all.
    """

    calls: tuple[Call, ...]
    loss: np.ndarray
    gradients: Mapping[str, np.ndarray | None]
    of_tape: Mapping[str, np.ndarray | None]
    differentiated: bool


@dataclass
class _Noted:
    """A call while the port runs: tensors by name, and their adjoints once a tape gave them."""

    part: str
    method: str
    number: int
    arguments: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    given: Any = None
    training: bool | None = None
    is_recorded: bool = True


def tap_port(port: LivePort, run: PortRun, wanted: Mapping[tuple[str, str], Any]) -> Tapped:
    """Run a port at the weights of its record, and note the calls of some of its parts.

    A call within a call that is noted is not noted itself.

    Args:
        port: the live port.
        run: what its side gave.
        wanted: the live objects, by part and method.

    Raises:
        Exception: what the port raises.
    """
    tensorflow = import_tensorflow()
    tensors = {name: tensorflow.constant(array) for name, array in run.batch.items()}
    sources = dict(run.mirror.tensors)
    before = {name: variable.numpy() for name, variable in sources.items()}
    eager = tensorflow.config.functions_run_eagerly()
    taps = _Taps(wanted, sources)
    try:
        tensorflow.config.run_functions_eagerly(True)
        run.mirror.assign(nest_leaves(run.weights))
        with taps.installed():
            if port.gradients is None:
                loss = make_loss(port)
                with tensorflow.GradientTape() as tape:
                    value, _ = split_outputs(loss(tensors), "the loss")
                gradients: Any = tape.gradient(value, sources)
            else:
                value, gradients = split_gradients(port.gradients(tensors), port.name)
            gradients = run.mirror.gradients_to_leaves(gradients)
            of_tape = run.mirror.gradients_to_leaves(taps.sum_gradients())
    finally:
        tensorflow.config.run_functions_eagerly(eager)
        for name, variable in sources.items():
            variable.assign(before[name])
    return Tapped(taps.read(), np.asarray(value), gradients, of_tape, taps.differentiated)


@dataclass
class _Tape:
    """A tape that was begun, and whether it is over."""

    tape: Any
    is_over: bool = False


class _Taps:
    """The taps, and what they noted."""

    def __init__(self, wanted: Mapping[tuple[str, str], Any], variables: Mapping[str, Any]) -> None:
        self._variables = dict(variables)
        self._of_tapes: dict[int, dict[str, Any]] = {}
        self._names = {(id(obj), method): part for (part, method), obj in wanted.items()}
        self._objects = dict(wanted)
        self._counts: dict[tuple[str, str], int] = {}
        self._noted: list[_Noted] = []
        self._adjoints: dict[int, Any] = {}
        self._tapes: list[_Tape] = []
        self._busy = False
        self.differentiated = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Tap within the context."""
        tensorflow = import_tensorflow()
        with contextlib.ExitStack() as stack:
            layers = tensorflow.keras.layers.Layer
            owners = {layers}
            for (_, method), obj in self._objects.items():
                if method == APPLY and not isinstance(obj, layers):
                    owners |= {cls for cls in type(obj).__mro__[:-1] if "__call__" in vars(cls)}
            for owner in owners:
                stack.enter_context(replaced(owner, "__call__", self._tap_call))
            for (_, method), obj in self._objects.items():
                if method == SETUP_MEMORY and hasattr(obj, "setup_memory"):
                    stack.enter_context(replaced_in(obj, "setup_memory", self._tap_memory))
            v1 = getattr(tensorflow.compat.v1.nn, "dynamic_rnn", None)
            if v1 is not None and any(method == DYNAMIC_RNN for _, method in self._objects):
                stack.enter_context(replaced(tensorflow.compat.v1.nn, "dynamic_rnn", self._tap_loop))
            stack.enter_context(replaced(tensorflow.GradientTape, "gradient", self._tap_tape))
            stack.enter_context(replaced(tensorflow.GradientTape, "__enter__", self._tap_start))
            stack.enter_context(replaced(tensorflow.GradientTape, "__exit__", self._tap_end))
            yield

    def sum_gradients(self) -> dict[str, Any]:
        """What all tapes gave of each variable, together; None where none gave anything."""
        total: dict[str, Any] = {}
        for name in self._variables:
            given = [as_array(found[name]) for found in self._of_tapes.values()]
            real = [gradient for gradient in given if gradient is not None]
            total[name] = sum(real[1:], start=real[0]) if real else None
        return total

    def read(self) -> tuple[Call, ...]:
        """The calls as NumPy."""
        return tuple(self._read_call(noted) for noted in self._noted)

    def _read_call(self, noted: _Noted) -> Call:
        adjoints = [
            {name: as_array(self._adjoints.get(id(t))) for name, t in held.items() if is_copied(t)}
            for held in (noted.arguments, noted.outputs)
        ]
        return Call(
            noted.part,
            noted.method,
            noted.number,
            {name: np.asarray(tensor) for name, tensor in noted.arguments.items()},
            {name: np.asarray(tensor) for name, tensor in noted.outputs.items()},
            *adjoints,
            given=noted.given,
            training=noted.training,
            is_recorded=noted.is_recorded,
        )

    def _tap_call(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def call(obj: Any, *args: Any, **kwargs: Any) -> Any:
            part = self._names.get((id(obj), APPLY))
            if part is None or self._busy:
                return before(obj, *args, **kwargs)
            return self._note(part, APPLY, before, obj, args, kwargs, find_signature(obj))

        return call

    def _tap_memory(self, before: Callable[..., Any], obj: Any) -> Callable[..., Any]:
        def setup_memory(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return before(*args, **kwargs)

            def run(_: Any, *args: Any, **kwargs: Any) -> Any:
                return before(*args, **kwargs)

            part = self._names[id(obj), SETUP_MEMORY]
            return self._note(part, SETUP_MEMORY, run, obj, args, kwargs, type(obj).setup_memory)

        return setup_memory

    def _tap_loop(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def dynamic_rnn(cell: Any, *args: Any, **kwargs: Any) -> Any:
            part = self._names.get((id(cell), DYNAMIC_RNN))
            if part is None or self._busy:
                return before(cell, *args, **kwargs)
            return self._note(part, DYNAMIC_RNN, before, cell, args, kwargs, before)

        return dynamic_rnn

    def _note(
        self,
        part: str,
        method: str,
        run: Callable[..., Any],
        obj: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        signature: Any,
    ) -> Any:
        count = self._counts.get((part, method), 0)
        self._counts[part, method] = count + 1
        training, is_recorded = kwargs.get("training"), any(not tape.is_over for tape in self._tapes)
        noted = _Noted(part, method, count, training=training, is_recorded=is_recorded)
        labels = label_arguments(signature, args, kwargs, skip=1)
        args, kwargs = map_arguments(labels, args, kwargs, self._copying(noted.arguments))
        masks = [mask for mask in map(mask_of, flatten_tensors(args)) if mask is not None]
        if (
            method == APPLY
            and masks
            and "mask" not in noted.arguments
            and kwargs.get("mask") is None
            and takes_mask(obj)
        ):
            # Keras hands it to the call unseen.
            noted.arguments["mask"] = masks[0]
        noted.given = (to_numpy(args), to_numpy(kwargs))
        self._busy = True
        try:
            result = run(obj, *args, **kwargs)
        finally:
            self._busy = False
        self._noted.append(noted)
        if method == SETUP_MEMORY:
            return result
        return map_arrays(result, OUTPUT, self._copying(noted.outputs))

    def _copying(self, held: dict[str, Any]) -> Callable[[str, Any], Any]:
        """Notes tensors by name, each a copy of its own, so that its adjoint is this call's alone."""

        def take(name: str, tensor: Any) -> Any:
            if is_copied(tensor):
                copy = import_tensorflow().identity(tensor)
                if mask_of(tensor) is not None:
                    copy._keras_mask = mask_of(tensor)
                for tape in self._tapes:
                    if not tape.is_over:
                        # A constant, as an initial state of zeros, has an adjoint, too.
                        tape.tape.watch(copy)
                tensor = copy
            held[name] = tensor
            return tensor

        return take

    def _tap_start(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def enter(tape: Any) -> Any:
            self._tapes.append(_Tape(tape))
            return before(tape)

        return enter

    def _tap_end(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def leave(tape: Any, *exception: Any) -> Any:
            for known in self._tapes:
                known.is_over |= known.tape is tape
            return before(tape, *exception)

        return leave

    def _tap_tape(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            tensors = [
                tensor
                for noted in self._noted
                for held in (noted.arguments, noted.outputs)
                for tensor in held.values()
                if is_copied(tensor)
            ]
            self.differentiated = True
            own, found, weights = before(tape, target, [sources, tensors, self._variables], *args, **kwargs)
            # A tape that is asked twice of one loss gives the same gradients again.
            self._of_tapes.setdefault(id(tape), weights)
            for tensor, adjoint in zip(tensors, found, strict=True):
                # A second tape, or a second target, knows nothing of what the first one recorded.
                if adjoint is not None:
                    self._adjoints.setdefault(id(tensor), adjoint)
            return own

        return gradient
