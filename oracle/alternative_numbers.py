"""Numbers of an optimizer that may be others: they are found from a port's trajectory. No framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from oracle.alternatives import (
    CLIPS,
    FITTED_ELSEWHERE,
    PARTS,
    Alternative,
    Form,
    change,
    name_argument,
    wrap_inner,
)
from oracle.optimizer import Optimizer, Schedule


@dataclass(frozen=True)
class Family:
    """Alternatives that differ by a number, which is found from the port's trajectory.

    Args:
        make: the alternative of a number.
        starts: numbers to begin the search from.
        kind: whether the number is `positive`, a `part` below 1, or `any`.
        meant: the number that was meant, of a rate.
    """

    make: Callable[[float], Alternative]
    starts: tuple[float, ...]
    kind: str
    meant: float = 0.0


def list_families(optimizer: Optimizer) -> list[Family]:
    """Every number that may be another."""
    found = [*find_rate(optimizer)]
    whole = optimizer.whole()
    for name, meant in whole.items():
        if isinstance(meant, float) and name not in FITTED_ELSEWHERE:
            found += _find_argument(optimizer, name, meant)
    found += _find_decay(optimizer)
    found += _find_clip(optimizer)
    if optimizer.schedule is not None:
        for name, meant in optimizer.schedule.whole().items():
            if isinstance(meant, int | float) and not isinstance(meant, bool) and meant > 0:
                found.append(_find_schedule_number(optimizer, optimizer.schedule, name, float(meant)))
    if optimizer.inner is not None:
        for family in list_families(optimizer.inner):
            make = family.make

            def wrap(number: float, make: Any = make) -> Alternative:
                return wrap_inner(optimizer, make(number))

            if not make(family.starts[0]).forms:
                found.append(replace(family, make=wrap))
    return found


def find_rate(optimizer: Optimizer) -> Iterator[Family]:
    """The rate, or the factor of its schedule; none of what Lookahead wraps, nor where it is zero."""
    if optimizer.inner is not None:
        return
    if optimizer.schedule is not None:

        def scale(factor: float) -> Alternative:
            form = Form("rate", number=factor)
            return Alternative("C804", optimizer, (form,), numbers={"factor": factor}, cost=2)

        yield Family(scale, (1.5,), "any", 1.0)
        return
    meant = float(optimizer.whole()["learning_rate"])
    if not meant:
        return

    def set_rate(rate: float) -> Alternative:
        other = change(optimizer, learning_rate=rate)
        return Alternative("C804", other, numbers={"factor": rate / meant, "rate": rate})

    yield Family(set_rate, (1.5 * meant,), "any", meant)


def _find_argument(optimizer: Optimizer, name: str, meant: float) -> Iterator[Family]:
    def give(number: float) -> Alternative:
        return name_argument(optimizer, name, number, meant)

    if name in PARTS or name == "ema_momentum" or (name, optimizer.name) == ("decay", "tf1.RMSProp"):
        starts = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999)
        yield Family(give, starts, "part")
    elif name == "epsilon":
        yield Family(give, (*(10.0**-power for power in range(12, 0, -1)), 1.0, 0.0), "positive")
    elif meant < 0:
        yield Family(give, (0.9 * meant,), "any")
    else:
        yield Family(give, (meant or 1e-3, *(10.0**-power for power in range(4)), 0.0), "positive")


def _find_decay(optimizer: Optimizer) -> Iterator[Family]:
    whole = optimizer.whole()
    starts = (1e-4, 1e-2)

    if "weight_decay" in whole:
        meant = float(whole["weight_decay"] or 0.0)

        def decay(number: float) -> Alternative:
            setting = f"weight_decay is {number:.10g}, not {meant:.10g}"
            return Alternative("C808", change(optimizer, weight_decay=number), (), setting)

        yield Family(decay, (meant, *starts) if meant else starts, "any")
    else:

        def decouple(number: float) -> Alternative:
            setting = f"by {number:.10g} * p at each step, past the moments"
            return Alternative("C808", optimizer, (Form("decoupled", "", number),), setting, {}, 3)

        yield Family(decouple, starts, "any")

    def couple(number: float) -> Alternative:
        setting = f"by an L2 term with the gradient {number:.10g} * p, which the loss was not to have"
        return Alternative("C808", optimizer, (Form("coupled", "", number),), setting, {}, 2)

    yield Family(couple, starts, "any")


def _find_clip(optimizer: Optimizer) -> Iterator[Family]:
    whole = optimizer.whole()
    set_already = [name for name in CLIPS if whole.get(name) is not None]
    bare = change(optimizer, **dict.fromkeys(set_already)) if set_already else optimizer
    for name in CLIPS:
        meant = whole.get(name)

        def clip(number: float, name: str = name, meant: float | None = meant) -> Alternative:
            said = f"{name} is {number:.10g}"
            if meant is not None:
                said += f", not {meant:.10g}"
            elif not set_already:
                said += ", where none was meant"
            if name in whole:
                return Alternative("C812", change(bare, **{name: number}), (), said)
            return Alternative("C812", optimizer, (Form("clip", name, number),), said, {}, 2)

        yield Family(clip, (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4), "positive")


def _find_schedule_number(optimizer: Optimizer, schedule: Schedule, name: str, meant: float) -> Family:
    def give(number: float) -> Alternative:
        other = msgspec.structs.replace(schedule, arguments={**schedule.arguments, name: number})
        setting = f"{name} is {number:.10g}, not {meant:.10g}"
        return Alternative("C805", msgspec.structs.replace(optimizer, schedule=other), (), setting)

    return Family(give, (0.5 * meant, 2.0 * meant, 10.0 * meant), "positive")
