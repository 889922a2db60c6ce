"""Dropout inside the recurrent cells of Keras: masks as values, and the products they enter.

A mask holds 0 where a number is dropped and 1/(1 - rate) where it is kept, as Keras' does. It is
drawn once for a whole sequence: every step drops the same numbers (Gal & Ghahramani 2016).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


class DropoutMasks(NamedTuple):
    """What multiplies a cell's inputs and its state; None where nothing is dropped.

    `inputs` is [gates, batch, features] and `recurrent` [gates, batch, units]: a mask for each gate
    in `implementation` 1 (four of an LSTM, three of a GRU), a single one of the inputs in 2 and one
    of each in `SimpleRNNCell`. Keras draws a mask for each gate in `implementation` 2 as well and
    uses the first; so may a caller who replays it give them all.
    """

    inputs: Float[Array, "gates batch features"] | None = None
    recurrent: Float[Array, "gates batch units"] | None = None


@runtime_checkable
class DroppingCell(Protocol):
    """What drawing masks needs to know of a cell."""

    units: int
    dropout: float
    recurrent_dropout: float


@runtime_checkable
class GatedCell(DroppingCell, Protocol):
    """A cell that drops either gate by gate or all gates alike."""

    implementation: int


def check_rates(dropout: float, recurrent_dropout: float) -> None:
    """Raise ValueError unless both rates lie in [0, 1); TensorFlow refuses a rate of 1 too."""
    for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"{name} is {rate}; expected a rate in [0, 1), the part that is dropped")


def check_implementation(implementation: int) -> None:
    """Raise ValueError on an `implementation` other than 1 and 2; Keras takes any other for 2."""
    if implementation not in (1, 2):
        raise ValueError(f"implementation is {implementation}; expected 1 or 2")


def count_masks(cell: GatedCell, gates: int) -> int:
    """How many masks of each kind `cell` uses: `gates`, or 1 in Keras' implementation 2."""
    return gates if cell.implementation == 1 or cell.recurrent_dropout else 1


def draw_mask(
    key: PRNGKeyArray, rate: float, shape: tuple[int, ...], dtype: DTypeLike
) -> Float[Array, "*shape"]:
    """0 with probability `rate`, else 1/(1 - rate), independently everywhere."""
    return jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / (1 - rate)


def draw_gate_masks(
    cell: DroppingCell, key: PRNGKeyArray, batch: int, features: int, dtype: DTypeLike, *, masks: int
) -> DropoutMasks:
    """`masks` masks for the inputs and as many for the state of `cell`, for one sequence."""
    of_inputs, of_state = jax.random.split(key)
    inputs = recurrent = None
    if cell.dropout:
        inputs = draw_mask(of_inputs, cell.dropout, (masks, batch, features), dtype)
    if cell.recurrent_dropout:
        recurrent = draw_mask(of_state, cell.recurrent_dropout, (masks, batch, cell.units), dtype)
    return DropoutMasks(inputs, recurrent)


def check_masks(
    dropout_masks: DropoutMasks | None,
    inputs: Float[Array, "batch features"],
    units: int,
    *,
    masks: int,
    recurrent_masks: int,
) -> DropoutMasks:
    """The masks of a step, None standing for none.

    Raises:
        ValueError: if their shapes are not those of `DropoutMasks`, with `masks` masks of the inputs
            (of which more may be given if it is 1) and `recurrent_masks` of the state.
    """
    given = DropoutMasks() if dropout_masks is None else DropoutMasks(*dropout_masks)
    if given.inputs is not None:
        enough = given.inputs.shape[0] >= 1 if masks == 1 else given.inputs.shape[0] == masks
        if not enough or given.inputs.shape[1:] != inputs.shape:
            raise ValueError(
                f"dropout_masks.inputs has shape {list(given.inputs.shape)}; "
                f"expected {[masks, *inputs.shape]}"
            )
    if given.recurrent is not None:
        if not recurrent_masks:
            raise ValueError(
                "dropout_masks.recurrent was given to a cell with implementation=2, where Keras drops "
                "no state. Maybe you wanted implementation=1, which a recurrent_dropout above 0 implies."
            )
        expected = (recurrent_masks, inputs.shape[0], units)
        if given.recurrent.shape != expected:
            raise ValueError(
                f"dropout_masks.recurrent has shape {list(given.recurrent.shape)}; expected {list(expected)}"
            )
    return given


def drop(
    values: Float[Array, "batch size"], masks: Float[Array, "gates batch size"] | None, gate: int
) -> Float[Array, "batch size"]:
    """`values` as `gate` sees them."""
    return values if masks is None else values * masks[gate]


def project_gates(
    values: Float[Array, "batch size"],
    kernel: Float[Array, "size columns"],
    masks: Float[Array, "gates batch size"] | None,
    *,
    gates: int,
    masked_apart: bool,
) -> list[Float[Array, "batch units"]]:
    """`values @ kernel`, cut into `gates`, each gate's values dropped by a mask of its own if
    `masked_apart`, else all by the first.
    """
    if masks is None or not masked_apart:
        return jnp.split(drop(values, masks, 0) @ kernel, gates, axis=-1)
    kernels = jnp.split(kernel, gates, axis=-1)
    return [drop(values, masks, gate) @ part for gate, part in enumerate(kernels)]
