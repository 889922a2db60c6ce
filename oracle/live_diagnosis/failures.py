"""What a port raised: which known failure it is, by its cause where the traceback shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from oracle.legacy_graph.codes import CODES, match_error
from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis.holders import Held, is_mechanism, is_sampler
from oracle.live_diagnosis.places import describe_line, find_raise, is_own

OUT_OF_SCOPE = re.compile(
    r"out of scope|defined in another function|from a different graph|is not accessible here|"
    r"symbolic tf\.Tensor|must be from the same graph|not an element of this graph"
)
"""What TensorFlow says of a tensor of one function that another, or eager code, uses."""

CONTROL_FLOW = frozenset({"Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond"})

IN_FUNCTION = re.compile(r'File "([^"]+)", line (\d+)')
"""A line of code that a message quotes: what is raised while a function is traced has it in no traceback."""


def explain_raise(error: Exception, objects: Iterable[Held], *, where: str) -> Finding:
    """The finding of what a port raised.

    Args:
        error: what it raised.
        objects: everything that the port holds, for a tensor that was left behind in it.
        where: what to call the port.
    """
    text = " ".join(str(error).partition("Call arguments received")[0].split())
    place = _find_quoted(str(error)) or find_raise(error.__traceback__)
    where = f"{where}: {place}" if place else where
    code, cause = "", ""
    operation = _find_operation(error)
    if OUT_OF_SCOPE.search(text):
        code, cause = _blame_holder(objects, text)
    if not code:
        known = match_error(text)
        code = known.code if known else "G011"
    if operation is not None and code in ("G001", "G006", "G201", "G011"):
        # The message alone could be of something else that is None.
        if code == "G001" and not _has_lost_context(operation):
            code = "G011"
        cause = f"; it is the gradient of {operation.type} {operation.name!r}"
    shown = text[:200] if OUT_OF_SCOPE.search(text) else _shorten(text, code)
    return Finding(code, where, f"{type(error).__name__}: {shown}{cause}", CODES[code].remedy)


def _has_lost_context(operation: Any) -> bool:
    """Whether it is a part of a loop or cond of TF1 and no longer knows which."""
    if operation.type.removeprefix("Ref") not in CONTROL_FLOW:
        return False
    find = getattr(operation, "_get_control_flow_context", None)
    return find is None or find() is None


def _find_quoted(text: str) -> str:
    lines = [describe_line(file, int(line)) for file, line in IN_FUNCTION.findall(text) if is_own(file)]
    return lines[-1] if lines else ""


def _find_operation(error: Exception) -> Any:
    """The operation whose gradient was being built, if the traceback passes TensorFlow's code for it."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if "tensorflow" in frame.f_code.co_filename and "grad" in frame.f_code.co_filename:
            candidate = frame.f_locals.get("op")
            if hasattr(candidate, "type") and hasattr(candidate, "node_def"):
                found = candidate
        traceback = traceback.tb_next
    return found


def _blame_holder(objects: Iterable[Held], text: str) -> tuple[str, str]:
    """The object that keeps a tensor of a function that has ended."""
    kept = [held for held in objects if _is_symbolic(held.value)]
    named = [held for held in kept if re.search(rf"(?<![\w/]){re.escape(held.value.name)}(?!\d)", text)]
    # A tensor that was computed from the kept one may be the one that is named.
    for held in [*named, *(held for held in kept if is_mechanism(held.owner) or is_sampler(held.owner))]:
        code = "G102" if is_mechanism(held.owner) else "G104" if is_sampler(held.owner) else "G105"
        return code, f"; {held.path} keeps a tensor of a function that has ended"
    return "G105", ""


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "graph") and hasattr(value, "op") and hasattr(value, "consumers")


def _shorten(text: str, code: str) -> str:
    """The part of a message that names its cause."""
    found = [re.search(message, text) for message in CODES[code].messages]
    start = min((match.start() for match in found if match), default=0)
    return text[start:][:200].strip()
