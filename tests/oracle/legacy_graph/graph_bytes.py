"""GraphDefs written by hand, byte by byte, so that a malformed one can be."""

from __future__ import annotations

from collections.abc import Sequence


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """An unsigned number."""
    parts = bytearray()
    while True:
        value, low = value >> 7, value & 127
        parts.append(low | 128 if value else low)
        if not value:
            return bytes(parts)


def node(name: str, op: str, inputs: Sequence[str] = (), **attributes: str | int | bool) -> bytes:
    """A NodeDef, as a field of a GraphDef."""
    content = field(1, name.encode()) + field(2, op.encode())
    content += b"".join(field(3, text.encode()) for text in inputs)
    for key, value in attributes.items():
        if isinstance(value, str):
            attribute = field(2, value.encode())
        elif isinstance(value, bool):
            attribute = varint(5 << 3) + varint(value)
        else:
            attribute = varint(6 << 3) + varint(value)
        content += field(5, field(1, key.encode()) + field(2, attribute))
    return field(1, content)


LOOP = {
    "x": node("x", "Placeholder", dtype=1),
    "limit": node("limit", "Placeholder", dtype=1),
    "enter": node("enter", "Enter", ["x"], T=1, frame_name="f"),
    "bound": node("bound", "Enter", ["limit"], T=1, frame_name="f", is_constant=True),
    "merge": node("merge", "Merge", ["enter", "next"], T=1),
    "less": node("less", "Less", ["merge", "bound"], T=1),
    "cond": node("cond", "LoopCond", ["less"]),
    "switch": node("switch", "Switch", ["merge", "cond"], T=1),
    "body": node("body", "Identity", ["switch:1"], T=1),
    "twice": node("twice", "Add", ["body", "body"], T=1),
    "next": node("next", "NextIteration", ["twice"], T=1),
    "exit": node("exit", "Exit", ["switch"], T=1),
}
"""while x < limit: x = x + x."""


def loop(**changed: bytes | None) -> bytes:
    """The loop, with nodes changed, added, or taken out where None."""
    return b"".join(content for content in {**LOOP, **changed}.values() if content)
