"""A report for programs. `docs/json-report.md` describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from oracle.compare import Comparison
from oracle.report.verdict import state_tolerance, state_verdict

FORMAT = 1
"""The version of the report's format."""


def render_json(comparisons: Sequence[Comparison]) -> str:
    """The report as JSON. A number that is NaN or infinite is given as null."""
    report = {
        "format": FORMAT,
        "matches": bool(comparisons) and all(comparison.matches for comparison in comparisons),
        "comparisons": [_describe(comparison) for comparison in comparisons],
    }
    return json.dumps(finite(report), indent=2, allow_nan=False) + "\n"


def _describe(comparison: Comparison) -> dict[str, Any]:
    return {
        "matches": comparison.matches,
        "verdict": state_verdict(comparison),
        "tolerance": state_tolerance(comparison),
        "needed": comparison.needed,
        **msgspec.to_builtins(comparison),
    }


def finite(value: Any) -> Any:
    """A structure with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
