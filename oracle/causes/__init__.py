"""The catalogue of causes: ways in which ports go wrong, each with a code, a sentence and a remedy.

`@cause` registers one, from outside too; `oracle.causes.checking.check_cause` tests it.
`python -m oracle.causes FOLDER` writes a page for each.
"""

from __future__ import annotations

import difflib

# Importing a module registers what it holds.
from oracle.causes import (  # noqa: F401
    attention,
    cells,
    dropout,
    gradients,
    handoff,
    layout_fits,
    losses,
    optimizers,
    penalty_fits,
    precision,
    roundings,
    scale_fits,
    sequences,
)
from oracle.causes.cause import CAUSES, Cause, ModelSpec, Setting, Situation, Tensors, cause
from oracle.causes.pages import render_cause, render_index
from oracle.errors import UsageError

__all__ = [
    "CAUSES",
    "Cause",
    "ModelSpec",
    "Setting",
    "Situation",
    "Tensors",
    "cause",
    "find_cause",
    "render_cause",
    "render_index",
]


def find_cause(name: str) -> Cause:
    """A cause by its code.

    Raises:
        UsageError: if there is none.
    """
    found = CAUSES.get(name.upper())
    if found is None:
        near = difflib.get_close_matches(name.upper(), CAUSES, 1)
        hint = f"did you mean {near[0]}?" if near else "`oracle explain` lists them all"
        raise UsageError(f"{name}: no such cause; {hint}")
    return found
