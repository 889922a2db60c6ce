"""Where the time of a compiled step goes, by JAX's own profiler.

An operation's time is that of the events which the profiler names after it, less that of the events inside of
them. What an operation is, is read in the compiled program. On one CPU nothing runs beside something else, so
that the parts add up to the step.
"""

from __future__ import annotations

import gzip
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from oracle.errors import WorkerError
from oracle.frameworks import import_jax

Kind = Literal["products", "elements", "sums", "copies", "between"]
"""Products of matrices; what is computed element by element; sums over an axis; what only moves numbers; and
all that is no operation: loops, and the start of each operation."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_PRODUCTS = {"dot", "convolution", "custom-call"}
_SUMS = {"reduce", "reduce-window"}
_MOVES = {
    "bitcast",
    "broadcast",
    "concatenate",
    "constant",
    "copy",
    "dynamic-slice",
    "dynamic-update-slice",
    "gather",
    "get-tuple-element",
    "iota",
    "pad",
    "parameter",
    "reshape",
    "reverse",
    "scatter",
    "slice",
    "transpose",
    "tuple",
}
_CONTROL = {"while", "call", "conditional"}
"""What holds other operations: the time that is its own is spent on starting them."""

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"calls=%?([\w.\-]+)")

_MOST_EVENTS = 1_000_000
"""So many the profiler keeps; it forgets the others without a word."""


def profile_step(step: Callable[[], Any], program: str, *, times: int = 2) -> dict[Kind, float]:
    """The seconds of each kind in one step, as the profiler slows it down; they add up to the step.

    Args:
        step: does it once, and has been done before.
        program: the compiled program's text.
        times: how often it is done.

    Raises:
        WorkerError: if the profiler kept nothing, or not all.
    """
    jax = import_jax()
    with tempfile.TemporaryDirectory(prefix="gradient-oracle-") as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            for _ in range(times):
                step()
            whole = (time.perf_counter() - start) / times
        traces = list(Path(folder).rglob("*.trace.json.gz"))
        if len(traces) != 1:
            raise WorkerError(f"JAX's profiler wrote {len(traces)} traces, not 1")
        with gzip.open(traces[0]) as file:
            events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    if len(events) >= _MOST_EVENTS:
        raise WorkerError(f"JAX's profiler keeps {_MOST_EVENTS:,} events, and the step has more")
    kinds = classify(program)
    parts: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for name, seconds in count_own(events).items():
        # What XLA cuts up for several threads is a copy of the operation.
        kind = kinds.get(name) or kinds.get(name.removesuffix(".clone"))
        if kind is not None:
            parts[kind] += seconds / times
    parts["between"] = max(0.0, whole - sum(parts[kind] for kind in KINDS if kind != "between"))
    return parts


def classify(program: str) -> dict[str, Kind]:
    """The kind of each operation of a compiled program, by its name. Control flow has none."""
    computations: dict[str, list[str]] = defaultdict(list)
    found: list[tuple[str, str, str]] = []
    inside = ""
    for line in program.splitlines():
        if begins := _COMPUTATION.match(line):
            inside = begins[1]
        elif instruction := _INSTRUCTION.match(line):
            name, opcode = instruction.groups()
            computations[inside].append(opcode)
            called = _CALLED.search(line)
            found.append((name, opcode, called[1] if called else ""))
    kinds: dict[str, Kind] = {}
    for name, opcode, called in found:
        if opcode not in _CONTROL:
            kinds[name] = _classify_one(computations[called] if opcode == "fusion" else [opcode])
    return kinds


def _classify_one(opcodes: Iterable[str]) -> Kind:
    """The kind of an operation that is made of several."""
    made_of = set(opcodes)
    if made_of & _PRODUCTS:
        return "products"
    if made_of & _SUMS:
        return "sums"
    return "copies" if made_of <= _MOVES else "elements"


def count_own(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The seconds of each operation's events, less those of the events inside of them.

    Args:
        events: whole ones as Chrome's trace format has them, with microseconds.
    """
    threads: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    own: dict[str, float] = defaultdict(float)
    for of_thread in threads.values():
        around: list[tuple[float, str]] = []
        for event in sorted(of_thread, key=lambda event: (event["ts"], -event["dur"])):
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            name = event.get("args", {}).get("hlo_op", "")
            if around:
                own[around[-1][1]] -= event["dur"] * 1e-6
            own[name] += event["dur"] * 1e-6
            around.append((event["ts"] + event["dur"], name))
    own.pop("", None)
    return dict(own)
