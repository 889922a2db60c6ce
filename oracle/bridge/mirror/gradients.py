"""Gradients as TensorFlow gives them: dense, `IndexedSlices`, or None."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.bridge.mirror.refusals import MirrorError


def densify(gradient: Any, shape: tuple[int, ...], *, where: str) -> np.ndarray | None:
    """A gradient as one array of `shape`; the rows of `IndexedSlices` summed where an index is repeated.

    The sparse form is checked as such first: each index within the variable's rows, as many values as
    indices, each of the shape of a row, and the dense shape that of the variable.

    Raises:
        MirrorError: otherwise, naming the variable `where`.
    """
    if gradient is None:
        return None
    if not (hasattr(gradient, "indices") and hasattr(gradient, "values")):
        dense = np.asarray(gradient)
        if dense.shape != shape:
            raise MirrorError(
                f"mirror: the gradient of {where} is {list(dense.shape)}, the variable {list(shape)}"
            )
        return dense
    indices, values = np.asarray(gradient.indices), np.asarray(gradient.values)
    if gradient.dense_shape is not None and tuple(np.asarray(gradient.dense_shape)) != shape:
        raise MirrorError(
            f"mirror: the sparse gradient of {where} says it is of {list(np.asarray(gradient.dense_shape))}; "
            f"the variable is {list(shape)}"
        )
    if indices.ndim != 1 or values.shape != (*indices.shape, *shape[1:]):
        raise MirrorError(
            f"mirror: the sparse gradient of {where} has indices {list(indices.shape)} and values "
            f"{list(values.shape)}; expected [n] and {['n', *shape[1:]]}"
        )
    if indices.size and not (indices.min() >= 0 and indices.max() < shape[0]):
        raise MirrorError(
            f"mirror: the sparse gradient of {where} has the index {int(indices.max())} or "
            f"{int(indices.min())}, outside the variable's {shape[0]} rows"
        )
    dense = np.zeros(shape, values.dtype)
    np.add.at(dense, indices, values)
    return dense
