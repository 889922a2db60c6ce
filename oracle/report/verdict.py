"""The verdict in a sentence, which every report shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from oracle.compare import Comparison, Row
from oracle.tolerance import FLOAT32_FACTOR, FLOAT64_BOUND


def name_port(comparison: Comparison) -> str:
    """The port, how it ran and in what precision: `explicit_state/full (function, float64)`."""
    port = comparison.port
    return f"{port.model} ({port.mode}, {port.dtype})"


def state_verdict(comparison: Comparison) -> str:
    """One sentence: whether the port is right, and where it first is not."""
    if comparison.failure is not None:
        return f"the port raised {comparison.failure.type}: {comparison.failure.message}"
    if not comparison.rows:
        return "nothing was compared"
    total = len(comparison.rows)
    if not comparison.findings:
        left_out = f"; {len(comparison.left_out)} were left out, as asked" if comparison.left_out else ""
        frozen = comparison.port.flags.get("frozen")
        untrained = f"; not compared, since the port does not train them: {frozen}" if frozen else ""
        against = "" if comparison.matches else ", but the witness is against it"
        return f"all {total} tensors match{left_out}{untrained}{against}"
    findings = comparison.findings
    kinds = ", ".join(f"{number} {status}" for status, number in Counter(_statuses(findings)).items())
    return f"{len(findings)} of {total} tensors do not match ({kinds}), first {findings[0].name}"


def state_witness(comparison: Comparison) -> list[str]:
    """What the witness says of who is wrong: a line or two, none if it was not asked."""
    judgement = comparison.witness
    if judgement is None:
        return []
    return [f"witness: {judgement.lines[0]}", *judgement.lines[1:]]


def state_account(comparison: Comparison) -> list[str]:
    """All that was found out about a port, for people: who is wrong, where it begins, why, what to do."""
    localisation, explanation = comparison.localisation, comparison.explanation
    where = () if localisation is None else localisation.lines
    why = () if explanation is None else explanation.lines
    return state_witness(comparison) + _prefix("where", where) + _prefix("why", why)


def _prefix(word: str, lines: Sequence[str]) -> list[str]:
    return [f"{word}: {lines[0]}", *lines[1:]] if lines else []


def state_tolerance(comparison: Comparison) -> str:
    """One sentence: the tolerance that would have passed, and the one that is allowed."""
    if comparison.port.dtype == "float64":
        unit, allowed = "of the largest element", FLOAT64_BOUND
    else:
        unit, allowed = "times the oracle's own float32 error", FLOAT32_FACTOR
    needed = comparison.needed
    if needed is None:
        return "no tolerance would have passed"
    return f"tolerance that would have passed: {needed:.2g} {unit} (allowed: {allowed:g})"


def describe_case(comparison: Comparison) -> str:
    """What was computed on: weights, data and seed."""
    port = comparison.port
    return f"weights: {port.weights}; data: {port.data}; seed {port.seed}"


def describe_sides(comparison: Comparison) -> str:
    """The frameworks of both sides, with versions and devices."""
    return " against ".join(
        f"{side.framework} {side.versions.get(side.framework, '?')} on {side.device} (Python {side.python})"
        for side in (comparison.port, comparison.oracle)
    )


def summarise(comparisons: Sequence[Comparison]) -> str:
    """One line over all: how many ports match."""
    matching = sum(comparison.matches for comparison in comparisons)
    return f"{matching} of {len(comparisons)} comparisons match"


def explain_row(row: Row) -> str:
    """A finding in a line: what, where, the values, and the variables behind it."""
    parts = [row.note] if row.note else []
    if row.index is not None and row.port_value is not None:
        place = f"at {list(row.index)} " if row.index else ""
        parts.append(f"{place}the port has {row.port_value:.9g}, the oracle {row.oracle_value:.9g}")
    if row.variables:
        parts.append(f"held by {', '.join(row.variables)}")
    return f"{row.name}: {row.status}: {'; '.join(parts)}"


def _statuses(rows: Sequence[Row]) -> list[str]:
    return [row.status for row in rows]
