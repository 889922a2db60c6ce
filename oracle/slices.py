"""Sparse gradients, as TensorFlow gives them of an embedding: `IndexedSlices`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oracle.errors import RecordError


@dataclass(frozen=True)
class Slices:
    """A gradient as TensorFlow gave it: `IndexedSlices`, with repeated rows as they came.

    Args:
        values: [number, ...], the rows.
        indices: [number], which row of the gradient each of them adds to.
        shape: the gradient's.

    Raises:
        RecordError: if they do not fit one another.
    """

    values: np.ndarray
    indices: np.ndarray
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = (
            self.indices.ndim == 1
            and self.indices.dtype.kind in "iu"
            and len(self.shape) > 0
            and self.values.shape == (len(self.indices), *self.shape[1:])
            and (self.indices.size == 0 or 0 <= self.indices.min() <= self.indices.max() < self.shape[0])
        )
        if not fits:
            raise RecordError(
                f"record: slices with values {list(self.values.shape)} and indices "
                f"{list(self.indices.shape)} are no gradient of shape {list(self.shape)}"
            )

    def densify(self) -> np.ndarray:
        """The gradient of the whole array, repeated rows summed."""
        dense = np.zeros(self.shape, self.values.dtype)
        np.add.at(dense, self.indices, self.values)
        return dense


def join_slices(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], *, where: str
) -> dict[str, Slices]:
    """The sparse gradients of a file, from its arrays `<name>/values` and `<name>/indices`, and the shapes.

    Raises:
        RecordError: if the arrays are of other gradients than the shapes, or do not fit one another.
    """
    if sorted(arrays) != sorted(f"{name}/{part}" for name in shapes for part in ("values", "indices")):
        raise RecordError(f"{where}: its header names other sparse gradients than it holds; record it anew")
    try:
        return {
            name: Slices(arrays[f"{name}/values"], arrays[f"{name}/indices"], tuple(shape))
            for name, shape in shapes.items()
        }
    except RecordError as error:
        raise RecordError(f"{where}: {error}; record it anew") from error
