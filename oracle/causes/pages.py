"""A cause's page, in Markdown, and the list of all."""

from __future__ import annotations

import re
from collections.abc import Mapping

from oracle.causes.cause import CAUSES, Cause

GROUPS: Mapping[str, str] = {
    "C1": "The state that is handed over",
    "C2": "Cells",
    "C3": "Lengths, directions and the order of steps",
    "C4": "Attention",
    "C5": "Loss and targets",
    "C6": "Gradients",
    "C7": "Dropout and precision",
    "C8": "Optimizers",
}
"""What the hundreds of the codes are of."""

_HOW = {
    "turns": "The oracle is computed with the fault in it, and must then give every tensor of the port.",
    "infers": "What is not known is read off the port's tensors; the oracle is then computed with it, and "
    "must give every tensor of the port.",
    "fits": "The numbers are found from the port's gradients; all tensors must then agree.",
    "rounds": "The oracle is computed with the tensor rounded, and what comes back to it of the gradient; it "
    "must then give every tensor of the port.",
    "precision": "The sizes of the port's errors are held against those that the oracle makes in this "
    "arithmetic, tensor by tensor, both within a factor of 8.",
    "trains": "The optimizer with the fault in it is driven by the port's own gradients, and must give every "
    "parameter at every step: `oracle trajectory` tries it.",
}


def render_cause(cause: Cause) -> str:
    """A cause's page, in Markdown."""
    lines = [f"# {cause.code}: {cause.title}", "", _sentence(cause), "", f"**What to do.** {cause.remedy}"]
    for title, code in (("Wrong:", cause.wrong), ("Right:", cause.right)):
        if code:
            lines += ["", title, "", "```python", code, "```"]
    return "\n".join([*lines, "", f"**How it is found.** {_HOW[cause.kind]}"]) + "\n"


def render_index() -> str:
    """A page that lists every cause with a code of ours, by group."""
    lines = [
        "# Causes",
        "",
        "What `oracle explain` tries, by the codes it prints. Written by `python -m oracle.causes`.",
    ]
    for prefix, title in GROUPS.items():
        group = [cause for code, cause in sorted(CAUSES.items()) if code.startswith(prefix)]
        if group:
            lines += ["", f"## {title}", ""]
            lines += [
                f"- [{one.code}]({one.code}.md): {one.title}" for one in sorted(group, key=lambda c: c.code)
            ]
    return "\n".join(lines) + "\n"


def _sentence(cause: Cause) -> str:
    # What is filled in is shown as a place: {norm:.6g} as NORM.
    shown = re.sub(r"\{(\w+)[^}]*\}", lambda found: found.group(1).upper(), cause.sentence)
    return f"The port equals the oracle if {shown}."
