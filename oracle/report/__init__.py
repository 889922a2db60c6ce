"""Comparisons, told to people and to machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oracle.compare import Comparison
from oracle.report.github import render_github
from oracle.report.json import render_json
from oracle.report.junit import render_junit
from oracle.report.text import render_text

RENDERERS: dict[str, Callable[[Sequence[Comparison]], str]] = {
    "text": render_text,
    "json": render_json,
    "junit": render_junit,
    "github": render_github,
}
"""What each `--output-format` gives."""

__all__ = ["RENDERERS", "render_github", "render_json", "render_junit", "render_text"]
