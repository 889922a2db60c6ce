"""Knobs turned: copies of them with some of a cell's, of the attention's or of the gradient's changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from oracle.causes.cause import ModelSpec, Setting
from oracle.knobs import CellKnobs, Knobs
from oracle.spec import AttentionNMT, EncoderDecoder


def is_translator(spec: ModelSpec, batch: Any = None) -> bool:
    """Whether the model attends, and reads and writes tokens."""
    del batch
    return isinstance(spec, AttentionNMT)


def is_lstm(spec: ModelSpec, batch: Any = None) -> bool:
    """Whether the cells are LSTMs."""
    del batch
    return isinstance(spec, EncoderDecoder) or spec.cell == "lstm"


def is_gru(spec: ModelSpec, batch: Any = None) -> bool:
    """Whether the cells are GRUs."""
    return not is_lstm(spec, batch)


def is_stacked(spec: ModelSpec, batch: Any = None) -> bool:
    """Whether encoder and decoder have several layers."""
    del batch
    return isinstance(spec, AttentionNMT) and spec.layers > 1


def turn_cells(knobs: Knobs, paths: tuple[str, ...], **changes: Any) -> Knobs:
    """The knobs with the same changes to the cells of some paths."""
    turned = {path: knobs.cells[path]._replace(**changes) for path in paths}
    return knobs._replace(cells={**knobs.cells, **turned})


def turn_attention(knobs: Knobs, **changes: Any) -> Knobs:
    """The knobs with changes to the attention's."""
    assert knobs.attention is not None
    return knobs._replace(attention=knobs.attention._replace(**changes))


def turn_passes(knobs: Knobs, *seams: str) -> Knobs:
    """The knobs with no gradient passing some seams."""
    return knobs._replace(passes={**knobs.passes, **{seam: np.float64(0.0) for seam in seams}})


def group_cells(knobs: Knobs) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The groups of cells that are likely to share a fault, each with a name: all of them first."""
    paths = tuple(knobs.cells)
    groups = {
        "every cell": paths,
        "every encoder cell": encoder_cells(knobs),
        "every decoder cell": decoder_cells(knobs),
        "every backward cell": backward_cells(knobs),
    }
    groups |= {path: (path,) for path in paths}
    seen = set()
    for name, group in groups.items():
        # A group of one cell is named by the cell.
        if group and group not in seen and (len(group) > 1 or name in knobs.cells):
            seen.add(group)
            yield name, group


def encoder_cells(knobs: Knobs) -> tuple[str, ...]:
    """The paths of the encoder's cells."""
    return tuple(path for path in knobs.cells if path.startswith("encoder/"))


def decoder_cells(knobs: Knobs) -> tuple[str, ...]:
    """The paths of the decoder's cells."""
    return tuple(path for path in knobs.cells if path.startswith("decoder/"))


def backward_cells(knobs: Knobs) -> tuple[str, ...]:
    """The paths of the cells that read the source from its end."""
    return tuple(path for path in knobs.cells if "/backward/" in path)


def turn_groups(
    knobs: Knobs, change: Callable[[CellKnobs], dict[str, Any]], *, named: str = "{group}"
) -> Iterator[Setting]:
    """A setting for each group of cells, each cell changed as is said of it.

    Args:
        knobs: what is turned.
        change: what changes of a cell.
        named: the setting's name, `{group}` the group's.
    """
    for name, paths in group_cells(knobs):
        turned = {path: knobs.cells[path]._replace(**change(knobs.cells[path])) for path in paths}
        yield Setting(named.format(group=name), knobs._replace(cells={**knobs.cells, **turned}))


def number_gates(cell: CellKnobs) -> int:
    """How many gates a cell has: 4 of an LSTM, 3 of a GRU."""
    return len(cell.gates)
