"""A contestant made ready in its process: what it does once, what that gives, and what the start cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracle.errors import OracleError
from oracle.record import Record

LEARNING_RATE, CLIP_NORM = 1e-3, 1.0
"""Of Adam in the job `training`. The translator clips the gradients' common norm, as its port does."""


class AbsentError(OracleError):
    """A contestant that this machine, these versions or this case have not."""


@dataclass(frozen=True)
class Prepared:
    """A contestant that has done its job once.

    Args:
        step: does it once more, and returns when it is done.
        result: what it gives, `loss` and `gradient/<leaf>`, or `ids` of a beam search; computed anew.
        first: seconds from nothing to the end of the first step, without imports and data.
        trace: the part of it that went to tracing or building the graph, where the framework tells.
        compile: the part that went to the compiler, where the framework tells it apart from running.
        moved: of the job `training`, the leaves after the first step of the optimizer.
        epsilon: of that job, Adam's.
        clip: of that job, the norm that the gradients are clipped to.
        program: what was compiled, as text, where it can be had.
        record: of a live port, where its result is from, and what it was computed on.
    """

    step: Callable[[], Any]
    result: Callable[[], Mapping[str, np.ndarray | None]]
    first: float
    trace: float | None = None
    compile: float | None = None
    moved: Mapping[str, np.ndarray] = field(default_factory=dict)
    epsilon: float = 1e-7
    clip: float | None = None
    program: Callable[[], str] | None = None
    record: Record | None = None


class Clock:
    """Seconds since it was made, and between laps."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before

    def total(self) -> float:
        """Seconds from the start to the last lap."""
        return self._last - self._start
