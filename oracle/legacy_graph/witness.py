"""The witness: gradients held against directional differences of the forward graph.

For a direction u, (s(x + hu) - s(x - hu)) / 2h differs from the derivative by O(h^2), and Richardson's
(4 D(h/2) - D(h)) / 3 by O(h^4); the distance between the two bounds the error, and rounding adds
eps |s| / h. Where a kink lies within the step the two disagree, and the bound says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]

TELLING = 1e-5
"""In float64, which part of a gradient's norm an error may be."""

COARSE_TELLING = 0.02
"""In float32, the same, of what one direction of so many sees of the norm: it divided by their root."""

COARSE_DIRECTIONS = 3
"""In float32, how many directions are asked, since any one may happen to miss what is wrong."""

SMALL = 0.01
"""A source's gradient that is a smaller part of the whole may be lost in the rounding of the whole."""

STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)

COARSE_STEPS = (1.0, 0.3, 0.1, 0.03, *STEPS[:4])
"""In float32 the rounding of a sum over many elements is lost in longer steps only."""


@dataclass(frozen=True)
class Testimony:
    """What one direction says.

    Args:
        name: what was varied: a source, or `all`.
        gradient: the derivative that the gradients give.
        difference: the derivative that the differences give.
        error: how far the difference may be off.
        scale: |gradient| |direction|.
        limit: what the error must be below for a wrong gradient to show.
    """

    name: str
    gradient: float
    difference: float
    error: float
    scale: float
    limit: float

    @property
    def agrees(self) -> bool:
        """Whether the two agree, and closely enough to say something."""
        return self.deviation <= 10 * self.error and self.is_telling

    @property
    def is_telling(self) -> bool:
        """Whether a wrong gradient would show: the error is small against the gradient's size."""
        return self.error <= self.limit

    @property
    def deviation(self) -> float:
        """How far apart the two are."""
        return abs(self.gradient - self.difference)


def call_witness(
    objective: Callable[[Arrays], float], point: Arrays, gradients: Arrays, *, seed: int
) -> tuple[Testimony, ...]:
    """Ask the witness about every source by itself, and about all together.

    Args:
        objective: a scalar of the sources.
        point: the sources' values.
        gradients: the objective's gradients there; a source without one must not change it.
        seed: of the directions.
    """
    rng = np.random.default_rng(seed)
    whole = _norm(gradients)
    is_coarse = min((array.dtype.itemsize for array in point.values()), default=8) < 8
    heard: dict[str, list[Testimony]] = {}
    for _ in range(COARSE_DIRECTIONS if is_coarse else 1):
        directions = {name: rng.standard_normal(array.shape) for name, array in point.items()}
        asked = {name: {name: direction} for name, direction in directions.items() if direction.size}
        if len(asked) > 1:
            asked["all"] = directions
        for name, direction in asked.items():
            one = _testify(name, objective, point, gradients, direction, whole, is_coarse=is_coarse)
            heard.setdefault(name, []).append(one)
    return tuple(min(ones, key=lambda one: (one.agrees, -one.deviation)) for ones in heard.values())


def _testify(
    name: str,
    objective: Callable[[Arrays], float],
    point: Arrays,
    gradients: Arrays,
    direction: Arrays,
    whole: float,
    *,
    is_coarse: bool,
) -> Testimony:
    length = _norm(direction)
    unit = {source: array / length for source, array in direction.items()}
    given = sum(float(np.sum(gradients[source] * unit[source])) for source in unit if source in gradients)
    scale = _norm({source: gradients[source] for source in unit if source in gradients})
    # The least precise dtype decides.
    epsilon = max(float(np.finfo(array.dtype).eps) for array in point.values())

    def move(step: float) -> float:
        moved = {
            source: (array + step * unit[source]).astype(array.dtype) if source in unit else array
            for source, array in point.items()
        }
        return objective(moved)

    centre = abs(move(0.0))
    best = (np.inf, 0.0)
    for step in COARSE_STEPS if is_coarse else STEPS:
        wide = (move(step) - move(-step)) / (2 * step)
        narrow = (move(step / 2) - move(-step / 2)) / step
        refined = (4 * narrow - wide) / 3
        error = abs(refined - narrow) + 10 * epsilon * max(centre, 1.0) / step
        best = min(best, (error, refined))
    telling = TELLING
    if is_coarse:
        telling = COARSE_TELLING / np.sqrt(sum(array.size for array in direction.values()))
    limit = float(telling * max(scale, SMALL * whole))
    return Testimony(name, given, best[1], float(best[0]), scale, limit or np.inf)


def _norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(array, float))) for array in arrays.values())))
