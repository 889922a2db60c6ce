"""The accounts of layers and seams: what was expected of each, and what the port has. NumPy only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from oracle.localisation import Check, Pass
from oracle.places import describe_places
from oracle.tolerance import largest

NOISE_FACTOR = 8.0
"""How many times the error that the precision makes by itself a port may err: where large terms cancel, as in
the gradients of Bahdanau's query layer, that is more than a part of the largest element."""


@dataclass
class _Account:
    input_agrees: bool = True
    output_agrees: bool = True
    error: float = 0.0
    where: str = ""


class Accounts:
    """Collects what is held to account by name and pass; several things of one name are one check.

    Args:
        bound: the largest error that is allowed, as a part of the largest element, unless the precision makes
            a larger one by itself.
        agrees: whether the value or the adjoint of a name is the oracle's.
    """

    def __init__(self, bound: float, agrees: Callable[[str], bool]) -> None:
        self._bound, self._agrees = bound, agrees
        self._accounts: dict[tuple[str, Pass], _Account] = {}

    def hold(
        self,
        name: str,
        direction: Pass,
        expected: np.ndarray,
        given: np.ndarray | None,
        *,
        noise: float,
        reads: Iterable[str],
        time: bool = True,
        first: int = 0,
        counts: np.ndarray | None = None,
    ) -> None:
        """Hold what the port has to what was expected.

        Args:
            name: of what is held to account.
            direction: in which pass.
            expected: [batch, time, width], or without time that of step `first`.
            given: the port's; None is as good as zeros, where zeros are expected.
            noise: the largest error that the port's precision makes in it by itself.
            reads: the names of what goes in.
            time: whether there are steps and rows to tell of.
            first: the step of `expected[:, 0]`.
            counts: [batch, time], zero for what does not count.
        """
        expected = np.asarray(expected, np.float64)
        array = np.zeros_like(expected) if given is None else np.asarray(given, np.float64)
        if array.shape != expected.shape:
            said = f"its shape is {list(array.shape)}, the oracle's {list(expected.shape)}"
            self._add(name, direction, float("inf"), said, wrong=True, reads=reads)
            return
        scale = max(largest(expected), largest(array[np.isfinite(array)]))
        gap = np.where(np.isfinite(array), np.abs(array - expected), np.inf)
        if counts is not None:
            gap = np.where(counts[..., None] > 0, gap, 0.0)
        wrong = gap > self._allow(scale, noise)
        where = describe_places(_by_step(wrong, first)) if time and wrong.any() else ""
        self._add(name, direction, _relative(gap, scale), where, wrong=bool(wrong.any()), reads=reads)

    def hold_sum(
        self,
        name: str,
        parts: Sequence[tuple[str, str, np.ndarray]],
        given: np.ndarray | None,
        *,
        noise: float,
    ) -> None:
        """Hold an adjoint to the sum of what comes back.

        If it is not that sum, it may be the sum without some of the parts: these are what is at fault. So
        hold the forward pass first.

        Args:
            name: of the value.
            parts: of everything that reads it: the name of the seam, what is read, and what comes back.
            given: the port's adjoint.
            noise: the largest error that the port's precision makes in it by itself.
        """
        arrays = [np.asarray(part, np.float64) for _, _, part in parts]
        total = np.sum(arrays, axis=0)
        array = np.zeros_like(total) if given is None else np.asarray(given, np.float64)
        if array.shape != total.shape:
            return
        scale = max([largest(part) for part in arrays] + [largest(array[np.isfinite(array)])])
        gap = np.where(np.isfinite(array), np.abs(array - total), np.inf)
        allowed = self._allow(scale, noise)
        wrong = gap > allowed
        guilty: Sequence[int] = ()
        if wrong.any():
            guilty = _find_missing(array, arrays, wrong, allowed)
            where = describe_places(_by_step(wrong, 0))
            # What is wrong forward has another derivative, too.
            guilty = guilty or [i for i, (seam, _, _) in enumerate(parts) if self._fails(seam)]
            readers = {into.rpartition("/")[0] for _, into, _ in parts}
            if not guilty and any(self._fails(one) or self._fails(one, "backward") for one in readers):
                return
            if not guilty:
                self._add(name, "backward", _relative(gap, scale), where, wrong=True, reads=())
                return
            for index in guilty:
                seam, into, _ = parts[index]
                reads = (f"gradient/step/{into}",)
                self._add(seam, "backward", _relative(gap, scale), where, wrong=True, reads=reads)
        for index, (seam, into, _) in enumerate(parts):
            if index not in guilty:
                error = 0.0 if wrong.any() else _relative(gap, scale)
                self._add(seam, "backward", error, "", wrong=False, reads=(f"gradient/step/{into}",))

    def list_checks(self, sites: Sequence[str]) -> list[Check]:
        """The checks in the order of the layers: what one reads, the layer, its weights, its adjoints."""

        def place(name: str) -> tuple[int, int]:
            if name in _BEFORE:
                return min([sites.index(site) for site in _BEFORE[name] if site in sites], default=0), 0
            for index, site in enumerate(sites):
                if name == site or name.startswith(f"{site}/"):
                    part = name[len(site) + 1 :]
                    return index, {"": 1, "weights": 2, "c": 3, "h": 3, "output": 3}.get(part, 0)
            return len(sites), 0

        names = sorted(dict.fromkeys(name for name, _ in self._accounts), key=place)
        return [
            Check(name, direction, one.input_agrees, one.output_agrees, one.error, one.where)
            for name in names
            for direction in ("forward", "backward")
            if (one := self._accounts.get((name, direction))) is not None
        ]

    def _allow(self, scale: float, noise: float) -> float:
        return max(self._bound * scale, NOISE_FACTOR * noise)

    def _fails(self, name: str, direction: Pass = "forward") -> bool:
        account = self._accounts.get((name, direction))
        return account is not None and not account.output_agrees

    def _add(
        self, name: str, direction: Pass, error: float, where: str, *, wrong: bool, reads: Iterable[str]
    ) -> None:
        account = self._accounts.setdefault((name, direction), _Account())
        account.input_agrees &= all(self._agrees(read) for read in reads)
        account.output_agrees &= not wrong
        if error >= account.error:
            account.error, account.where = error, where or account.where


_BEFORE = {
    "handoff": ("decoder/cell", "decoder/cells_0"),
    "memory": ("decoder/attention_mechanism",),
    "feeding": ("decoder/cells_0",),
}
"""The layers before which seams with names of their own belong."""


def _by_step(wrong: np.ndarray, first: int) -> np.ndarray:
    """[batch, time], from step 0 on."""
    by_step = wrong.any(axis=tuple(range(2, wrong.ndim))) if wrong.ndim > 2 else wrong.any(axis=1)[:, None]
    return np.pad(by_step, [(0, 0), (first, 0)])


def _relative(gap: np.ndarray, scale: float) -> float:
    worst = float(np.max(gap, initial=0.0))
    return worst / scale if scale else (0.0 if worst == 0 else float("inf"))


def _find_missing(
    array: np.ndarray, parts: Sequence[np.ndarray], wrong: np.ndarray, allowed: float
) -> tuple[int, ...]:
    """The fewest parts without which the sum is right wherever it is wrong; none if there are none."""
    if len(parts) == 1:
        return (0,)
    total = np.sum(parts, axis=0)
    for count in range(1, len(parts) + 1):
        for chosen in itertools.combinations(range(len(parts)), count):
            rest = total - np.sum([parts[index] for index in chosen], axis=0)
            if np.all(np.abs(array - rest)[wrong] <= allowed):
                return chosen
    return ()
