"""Real data: a table of numbers by time, cut into windows of past and future.

The series that ships with the project is the sunspot number: a row a year from 1749 to 2008, twelve
monthly means and the yearly one. See `oracle/data/README.md` for its source and licence.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from oracle.errors import CaseError


@dataclass(frozen=True)
class Series:
    """A table by time. `values` is float64 [time, features], all finite; `name` says where it is from."""

    name: str
    columns: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Windows:
    """Pieces of a series, standardised, with the past on one side and the future on the other.

    `source` is [batch, src_time, features]; `target` is [batch, 1 + tgt_time, features] and begins with
    the last step of the past, from which the decoder starts.
    """

    source: np.ndarray
    target: np.ndarray


def sunspots() -> Series:
    """The series that ships with the project."""
    with resources.as_file(resources.files("oracle") / "data" / "sunspots.csv") as path:
        series = read_series(path)
    return Series("sunspots 1749-2008", series.columns, series.values)


def read_series(path: str | os.PathLike[str]) -> Series:
    """Read a CSV file: a header line, then a row a time step, its first column a label, the rest numbers.

    Raises:
        CaseError: if the file is absent, empty, ragged, not numeric, or holds NaN or infinity; the
            message names the line and the column.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{path}: cannot be read as CSV: {reason}; give a UTF-8 CSV file") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise CaseError(
            f"{path}: no data; expected a header line and rows of a label and at least one number"
        )
    columns = tuple(rows[0][1:])
    values = np.empty((len(rows) - 1, len(columns)))
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise CaseError(f"{path}: row {line} has {len(row)} columns, the header {len(rows[0])}")
        for column, text in enumerate(row[1:]):
            values[line - 2, column] = _number(text, f"{path}: row {line}, column {columns[column]!r}")
    return Series(str(path), columns, values)


def cut_windows(
    series: Series,
    *,
    source_time: int,
    target_time: int,
    target_features: int,
    batch_size: int,
    generator: np.random.Generator,
) -> Windows:
    """Draw `batch_size` different windows of `source_time + target_time` steps.

    Every column is standardised over the whole series. The target keeps its first `target_features`
    columns.

    Raises:
        CaseError: if the series is too short or too narrow for one window, or for so many, or has a
            constant column.
    """
    time, features = series.values.shape
    if target_features > features:
        raise CaseError(
            f"{series.name}: {features} columns, but the model predicts {target_features}; give a wider table"
        )
    possible = time - source_time - target_time + 1
    if possible < 1:
        raise CaseError(
            f"{series.name}: {time} time steps, but one window takes {source_time} of the past and "
            f"{target_time} of the future; give a series of at least {source_time + target_time} steps"
        )
    if not 1 <= batch_size <= possible:
        raise CaseError(
            f"batch size {batch_size}: {series.name} has {possible} windows of {source_time} + "
            f"{target_time} steps; choose from 1 to {possible}"
        )
    starts = generator.choice(possible, batch_size, replace=False)
    values = _standardise(series)
    past = starts[:, None] + np.arange(source_time)
    future = starts[:, None] + source_time - 1 + np.arange(1 + target_time)
    return Windows(values[past], values[future][..., :target_features])


def _standardise(series: Series) -> np.ndarray:
    """Each column less its mean, by its standard deviation."""
    # Scaled first, so that the squares of large numbers do not overflow.
    peak = np.abs(series.values).max(axis=0)
    scaled = series.values / np.where(peak == 0, 1.0, peak)
    spread = scaled.std(axis=0)
    for column, width in zip(series.columns, spread, strict=True):
        if width < 1e-9:
            raise CaseError(
                f"{series.name}: column {column!r} is constant, and would be zeros in every window, which "
                "hide wrong gradients; leave it out"
            )
    return (scaled - scaled.mean(axis=0)) / spread


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise CaseError(f"{where}: {text!r} is not a number") from None
    if not np.isfinite(number):
        raise CaseError(f"{where}: {text!r} is not finite; remove the row or fill it in")
    return number
