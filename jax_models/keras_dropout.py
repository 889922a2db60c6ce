"""Dropout inside the recurrent cells of Keras: masks as values, and the products they enter.

A mask holds 0 where a number is dropped and 1/(1 - rate) where it is kept, as Keras' does. It is
drawn once for a whole sequence: every step drops the same numbers (Gal & Ghahramani 2016).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jax_models.cell_base import PerStep
from jax_models.cell_calls import draw_dropout_masks
from jax_models.checks import check_array, check_choice, check_number, check_size

MaskReset = Literal["never", "every_step", "every_call"]
"""When a cell that a decoder steps draws new dropout masks: see `choose_dropout_masks`."""


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
    """Raise TypeError or ValueError unless both rates lie in [0, 1); TensorFlow refuses a rate of 1 too."""
    for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
        expected = "a rate in [0, 1), the part that is dropped"
        check_number(name, rate, expected, holds=lambda r: (r >= 0) & (r < 1))


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


def choose_dropout_masks(
    cell: Any,
    key: PRNGKeyArray | None,
    batch: int,
    features: int,
    dtype: DTypeLike,
    *,
    training: bool,
    earlier: Any = None,
    time: int | None = None,
    mask_reset: MaskReset = "never",
) -> Any:
    """The masks of one call of a decoder around a Keras cell, whose cache of them tfa never resets.

        masks = choose_dropout_masks(cell, key, batch, features, dtype, training=True, earlier=masks)
        decoder.apply(variables, inputs, initial_state=state, dropout_masks=masks)

    A Keras cell draws its masks at its first step and keeps them until `reset_dropout_mask`, which Keras'
    `RNN` layers call and `tfa.seq2seq` does not.

    Args:
        cell: the cell, or a stack of them.
        key: what to draw from; not used where nothing is drawn.
        batch: rows of the inputs.
        features: width of the cell's inputs: with an `AttentionWrapper` the attention's included.
        dtype: of the masks.
        training: whether this call drops anything.
        earlier: what this function returned for the call before; None for the first.
        time: the number of steps, for "every_step".
        mask_reset: "never" is eager TensorFlow: the first call's masks serve all steps of every call,
            whatever its `training` (a first call without it leaves masks of ones: nothing is ever dropped).
            "every_step" is `tf.function`, where each step draws its own. "every_call" is what it should
            have been: one mask for a sequence, and none without `training`.

    Returns:
        What the decoder takes as `dropout_masks`: None where nothing is dropped.

    Raises:
        ValueError: without a key where one is needed, without `time` for "every_step".
    """
    check_choice("mask_reset", mask_reset, ("never", "every_step", "every_call"))
    if mask_reset == "never" and earlier is not None:
        return earlier

    def draw(key: Any) -> Any:
        return draw_dropout_masks(cell, key, batch, features, dtype)

    needed = jax.eval_shape(draw, jax.random.key(0))
    if not jax.tree.leaves(needed):
        return None
    if not training:
        return jax.tree.map(lambda m: jnp.ones(m.shape, m.dtype), needed) if mask_reset == "never" else None
    if key is None:
        raise ValueError("key is None, expected a JAX key: training=True draws dropout masks")
    if mask_reset != "every_step":
        return draw(key)
    if time is None:
        raise ValueError('time is None, expected the number of steps: mask_reset="every_step" draws for each')
    check_size("time", time)
    return jax.tree.map(PerStep, jax.vmap(draw)(jax.random.split(key, time)))


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
    if not isinstance(dropout_masks, (DropoutMasks, type(None))):
        raise TypeError(
            f"dropout_masks is a {type(dropout_masks).__name__}, expected DropoutMasks(inputs, recurrent)"
        )
    given = DropoutMasks() if dropout_masks is None else dropout_masks
    for name, mask in given._asdict().items():
        if mask is not None:
            hint = "0 where a number is dropped and 1 / (1 - rate) where it is kept"
            check_array(f"dropout_masks.{name}", mask, ("gates", "batch", "size"), "float", hint=hint)
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
