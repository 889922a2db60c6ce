"""Who is wrong: the port's model, the port's gradient, or the oracle. Pure NumPy.

Each side is heard by itself: the gradient that it gives against the slopes of the loss that it computes
(`oracle.witness`), along directions that both sides take alike. Then one of three things holds: the losses
differ, so the port computes another model; the losses agree and the port's gradient is not the derivative of
its own; or the oracle's is not the derivative of its own, which is a defect of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from oracle.tolerance import FLOAT64_BOUND
from oracle.witness import (
    ROUNDING,
    Arrays,
    Loss,
    Order,
    Testimony,
    claim_slope,
    draw_signs,
    measure_noise,
    measure_order,
    measure_slope,
)

WitnessWhen = Literal["always", "on-finding", "never"]
"""When the witness is asked who is wrong."""

Gradients = Mapping[str, np.ndarray | None]
"""Gradients by the names of what they are by: `encoder/cell/kernel`, `batch/source`."""

Kind = Literal["signs", "difference", "element"]
"""How a direction was chosen: signs drawn at random, the difference of the two gradients, or the element in
which they differ most."""

Verdict = Literal["forward", "autodiff", "both", "reference", "oracle", "precision", "consistent", "unknown"]
"""Who is wrong.

- `forward`: the two compute different losses; the port's gradient is right for what it computes.
- `autodiff`: they compute the same loss, and the port's gradient is not its derivative.
- `both`: the losses differ, and the port's gradient is not the derivative of its own loss either.
- `reference`: the gradient of a reference that the user wrote is not the derivative of its own loss.
- `oracle`: the oracle's gradient is not the derivative of its own loss: a defect of ours.
- `precision`: in float64 all agrees; what differs is precision.
- `consistent`: both gradients are the derivatives of the same loss, as far as the witness can see.
- `unknown`: the witness cannot say.
"""

FAULTS: tuple[Verdict, ...] = ("forward", "autodiff", "both", "reference", "oracle")
"""The verdicts that name somebody who is wrong."""

DEFECT = "this is a defect of gradient-oracle, please report it; the comparison says nothing of the port"
"""What is said of an oracle that is inconsistent."""

WHOLE = 3
"""How many directions move everything at once."""

CLOSER_LOOKS = 8
"""For how many of the tensors that differ the directions of the difference are taken."""


@dataclass(frozen=True)
class Direction:
    """A direction that both sides are asked about; its largest element is 1 in absolute value.

    Args:
        name: what it moves, or `all`.
        kind: how it was chosen.
        arrays: the direction.
    """

    name: str
    kind: Kind
    arrays: dict[str, np.ndarray]


class Hearing(msgspec.Struct, frozen=True):
    """What one side's loss says, along each direction in order.

    Args:
        loss: the loss at the point.
        again: the loss at the point, computed a second time.
        noise: the deviation of its rounding.
        testimonies: one a direction.
        forward: on the oracle's side, the slopes by forward mode; None on the port's.
    """

    loss: float
    again: float
    noise: float
    testimonies: tuple[Testimony, ...]
    forward: tuple[float, ...] | None = None


class Heard(msgspec.Struct, frozen=True):
    """What both sides say of one direction.

    Args:
        name: what was moved, or `all`.
        kind: how the direction was chosen.
        port: of the port's gradient and loss.
        oracle: of the oracle's.
        forward: the oracle's slope by forward mode.
        wobble: what the oracle's two modes may differ by.
    """

    name: str
    kind: Kind
    port: Testimony
    oracle: Testimony
    forward: float | None = None
    wobble: float = 0.0

    @property
    def losses_differ(self) -> bool:
        """Whether the two losses have different slopes."""
        apart = abs(self.port.slope.value - self.oracle.slope.value)
        return apart > self.port.slope.bound + self.oracle.slope.bound

    @property
    def claims_differ(self) -> bool:
        """Whether the two gradients claim different slopes, and the differences are fine enough to tell."""
        if np.isnan(self.port.claim):
            return True
        return abs(self.port.claim - self.oracle.claim) > self.port.bound + self.oracle.bound

    @property
    def oracle_is_wrong(self) -> bool:
        """Whether the oracle's gradient is not the derivative of its loss, by differences or forward mode."""
        return self.modes_differ or self.oracle.is_proven_wrong

    @property
    def modes_differ(self) -> bool:
        """Whether the oracle's forward mode and its reverse mode give different slopes."""
        return self.forward is not None and not abs(self.forward - self.oracle.claim) <= self.wobble

    @property
    def is_shared(self) -> bool:
        """Whether what is wrong with the oracle's gradient is so with the port's: a quirk, meant to be."""
        return self.port.is_proven_wrong and not self.claims_differ


class Judgement(msgspec.Struct, frozen=True):
    """What the witness says of a comparison.

    Args:
        verdict: who is wrong.
        lines: the same for people: what was found, in one or two sentences.
        seed: of the directions.
        port_loss: the port's loss, as the witness had it.
        oracle_loss: the oracle's.
        heard: every direction, with both sides' testimonies.
    """

    verdict: Verdict
    lines: tuple[str, ...]
    seed: int
    port_loss: float | None = None
    oracle_loss: float | None = None
    heard: tuple[Heard, ...] = ()


def choose_directions(
    port: Gradients, oracle: Mapping[str, np.ndarray], *, seed: int, whole: int = WHOLE
) -> list[Direction]:
    """The directions for two gradients: the same on both sides, since nothing else enters.

    Args:
        port: the port's gradients; None where it gives none.
        oracle: the oracle's, of the same names: everything that is moved.
        seed: of the signs.
        whole: how many directions move everything at once.
    """
    chosen = [Direction("all", "signs", draw_signs(oracle, [seed, number])) for number in range(whole)]
    for name in sorted(oracle):
        chosen.append(Direction(name, "signs", draw_signs({name: oracle[name]}, [seed, whole])))
    differing = []
    for name, truth in sorted(oracle.items()):
        difference = settle(port.get(name), truth) - truth
        # Where the port has no number, its claim is wrong wherever one looks: look along the truth.
        difference = np.where(np.isfinite(difference), difference, truth)
        apart = float(np.abs(difference).max(initial=0.0))
        size = float(np.abs(truth).max(initial=0.0))
        if apart > FLOAT64_BOUND * size:
            differing.append((apart / (size or apart), name, difference / apart))
    for _, name, difference in sorted(differing, key=lambda found: -found[0])[:CLOSER_LOOKS]:
        worst = np.zeros_like(difference)
        place = np.unravel_index(int(np.abs(difference).argmax()), difference.shape)
        worst[place] = 1.0
        chosen.append(Direction(name, "difference", {name: difference}))
        chosen.append(Direction(name, "element", {name: worst}))
    return chosen


def settle(gradient: np.ndarray | None, truth: np.ndarray) -> np.ndarray:
    """A port's gradient as a claim: None says zero; one of another shape says nothing, which is NaN."""
    if gradient is None:
        return np.zeros_like(truth)
    if gradient.shape != truth.shape:
        return np.full_like(truth, np.nan)
    return gradient.astype(np.float64)


def hear(
    loss: Loss,
    point: Arrays,
    gradients: Arrays,
    directions: Sequence[Direction],
    *,
    forward_mode: Callable[[Arrays], float] | None = None,
) -> Hearing:
    """Hear one side: its gradients against the slopes of its own loss, along every direction.

    Args:
        loss: the side's loss in float64.
        point: the weights, and what else is moved.
        gradients: what the side says its gradients are, all of `point`'s shapes.
        directions: as `choose_directions` gives them.
        forward_mode: where the side has one, the slope along a direction by forward mode.
    """
    value, again = float(loss(point)), float(loss(point))
    noise = measure_noise(loss, point, directions[0].arrays)
    testimonies = []
    for direction in directions:
        seen: dict[float, float] = {}
        slope = measure_slope(loss, point, direction.arrays, noise=noise, centre=value, seen=seen)
        claim, lost = claim_slope(gradients, direction.arrays)
        found = Testimony(direction.name, claim, slope, Order(None, 0), slope.bound + lost)
        if found.deviates and not np.isnan(claim):
            order = measure_order(loss, point, direction.arrays, slope=claim, noise=noise, seen=seen)
            found = msgspec.structs.replace(found, order=order)
        testimonies.append(found)
    forward = (
        None if forward_mode is None else tuple(forward_mode(direction.arrays) for direction in directions)
    )
    return Hearing(value, again, noise, tuple(testimonies), forward)


def judge(
    directions: Sequence[Direction],
    port: Hearing,
    oracle: Hearing,
    *,
    seed: int,
    oracle_gradients: Arrays,
    forward_findings: Sequence[str] = (),
    other_findings: Sequence[str] = (),
    recorded_loss: float | None = None,
    oracle_loss: float | None = None,
    own_reference: bool = False,
) -> Judgement:
    """Say who is wrong.

    Args:
        directions: what both were asked about.
        port: what the port's loss said.
        oracle: what the oracle's said.
        seed: of the directions.
        oracle_gradients: the oracle's gradients, by which its two modes are held together.
        forward_findings: outputs, states or the loss in which the comparison found the two to differ.
        other_findings: what else it found: gradients.
        recorded_loss: the port's loss in its record, which the witness must have had too.
        oracle_loss: the oracle's loss in its record, which came by the fast path; what was heard is the plain
            one's. Without it they are not held together.
        own_reference: whether the oracle's loss is the user's own code, whose faults are not ours.
    """
    heard = []
    forward = oracle.forward or (None,) * len(directions)
    for direction, ours, theirs, slope in zip(
        directions, port.testimonies, oracle.testimonies, forward, strict=True
    ):
        _, lost = claim_slope(oracle_gradients, direction.arrays)
        wobble = lost / ROUNDING * FLOAT64_BOUND
        heard.append(Heard(direction.name, direction.kind, ours, theirs, slope, wobble))
    if faults := _find_oracle_faults(heard):
        verdict, lines = _accuse_oracle(_telling(faults), own_reference=own_reference)
    elif oracle_loss is not None and not _is_one_loss(oracle.loss, oracle_loss):
        said = f"its record's loss is {oracle_loss:.9g}, by the plain path {oracle.loss:.9g}"
        verdict, lines = "oracle", (f"THE ORACLE IS INCONSISTENT: {said}", DEFECT)
    else:
        verdict, lines = _decide(port, oracle, heard, forward_findings, other_findings, recorded_loss)
    return Judgement(verdict, lines, seed, port.loss, oracle.loss, tuple(heard))


def _decide(
    port: Hearing,
    oracle: Hearing,
    heard: Sequence[Heard],
    forward_findings: Sequence[str],
    other_findings: Sequence[str],
    recorded_loss: float | None,
) -> tuple[Verdict, tuple[str, ...]]:
    if not _is_near(port.loss, port.again):
        return "unknown", (
            f"cannot say who is wrong: the port's loss is another at every call ({port.loss:.9g}, then "
            f"{port.again:.9g}); fix its seeds, or its dropout",
        )
    if recorded_loss is not None and not _is_near(port.loss, recorded_loss):
        return "unknown", (
            f"cannot say who is wrong: called again, the port's loss is {port.loss:.9g}, and the record has "
            f"{recorded_loss:.9g}",
        )
    apart = [h for h in heard if h.losses_differ]
    losses_differ = not _is_near(port.loss, oracle.loss)
    cut = [h for h in heard if h.port.is_proven_wrong and not h.is_shared]
    if forward_findings or losses_differ or apart:
        found = _describe_forward(port, oracle, forward_findings, apart, losses_differ=losses_differ)
        if cut:
            return "both", (found, "Besides, " + _describe_cut(_telling(cut)))
        return "forward", (f"{found}; the port's gradients are right for what it computes",)
    if cut:
        first = f"the two compute the same loss, {port.loss:.9g}, and {_describe_cut(_telling(cut))}"
        return "autodiff", (first, "it is cut, or customised, between there and the loss")
    return _decide_without_fault(heard, other_findings)


def _decide_without_fault(
    heard: Sequence[Heard], other_findings: Sequence[str]
) -> tuple[Verdict, tuple[str, ...]]:
    shared = [h for h in heard if h.is_shared]
    quirk = "; where neither is the derivative of the loss, both are alike: a quirk of TensorFlow's"
    note = f"{quirk} (docs/quirks.md)" if shared else ""
    moved = {h.name for h in heard}
    if not other_findings:
        return "consistent", (f"both gradients are the derivatives of one loss{note}",)
    if not any(name.removeprefix("gradient/") in moved for name in other_findings):
        return "consistent", (
            f"both gradients are the derivatives of one loss{note}; what differs, {other_findings[0]}, is of "
            "an inner tensor, which the witness cannot move",
        )
    kinks = sorted({h.name for h in heard if h.port.slope.jump or h.oracle.slope.jump})
    if kinks:
        return "unknown", (f"cannot say who is wrong: the loss has a kink where it is, along {kinks[0]}",)
    coarse = max((h for h in heard if h.kind != "signs"), key=lambda h: h.port.bound, default=None)
    what = "" if coarse is None else f" ({coarse.port.bound:.1g} along {coarse.name})"
    return "unknown", (
        f"cannot say who is wrong: the gradients differ by less than differences of the loss can tell{what}",
    )


def _telling(heard: Sequence[Heard]) -> Heard:
    """The direction that says most: of one weight, and of a difference rather than of signs."""
    ranks = {"difference": 0, "element": 1, "signs": 2}
    return min(heard, key=lambda h: (h.name == "all", h.name.startswith("batch/"), ranks[h.kind]))


def _find_oracle_faults(heard: Sequence[Heard]) -> list[Heard]:
    """Where the oracle is wrong by itself.

    A quirk of TensorFlow's that both share shows in some tensor as the same wrong slope. Where the port is
    cut besides, both are wrong and not alike, which is still no defect of the oracle's.
    """
    quirk = any(h.is_shared for h in heard)
    return [
        h
        for h in heard
        if h.oracle_is_wrong
        and not h.is_shared
        and (h.modes_differ or not (quirk and h.port.is_proven_wrong))
    ]


def _accuse_oracle(fault: Heard, *, own_reference: bool) -> tuple[Verdict, tuple[str, ...]]:
    forward = "" if fault.forward is None else f", forward mode {fault.forward:.9g}"
    slopes = (
        f"along {fault.name}: its loss has the slope {fault.oracle.slope.value:.9g}{forward}, its gradient "
        f"{fault.oracle.claim:.9g}"
    )
    if own_reference:
        return "reference", (
            f"your reference's gradient is not the derivative of its own loss {slopes}",
            "look for stop_gradient, custom_vjp or custom_jvp in it; the comparison says nothing of the port",
        )
    return "oracle", (
        f"THE ORACLE IS INCONSISTENT {slopes}",
        DEFECT,
    )


def _describe_forward(
    port: Hearing,
    oracle: Hearing,
    findings: Sequence[str],
    apart: Sequence[Heard],
    *,
    losses_differ: bool,
) -> str:
    where = f", first in {findings[0]}" if findings else ""
    if losses_differ:
        return (
            f"the forward passes differ{where}: the port's loss is {port.loss:.9g}, the oracle's "
            f"{oracle.loss:.9g}"
        )
    if apart:
        most = _telling(apart)
        return (
            f"the forward passes differ{where}: the losses are equal here and change differently along "
            f"{most.name}, by {most.port.slope.value:.9g} and {most.oracle.slope.value:.9g}"
        )
    return f"the forward passes differ{where}, though the losses are equal"


def _describe_cut(cut: Heard) -> str:
    claim = "is not finite" if np.isnan(cut.port.claim) else f"says {cut.port.claim:.9g}"
    return (
        f"the port's gradient is not the derivative of its own: along {cut.name} its loss has the slope "
        f"{cut.port.slope.value:.9g}, its gradient {claim}"
    )


def _is_one_loss(first: float, second: float) -> bool:
    """Whether the oracle's two paths give one loss: it may be a small difference of numbers of size 1."""
    return abs(first - second) <= 1e-9 * max(abs(first), abs(second), 1e-3)


def _is_near(first: float, second: float) -> bool:
    return abs(first - second) <= FLOAT64_BOUND * max(abs(first), abs(second))
