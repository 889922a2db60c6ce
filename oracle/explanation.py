"""Why a port is not the oracle: what `oracle.explain` finds, and every report shows. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["explained", "precision", "unexplained"]
"""Whether a cause, or a pair of them, makes the oracle give the port's numbers; or the port's errors are
those of a coarser dtype; or nothing in the catalogue does."""


class Candidate(msgspec.Struct, frozen=True):
    """A cause, or a pair of them, and how near the oracle comes to the port under it.

    Args:
        codes: of the causes, `C101`.
        sentence: what the port does, for people: `the decoder starts from zeros`.
        remedy: what to do about it, in TensorFlow's terms.
        distance: the largest error that is left in any tensor, as a part of the tensor's largest element;
            infinite if a tensor cannot be compared.
        matching: how many tensors agree under it.
        total: of how many.
        settings: numbers that were found from the port's, by name: `scale`.
    """

    codes: tuple[str, ...]
    sentence: str
    remedy: str
    distance: float
    matching: int
    total: int
    settings: dict[str, float] = {}


class Explanation(msgspec.Struct, frozen=True):
    """Why a port is not the oracle.

    Args:
        kind: whether there is an explanation.
        lines: the same for people: one or two sentences, then the remedy.
        best: what explains it, or comes nearest if nothing does.
        others: what else explains it, or the next nearest, the nearest first.
        tried: how many causes and pairs were tried.
    """

    kind: Kind
    lines: tuple[str, ...]
    best: Candidate | None = None
    others: tuple[Candidate, ...] = ()
    tried: int = 0
