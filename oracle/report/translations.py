"""Translations for people, and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.translation import Translation, Translations

FORMAT = 1
"""The version of the JSON."""


def print_translations(translations: Translations, console: Console) -> None:
    """Print a table, a row for each text, and a line that says whether the two sides agree."""
    options = translations.options
    penalty = f", length penalty {options.length_penalty_weight:g}" if options.length_penalty_weight else ""
    console.print(
        f"{translations.model} ({translations.mode}, float64), weights {translations.weights}, "
        f"texts: {translations.data}, seed {translations.seed}, {options.beam_width} beams{penalty}",
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("source", "expected", "greedy", "beam search", "TensorFlow and Flax"):
        table.add_column(heading, overflow="fold")
    for row in translations.rows:
        found = "the same" if row.agrees else f"differ: {row.differs}"
        style = "" if row.agrees else "red"
        greedy, beam = _show(row.greedy), _show((row.beams[0][0], row.beams[1][0]))
        table.add_row(*(Text(cell) for cell in (row.source, row.expected, greedy, beam)), Text(found, style))
    console.print(table)
    for row in translations.rows:
        if row.unknown:
            line = f"{row.source}: the translator does not know {' '.join(row.unknown)}"
            console.print(line, markup=False, soft_wrap=True)
    console.print(render_verdict(translations), soft_wrap=True)


def render_verdict(translations: Translations) -> str:
    """One line: how many of the texts both sides translate alike, token for token."""
    rows = translations.rows
    alike = sum(row.agrees for row in rows)
    verdict = "PASS" if translations.agree else "FAIL"
    known = [row for row in rows if row.expected]
    right = sum(_is_right(row) for row in known)
    judged = f"; {right} of {len(known)} are right, greedily" if known else ""
    return (
        f"{verdict} {translations.model}: {alike} of {len(rows)} translated alike by TensorFlow and Flax, "
        f"token for token, greedily and in every beam{judged}"
    )


def render_translations_json(translations: Translations) -> str:
    """The translations as JSON: both sides' texts, every beam."""
    rows = [
        {
            "source": row.source,
            "expected": row.expected or None,
            "greedy": dict(zip(("tensorflow", "flax"), row.greedy, strict=True)),
            "beams": dict(zip(("tensorflow", "flax"), row.beams, strict=True)),
            "unknown": row.unknown,
            "agrees": row.agrees,
            "differs": row.differs,
        }
        for row in translations.rows
    ]
    whole = asdict(translations) | {"rows": rows, "format": FORMAT, "agree": translations.agree}
    whole["options"] = {
        name: getattr(translations.options, name) for name in translations.options.__struct_fields__
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _is_right(row: Translation) -> bool:
    return all(text == row.expected for text in row.greedy)


def _show(texts: tuple[str, str]) -> str:
    """One text, or where the sides differ, both."""
    ours, theirs = texts
    return ours if ours == theirs else f"{ours} | {theirs}"
