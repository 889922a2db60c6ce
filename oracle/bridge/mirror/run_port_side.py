"""The port's side of a live comparison: TensorFlow runs the loss and its gradients."""

from __future__ import annotations

import contextlib
import platform
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.bridge.mirror import mirror
from oracle.bridge.mirror.coverage import find_unheld
from oracle.bridge.mirror.mirrored import Mirror, flatten
from oracle.bridge.mirror.port_loss import make_loss
from oracle.bridge.mirror.refusals import MirrorError
from oracle.errors import OracleError, UsageError
from oracle.frameworks import PORT_PACKAGES, import_tensorflow, installed_version
from oracle.live_port import LivePort, split_gradients, split_outputs
from oracle.record import Failure, Origin, Record, digest_inputs
from oracle.steps.leaves import nest_leaves


@dataclass(frozen=True)
class PortRun:
    """What the port's side gives: its record, its mirror, and what the oracle's side computes on.

    Args:
        record: the port's record.
        mirror: the mirror of its models.
        weights: the leaves, in the port's dtype.
        batch: the batch, in the port's dtype.
    """

    record: Record
    mirror: Mirror
    weights: Mapping[str, np.ndarray]
    batch: Mapping[str, np.ndarray]


@contextlib.contextmanager
def use_precision(dtype: str, seed: int) -> Iterator[None]:
    """Let Keras make weights of this dtype, drawn from this seed, within the context only."""
    tensorflow = import_tensorflow()
    backend = tensorflow.keras.backend
    before = backend.floatx()
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    backend.set_floatx(dtype)
    tensorflow.keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        backend.set_floatx(before)


def run_port_side(port: LivePort, *, dtype: str, mode: str, seed: int) -> PortRun:
    """Run a live port: once to make its weights, and once for the record.

    Raises:
        MirrorError: if the models cannot be mirrored, or the loss reads a weight that none of them holds.
        UsageError: if the loss is no scalar.
    """
    tensorflow = import_tensorflow()
    batch = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in port.batch.items()}
    tensors = {name: tensorflow.constant(array) for name, array in batch.items()}
    loss = make_loss(port)
    failure, watched = None, ()
    try:
        watched = _make_weights(loss, tensors, mode)
    except OracleError:
        raise
    except Exception as error:
        failure = _describe(error)
    mirrored = mirror(**port.models) if failure is None else None
    if mirrored is None:
        # What it raised is the finding; there may be no weights to mirror yet.
        mirrored = _mirror_what_there_is(port, failure)
    if lost := find_unheld(mirrored, watched):
        raise MirrorError(
            f"{port.name}: the loss reads {', '.join(lost)}, which no mirrored model holds; add what holds "
            "it to `models`"
        )
    own = mirrored.params
    if port.weights == "random" and failure is None:
        mirrored.assign(draw_weights(mirrored, seed))
        mirrored = mirror(**port.models)
    weights = flatten(mirrored.params)
    computed: dict[str, np.ndarray | None] = {}
    try:
        if failure is None:
            if port.gradients is None:
                computed = _compute(loss, tensors, mirrored, mode)
            else:
                computed = _compute_own(port, loss, tensors, mirrored, mode)
    except OracleError:
        raise
    except Exception as error:
        failure, computed = _describe(error), {}
    finally:
        mirrored.assign(own)
    origin = Origin(
        side="port",
        model=port.name,
        mode=mode,
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        framework="tensorflow",
        versions={name: version for name in PORT_PACKAGES if (version := installed_version(name))},
        python=platform.python_version(),
        device="gpu" if tensorflow.config.list_physical_devices("GPU") else "cpu",
        case=digest_inputs(weights, batch),
        seed=seed,
        weights="the model's own" if port.weights == "own" else f"random, seed {seed}",
        data=port.name,
        flags={"tf32": "off"} | name_frozen(mirrored),
    )
    variables = {f"gradient/{leaf}": names for leaf, names in mirrored.variables.items()}
    return PortRun(Record(mirrored.spec, origin, computed, variables, failure), mirrored, weights, batch)


def draw_weights(mirrored: Mirror, seed: int) -> dict[str, Any]:
    """New weights for a model: embeddings with deviation 1, matrices 1/sqrt(rows), all others 0.5."""
    generator = np.random.default_rng([seed, 0])
    drawn = {}
    for leaf, old in flatten(mirrored.params).items():
        matrix = 1.0 if leaf.endswith("embedding") else float(max(old.shape[:1] or (1,))) ** -0.5
        spread = matrix if old.ndim > 1 else 0.5
        drawn[leaf] = (spread * generator.standard_normal(old.shape)).astype(old.dtype)
    return nest_leaves(drawn)


def name_frozen(mirrored: Mirror) -> dict[str, str]:
    """The flag of a record that names the leaves that are not trained, whose gradients no one compares."""
    frozen = mirrored.spec.frozen
    return {"frozen": ", ".join(frozen)} if frozen else {}


def _make_weights(loss: Callable[..., Any], tensors: Mapping[str, Any], mode: str) -> tuple[Any, ...]:
    """Call the loss once, so that the model makes its weights. Gives the variables that it read."""
    tensorflow = import_tensorflow()
    # XLA can make no variables, so a plain tf.function goes first.
    call = loss if mode == "eager" else tensorflow.function(loss)
    with tensorflow.GradientTape() as tape:
        call(tensors)
    return tuple(tape.watched_variables())


def _compute(
    loss: Callable[..., Any], tensors: Mapping[str, Any], mirrored: Mirror, mode: str
) -> dict[str, np.ndarray | None]:
    tensorflow = import_tensorflow()
    sources = dict(mirrored.tensors)

    def step(tensors: Mapping[str, Any]) -> Any:
        with tensorflow.GradientTape() as tape:
            # A variable that is not trainable is compared by no one, but may be watched.
            value, outputs = split_outputs(loss(tensors), "the loss")
        return value, outputs, tape.gradient(value, sources)

    if mode != "eager":
        step = tensorflow.function(step, jit_compile=True if mode == "xla" else None)
    value, outputs, gradients = step(tensors)
    computed: dict[str, np.ndarray | None] = {
        f"output/{name}": np.asarray(output) for name, output in outputs.items()
    }
    computed["loss"] = np.asarray(value)
    carried = mirrored.gradients_to_leaves(gradients)
    return computed | {f"gradient/{leaf}": gradient for leaf, gradient in carried.items()}


def _compute_own(
    port: LivePort, loss: Callable[..., Any], tensors: Mapping[str, Any], mirrored: Mirror, mode: str
) -> dict[str, np.ndarray | None]:
    """The loss and gradients of the port's own train step, and the outputs that its loss names."""
    tensorflow = import_tensorflow()
    assert port.gradients is not None
    own, variables = port.gradients, []

    def step(tensors: Mapping[str, Any]) -> Any:
        value, pairs = split_gradients(own(tensors), port.name)
        # A function of TensorFlow gives tensors only.
        variables[:] = [variable for _, variable in pairs]
        return value, [gradient for gradient, _ in pairs]

    call = step if mode == "eager" else tensorflow.function(step, jit_compile=True if mode == "xla" else None)
    value, gradients = call(tensors)
    # After it: what the loss keeps, as a memory of attention, must not be there for the train step.
    _, outputs = split_outputs(loss(tensors), "the loss")
    computed: dict[str, np.ndarray | None] = {
        f"output/{name}": np.asarray(output) for name, output in outputs.items()
    }
    computed["loss"] = np.asarray(value)
    carried = mirrored.gradients_to_leaves(zip(gradients, variables, strict=True))
    return computed | {f"gradient/{leaf}": gradient for leaf, gradient in carried.items()}


def _mirror_what_there_is(port: LivePort, failure: Failure | None) -> Mirror:
    try:
        return mirror(**port.models)
    except OracleError as error:
        said = "" if failure is None else f"{failure.type}: {failure.message}"
        raise UsageError(
            f"{port.name}: the loss raised {said}, before the model had made its weights"
        ) from error


def _describe(error: Exception) -> Failure:
    # Keras appends the arguments of the call.
    said = str(error).partition("Call arguments received")[0]
    lines = [line for line in said.splitlines() if line.strip()]
    return Failure(type(error).__name__, lines[-1].strip() if lines else "", traceback.format_exc())
