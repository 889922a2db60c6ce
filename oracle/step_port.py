"""A step of a person's own as a port: whatever computes a loss and gradients, recorded with what it read."""

from __future__ import annotations

import inspect
import platform
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracle.errors import CaseError, UsageError
from oracle.frameworks import PORT_PACKAGES, installed_version
from oracle.record import Failure, Naming, Origin, Record, Slices, digest_inputs
from oracle.steps.leaves import flatten_leaves


def record_step(
    step: Callable[..., Any],
    weights: Mapping[str, Any],
    batch: Mapping[str, np.ndarray],
    *,
    seed: int,
) -> Record:
    """Run a step, and make a record of what it gave.

    Args:
        step: `step(batch)` or `step()`. It gives the scalar loss and the gradients: by the names of
            `weights`, or as pairs (gradient, variable), each named as its variable without `:0`.
        weights: what the step's variables hold: arrays or variables by name, or nested dictionaries of them.
        batch: NumPy arrays by name.
        seed: for the record.

    Raises:
        CaseError: if the weights are no arrays of numbers.
        UsageError: if the step gives something else, or gradients of other names.
    """
    if not callable(step):
        raise UsageError(f"the port is a {type(step).__name__}; give a step that computes loss and gradients")
    nested = any(isinstance(value, Mapping) for value in weights.values())
    naming: Naming = "leaf" if nested else "variable"
    arrays = {name: _read(name, value) for name, value in flatten_leaves(weights).items()}
    if not arrays:
        raise CaseError("weights is empty; give what the step's variables hold, by name")
    batch = {name: np.array(array) for name, array in batch.items()}
    # A step may change what it is given; the reference must not see that.
    given = {name: array.copy() for name, array in batch.items()}
    failure, tensors, sparse = None, {}, {}
    try:
        result = step(given) if _takes_batch(step) else step()
    except Exception as error:
        failure = Failure(type(error).__name__, str(error), traceback.format_exc())
    else:
        tensors, sparse = _name_tensors(result, arrays)
    name = getattr(step, "__name__", "step")
    origin = Origin(
        side="port",
        model=name,
        mode="function" if hasattr(step, "get_concrete_function") else "eager",
        dtype=_find_dtype(tensors, arrays),  # pyright: ignore[reportArgumentType]
        framework="tensorflow",
        versions={package: version for package in PORT_PACKAGES if (version := installed_version(package))},
        python=platform.python_version(),
        device="?",
        case=digest_inputs(arrays, batch),
        seed=seed,
        weights="given",
        data=name,
    )
    return Record(
        None, origin, tensors, failure=failure, weights=arrays, batch=batch, naming=naming, sparse=sparse
    )


def _read(name: str, value: Any) -> np.ndarray:
    array = np.array(value)
    if array.dtype.kind not in "fiub":
        raise CaseError(f"weights[{name!r}] is a {type(value).__name__}; give an array of numbers")
    return array


def _takes_batch(step: Callable[..., Any]) -> bool:
    """Whether a step has an argument; one whose signature cannot be read has."""
    try:
        return bool(inspect.signature(getattr(step, "python_function", step)).parameters)
    except (TypeError, ValueError):
        return True


def _name_tensors(
    result: Any, weights: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray | None], dict[str, Slices]]:
    if not isinstance(result, tuple | list) or len(result) != 2 or np.shape(result[0]) != ():
        raise UsageError(
            f"the step gave a {type(result).__name__}; expected the pair of a scalar loss and its gradients"
        )
    loss, given = result
    if isinstance(given, Mapping):
        gradients = flatten_leaves(given)
    else:
        try:
            pairs = [(variable.name.partition(":")[0], gradient) for gradient, variable in given]
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                "the step's gradients are neither by name nor pairs (gradient, variable); give "
                "list(zip(tape.gradient(loss, variables), variables))"
            ) from error
        gradients = dict(pairs)
        if len(gradients) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise UsageError(
                f"two variables are called {', '.join(twice)}; give the gradients by names of your own: "
                "{'encoder/kernel': gradient}"
            )
    if unknown := sorted(gradients.keys() - weights.keys()):
        raise UsageError(
            f"the step gives a gradient of {', '.join(unknown)}, which is not in weights; it has "
            f"{', '.join(weights)}"
        )
    tensors: dict[str, np.ndarray | None] = {"loss": np.asarray(loss)}
    sparse = {}
    for name, gradient in gradients.items():
        tensor = f"gradient/{name}"
        if hasattr(gradient, "dense_shape") and hasattr(gradient, "indices"):
            # TensorFlow may leave the shape out; it is the variable's.
            slices = Slices(np.asarray(gradient.values), np.asarray(gradient.indices), weights[name].shape)
            sparse[tensor], tensors[tensor] = slices, slices.densify()
        else:
            tensors[tensor] = None if gradient is None else np.asarray(gradient)
    return tensors, sparse


def _find_dtype(tensors: Mapping[str, np.ndarray | None], weights: Mapping[str, np.ndarray]) -> str:
    """The one dtype of the gradients; without any, that of the weights.

    Raises:
        CaseError: if they are of several, or neither of float64 nor of float32.
    """
    gradients = [array for name, array in tensors.items() if name != "loss" and array is not None]
    floats = [array for array in gradients or weights.values() if array.dtype.kind not in "iub"]
    dtypes = {str(array.dtype) for array in floats}
    if dtypes == {"float64"}:
        return "float64"
    if dtypes == {"float32"}:
        return "float32"
    raise CaseError(
        f"the gradients are {', '.join(sorted(dtypes)) or 'no numbers'}; compute every one of them in "
        "float64, or every one in float32"
    )
