"""A cause of one's own, and its test: the decoder starts from half of the encoder's state."""

from __future__ import annotations

from collections.abc import Iterator

from oracle.case import random_case
from oracle.causes import ModelSpec, Setting, Tensors, cause
from oracle.causes.checking import check_cause
from oracle.knobs import Knobs
from oracle.spec import LSTM, EncoderDecoder


@cause(
    "X101",
    title="half of the state is passed",
    sentence="the decoder starts from half of the encoder's state",
    remedy="Leave out the division where the state is passed on.",
)
def halve_state(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Every part of the state, halved."""
    yield Setting("", knobs._replace(handoff=0.5 * knobs.handoff))


def test_half_of_the_state() -> None:
    """A port that has the cause is explained by it."""
    cells = {"encoder": LSTM(units=5), "decoder": LSTM(units=5)}
    check_cause("X101", random_case(EncoderDecoder(source_features=3, target_features=2, **cells)))
