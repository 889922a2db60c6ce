"""Running a live port for a diagnosis: its loss under a tape, or its own train step as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from oracle.errors import UsageError
from oracle.frameworks import import_tensorflow
from oracle.live_diagnosis.holders import Held, walk
from oracle.live_diagnosis.recording import Recording, number_of
from oracle.live_port import LivePort, split_gradients, split_outputs


@dataclass(frozen=True, eq=False)
class Weight:
    """A variable that the port's models train: its path, the number of its handle, and itself."""

    path: str
    handle: int
    variable: Any


@dataclass(frozen=True)
class Run:
    """One run of a port.

    Args:
        phase: its number in the recording.
        loss: the number of the loss.
        batch: the numbers of the batch's tensors.
        weights: what the models train.
        gradients: of the weights by their paths. None is None; a weight that was not asked for is absent.
        held: the tensors that the port's objects keep after the run, by number.
    """

    phase: int
    loss: int
    batch: frozenset[int]
    weights: tuple[Weight, ...]
    gradients: Mapping[str, Any]
    held: Mapping[int, Held]

    @property
    def missing(self) -> tuple[Weight, ...]:
        """The weights whose gradient is None."""
        return tuple(w for w in self.weights if self.gradients.get(w.path, 0) is None)


def run_port(port: LivePort, loss: Callable[..., Any], recording: Recording) -> Run:
    """Run a port once, as the recording's next phase.

    Raises:
        UsageError: if the port's own functions give something else than they should.
        Exception: what the port raises.
    """
    tensorflow = import_tensorflow()
    recording.phase += 1
    tensors = {
        name: tensorflow.constant(array.astype("float32") if array.dtype.kind == "f" else array)
        for name, array in port.batch.items()
    }
    numbers = frozenset(tensor._id for tensor in tensors.values())
    recording.tensors.update((tensor._id, tensor) for tensor in tensors.values())
    if port.gradients is not None:
        value, pairs = split_gradients(port.gradients(tensors), port.name)
        by_handle = {_handle_of(variable): gradient for gradient, variable in pairs}
        weights = find_weights(port)
    else:
        with tensorflow.GradientTape() as tape:
            value, _ = split_outputs(loss(tensors), f"{port.name}: the loss")
        weights = find_weights(port)
        gradients = tape.gradient(value, [weight.variable for weight in weights])
        by_handle = {weight.handle: g for weight, g in zip(weights, gradients, strict=True)}
    number = number_of(value)
    if number is None:
        raise UsageError(
            f"{port.name}: the loss is a {type(value).__name__}; expected a scalar tensor of TensorFlow"
        )
    recording.tensors[number] = value
    named = {weight.path: by_handle[weight.handle] for weight in weights if weight.handle in by_handle}
    held = {}
    for thing in walk(find_roots(port)):
        own = number_of(thing.value)
        if own is not None and own not in numbers:
            held[own] = thing
    return Run(recording.phase, number, numbers, weights, named, held)


def find_roots(port: LivePort) -> dict[str, Any]:
    """Where the search for a port's objects begins."""
    roots = dict(port.models)
    for function in (port.gradients, port.loss):
        if function is not None:
            roots.setdefault(getattr(function, "__name__", "loss"), function)
    return roots


def find_weights(port: LivePort) -> tuple[Weight, ...]:
    """The variables that the port's models train, each once, by path."""
    trained: dict[int, Any] = {}
    for model in port.models.values():
        for variable in _list_trained(model):
            trained.setdefault(_handle_of(variable), variable)
    paths: dict[int, str] = {}
    for held in walk(dict(port.models)):
        if _is_variable(held.value):
            paths.setdefault(_handle_of(held.value), held.path)
    return tuple(
        Weight(paths.get(handle, variable.name), handle, _unwrap(variable))
        for handle, variable in trained.items()
    )


def _list_trained(model: Any) -> Iterable[Any]:
    try:
        listed = getattr(model, "trainable_variables", None)
    except ValueError:  # Keras, of a model that was never called.
        return ()
    if listed is None:
        listed = [held.value for held in walk({"model": model}) if _is_variable(held.value)]
    return [variable for variable in listed if getattr(variable, "trainable", True)]


def _is_variable(value: Any) -> bool:
    return isinstance(_unwrap(value), import_tensorflow().Variable)


def _unwrap(variable: Any) -> Any:
    """TensorFlow's own variable within one of Keras 3."""
    inner = getattr(variable, "_value", None)
    return inner if isinstance(inner, import_tensorflow().Variable) else variable


def _handle_of(variable: Any) -> int:
    return _unwrap(variable).handle._id


def find_handles(weights: Iterable[Weight]) -> frozenset[int]:
    """The numbers of the weights' handles."""
    return frozenset(weight.handle for weight in weights)
