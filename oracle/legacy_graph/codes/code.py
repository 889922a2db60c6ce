"""What a code is, and its page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A code.

    Args:
        code: as `G001`. Never reused for something else.
        title: what it says, in a line.
        why: why it happens.
        remedy: what to do.
        messages: regular expressions of the errors that it is behind.
        example: what shows it: a function in `tf_models/legacy`, or empty.
    """

    code: str
    title: str
    why: str
    remedy: str
    messages: tuple[str, ...] = ()
    example: str = ""


def render_code(code: Code) -> str:
    """A code's page, in Markdown."""
    lines = [f"# {code.code}: {code.title}", "", code.why, "", f"**What to do.** {code.remedy}"]
    if code.messages:
        shown = [message.replace("[Gg]", "g") for message in code.messages]
        lines += ["", "Messages that it is behind:", "", *(f"- `{message}`" for message in shown)]
    if code.example:
        lines += ["", f"Shown by `{code.example}`."]
    return "\n".join(lines) + "\n"
