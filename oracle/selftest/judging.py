"""Whether what was said of a fault is right: its cause, and its place. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from oracle.selftest.fault import Fault, edit_source
from oracle.selftest.places import find_places
from oracle.selftest.results import FaultResult
from oracle.selftest.subjects import find_subject

PRECISION = "precision"
"""What stands among the expected causes of a rounding; it is also the explanation's kind."""


def digest_fault(fault: Fault) -> str:
    """What tells a fault's edited source from another's.

    Raises:
        FaultError: if the fault no longer fits its port.
    """
    return hashlib.sha256(edit_source(fault).encode()).hexdigest()[:16]


def is_named(fault: Fault, kind: str | None, codes: Sequence[str]) -> bool:
    """Whether the cause named first is the fault's; where none describes it, whether none is claimed.

    Args:
        fault: the fault.
        kind: of the explanation.
        codes: of the causes that it names first, none if it is unexplained.
    """
    if PRECISION in fault.causes:
        return kind == PRECISION
    if kind != "explained":
        return not fault.causes and kind == "unexplained"
    if fault.together:
        return set(codes) == set(fault.causes)
    return len(codes) == 1 and codes[0] in fault.causes


def is_located(fault: Fault, subject: str, located: Sequence[str]) -> bool:
    """Whether one of the places that were named is where the fault is.

    Args:
        fault: the fault.
        subject: in what it is seeded, by name.
        located: layers, seams and tensors.
    """
    places = find_places(fault.places, find_subject(subject).spec)
    return any(_lies(place, expected) for place in located for expected in places)


def judge_anew(result: FaultResult, fault: Fault) -> FaultResult:
    """A result under what is expected of its fault now."""
    asked = result.kind is not None
    return msgspec.structs.replace(
        result,
        family=fault.family,
        expected=fault.causes,
        together=fault.together,
        number=fault.number,
        hides_in_float32=fault.hides_in_float32,
        cause_right=is_named(fault, result.kind, result.codes) if asked else None,
        place_right=is_located(fault, result.subject, result.located) if asked else None,
        hides_place=fault.hides_place,
    )


def _lies(place: str, expected: str) -> bool:
    """Whether a layer or a tensor is what is expected, or lies under it.

    Without a run step by step, which a v1 graph has not, the nearest that can be said of a cell is the output
    of its loop.
    """
    bare = place.removeprefix("gradient/").removeprefix("step/")
    scope = bare.removeprefix("output/")
    if scope != bare and expected in (scope, f"{scope}/cell"):
        return True
    return any(path == expected or path.startswith(f"{expected}/") for path in (place, bare))
