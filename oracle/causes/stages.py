"""At which stage of the computation knobs make a difference, and a port leaves the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from oracle.causes.closeness import Closeness
from oracle.knobs import Knobs

ENCODER, DECODER, LOSS, BACKWARD = range(4)
"""The stages, in the order of computation."""

_OF_KNOBS = {"target_out": LOSS, "loss_weights": LOSS, "loss_form": LOSS, "label_smoothing": LOSS}


def list_differences(neutral: Knobs, knobs: Knobs) -> dict[str, np.ndarray]:
    """The knobs that are turned, by path: `cells/encoder/cell/lengths`."""
    return dict(_walk("", neutral, knobs))


def sign(neutral: Knobs, knobs: Knobs) -> tuple[tuple[str, bytes], ...]:
    """What two settings have in common if they are one."""
    return tuple(
        (path, np.ascontiguousarray(array).tobytes())
        for path, array in sorted(list_differences(neutral, knobs).items())
    )


def find_stage(neutral: Knobs, knobs: Knobs) -> int | None:
    """The first stage at which what is turned can make a difference; None if nothing is turned."""
    return min((_stage_of_knob(path) for path in list_differences(neutral, knobs)), default=None)


def stage_of_tensor(name: str) -> int:
    """The stage that computes a tensor."""
    if name.startswith("gradient/"):
        return BACKWARD
    if name == "loss":
        return LOSS
    return ENCODER if name == "output/encoder" or name.startswith("state/encoder") else DECODER


def possible_stages(closeness: Closeness) -> range:
    """The stages at which the fault can lie, going by the first tensor that does not agree."""
    agreeing = -1
    for name, ratio in closeness.ratios.items():
        stage = stage_of_tensor(name)
        if ratio > 1.0:
            # The stage of an earlier tensor is right; of one that the port does not show, nobody knows.
            # A port may name the encoder's state on its way to the decoder, behind a fault there.
            last = DECODER if name.startswith("state/encoder") else stage
            return range(min(agreeing + 1, stage), last + 1)
        agreeing = max(agreeing, stage)
    return range(0)


def _stage_of_knob(path: str) -> int:
    first = path.partition("/")[0]
    if first == "passes" or path.endswith("/through_time"):
        return BACKWARD
    if path.startswith(("cells/encoder/", "share/encoder/", "rounded/encoder/")):
        return ENCODER
    if path in ("encoder_layers", "rounded/source", "rounded/layers"):
        return ENCODER
    return _OF_KNOBS.get(first, DECODER)


def _walk(path: str, neutral: Any, knobs: Any) -> Iterator[tuple[str, np.ndarray]]:
    if neutral is knobs:
        return
    if isinstance(neutral, Mapping):
        for name, value in neutral.items():
            yield from _walk(f"{path}{name}/", value, knobs[name])
    elif hasattr(neutral, "_fields"):
        for name in neutral._fields:
            yield from _walk(f"{path}{name}/", getattr(neutral, name), getattr(knobs, name))
    elif not np.array_equal(neutral, knobs):
        yield path.rstrip("/"), np.asarray(knobs)
