"""The witness: a gradient held against the float64 loss it is said to be the gradient of. Pure NumPy.

A loss is a function of arrays by name that gives a float. Along a direction v it has a slope, and the
gradient g claims that the slope is g.v. The slope is measured by central differences with Richardson's
extrapolation in a tableau (Ridders 1982, https://doi.org/10.1016/S0141-1195(82)80057-0), which bounds its own
error; the rounding of the loss is measured first (More and Wild 2011, https://doi.org/10.1137/100786125).

The bound is the measured error, never a part of the gradient's norm: one wrong element of n is a part
1/sqrt(n) of the norm, and passes any fixed tolerance once n is large. A direction of signs, +1 or -1 for
every element, moves every element by the whole step, so that a wrong element shows at its full size
however many others there are. `docs/witness.md` has what each check sees, measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

Arrays = Mapping[str, np.ndarray]
"""Arrays by name: weights, gradients of them, or a direction. A direction leaves out what stays."""

Loss = Callable[[Arrays], float]

FIRST_STEP = 2.0**-4
"""How far the first difference moves the one element that it moves. See `choose_first_step`."""

LEVELS = 24
"""How often the step is halved at most."""

SAFETY = 10.0
"""How many times its estimated error a slope may be off."""

ROUNDING = 1e-13
"""What a gradient and the sum g.v may lose to rounding, as a part of the sum of its absolute products."""

SETTLED = 0.02
"""How near 2 the quotients of successive remainders are, where half the step leaves half the remainder."""

ORDER_BETWEEN = 2.0
"""A remainder of a higher order falls as h^3: the slope is right. One of a lower falls as h: it is not."""


class Slope(msgspec.Struct, frozen=True):
    """A directional derivative as differences give it.

    Args:
        value: the slope.
        error: its estimated error, the rounding of the loss included; infinite if it could not be had.
        jump: by how much the slopes on the two sides differ at a kink; 0 where there is none.
    """

    value: float
    error: float
    jump: float = 0.0

    @property
    def bound(self) -> float:
        """How far off a claim may be. At a kink, any slope between those of its two sides will do."""
        return SAFETY * self.error + abs(self.jump) / 2


class Order(msgspec.Struct, frozen=True):
    """How the remainder of Taylor's first terms falls with the step. See `measure_order`.

    Args:
        order: the exponent, by regression over halved steps; None if rounding hides too much of it.
        steps: how many steps it was measured on.
    """

    order: float | None
    steps: int

    @property
    def is_wrong(self) -> bool:
        """Whether the slope that was claimed is not the loss's."""
        return self.order is not None and self.order < ORDER_BETWEEN


class Testimony(msgspec.Struct, frozen=True):
    """What one direction says of a gradient.

    Args:
        name: the array that was moved, or `all`.
        claim: the slope that the gradient gives.
        slope: the slope that differences give.
        order: what Taylor's remainder says.
        bound: how far apart the two may be: an error of one element that is smaller does not show.
        element: where the wrong element is, if the two differ and one was looked for.
    """

    name: str
    claim: float
    slope: Slope
    order: Order
    bound: float
    element: tuple[int, ...] | None = None

    @property
    def deviates(self) -> bool:
        """Whether the claim is no number, or further from the measured slope than the bound."""
        return math.isnan(self.claim) or abs(self.claim - self.slope.value) > self.bound

    @property
    def is_wrong(self) -> bool:
        """Whether the gradient is not the derivative of the loss, by either check."""
        smooth = not self.slope.jump and math.isfinite(self.bound)
        return self.deviates or (self.order.is_wrong and smooth)

    @property
    def is_proven_wrong(self) -> bool:
        """Whether both checks say so, each of which has an error of another kind."""
        return math.isnan(self.claim) or (self.deviates and self.order.is_wrong)


def draw_signs(arrays: Arrays, seed: Sequence[int]) -> dict[str, np.ndarray]:
    """A direction of +1 and -1, each as likely, for every element."""
    rng = np.random.default_rng(seed)
    return {name: rng.choice([-1.0, 1.0], size=array.shape) for name, array in sorted(arrays.items())}


def move(point: Arrays, direction: Arrays, step: float) -> dict[str, np.ndarray]:
    """The point moved by `step` times the direction, in float64."""
    return {
        name: array + step * direction[name] if name in direction else array for name, array in point.items()
    }


def claim_slope(gradients: Arrays, direction: Arrays) -> tuple[float, float]:
    """The slope g.v that gradients claim, and what its summation may have lost."""
    products = [gradients[name] * v for name, v in direction.items()]
    lost = ROUNDING * sum(float(np.abs(product).sum()) for product in products)
    return sum(float(product.sum()) for product in products), lost


def choose_first_step(direction: Arrays) -> float:
    """The step to begin with: of a unit of weights of which n elements move, FIRST_STEP / n^(1/4).

    A square matrix of n elements, all moved by h at random, moves what it gives by about h n^(1/4).
    """
    moved = sum(float(np.square(v).sum()) for v in direction.values())
    return FIRST_STEP * max(moved, 1.0) ** -0.25


def measure_noise(loss: Loss, point: Arrays, direction: Arrays) -> float:
    """The standard deviation of the rounding of a loss, or of whatever else makes it jitter.

    High differences of seven values so near one another that nothing but the rounding differs.
    """
    values = np.array([loss(move(point, direction, k * 2.0**-26)) for k in range(-3, 4)])
    noise = float(np.finfo(np.float64).eps * max(abs(values[3]), np.finfo(np.float64).tiny))
    differences = np.diff(values, 3)
    for k in (4, 5, 6):
        differences = np.diff(differences)
        scale = math.factorial(k) ** 2 / math.factorial(2 * k)
        noise = max(noise, float(np.sqrt(scale * np.mean(np.square(differences)))))
    return noise if math.isfinite(noise) else math.inf


def measure_slope(
    loss: Loss,
    point: Arrays,
    direction: Arrays,
    *,
    noise: float,
    centre: float | None = None,
    seen: dict[float, float] | None = None,
) -> Slope:
    """The slope of a loss along a direction, by central differences with Richardson's extrapolation.

    Args:
        loss: a function of arrays, in float64.
        point: where.
        direction: which way, its largest element 1 in absolute value.
        noise: the deviation of the loss's rounding, as `measure_noise` gives it.
        centre: the loss at the point, if it is known.
        seen: losses by step along this direction: what is in it is not computed again, and what is computed
            is added.
    """
    seen = {} if seen is None else seen
    centre = float(loss(point)) if centre is None else centre
    best = Slope(math.nan, math.inf)
    before: list[float] = []
    bends: list[tuple[float, float]] = []
    first_step = choose_first_step(direction)
    for level in range(LEVELS):
        step = first_step * 2.0**-level
        ahead, behind = _take_both(loss, point, direction, step, seen)
        if not (math.isfinite(ahead) and math.isfinite(behind)):
            before, bends = [], []
            continue
        bends.append((step, (ahead - centre) - (centre - behind)))
        row = [(ahead - behind) / (2 * step)]
        for column, coarse in enumerate(before):
            fine = row[column]
            row.append(fine + (fine - coarse) / (4.0 ** (column + 1) - 1))
        for column in range(1, len(row)):
            spread = max(abs(row[column] - row[column - 1]), abs(row[column] - before[column - 1]))
            error = spread + 2 * noise / step
            if error < best.error:
                best = Slope(row[column], error)
        before = row
        # Past its best, a smaller step only adds rounding.
        if level >= 3 and 2 * noise / step > best.error:
            break
    return Slope(best.value, best.error, _find_jump(bends, noise))


def _take_both(
    loss: Loss, point: Arrays, direction: Arrays, step: float, seen: dict[float, float]
) -> tuple[float, float]:
    """The losses a step ahead and a step behind."""
    for signed in (step, -step):
        if signed not in seen:
            seen[signed] = float(loss(move(point, direction, signed)))
    return seen[step], seen[-step]


def _find_jump(bends: Sequence[tuple[float, float]], noise: float) -> float:
    """The jump of the slope at the point, from second differences; 0 if it is smooth as far as can be seen.

    A second difference falls as h^2 where the loss is smooth, and as h, times the jump, where it is not.
    """
    if len(bends) < 3:
        return 0.0
    found = []
    for (wide, wide_bend), (narrow, narrow_bend) in itertools.pairwise(bends):
        # Both as slopes; what is proportional to the step is extrapolated away.
        jump = 2 * narrow_bend / narrow - wide_bend / wide
        found.append((jump, 12 * noise / narrow))
    (earlier, _), (jump, rounding) = found[-2:]
    error = abs(jump - earlier) + rounding
    return jump if abs(jump) > SAFETY * error else 0.0


def measure_order(
    loss: Loss,
    point: Arrays,
    direction: Arrays,
    *,
    slope: float,
    noise: float,
    halvings: int = 16,
    seen: dict[float, float] | None = None,
) -> Order:
    """The order in h by which Taylor's remainder falls: 3 or more if the slope is right, 1 if it is not.

    f(x + hv) - f(x) - h slope falls as h^2 if the slope is right, but the curvature, which says nothing of
    the slope, hides a small error until h is smaller still. In half the difference of the remainders at h
    and -h it cancels. No step needs choosing: the step is halved until rounding hides the remainder, and the
    exponent is fitted to the five smallest steps that show one. Once five have settled on 1, smaller ones
    would say the same. `seen` is as of `measure_slope`, whose steps these are.
    """
    seen = {} if seen is None else seen
    first_step = choose_first_step(direction)
    steps, remainders = [], []
    for number in range(halvings):
        step = first_step * 2.0**-number
        ahead, behind = _take_both(loss, point, direction, step, seen)
        remainder = abs((ahead - behind) / 2 - step * slope)
        if not math.isfinite(remainder):
            continue
        if remainder < 30 * noise:
            break
        steps.append(step)
        remainders.append(remainder)
        falls = [wide / narrow for wide, narrow in itertools.pairwise(remainders[-5:])]
        if len(falls) == 4 and all(abs(fall - 2) < SETTLED for fall in falls):
            break
    if len(steps) < 3:
        return Order(None, len(steps))
    fitted = np.polyfit(np.log(steps[-5:]), np.log(remainders[-5:]), 1)
    return Order(float(fitted[0]), len(steps))


def check_gradient(
    loss: Loss, point: Arrays, gradients: Arrays, *, seed: int = 0, directions: int = 2, locate: bool = True
) -> tuple[Testimony, ...]:
    """Hold a gradient against its own loss: each array by itself, and all of them together.

    It needs no second implementation. A single wrong element is seen, whatever the number of others, if it
    is off by more than the testimony's `bound`.

    Args:
        loss: `loss(arrays) -> float`, computed in float64 and alike at every call.
        point: where: float64 arrays by name.
        gradients: what is said to be the gradient there, by the same names.
        seed: of the directions.
        directions: how many directions of signs for each array, and for all.
        locate: whether to look for the wrong element, by halving, where a gradient is wrong.
    """
    groups = {name: {name: array} for name, array in point.items() if array.size}
    if len(groups) > 1:
        groups["all"] = dict(point)
    found = []
    for number, (name, arrays) in enumerate(groups.items()):
        noise = measure_noise(loss, point, draw_signs(arrays, [seed, number, 0]))
        for k in range(directions):
            direction = draw_signs(arrays, [seed, number, k])
            testimony = testify(name, loss, point, gradients, direction, noise=noise)
            if testimony.is_wrong and locate and name != "all":
                element = find_element(loss, point, gradients, name, direction, noise=noise)
                testimony = msgspec.structs.replace(testimony, element=element)
            found.append(testimony)
    return tuple(found)


def testify(
    name: str, loss: Loss, point: Arrays, gradients: Arrays, direction: Arrays, *, noise: float
) -> Testimony:
    """Ask both checks about one direction."""
    claim, lost = claim_slope(gradients, direction)
    seen: dict[float, float] = {}
    slope = measure_slope(loss, point, direction, noise=noise, seen=seen)
    order = measure_order(loss, point, direction, slope=claim, noise=noise, seen=seen)
    return Testimony(name, claim, slope, order, slope.bound + lost)


def find_element(
    loss: Loss, point: Arrays, gradients: Arrays, name: str, direction: Arrays, *, noise: float
) -> tuple[int, ...] | None:
    """Where an array's gradient is wrong, by halving the direction; None if no one place is.

    It takes as many slopes as the size has binary digits. Of several wrong elements it finds one.
    """
    signs = direction[name].ravel()
    start, stop = 0, signs.size

    def deviates(start: int, stop: int) -> bool:
        part = np.zeros_like(signs)
        part[start:stop] = signs[start:stop]
        along = {name: part.reshape(direction[name].shape)}
        claim, lost = claim_slope(gradients, along)
        slope = measure_slope(loss, point, along, noise=noise)
        return abs(claim - slope.value) > slope.bound + lost

    while stop - start > 1:
        middle = (start + stop) // 2
        if deviates(start, middle):
            stop = middle
        elif deviates(middle, stop):
            start = middle
        else:
            return None
    return tuple(int(axis) for axis in np.unravel_index(start, direction[name].shape))
