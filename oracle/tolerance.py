"""How far two tensors may differ: the one place with the rule, its constants and their reasons.

**float64.** Both sides compute the same formula in the same precision, so nothing but the order of
rounding may differ. Measured on LSTM encoder-decoders of 32 steps and 256 units, that is 5e-15 of a
tensor's largest element; sixteen seeded faults in an LSTM sit 12.5 to 15 decades above it. The bound
lies between: `FLOAT64_BOUND` of the largest element, for every element. Where a tensor is a small difference
of large numbers, as a gradient that is zero in theory, float64 itself is no better than that: if something
differs, the oracle is run again with every number of the case moved to a neighbouring float64 number,
`FLOAT64_RUNS` times, and a port may err `FLOAT64_FACTOR` times as much as the oracle then does.

**float32.** The truth is the oracle in float64, and the yardstick is the oracle's own float32 error
against it: what float32 costs on this very case. One run may be lucky, above all in a tensor of few
elements, so the error is the largest of `FLOAT32_RUNS` runs: one on the case itself, and others in
which every number of the case is moved to a neighbouring float32 number, as a rounding would. A port may
err `FLOAT32_FACTOR` times as much, since another order of operations errs differently; the least unit is
one rounding. For long sums that is not enough: XLA adds by pairs and its error hardly grows, while TensorFlow
adds a bias' gradient row after row and a kernel's step after step, and errs 50 times as much over 16,384.
So if something differs, the oracle is run as often again with its sums in sequence
(`oracle.steps.sequential_sums`), and the largest error of all these runs counts. (Two limits: where memory is
short the kernels' sums stay as they are, and a function of a person's own that JAX cannot trace has no such
runs. A port's long float32 sums may then be called wrong; in float64 they are not.) Both the largest error
and the root mean square over the tensor are held to it: the first sees one wrong element, the second a small
error in all of them.

No bound grows with the size of a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOAT64_BOUND = 1e-12
"""In float64: the largest error allowed, as a part of the oracle's largest element."""

FLOAT64_FACTOR = 8.0
"""In float64: how many times the oracle's own spread under roundings a port may err, if that is more."""

FLOAT64_RUNS = 4
"""In float64: how many runs of the oracle its spread is taken from."""

FLOAT32_FACTOR = 8.0
"""In float32: how many times the oracle's own float32 error a port's may be."""

FLOAT32_RUNS = 4
"""In float32: how many runs of the oracle the yardstick is taken from."""

FLOAT64_ROUNDING = float(np.finfo(np.float64).eps) / 2
FLOAT32_ROUNDING = float(np.finfo(np.float32).eps) / 2
"""The error of one rounding, as a part of the number that is rounded."""


@dataclass(frozen=True)
class Tolerance:
    """What is allowed of one tensor.

    Args:
        noise: the error that the precision makes by itself, in absolute terms; for people.
        max_unit: what the largest error is measured in.
        rms_unit: what the root mean square error is measured in.
        factor: how many units each of them may be.
    """

    noise: float
    max_unit: float
    rms_unit: float
    factor: float

    def needed(self, max_abs: float, rms: float) -> float | None:
        """The smallest factor that would pass these errors; None if none would."""
        ratios = [_ratio(max_abs, self.max_unit), _ratio(rms, self.rms_unit)]
        if None in ratios:
            return None
        return max(ratio for ratio in ratios if ratio is not None)

    def passes(self, max_abs: float, rms: float) -> bool:
        """Whether these errors are allowed."""
        needed = self.needed(max_abs, rms)
        return needed is not None and needed <= self.factor


def float64_tolerance(truth: np.ndarray, runs: Sequence[np.ndarray] = ()) -> Tolerance:
    """The tolerance of a float64 tensor, given the oracle's values, and those of its runs under roundings."""
    scale = largest(truth)
    spread = max((largest(run - truth) for run in runs), default=0.0)
    unit = max(scale, FLOAT64_FACTOR * spread / FLOAT64_BOUND)
    # The root mean square is never above the largest error, so the one unit serves for both.
    return Tolerance(max(FLOAT64_ROUNDING * scale, spread), unit, unit, FLOAT64_BOUND)


def float32_tolerance(truth: np.ndarray, runs: Sequence[np.ndarray]) -> Tolerance:
    """The tolerance of a float32 tensor, given the oracle's values in float64 and in float32 runs."""
    errors = [run.astype(np.float64) - truth for run in runs]
    noise = max(FLOAT32_ROUNDING * largest(truth), *map(largest, errors))
    rms_noise = max(FLOAT32_ROUNDING * root_mean_square(truth), *map(root_mean_square, errors))
    return Tolerance(noise, noise, rms_noise, FLOAT32_FACTOR)


def largest(values: np.ndarray) -> float:
    """The largest absolute value; 0 for no values."""
    return float(np.abs(values).max(initial=0.0))


def root_mean_square(values: np.ndarray) -> float:
    """The root of the mean of the squares, computed so that squares neither over- nor underflow."""
    peak = largest(values)
    if peak == 0.0:
        return 0.0
    return peak * float(np.sqrt(np.mean(np.square(values / peak))))


def _ratio(error: float, unit: float) -> float | None:
    if unit > 0:
        return error / unit
    return 0.0 if error == 0 else None
