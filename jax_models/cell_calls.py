"""How a loop or a wrapper calls any cell, of `jax_models` or its user's own, with the masks it needs."""

from __future__ import annotations

from typing import Any

from jax.typing import DTypeLike
from jaxtyping import Array

from jax_models.cell_base import RNNCell


def check_cell(name: str, cell: Any) -> None:
    """Raise TypeError unless `cell` is one: a module with a `zero_state`."""
    if not callable(cell) or not hasattr(cell, "zero_state"):
        given = cell.__name__ + " itself" if isinstance(cell, type) else f"a {type(cell).__name__}"
        raise TypeError(f"{name} is {given}, expected a cell, called as state, output = cell(state, inputs)")
    if isinstance(cell, type):
        raise TypeError(f"{name} is {cell.__name__} itself, expected a cell. Maybe {cell.__name__}(units)")


def draw_dropout_masks(
    cell: Any, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
) -> Any:
    """Draw the masks that `cell` needs for one step or, given `time`, for a loop of as many steps.

    A loop's masks are `PerStep` where each step has its own; the others (those of variational and of
    Keras dropout) serve all steps. Returns None for a cell that draws none.
    """
    draw = getattr(cell, "draw_dropout_masks", None)
    if draw is None:
        return None
    if isinstance(cell, RNNCell):
        return draw(key, batch, features, dtype, time=time)
    return draw(key, batch, features, dtype)


def call_cell(cell: Any, state: Any, inputs: Array, dropout_masks: Any) -> tuple[Any, Any]:
    """Call `cell` for one step, with masks if there are any.

    Raises:
        ValueError: if there are, and the cell takes none.
    """
    if dropout_masks is None:
        return cell(state, inputs)
    if not hasattr(type(cell), "draw_dropout_masks"):
        owner = type(cell).__name__
        raise ValueError(f"dropout_masks were given for {owner}, which takes none; expected None")
    return cell(state, inputs, dropout_masks=dropout_masks)


def output_size_of(cell: Any) -> int:
    """The number of columns of what `cell` returns at a step."""
    # The cells of Keras say no output_size; theirs is their units.
    return cell.output_size if hasattr(type(cell), "output_size") else cell.units
