"""What a cause is, and how one is registered.

A cause is a named way in which ports go wrong. It *turns* knobs of the counterfactual oracle
(`oracle.knobs`), *infers* from the port's numbers how they are turned, or *fits* numbers to the oracle's
tensors after they were computed: a scale, a norm, a rate. Whatever it does, it has explained a port only when
every tensor agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from oracle.errors import UsageError
from oracle.knobs import Knobs
from oracle.spec import AttentionNMT, EncoderDecoder

Tensors = Mapping[str, np.ndarray]
"""Tensors by the names that the oracle's record has."""

ModelSpec = EncoderDecoder | AttentionNMT
"""The specs that have knobs."""

Kind = Literal["turns", "infers", "fits", "rounds", "precision", "trains"]
"""How a cause makes the oracle a port's. Those that round are tried after the others; those of precision, by
the search itself; those that train, of trajectories (`oracle.explain_trajectory`)."""


@dataclass(frozen=True)
class Setting:
    """One way in which a cause can hold.

    Args:
        name: which one, put in the cause's sentence for `{setting}`: `decoder/cell`; empty if there is one.
        knobs: as they are then turned; None where the cause leaves them.
        after: what is done to the tensors once they are computed; None for nothing.
        numbers: what was found from the port's tensors, numbers and words, put in the sentence by name.
    """

    name: str
    knobs: Knobs | None = None
    after: Callable[[Tensors], dict[str, np.ndarray]] | None = None
    numbers: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """What a cause may look at.

    Args:
        spec: the model that was meant.
        weights: the leaves, float64.
        batch: the batch.
        port: the port's tensors, float64, a gradient of None as zeros.
        nones: the names of the port's gradients that are None.
        evaluate: gives the oracle's tensors under each of some knobs.
        bound: how near two numbers of the port's precision must be, as a part of the larger.
    """

    spec: ModelSpec
    weights: Tensors
    batch: Tensors
    port: Tensors
    nones: frozenset[str]
    evaluate: Callable[[Sequence[Knobs]], Sequence[Tensors]]
    bound: float = 1e-10


Turning = Callable[[Knobs, ModelSpec, Tensors], Iterator[Setting]]
Finding = Callable[[Knobs, Tensors, Situation], Iterator[Setting]]


@dataclass(frozen=True)
class Cause:
    """A cause.

    Args:
        code: as `C101`. Never reused for something else.
        title: what it is, in a line.
        sentence: what the port does, for people; `{setting}` and the numbers' names are filled in.
        remedy: what to do, in TensorFlow's terms; filled in alike.
        kind: how it is tried.
        propose: gives its settings. Of a cause that turns, from (knobs, spec, batch); of one that infers,
            fits or rounds, from (knobs, the oracle's tensors under them, the situation).
        applies: whether a spec with a batch can have it at all.
        wrong: TensorFlow code that has it, for the page.
        right: the same put right.
    """

    code: str
    title: str
    sentence: str
    remedy: str
    kind: Kind
    propose: Callable[..., Iterator[Setting]]
    applies: Callable[[ModelSpec, Tensors], bool]
    wrong: str = ""
    right: str = ""

    def say(self, setting: Setting) -> str:
        """The sentence of a setting."""
        return self.sentence.format_map(_fill(setting))

    def advise(self, setting: Setting) -> str:
        """The remedy of a setting."""
        return self.remedy.format_map(_fill(setting))


CAUSES: dict[str, Cause] = {}
"""Every cause, by code, in the order in which they were registered."""


def always(spec: ModelSpec, batch: Tensors) -> bool:
    """Every spec and batch."""
    del spec, batch
    return True


def cause(
    code: str,
    *,
    title: str,
    sentence: str,
    remedy: str,
    kind: Kind = "turns",
    applies: Callable[[ModelSpec, Tensors], bool] = always,
    wrong: str = "",
    right: str = "",
) -> Callable[[Callable[..., Iterator[Setting]]], Callable[..., Iterator[Setting]]]:
    """Register the decorated function as what proposes a cause's settings. See `Cause`.

    Raises:
        UsageError: if the code is taken, or the sentence or the remedy is empty.
    """
    if code in CAUSES:
        raise UsageError(f"cause {code}: there is one already, {CAUSES[code].title!r}; take another code")
    if not (code and title and sentence and remedy):
        raise UsageError(f"cause {code or '?'}: it needs a code, a title, a sentence and a remedy")

    def register(propose: Callable[..., Iterator[Setting]]) -> Callable[..., Iterator[Setting]]:
        CAUSES[code] = Cause(code, title, sentence, remedy, kind, propose, applies, wrong, right)
        return propose

    return register


def _fill(setting: Setting) -> dict[str, Any]:
    return {"setting": setting.name, **setting.numbers}
