"""What each check of a gradient sees: one wrong element in tensors of 1 to 10^6.

    uv run python -m bench.witness_detection [--trials N] [--largest N] [--output docs/witness.md]

Every trial draws a loss, a point, and an element whose gradient is made wrong. The checks that are commonly
used are run as they come, with their defaults, beside ours. Each is asked about the right gradient too.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oracle.errors import MissingPackageError
from oracle.frameworks import import_jax, import_tensorflow, precise_jax
from oracle.judgement import choose_directions
from oracle.storage import write_bytes
from oracle.tolerance import FLOAT64_BOUND
from oracle.witness import (
    claim_slope,
    draw_signs,
    find_element,
    measure_noise,
    measure_order,
    measure_slope,
)

SIZES = (1, 10, 100, 1000, 10**4, 10**5, 10**6)

FAULTS = {"right": 1.0, "1 % too large": 1.01, "missing": 0.0}
"""What the one element is multiplied by. The first is no fault: a check that speaks up is a false alarm."""

ELEMENTWISE_LIMIT = 1000
"""tf.test.compute_gradient moves each element twice, so that it is not asked about more."""


@dataclass(frozen=True)
class Trial:
    """A loss of one tensor, and a gradient of it that may be wrong in one element.

    Args:
        weights: [n], where.
        a, b: [n], the loss' own numbers.
        gradient: [n], what is said to be the gradient.
        truth: [n], the gradient.
        place: which element is wrong.
        seed: of everything.
    """

    weights: np.ndarray
    a: np.ndarray
    b: np.ndarray
    gradient: np.ndarray
    truth: np.ndarray
    place: int
    seed: int

    def loss(self, weights: Any, numpy: Any = np) -> Any:
        """mean(a sin w + 0.3 b w^2) + tanh(b.w / sqrt n), by NumPy or jax.numpy."""
        local = numpy.mean(self.a * numpy.sin(weights) + 0.3 * self.b * weights**2)
        return local + numpy.tanh(numpy.dot(self.b, weights) / self.b.size**0.5)

    def of(self, point: Any) -> float:
        """The loss as the witness takes it."""
        return float(self.loss(point["w"]))


def draw_trial(size: int, fault: float, seed: int) -> Trial:
    """Draw a trial: everything normal, the wrong element anywhere."""
    rng = np.random.default_rng([seed, size])
    a, b, weights = rng.standard_normal((3, size))
    slope = 1 - np.tanh(np.dot(b, weights) / size**0.5) ** 2
    truth = (a * np.cos(weights) + 0.6 * b * weights) / size + slope * b / size**0.5
    place = int(rng.integers(size))
    gradient = truth.copy()
    gradient[place] *= fault
    return Trial(weights, a, b, gradient, truth, place, seed)


def see_by_differences(trial: Trial) -> bool:
    """Ours: differences with Richardson's extrapolation, along one direction of signs."""
    point, direction = {"w": trial.weights}, draw_signs({"w": trial.weights}, [trial.seed])
    noise = measure_noise(trial.of, point, direction)
    slope = measure_slope(trial.of, point, direction, noise=noise)
    claim, lost = claim_slope({"w": trial.gradient}, direction)
    return abs(claim - slope.value) > slope.bound + lost


def see_by_order(trial: Trial) -> bool:
    """Ours: the order of Taylor's remainder along one direction of signs."""
    point, direction = {"w": trial.weights}, draw_signs({"w": trial.weights}, [trial.seed])
    noise = measure_noise(trial.of, point, direction)
    claim, _ = claim_slope({"w": trial.gradient}, direction)
    return measure_order(trial.of, point, direction, slope=claim, noise=noise).is_wrong


def see_by_forward_mode(trial: Trial) -> bool:
    """Ours, on the oracle's side: forward mode against the gradient, along one direction of signs."""
    jax = import_jax()
    direction = draw_signs({"w": trial.weights}, [trial.seed])
    with precise_jax():
        _, slope = jax.jvp(lambda w: trial.loss(w, jax.numpy), (trial.weights,), (direction["w"],))
    claim, _ = claim_slope({"w": trial.gradient}, direction)
    size = float(np.abs(trial.gradient).sum())
    return abs(float(slope) - claim) > FLOAT64_BOUND * size


def see_by_the_oracle(trial: Trial) -> bool:
    """Ours, beside an oracle: differences along the difference of the two gradients."""
    point, port, oracle = {"w": trial.weights}, {"w": trial.gradient}, {"w": trial.truth}
    directions = [
        d for d in choose_directions(port, oracle, seed=trial.seed, whole=1) if d.kind == "difference"
    ]
    for direction in directions:
        noise = measure_noise(trial.of, point, direction.arrays)
        slope = measure_slope(trial.of, point, direction.arrays, noise=noise)
        claim, lost = claim_slope(port, direction.arrays)
        if abs(claim - slope.value) > slope.bound + lost:
            return True
    return False


def see_by_jax(trial: Trial) -> bool:
    """`jax.test_util.check_grads` of reverse mode, in float64, with its defaults."""
    import jax.test_util

    with precise_jax():
        return _raises(lambda: jax.test_util.check_grads(_as_jax(trial), (trial.weights,), 1, modes=["rev"]))


def see_by_chex(trial: Trial) -> bool:
    """`chex.assert_numerical_grads` in float64, with its defaults."""
    import chex

    with precise_jax():
        return _raises(
            lambda: chex.assert_numerical_grads(_as_jax(trial), (trial.weights,), order=1, modes=["rev"])
        )


def see_by_tensorflow(trial: Trial) -> bool | None:
    """`tf.test.compute_gradient`, its largest error held below 1e-3, as tests have it. None if too large."""
    if trial.weights.size > ELEMENTWISE_LIMIT:
        return None
    tensorflow = import_tensorflow()

    @tensorflow.custom_gradient
    def loss(weights: Any) -> Any:
        local = tensorflow.reduce_mean(trial.a * tensorflow.sin(weights) + 0.3 * trial.b * weights**2)
        joint = tensorflow.tanh(tensorflow.tensordot(trial.b, weights, 1) / trial.b.size**0.5)
        return local + joint, lambda upstream: upstream * trial.gradient

    ((claimed,), (measured,)) = tensorflow.test.compute_gradient(loss, [tensorflow.constant(trial.weights)])
    return float(np.abs(claimed - measured).max()) >= 1e-3


CHECKS: dict[str, Callable[[Trial], bool | None]] = {
    "differences along signs": see_by_differences,
    "Taylor's order along signs": see_by_order,
    "forward against reverse mode along signs": see_by_forward_mode,
    "differences along the difference from the oracle": see_by_the_oracle,
    "`jax.test_util.check_grads`": see_by_jax,
    "`chex.assert_numerical_grads`": see_by_chex,
    "`tf.test.compute_gradient`, error < 1e-3": see_by_tensorflow,
}
OURS = tuple(CHECKS)[:4]
"""The checks that `oracle.witness` and `oracle.judgement` are made of."""


def _as_jax(trial: Trial) -> Callable[[Any], Any]:
    """The loss as a function of JAX whose reverse mode gives the trial's gradient."""
    jax = import_jax()

    @jax.custom_vjp
    def loss(weights: Any) -> Any:
        return trial.loss(weights, jax.numpy)

    loss.defvjp(lambda weights: (loss(weights), None), lambda _, upstream: (upstream * trial.gradient,))
    return loss


def _raises(check: Callable[[], None]) -> bool:
    try:
        check()
    except AssertionError:
        return True
    return False


def count_seen(check: str, size: int, fault: str, *, trials: int) -> int | None:
    """In how many trials a check speaks up; None if it cannot be asked at this size."""
    seen = [CHECKS[check](draw_trial(size, FAULTS[fault], seed)) for seed in range(trials)]
    return None if None in seen else sum(map(bool, seen))


def find_wrong_element(size: int, fault: str, seed: int) -> tuple[bool, int]:
    """Whether halving finds the wrong element without an oracle, and how many losses that takes."""
    trial = draw_trial(size, FAULTS[fault], seed)
    calls = 0

    def loss(point: Any) -> float:
        nonlocal calls
        calls += 1
        return trial.of(point)

    point, direction = {"w": trial.weights}, draw_signs({"w": trial.weights}, [seed])
    noise = measure_noise(loss, point, direction)
    found = find_element(loss, point, {"w": trial.gradient}, "w", direction, noise=noise)
    return found == (trial.place,), calls


def describe(seen: dict[tuple[str, str, int], int | None], sizes: tuple[int, ...], trials: int) -> list[str]:
    """The counts as a table of Markdown."""
    lines = [
        f"| seen in {trials} trials | fault | {' | '.join(f'n = {size:,}' for size in sizes)} |",
        f"| --- | --- | {' | '.join('---:' for _ in sizes)} |",
    ]
    for check in CHECKS:
        for fault in FAULTS:
            cells = [seen[check, fault, size] for size in sizes]
            shown = ["-" if cell is None else str(cell) for cell in cells]
            lines.append(f"| {check} | {fault} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Run every check on every size, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    sizes = tuple(size for size in SIZES if size <= options.largest)
    seen: dict[tuple[str, str, int], int | None] = {}
    for check in CHECKS:
        for size in sizes:
            for fault in FAULTS:
                try:
                    seen[check, fault, size] = count_seen(check, size, fault, trials=options.trials)
                except (ModuleNotFoundError, MissingPackageError) as error:
                    print(f"{check}: {error}", file=sys.stderr)
                    seen[check, fault, size] = None
            print(f"{check}, n = {size:,}: {[seen[check, f, size] for f in FAULTS]}", file=sys.stderr)
    found = [(size, *find_wrong_element(size, "1 % too large", 0)) for size in sizes]
    page = PAGE.format(
        command="python -m bench.witness_detection --output docs/witness.md",
        machine=f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}",
        table="\n".join(describe(seen, sizes, options.trials)),
        found="\n".join(f"| {n:,} | {'yes' if hit else 'no'} | {calls} |" for n, hit, calls in found),
    )
    if options.output is None:
        print(page, end="")
    else:
        write_bytes(options.output, page.encode())


PAGE = (Path(__file__).parent / "witness_page.md").read_text(encoding="utf-8")
"""The page around the tables."""

if __name__ == "__main__":
    main()
