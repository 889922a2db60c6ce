"""Whether a port's errors are those of a coarser arithmetic: of its size, in every tensor, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from oracle.causes.cause import CAUSES, Setting, Tensors
from oracle.causes.closeness import Ruler
from oracle.causes.precision import MANTISSAS, PRECISIONS
from oracle.explanation import Candidate, Explanation
from oracle.tolerance import FLOAT64_BOUND, largest, root_mean_square

FACTOR = 8.0
"""How many times smaller or larger an error may be than the oracle's own in that arithmetic."""

FEW = 16
"""Of a tensor of fewer elements than this an error may be small by luck."""

_STRUCTURED = 0.9
"""Errors whose cosine with the tensor is this large, in most tensors, are a factor on it and no roundings."""

_EXACT = 0.02
"""A tensor of which so much more than the oracle's is without an error is not of that arithmetic."""


def find_precision(
    ruler: Ruler, truth: Tensors, compute: Callable[[int], Sequence[Sequence[Tensors]]], dtype: str
) -> Explanation | None:
    """The arithmetic whose errors the port's are like, if there is one.

    Args:
        ruler: holds the port's tensors.
        truth: the oracle's.
        compute: gives the oracle's, what is multiplied rounded to so many bits of mantissa; for each way of
            rounding several, since one alone may be lucky, above all in a tensor of few elements.
        dtype: the port's; float32 needs no explanation there.
    """
    names = ruler.names
    errors = {}
    for name in names:
        port = ruler.port[name]
        if port.shape != truth[name].shape or not np.isfinite(port).all():
            return None
        errors[name] = port - truth[name]
        if largest(errors[name]) > 0.5 * largest(truth[name]):
            return None
    if _is_structured(errors, truth):
        return None
    found: list[tuple[float, float, str]] = []
    for precision in PRECISIONS:
        if precision == dtype:
            continue
        measured = []
        for coarse in compute(MANTISSAS[precision]):
            runs = [{name: run[name] - truth[name] for name in names} for run in coarse]
            if not _is_partly_exact(errors, runs, truth):
                measured.append(_apart(errors, runs))
        apart, typical = min(measured, default=(math.inf, math.inf))
        if apart <= FACTOR:
            found.append((typical, apart, precision))
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    distance = max(largest(errors[name]) / (largest(truth[name]) or 1.0) for name in names)
    candidates = []
    for _, apart, precision in found:
        cause = CAUSES[PRECISIONS[precision]]
        said, remedy = cause.say(Setting("")), cause.advise(Setting(""))
        candidates.append(Candidate((cause.code,), said, remedy, distance, 0, len(names), {"factor": apart}))
    first, *rest = [precision for _, _, precision in found]
    line = (
        f"The port's errors are of the size of those that {first} makes: in every tensor within a factor of "
        f"{found[0][1]:.2g} of the oracle's own in it, and without structure."
    )
    # TF32 and float16 have one mantissa, and half precision throughout errs more than in products alone.
    also = [f"By their size they could be those of {' or '.join(rest)}, too."] if rest else []
    pages = f"See docs/causes/{candidates[0].codes[0]}.md."
    lines = (line, *also, candidates[0].remedy, pages)
    return Explanation("precision", lines, candidates[0], tuple(candidates[1:]))


def _apart(errors: Tensors, coarse: Sequence[Tensors]) -> tuple[float, float]:
    """How many times the errors are larger or smaller, in the worst tensor; and typically.

    Infinite if a tensor lacks them.
    """
    ratios = []
    if all(error.size < FEW for error in errors.values()):
        return math.inf, math.inf
    for name, error in errors.items():
        here, sizes = root_mean_square(error), [root_mean_square(run[name]) for run in coarse]
        # Of few elements the port's error may be small by luck: only one that is too large counts.
        if here <= max(sizes) and (error.size < FEW or here == max(sizes)):
            continue
        if here == 0.0 or max(sizes) == 0.0:
            return math.inf, math.inf
        ratios.append(max(1.0, here / max(sizes), min(sizes) / here))
    return (max(ratios), float(np.median(ratios))) if ratios else (math.inf, math.inf)


def _is_partly_exact(errors: Tensors, runs: Sequence[Tensors], truth: Tensors) -> bool:
    """Whether a tensor has elements without an error, which the arithmetic would have made err.

    So has what follows from one wrong number: at the first step all other units are right.
    """
    for name, error in errors.items():
        if error.size < FEW:
            continue
        bound = FLOAT64_BOUND * largest(truth[name])
        here, *there = (
            float(np.mean((np.abs(one) <= bound) & (truth[name] != 0)))
            for one in (error, *(run[name] for run in runs))
        )
        if here > max(there) + _EXACT:
            return True
    return False


def _is_structured(errors: Tensors, truth: Tensors) -> bool:
    cosines = []
    for name, error in errors.items():
        norm = float(np.linalg.norm(error)) * float(np.linalg.norm(truth[name]))
        if error.size >= FEW and norm:
            cosines.append(abs(float(np.sum(error * truth[name]))) / norm)
    return bool(cosines) and float(np.median(cosines)) > _STRUCTURED
