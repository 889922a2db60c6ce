"""Loops in segments, whose insides the derivative computes a second time instead of keeping them.

A loop of T steps keeps what its derivative needs of every step. Cut into segments of about sqrt(T) steps, it
keeps the states between them, and computes the steps of one segment again when the derivative comes by: the
memory grows with sqrt(T), for one forward pass more. Source: Chen et al. (2016), "Training Deep Nets with
Sublinear Memory Cost", section 4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

SHARE = 0.5
"""The share of the device's memory that may be kept before a loop is cut into segments."""


@dataclass(frozen=True)
class Rematerialisation:
    """Whether loops are cut into segments.

    Args:
        segment: the steps of a segment; None for loops in one piece.
        kept_bytes: the estimate of what the loops keep in one piece.
        limit_bytes: what may be kept.
    """

    segment: int | None
    kept_bytes: int
    limit_bytes: int

    def describe(self) -> str:
        """Say in a few words what is chosen, and why."""
        kept = f"{_in_mebibytes(self.kept_bytes)} of {_in_mebibytes(self.limit_bytes)}"
        if self.segment is None:
            return f"none (about {kept})"
        return f"segments of {self.segment} steps (in one piece about {kept})"


def choose_rematerialisation(
    kept_bytes: int, steps: int, *, limit_bytes: int | None = None
) -> Rematerialisation:
    """Cut loops into segments of about sqrt(steps) if in one piece they would keep too much.

    Args:
        kept_bytes: the estimate of what they keep in one piece, as of `estimate_loop`.
        steps: of the longest loop.
        limit_bytes: what may be kept; by default `SHARE` of the device's memory.
    """
    if limit_bytes is None:
        limit_bytes = int(SHARE * find_memory())
    segment = max(1, math.isqrt(steps)) if kept_bytes > limit_bytes else None
    return Rematerialisation(segment, kept_bytes, limit_bytes)


def estimate_loop(gates: int, time: int, batch: int, units: int, *, itemsize: int) -> int:
    """The bytes that a loop over a cell holds at once, in one piece: at the height of its derivative.

    They are, for each gate, the parts' adjoints beside the gate itself, and c, h and the adjoint of h.
    """
    return (2 * gates + 3) * time * batch * units * itemsize


def find_memory() -> int:
    """The bytes of memory of the device that JAX computes on; of a CPU, those the process may use."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and statistics.get("bytes_limit"):
        return int(statistics["bytes_limit"])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup/memory.max")
    try:
        allowed = group.read_text().strip()
    except OSError:
        return total
    return min(total, int(allowed)) if allowed.isdigit() else total


def run_segments(
    run: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    sequences: Any,
    *,
    segment: int | None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`run(state, sequences)`, segment by segment.

    Args:
        run: steps over sequences [time, ...]; returns the state and outputs [time, ...].
        state: what is handed from step to step.
        sequences: a pytree of arrays [time, ...].
        segment: the steps of a segment; the last is shorter if they do not divide the time. None for one
            piece, which is not computed again.
        reverse: whether `run` begins with the last step.

    Returns:
        The state after the last step and the outputs, as of `run`.
    """
    time = jax.tree.leaves(sequences)[0].shape[0]
    if segment is None or segment >= time:
        return run(state, sequences)
    count, whole = time // segment, time - time % segment
    pieces = jax.tree.map(lambda x: x[:whole].reshape(count, segment, *x.shape[1:]), sequences)
    rest = jax.tree.map(lambda x: x[whole:], sequences)

    def run_pieces(state: Any) -> tuple[Any, Any]:
        # Within a scan the compiler cannot merge the second computation with the first.
        again = jax.checkpoint(run, prevent_cse=False)
        state, outputs = jax.lax.scan(again, state, pieces, reverse=reverse)
        return state, jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), outputs)

    if whole == time:
        return run_pieces(state)
    if reverse:
        state, last = jax.checkpoint(run)(state, rest)
        state, outputs = run_pieces(state)
    else:
        state, outputs = run_pieces(state)
        state, last = jax.checkpoint(run)(state, rest)
    return state, jax.tree.map(lambda a, b: jax.numpy.concatenate([a, b]), outputs, last)


def _in_mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**20:.2g} MiB"
