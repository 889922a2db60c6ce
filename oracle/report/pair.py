"""Two records held against each other, told to people and to machines. Neither side is the oracle."""

from __future__ import annotations

import io
import json
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oracle.compare import Row
from oracle.pair import Pair, count_statuses
from oracle.record import Origin
from oracle.report.github import escape_data, escape_property
from oracle.report.json import finite
from oracle.report.junit import clean
from oracle.report.terminal import PLAIN_WIDTH

FORMAT = 1
"""The version of the JSON."""

_BASES = {
    "float64": "in float64 only the order of rounding may differ",
    "assumed": "assumed, not measured: there is no yardstick for this precision",
    "given": "as given",
}


def render_pair(
    pair: Pair,
    output_format: Literal["text", "json", "junit", "github"],
    *,
    verbose: bool = False,
    quiet: bool = False,
) -> str:
    """The report in one of the formats of `oracle compare`."""
    if output_format == "json":
        return _render_json(pair)
    if output_format == "junit":
        return _render_junit(pair)
    if output_format == "github":
        return _render_github(pair)
    return _render_text(pair, verbose=verbose, quiet=quiet)


def state_pair(pair: Pair) -> str:
    """One sentence: whether the two agree, and where they first do not, with the tolerance."""
    raised = [
        f"{name} raised {failure.type}: {failure.message}"
        for name, failure in zip(pair.names, pair.failures, strict=True)
        if failure is not None
    ]
    if raised:
        return "; ".join(raised)
    needed = pair.needed
    would = (
        "no tolerance would have passed"
        if needed is None
        else f"tolerance that would have passed: {needed:.2g} of the largest element"
    )
    tolerance = f"{would} (allowed: {pair.allowed:.2g}, {_BASES[pair.basis]})"
    if not pair.findings:
        return f"all {len(pair.rows)} tensors agree; {tolerance}"
    findings = f"{len(pair.findings)} of {len(pair.rows)} tensors do not agree ({count_statuses(pair)})"
    return f"{findings}, first {pair.findings[0].name}; {tolerance}"


def _describe(origin: Origin) -> str:
    version = origin.versions.get(origin.framework, "?")
    where = f"{origin.framework} {version} on {origin.device} (Python {origin.python})"
    return f"{origin.model} ({origin.mode}, {origin.dtype}), {where}"


def _explain(pair: Pair, row: Row) -> str:
    parts = [row.note] if row.note else []
    if row.index is not None and row.port_value is not None:
        place = f"at {list(row.index)} " if row.index else ""
        a, b = pair.names
        parts.append(f"{place}{a} has {row.port_value:.9g}, {b} {row.oracle_value:.9g}")
    if row.variables:
        parts.append(f"held by {', '.join(row.variables)}")
    return f"{row.name}: {row.status}: {'; '.join(parts)}"


def _render_text(pair: Pair, *, verbose: bool, quiet: bool) -> str:
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None, legacy_windows=False)
    if not quiet:
        for name, origin in zip(pair.names, (pair.a, pair.b), strict=True):
            console.print(escape(f"{name}: {_describe(origin)}"), soft_wrap=True)
        for note in pair.notes:
            console.print(escape(f"note: {note}"), soft_wrap=True)
        if differing := _differing_flags(pair):
            console.print(escape(f"settings that differ: {differing}"), soft_wrap=True)
        if pair.rows:
            console.print(_build_table(pair))
        for row in pair.findings:
            console.print(escape(_explain(pair, row)), soft_wrap=True)
        for failure in pair.failures if verbose else ():
            if failure is not None:
                console.print(escape(failure.traceback), soft_wrap=True)
    word = "PASS" if pair.matches else "FAIL"
    console.print(Text(f"{word} {pair.a.model} and {pair.b.model}: {state_pair(pair)}"), soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _differing_flags(pair: Pair) -> str:
    names = sorted({*pair.a.flags, *pair.b.flags})
    sides = [(name, pair.a.flags.get(name, "?"), pair.b.flags.get(name, "?")) for name in names]
    return ", ".join(f"{name} {ours} / {theirs}" for name, ours, theirs in sides if ours != theirs)


def _build_table(pair: Pair) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("tensor", "shape", "max abs difference", "at", "relative L2", "needed", "status"):
        table.add_column(heading, no_wrap=True)
    for row in pair.rows:
        table.add_row(
            escape(row.name),
            escape(str(list(row.shape))),
            _number(row.max_abs),
            "-" if row.index is None else escape(str(list(row.index))),
            _number(row.rel_l2),
            _number(row.needed),
            row.status,
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _render_json(pair: Pair) -> str:
    a, b = pair.names
    report: dict[str, Any] = {
        "format": FORMAT,
        "matches": pair.matches,
        "verdict": state_pair(pair),
        "allowed": pair.allowed,
        "basis": pair.basis,
        "needed": pair.needed,
        "names": [a, b],
        "notes": list(pair.notes),
        "a": msgspec.to_builtins(pair.a),
        "b": msgspec.to_builtins(pair.b),
        "failures": msgspec.to_builtins(pair.failures),
        "rows": [_describe_row(row) for row in pair.rows],
    }
    return json.dumps(finite(report), indent=2, allow_nan=False) + "\n"


def _describe_row(row: Row) -> dict[str, Any]:
    values = msgspec.to_builtins(row)
    return {"a_value": values.pop("port_value"), "b_value": values.pop("oracle_value"), **values}


def _render_junit(pair: Pair) -> str:
    root = ElementTree.Element("testsuites", name="oracle compare")
    name = clean(f"{_describe(pair.a)} against {_describe(pair.b)}")
    counts = {"tests": max(1, len(pair.rows)), "failures": len(pair.findings), "errors": int(not pair.rows)}
    suite = ElementTree.SubElement(root, "testsuite", name=name, **{k: str(v) for k, v in counts.items()})
    if not pair.rows:
        test = ElementTree.SubElement(suite, "testcase", classname=name, name="records")
        ElementTree.SubElement(test, "error", message=clean(state_pair(pair)))
    for row in pair.rows:
        test = ElementTree.SubElement(suite, "testcase", classname=name, name=clean(row.name))
        if row.status != "match":
            failure = ElementTree.SubElement(test, "failure", type=row.status)
            failure.set("message", clean(_explain(pair, row)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _render_github(pair: Pair) -> str:
    if pair.matches:
        return f"{state_pair(pair)}\n"
    title = escape_property(f"{pair.a.model} against {pair.b.model}")
    details = [state_pair(pair), *(_explain(pair, row) for row in pair.findings)]
    return f"::error title={title}::{escape_data(chr(10).join(details))}\n"
