"""The codes of findings and refusals: what each means, why it happens, and what to do.

`python -m oracle.legacy_graph.codes FOLDER` writes a page for each.
"""

from __future__ import annotations

import difflib
import re

from oracle.errors import UsageError
from oracle.legacy_graph.codes.bad_input import BAD_INPUT
from oracle.legacy_graph.codes.code import Code, render_code
from oracle.legacy_graph.codes.findings import FINDINGS
from oracle.legacy_graph.codes.live_gradients import LIVE_GRADIENTS
from oracle.legacy_graph.codes.live_state import LIVE_STATE
from oracle.legacy_graph.codes.refusals import REFUSALS

__all__ = ["CODES", "Code", "find_code", "match_error", "render_code"]

CODES = {code.code: code for code in (*FINDINGS, *LIVE_GRADIENTS, *LIVE_STATE, *REFUSALS, *BAD_INPUT)}
"""Every code. G0: findings, from G021 on of live ports. G1: what a live port keeps or loses. G2: what cannot
be repaired. G3: what is wrong with what was given."""


def find_code(name: str) -> Code:
    """A code by its name.

    Raises:
        UsageError: if there is none.
    """
    found = CODES.get(name.upper())
    if found is None:
        near = difflib.get_close_matches(name.upper(), CODES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CODES)}"
        raise UsageError(f"{name}: no such code; {hint}")
    return found


def match_error(text: str) -> Code | None:
    """The code behind an error message, or None if it is not a known one. A code in the text counts."""
    for code in CODES.values():
        if any(re.search(message, text) for message in code.messages):
            return code
    named = re.search(r"\bG\d{3}\b", text)
    return CODES.get(named.group()) if named else None
