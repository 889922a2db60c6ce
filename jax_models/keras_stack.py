"""Cells in a stack under Keras' name, and the order in which Keras keeps the states of any cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxtyping import Array

from jax_models.cell_base import LSTMState
from jax_models.cell_wrappers import MultiRNNCell


class StackedRNNCells(MultiRNNCell):
    """Cells on top of each other: the output of each is the input of the next.

    It is `MultiRNNCell` under Keras' name: the state, and the dropout masks, are tuples with an item
    for each cell, and the leaves lie under `cells_0`, `cells_1`, ... The cells may be any of
    `jax_models`. Source: `tf.keras.layers.StackedRNNCells`. Its deprecated `reverse_state_order` is
    left out: in TF 2.15 it changes nothing where all cells have states of one size, and fails elsewhere.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.cells, (tuple, list)):
            raise TypeError(f"StackedRNNCells: cells is a {type(self.cells).__name__}, expected a list")
        object.__setattr__(self, "cells", tuple(self.cells))
        super().__post_init__()


def flatten_keras_states(state: Any) -> list[Array]:
    """The arrays of a state in the order in which Keras returns and takes them.

    An `LSTMState` gives h, then c; a tuple gives the arrays of its members one after the other.
    """
    if isinstance(state, LSTMState):
        return [state.h, state.c]
    if isinstance(state, (tuple, list)):
        return [array for member in state for array in flatten_keras_states(member)]
    return [state]


def unflatten_keras_states(states: list[Array], *, like: Any) -> Any:
    """The inverse of `flatten_keras_states`: `states`, in Keras' order, in the structure of `like`,
    for which `cell.zero_state` will do.

    Raises:
        ValueError: if there are more or fewer arrays than `like` holds.
    """
    places = len(flatten_keras_states(like))
    if len(states) != places:
        raise ValueError(f"states has {len(states)} arrays; expected {places}")
    return _fill(like, iter(states))


def _fill(like: Any, states: Iterator[Array]) -> Any:
    if isinstance(like, LSTMState):
        h, c = next(states), next(states)
        return LSTMState(c, h)
    if isinstance(like, (tuple, list)):
        members = [_fill(member, states) for member in like]
        return type(like)(*members) if hasattr(like, "_fields") else type(like)(members)
    return next(states)
