"""Make `dates.tsv` and `names.tsv` from the CLDR data in Babel: a tool for development, never imported.

    python -m venv /tmp/babel && /tmp/babel/bin/pip install babel==2.18.0
    /tmp/babel/bin/python oracle/data/make_dates.py

The files come out the same, byte by byte, for the same version of Babel.
"""

from __future__ import annotations

import datetime
import random
import unicodedata
from pathlib import Path

from babel import Locale
from babel.dates import format_date

LOCALES = [
    "cs",
    "da",
    "de",
    "en",
    "en_GB",
    "es",
    "fi",
    "fr",
    "hu",
    "it",
    "ja",
    "nb",
    "nl",
    "pl",
    "pt",
    "ro",
    "sv",
    "tr",
]
FORMATS = ("long", "medium")
"""`short` has two-digit years and no telling of days from months; `full` adds the name of the day."""

FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
PAIRS = 3000
KINDS = ("languages", "territories", "scripts", "currencies")
HEADER = "source\ttarget\tlocale\n"

Row = tuple[str, str, str]


def make_dates(*, seed: int) -> list[Row]:
    """Dates as a locale writes them, and by ISO 8601. No text stands for two dates."""
    generator = random.Random(seed)  # noqa: S311
    days = (LAST - FIRST).days
    rows: dict[str, Row] = {}
    ambiguous = set()
    while len(rows) < PAIRS:
        locale, form = generator.choice(LOCALES), generator.choice(FORMATS)
        date = FIRST + datetime.timedelta(generator.randint(0, days))
        source = clean(format_date(date, form, locale=locale))
        row = (source, date.isoformat(), locale)
        if source in rows and rows[source][1] != row[1]:
            ambiguous.add(source)
        rows.setdefault(source, row)
    return [row for source, row in rows.items() if source not in ambiguous]


def make_names(source: str, target: str) -> list[Row]:
    """The names that two locales both have for a language, territory, script or currency."""
    here, there = Locale(source), Locale(target)
    rows: dict[str, Row] = {}
    for kind in KINDS:
        names, translated = getattr(here, kind), getattr(there, kind)
        for code in sorted(names.keys() & translated.keys()):
            name = clean(names[code])
            rows.setdefault(name, (name, clean(translated[code]), target))
    return list(rows.values())


def clean(text: str) -> str:
    """Composed characters, and every kind of space a plain one."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def write(path: Path, rows: list[Row]) -> None:
    """Write a header and the rows, the columns between tabs."""
    text = HEADER + "".join("\t".join(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    folder = Path(__file__).parent
    write(folder / "dates.tsv", make_dates(seed=0))
    write(folder / "names.tsv", make_names("en", "de"))
