"""Causes of the catalogue (`oracle.causes`) said of a person's own parts, with the knobs that they turn."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np

from oracle.bridge.mirror.counterfactual.knobbed import Knobs
from oracle.bridge.mirror.counterfactual.parts import show_part
from oracle.causes import CAUSES
from oracle.causes.cause import Cause, Setting

Proposal = tuple[Cause, Setting]
"""A cause, and the setting of it that is tried."""


def make_cause(code: str, sentence: str, remedy: str, knobs: Knobs | None, *, subject: str = "") -> Proposal:
    """A cause of the catalogue, said of a person's own parts; of one model or part, that is the subject."""
    listed = CAUSES[code]
    cause = Cause(
        code,
        listed.title,
        "{setting}",
        "{advice}",
        "turns",
        listed.propose,
        listed.applies,
        listed.wrong,
        listed.right,
    )
    held: Any = knobs
    said: Any = {"advice": remedy, "subject": subject}
    return cause, Setting(sentence, knobs=held, numbers=said)


def say_outside(proposal: Proposal) -> Proposal:
    """The same cause where it is known that the calls are made outside of the tape."""
    setting = proposal[1]
    said: Any = setting.numbers
    subject = show_part(said["subject"])
    return make_cause(
        "C601",
        f"no gradient reaches `{subject}`: it is called outside of the tape",
        f"Call `{subject}` inside `with tf.GradientTape() as tape:`.",
        cast("Knobs", setting.knobs),
        subject=said["subject"],
    )


def merge_knobs(neutral: Knobs, first: Knobs, second: Knobs) -> Knobs | None:
    """Both turned at once; None if they turn the same knob."""
    merged = copy.deepcopy(first)
    for kind, values in second.items():
        for name, value in values.items():
            pairs = (
                [(merged[kind], name, neutral[kind][name], first[kind][name], value)]
                if not isinstance(value, dict)
                else [
                    (merged[kind][name], n, neutral[kind][name][n], first[kind][name][n], v)
                    for n, v in value.items()
                ]
            )
            for holder, key, plain, one, two in pairs:
                if np.array_equal(two, plain):
                    continue
                if not np.array_equal(one, plain):
                    return None
                holder[key] = two
    return merged
