"""Inputs to verify a model on: given, or drawn until one is found that the model accepts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError

Batch = Mapping[str, np.ndarray]

SIZES = ((3, 5), (5, 3), (4, 4), (1, 4))
"""What to put for the first unknown size of a shape and for the others."""

MAXIMUM_ELEMENTS = 2**26
"""Of one input that is drawn."""

HIGHEST = (5, 3, 2, 1)
"""The largest integers tried: what is a length must not exceed the time, nor a token the vocabulary."""

Run = Callable[[Batch], Mapping[str, np.ndarray]]


def check_batch(batch: Batch, specs: Mapping[str, Any], *, where: str) -> dict[str, np.ndarray]:
    """Inputs that were given, in the model's dtypes.

    Raises:
        GraphError: G308 if one is missing, unknown, or has another shape than the model takes.
    """
    if batch.keys() != specs.keys():
        raise GraphError(
            "G308",
            f"{where}: it takes the inputs {', '.join(specs)}; given were {', '.join(batch) or 'none'}",
        )
    checked = {}
    for key, spec in specs.items():
        try:
            array = np.asarray(batch[key], spec.dtype.as_numpy_dtype)
        except (TypeError, ValueError) as error:
            raise GraphError(
                "G308", f"{where}: the input {key!r} cannot be made {spec.dtype.name} ({error})"
            ) from error
        if not spec.shape.is_compatible_with(array.shape):
            raise GraphError(
                "G308", f"{where}: the input {key!r} is {list(array.shape)}; it takes {spec.shape}"
            )
        checked[key] = array
    return checked


def draw_batch(specs: Mapping[str, Any], run: Run, *, seed: int, where: str) -> dict[str, np.ndarray]:
    """Draw inputs that the model computes finite outputs from.

    Args:
        specs: of every input, its `tf.TensorSpec`.
        run: computes the outputs of a batch, or raises `tf.errors.OpError`.
        seed: of NumPy's generator.
        where: the model, for messages.

    Raises:
        GraphError: G308 if it refuses all of them; G208 if it does not come to an end.
    """
    tf = import_tensorflow()
    refusal = "it gave outputs that are not finite, or none at all"
    for batch in _draw(specs, seed, where):
        try:
            outputs = run(batch)
        except tf.errors.DeadlineExceededError as error:
            raise GraphError(
                "G208",
                f"{where}: it had not finished after a minute; a loop in it may never end, or needs "
                "inputs of yours: give them with --inputs",
            ) from error
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, ValueError) as error:
            refusal = " ".join(str(error).split())[:200]
            continue
        if all(np.size(array) and _is_finite(array) for array in outputs.values()):
            return batch
    raise GraphError(
        "G308",
        f"{where}: no inputs were found that it accepts ({refusal}); give some with --inputs FILE.npz, "
        f"an array for each of {', '.join(specs)}",
    )


def _is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are; strings are none."""
    return np.asarray(array).dtype.hasobject or bool(np.isfinite(np.asarray(array, float)).all())


def _draw(specs: Mapping[str, Any], seed: int, where: str) -> Iterator[dict[str, np.ndarray]]:
    for key, spec in specs.items():
        kind = spec.dtype.as_numpy_dtype
        if spec.shape.rank is None or not (
            spec.dtype.is_floating or spec.dtype.is_integer or kind is np.bool_
        ):
            raise GraphError(
                "G308",
                f"{where}: the input {key!r} is {spec.dtype.name} {spec.shape}, which cannot be drawn; "
                "give the inputs with --inputs FILE.npz",
            )
        if math.prod(size or 1 for size in spec.shape) > MAXIMUM_ELEMENTS:
            raise GraphError(
                "G308",
                f"{where}: the input {key!r} is {spec.shape}, too large to be drawn; give the inputs with "
                "--inputs FILE.npz",
            )
    for first, others in SIZES:
        for highest in HIGHEST:
            rng = np.random.default_rng(seed)
            yield {key: _draw_array(rng, spec, first, others, highest) for key, spec in specs.items()}


def _draw_array(rng: np.random.Generator, spec: Any, first: int, others: int, highest: int) -> np.ndarray:
    sizes = [
        size if size is not None else (others if axis else first) for axis, size in enumerate(spec.shape)
    ]
    if spec.dtype.is_floating:
        return np.asarray(rng.standard_normal(sizes), spec.dtype.as_numpy_dtype)
    if spec.dtype.is_integer:
        return np.asarray(rng.integers(1, highest + 1, sizes), spec.dtype.as_numpy_dtype)
    return np.ones(sizes, bool)
