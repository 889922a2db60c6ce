"""What every reader here says of a damaged file, and how much memory a file may ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

FLOOR = 64 * 2**20
RATIO = 100


class DamageError(ValueError):
    """A file that contradicts itself. `read_weight_file` turns it into a BridgeError with the path."""


class Budget:
    """The bytes of arrays that a file may still make.

    Weights hardly compress, so a file that asks for far more than its own size is a bomb, or damaged.

    Args:
        size: the size of the file, or files, in bytes.
        exact: whether the format stores every byte, so that the arrays are no larger than the files.
    """

    def __init__(self, size: int, *, exact: bool = False) -> None:
        self.size = size
        self.limit = size if exact else max(FLOOR, RATIO * size)
        self._left = self.limit

    def take(self, shape: Sequence[int], itemsize: int, name: str) -> int:
        """Allow an array, before it is made. Returns its bytes.

        Raises:
            DamageError: if its shape is impossible, or there is not so much left.
        """
        if len(shape) > 32 or any(not 0 <= size < 2**62 for size in shape):
            raise DamageError(f"{name!r} claims the impossible shape {list(shape)[:40]}")
        size = math.prod(shape) * itemsize
        if size > self._left:
            raise DamageError(
                f"{name!r} claims the shape {list(shape)}, which with the rest makes more than the "
                f"{self.limit} bytes that a file of {self.size} can be trusted with"
            )
        self._left -= size
        return size
