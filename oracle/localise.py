"""Where a port leaves the oracle: the first place forward, and the first backward. NumPy only.

Of records with `step/...` tensors (`oracle.run_tf.trace_port`, `oracle.run_jax.trace_oracle`) that is a
layer, a time step, a row and a unit. Of ordinary records it is as near as their tensors allow: outputs and
the adjoints of the inputs have a time axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from oracle.bridge.mirror.spec import MirrorSpec
from oracle.bridge.sites import find_sites
from oracle.case import Case
from oracle.localisation import Check, HeatMap, Localisation, Pass, Place
from oracle.place_lines import describe_localisation
from oracle.places import (
    FLOAT32_STEP_FACTOR,
    FLOAT32_WEIGHT_FACTOR,
    bound_of,
    count_real,
    describe_places,
    find_lengths,
)
from oracle.record import Record
from oracle.spec import Spec
from oracle.tolerance import FLOAT64_BOUND, float32_tolerance, largest

PARTS = ("memory", "input", "state_c", "state_h", "c", "h", "query", "alignments", "output")
"""What is recorded of a layer at a step, in the order of its computation."""


def localise(
    port: Record,
    oracle: Record,
    *,
    case: Case,
    checks: Sequence[Check] = (),
    yardstick: Sequence[Record] = (),
) -> Localisation:
    """Find where a port leaves the oracle.

    Args:
        port: the port's record, with or without its steps. Of one that raised, nothing is found.
        oracle: the oracle's, in float64.
        case: what both are of, for the rows' lengths.
        checks: of the layers by themselves (`oracle.steps.layers.check_layers`).
        yardstick: for a float32 port, the oracle's records in float32. A tensor that none of them has may
            err as `oracle.places.bound_of` says.

    Returns:
        What was found; of a port that is right, nothing but a line that says so.
    """
    if port.failure is not None:
        line = f"the port raised {port.failure.type}, so that there is nothing to localise"
        return Localisation((line,))
    differences = [
        _Difference(name, port, truth, case, _allow(name, truth, port, yardstick))
        for name, truth in oracle.tensors.items()
        if truth is not None and _is_told(name, port, oracle)
    ]
    sites = _list_sites(case.spec)
    places, maps = {}, []
    passes: tuple[Pass, Pass] = ("forward", "backward")
    for direction in passes:
        ours = [one for one in differences if one.direction == direction]
        places[direction] = _find_first(ours, sites)
        if places[direction] is not None:
            maps.append(_draw_map(direction, ours, sites))
    lost = dict.fromkeys(one.layer for one in differences if one.is_lost)
    lines = describe_localisation(
        places["forward"], places["backward"], checks, lost=tuple(lost), has_steps=_has_steps(port)
    )
    return Localisation(lines, places["forward"], places["backward"], tuple(checks), tuple(maps))


@dataclass(frozen=True)
class _Difference:
    """One tensor of both sides. `allowed` is the largest error that is none, in absolute terms."""

    name: str
    port: Record
    truth: np.ndarray
    case: Case
    allowed: float

    @property
    def direction(self) -> Pass:
        return "backward" if self.name.startswith("gradient/") else "forward"

    @property
    def is_step(self) -> bool:
        return self.name.startswith(("step/", "gradient/step/"))

    @property
    def layer(self) -> str:
        local = self.name.removeprefix("gradient/").removeprefix("step/")
        if self.is_step or (self.direction == "backward" and not local.startswith(_INPUTS)):
            return local.rpartition("/")[0]
        return local

    @property
    def has_time(self) -> bool:
        timed = self.is_step or self.name.startswith(("output/", *(f"gradient/{name}" for name in _TIMED)))
        return timed and self.truth.ndim > 1

    @property
    def given(self) -> np.ndarray | None:
        return self.port.tensors.get(self.name)

    @property
    def is_lost(self) -> bool:
        """Whether it is a layer's adjoint or a weight's gradient that is None and should not be."""
        is_layers = self.is_step or self.layer != self.name.removeprefix("gradient/")
        is_none = self.name in self.port.tensors and self.given is None
        return self.direction == "backward" and is_layers and is_none and bool(self.truth.any())

    @cached_property
    def gap(self) -> np.ndarray:
        """The error of every element, of the oracle's shape; infinite where the port has no number."""
        given = self.given
        if given is None:
            return np.where(self.truth == 0, 0.0, np.inf)
        padded = _pad(given, self.truth.shape)
        if padded is None:
            return np.full(self.truth.shape, np.inf)
        # A port's decoder may end with its longest row; what the oracle has beyond is then zero.
        error = np.where(np.isfinite(padded), np.abs(padded - self.truth), np.inf)
        return np.where(count_real(self.case.spec, self.case.batch, self.name, error.shape), error, 0.0)

    @cached_property
    def wrong(self) -> np.ndarray:
        return self.gap > self.allowed


_INPUTS = ("batch/", "state/", "embedded/")
"""What has an adjoint in an ordinary record that is no weight."""

_TIMED = ("batch/source", "batch/target", "embedded/")


def _is_told(name: str, port: Record, oracle: Record) -> bool:
    """Whether a tensor is compared: steps only if the port has any; of others, what the port has."""
    if name.startswith(("step/", "gradient/step/")):
        return _has_steps(port)
    return name in port.tensors and name in oracle.tensors


def _has_steps(record: Record) -> bool:
    return any(name.startswith("step/") for name in record.tensors)


def _allow(name: str, truth: np.ndarray, port: Record, yardstick: Sequence[Record]) -> float:
    runs = [run.tensors.get(name) for run in yardstick]
    known = [run for run in runs if run is not None]
    if known:
        tolerance = float32_tolerance(truth, known)
        return tolerance.factor * tolerance.max_unit
    bound = bound_of(port.tensors)
    of_weights = name.startswith("gradient/") and not name[len("gradient/") :].startswith(("step/", *_INPUTS))
    if of_weights and bound > FLOAT64_BOUND:
        bound *= FLOAT32_WEIGHT_FACTOR / FLOAT32_STEP_FACTOR
    return bound * largest(truth)


def _list_sites(spec: Spec) -> list[str]:
    return [] if isinstance(spec, MirrorSpec) else [site.path for site in find_sites(spec, "keras")]


def _find_first(differences: Sequence[_Difference], sites: Sequence[str]) -> Place | None:
    """The first wrong element in the order of the pass."""
    best: tuple[tuple[float, ...], _Difference, tuple[int, ...]] | None = None
    for number, one in enumerate(differences):
        if not one.wrong.any():
            continue
        at = _first_element(one)
        key = _place_key(one, at, number, sites)
        if best is None or key < best[0]:
            best = key, one, at
    if best is None:
        return None
    _, one, at = best
    rows_and_time = one.has_time, one.truth.ndim > 0 and (one.has_time or "state/" in one.name)
    step = at[1] if rows_and_time[0] else None
    row = at[0] if rows_and_time[1] else None
    unit = at[2:] if one.has_time else at[1:] if row is not None else at
    given = None if one.given is None else _pad(one.given, one.truth.shape)
    value = None if given is None else float(given[at])
    return Place(
        one.direction, one.name, one.layer, step, row, unit, value, float(one.truth[at]), _note(one, at)
    )


def _first_element(one: _Difference) -> tuple[int, ...]:
    """The first wrong element: the earliest step forward, the last backward; then the first row, and unit."""
    places = np.argwhere(one.wrong)
    if one.has_time:
        steps = places[:, 1]
        places = places[steps == (steps.max() if one.direction == "backward" else steps.min())]
    return tuple(int(axis) for axis in places[0])


def _place_key(one: _Difference, at: tuple[int, ...], number: int, sites: Sequence[str]) -> tuple[float, ...]:
    """The order of computation: loop by loop, within a loop step by step, within a step layer by layer."""
    if not one.is_step or one.layer not in sites:
        return (1e6, number)
    part = PARTS.index(one.name.rpartition("/")[2])
    index, step = sites.index(one.layer), at[1]
    looped = [site for site in sites if site.startswith("decoder/") and not site.endswith("/embedding")]
    loop = index
    if one.layer in looped:
        # The memory is there before the loop.
        loop = sites.index(looped[0]) - 0.5 * (PARTS[part] == "memory")
        step = 0 if PARTS[part] == "memory" else step
    key = (loop, step, index, part)
    return key if one.direction == "forward" else tuple(-order for order in key)


def _note(one: _Difference, at: tuple[int, ...]) -> str:
    """What is special about a place."""
    if one.given is None and one.name in one.port.tensors:
        return "the port's gradient is None: nothing connects it to the loss"
    if one.given is None:
        return "the port's record does not have it: the layer was not called, or is another"
    if _pad(one.given, one.truth.shape) is None:
        return f"the port's shape is {list(one.given.shape)}, the oracle's {list(one.truth.shape)}"
    if not one.given.any():
        return "every element of the port's is zero"
    notes, batch = [], one.case.batch
    lengths = find_lengths(one.case.spec, batch, one.name) if one.has_time else None
    if lengths is not None:
        by_step = one.wrong.any(axis=tuple(range(2, one.wrong.ndim)))
        row, step = at[0], at[1]
        where = describe_places(by_step, lengths=lengths)
        if where.startswith("steps >= length"):
            notes.append(f"differs only at {where}")
        elif step >= lengths[row]:
            notes.append(f"past the row's end (length {int(lengths[row])})")
    if one.name.endswith("alignments") and "source_length" in batch:
        length = int(batch["source_length"][at[0]])
        if at[2] >= length:
            notes.append(f"a padded column of the memory (length {length})")
        padded = np.arange(one.wrong.shape[2]) >= np.asarray(batch["source_length"])[:, None]
        if padded.any() and _is_positive(one.given, padded):
            notes.append("the port attends to padding")
    return "; ".join(notes)


def _is_positive(alignments: np.ndarray, padded: np.ndarray) -> bool:
    return bool((np.abs(alignments).max(axis=1) * padded[:, : alignments.shape[2]]).any())


def _pad(given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The port's tensor in the oracle's shape, which may have more steps; None if it is of another."""
    if given.shape == shape:
        return given.astype(np.float64)
    is_shorter = given.ndim == len(shape) > 1 and given.shape[1] < shape[1]
    if not is_shorter or given.shape[:1] + given.shape[2:] != shape[:1] + shape[2:]:
        return None
    width = [(0, 0), (0, shape[1] - given.shape[1])] + [(0, 0)] * (given.ndim - 2)
    return np.pad(given.astype(np.float64), width)


def _draw_map(direction: Pass, differences: Sequence[_Difference], sites: Sequence[str]) -> HeatMap:
    """The largest error of each layer at each step; of ordinary records, of each tensor with a time axis."""
    timed = [one for one in differences if one.has_time]
    if any(one.is_step for one in timed):
        timed = [one for one in timed if one.is_step]
        timed.sort(key=lambda one: (sites.index(one.layer), not one.name.endswith("/memory")))
    rows: dict[str, list[np.ndarray]] = {}
    for one in timed:
        row = f"{one.layer}/memory" if one.name.endswith("/memory") else one.layer
        scale = largest(one.truth)
        gap = one.gap.max(axis=(0, *range(2, one.gap.ndim)), initial=0.0)
        rows.setdefault(row, []).append(gap / scale if scale else np.where(gap > 0, np.inf, 0.0))
    width = max((len(errors[0]) for errors in rows.values()), default=0)
    lines = []
    for errors in rows.values():
        worst = np.max(errors, axis=0)
        lines.append((*map(float, worst), *[None] * (width - len(worst))))
    return HeatMap(direction, tuple(rows), tuple(lines))
