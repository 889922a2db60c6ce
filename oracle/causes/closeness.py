"""How near the oracle under a cause comes to a port: every tensor counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oracle.causes.cause import Tensors
from oracle.tolerance import FLOAT32_FACTOR, FLOAT32_ROUNDING, FLOAT64_BOUND, float32_tolerance, largest
from oracle.tolerance import root_mean_square as rms

CANCELLED = 1e-3
"""A tensor that a cause makes smaller than this part of the oracle's is measured by that part: where terms
cancel, what is left of the tensor has the terms' roundings."""

NEAR = 8.0
"""Of a float32 port what is within so many times the tolerance of the oracle proper is measured anew, by the
roundings of the oracle under the cause."""


@dataclass(frozen=True)
class Closeness:
    """How near tensors are to a port's.

    Args:
        ratios: by tensor, in the order of computation, the largest error as a part of what is allowed.
        distance: the largest error of any as a part of the tensor's largest element.
    """

    ratios: Mapping[str, float]
    distance: float

    @property
    def explains(self) -> bool:
        """Whether every tensor agrees."""
        return bool(self.ratios) and all(ratio <= 1.0 for ratio in self.ratios.values())

    @property
    def is_near(self) -> bool:
        """Whether every tensor is within a few times of what is allowed."""
        return bool(self.ratios) and all(ratio <= NEAR for ratio in self.ratios.values())

    @property
    def matching(self) -> int:
        """How many tensors agree."""
        return sum(ratio <= 1.0 for ratio in self.ratios.values())

    @property
    def decades(self) -> float:
        """The decades that are missing in all tensors together; the smaller, the nearer."""
        return sum(math.log10(min(max(ratio, 1.0), 1e15)) for ratio in self.ratios.values())

    @property
    def leading(self) -> int:
        """How many tensors agree before the first that does not."""
        for number, ratio in enumerate(self.ratios.values()):
            if ratio > 1.0:
                return number
        return len(self.ratios)


class Ruler:
    """Measures tensors against a port's.

    Args:
        port: the port's tensors in float64, a gradient of None as zeros.
        truth: the oracle's, in the order of computation.
        runs: of a float32 port, the oracle's in float32, on the case and on jittered ones.
    """

    def __init__(self, port: Tensors, truth: Tensors, runs: Sequence[Tensors] = ()) -> None:
        self.port = port
        self.names = tuple(name for name in truth if name in port)
        self._scales = {name: largest(truth[name]) for name in self.names}
        self._bounds = {name: _bound(truth[name], [run[name] for run in runs]) for name in self.names}

    def measure(self, tensors: Tensors) -> Closeness:
        """How near these are."""
        ratios, distance = {}, 0.0
        for name in self.names:
            error = self._err(name, tensors[name])
            distance = max(distance, error)
            ratios[name] = error / self._bounds[name]
        return Closeness(ratios, distance)

    def confirm(self, tensors: Tensors, runs: Sequence[Tensors]) -> Closeness:
        """How near these are to a float32 port's, by their own float32 runs, as a comparison has it."""
        ratios, distance = {}, 0.0
        for name in self.names:
            found = tensors[name]
            distance = max(distance, self._err(name, found))
            if self.port[name].shape != found.shape:
                ratios[name] = math.inf
                continue
            error = self.port[name] - found
            tolerance = float32_tolerance(found, [run[name] for run in runs])
            needed = tolerance.needed(largest(error), rms(error))
            ratios[name] = math.inf if needed is None else needed / FLOAT32_FACTOR
        return Closeness(ratios, distance)

    def _err(self, name: str, tensor: np.ndarray) -> float:
        """The largest error as a part of the tensor's largest element."""
        port = self.port[name]
        if port.shape != tensor.shape or not np.isfinite(port).all() or not np.isfinite(tensor).all():
            return math.inf
        error, scale = largest(port - tensor), max(largest(tensor), CANCELLED * self._scales[name])
        return error / scale if scale else (0.0 if error == 0 else math.inf)


def _bound(truth: np.ndarray, runs: Sequence[np.ndarray]) -> float:
    """What of a tensor's largest element is allowed."""
    if not runs:
        return FLOAT64_BOUND
    scale = largest(truth)
    if not scale:
        return FLOAT32_FACTOR * FLOAT32_ROUNDING
    return FLOAT32_FACTOR * float32_tolerance(truth, runs).noise / scale
