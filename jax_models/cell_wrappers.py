"""Cells made of cells: a stack, dropout, a residual connection, and a device.

Each wraps cells called as `state, output = cell(state, inputs)` and is called so itself. The random
numbers of dropout are data: `dropout_masks`, a pytree of boolean arrays, True where an element is
kept. `draw_dropout_masks(cell, key, ...)` draws them for any stack of wrappers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_models.cell_base import LSTMState, PerStep, RNNCell, check_keep_prob, check_zero_state, drop
from jax_models.cell_calls import call_cell, check_cell, draw_dropout_masks, output_size_of
from jax_models.checks import check_callable, check_dtype


class WrapperMasks(NamedTuple):
    """The masks of one `DropoutWrapper`: None where nothing is dropped.

    `input` [rows, features] and `output` [rows, outputs] are boolean arrays, their rows the batch or one
    for all; `state` is a pytree shaped like the cell's state with such an array or None for each of its
    arrays (or None altogether); `cell` holds the masks of the wrapped cell.
    """

    input: Any = None
    state: Any = None
    output: Any = None
    cell: Any = None


class MultiRNNCell(RNNCell):
    """A stack of cells, each fed with the output of the one before.

    It computes what `tf.compat.v1.nn.rnn_cell.MultiRNNCell` does, and `tf.keras.layers.StackedRNNCells`.
    State and masks are tuples with an item for each cell. The cells' parameters are `cells_0/...`.
    """

    cells: Sequence[nn.Module]

    def __post_init__(self) -> None:
        if not isinstance(self.cells, (tuple, list)):
            raise TypeError(f"MultiRNNCell: cells is a {type(self.cells).__name__}, expected a list of cells")
        if not self.cells:
            raise ValueError("MultiRNNCell: cells is empty; expected at least one cell")
        for cell in self.cells:
            check_cell("MultiRNNCell: one of cells", cell)
        super().__post_init__()

    @property
    def state_size(self) -> tuple[Any, ...]:
        return tuple(cell.state_size for cell in self.cells)

    @property
    def output_size(self) -> int:
        return self.cells[-1].output_size

    def __call__(
        self,
        state: tuple[Any, ...],
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: tuple[Any, ...] | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "batch outputs"]]:
        """Advance every cell one step. Returns their new states and the last one's output."""
        if not isinstance(state, tuple) or len(state) != len(self.cells):
            length = len(state) if isinstance(state, tuple) else "no length"
            raise ValueError(
                f"MultiRNNCell: state is a {type(state).__name__} of {length}; expected a tuple "
                f"with the state of each of its {len(self.cells)} cells"
            )
        masks = (None,) * len(self.cells) if dropout_masks is None else dropout_masks
        if len(masks) != len(self.cells):
            raise ValueError(
                f"MultiRNNCell: dropout_masks has {len(masks)} items; expected one for each of "
                f"{len(self.cells)} cells"
            )
        new_states, output = [], inputs
        for cell, cell_state, cell_masks in zip(self.cells, state, masks, strict=True):
            new_state, output = call_cell(cell, cell_state, output, cell_masks)
            new_states.append(new_state)
        return tuple(new_states), output

    def zero_state(self, batch: int, dtype: DTypeLike) -> tuple[Any, ...]:
        """The zero states of the cells."""
        check_zero_state("MultiRNNCell", batch, dtype)
        return tuple(cell.zero_state(batch, dtype) for cell in self.cells)

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> tuple[Any, ...]:
        """The masks of each cell. See `draw_dropout_masks` of this module."""
        masks = []
        for cell, cell_key in zip(self.cells, jax.random.split(key, len(self.cells)), strict=True):
            masks.append(draw_dropout_masks(cell, cell_key, batch, features, dtype, time=time))
            features = output_size_of(cell)
        return tuple(masks)


class DropoutWrapper(RNNCell):
    """Dropout of a cell's inputs, of the state it hands on, and of its output.

    It computes what `tf.compat.v1.nn.rnn_cell.DropoutWrapper` does, given the same masks. What is kept
    is divided by the keep probability. The output is dropped apart from the state, so that the `h` of an
    LSTM's state and its output have masks of their own. A mask may be given for any array of the state;
    those that are drawn never drop the `c` of an `LSTMState`, as TF1's do.

    With `variational_recurrent` (Gal & Ghahramani, 2016) one mask serves all steps. TF1's are drawn with
    one row, so the whole batch shares them, and so are ours; the paper wants one a row of the batch,
    which masks [batch, ...] that are passed in give. Parameters lie under `cell/...`.

    TF1 rounds a keep probability that is a Python number to float32 before it divides, which in float64
    is an error of 1e-8. `keep_prob_dtype` is the precision to round to; with float64 nothing is lost, as
    in TF1 if the probability is a float64 tensor.

    `dropout_state_filter_visitor` says which of the state's arrays get a mask when masks are drawn, by
    TF1's rule: called with the state, and with its parts, it returns a bool, or a tuple of them, one for
    each part. By default all but the `c` of an `LSTMState`.
    """

    cell: nn.Module
    input_keep_prob: float = 1.0
    output_keep_prob: float = 1.0
    state_keep_prob: float = 1.0
    variational_recurrent: bool = False
    keep_prob_dtype: DTypeLike = jnp.float32
    dropout_state_filter_visitor: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        check_cell("DropoutWrapper: cell", self.cell)
        check_dtype("DropoutWrapper: keep_prob_dtype", self.keep_prob_dtype)
        check_callable("DropoutWrapper: dropout_state_filter_visitor", self.dropout_state_filter_visitor)
        for name in ("input_keep_prob", "output_keep_prob", "state_keep_prob"):
            check_keep_prob("DropoutWrapper", name, getattr(self, name))
        super().__post_init__()

    @property
    def state_size(self) -> Any:
        return self.cell.state_size

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    def __call__(
        self,
        state: Any,
        inputs: Float[Array, "batch features"],
        *,
        dropout_masks: WrapperMasks | None = None,
    ) -> tuple[Any, Float[Array, "batch outputs"]]:
        """Advance one step. Returns the new state and the output, both dropped."""
        masks = WrapperMasks() if dropout_masks is None else dropout_masks
        if not isinstance(masks, WrapperMasks):
            raise TypeError(
                f"DropoutWrapper: dropout_masks is a {type(masks).__name__}; expected WrapperMasks"
            )
        inputs = self._drop("input", inputs, masks.input, self.input_keep_prob)
        new_state, output = call_cell(self.cell, state, inputs, masks.cell)
        if self.state_keep_prob < 1 and masks.state is None:
            self._drop("state", output, None, self.state_keep_prob)

        def drop_one(mask: Array | None, values: Any) -> Any:
            return values if mask is None else self._drop("state", values, mask, self.state_keep_prob)

        new_state = jax.tree.map(drop_one, masks.state, new_state, is_leaf=lambda mask: mask is None)
        return new_state, self._drop("output", output, masks.output, self.output_keep_prob)

    def _visit(self, part: Any) -> Any:
        return (self.dropout_state_filter_visitor or _spare_c)(part)

    def _drop(self, name: str, values: Array, mask: Array | None, keep_prob: float) -> Array:
        rounded = float(np.dtype(self.keep_prob_dtype).type(keep_prob))
        return drop(f"DropoutWrapper: dropout_masks.{name}", values, mask, keep_prob, scale=1 / rounded)

    def zero_state(self, batch: int, dtype: DTypeLike) -> Any:
        """The zero state of the wrapped cell."""
        return self.cell.zero_state(batch, dtype)

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> WrapperMasks:
        """The masks of one step or, given `time` and unless variational, of as many steps."""
        rows = 1 if self.variational_recurrent else batch
        input_key, state_key, output_key, cell_key = jax.random.split(key, 4)

        def draw(key: Array, size: int, keep_prob: float) -> Any:
            if keep_prob == 1:
                return None
            if time is None or self.variational_recurrent:
                return jax.random.bernoulli(key, keep_prob, (rows, size))
            return PerStep(jax.random.bernoulli(key, keep_prob, (time, rows, size)))

        arrays, tree = jax.tree.flatten(_droppable(self._visit, self.cell.zero_state(1, dtype)))
        sizes = [array.shape[-1] for array in arrays]
        state_keys = jax.random.split(state_key, max(len(sizes), 1))[: len(sizes)]
        state = None
        if self.state_keep_prob < 1:
            drawn = [draw(k, n, self.state_keep_prob) for k, n in zip(state_keys, sizes, strict=True)]
            state = jax.tree.unflatten(tree, drawn)
        return WrapperMasks(
            input=draw(input_key, features, self.input_keep_prob),
            state=state,
            output=draw(output_key, output_size_of(self.cell), self.output_keep_prob),
            cell=draw_dropout_masks(self.cell, cell_key, batch, features, dtype, time=time),
        )


class ResidualWrapper(RNNCell):
    """Adds a cell's inputs to its output, which must be of the same size.

    It computes what `tf.compat.v1.nn.rnn_cell.ResidualWrapper` does; `residual_fn(inputs, outputs)`
    stands in for the sum if it is given. Parameters lie under `cell/...`, masks are those of the cell.
    """

    cell: nn.Module
    residual_fn: Callable[[Array, Array], Array] | None = None

    def __post_init__(self) -> None:
        check_cell("ResidualWrapper: cell", self.cell)
        check_callable("ResidualWrapper: residual_fn", self.residual_fn)
        super().__post_init__()

    @property
    def state_size(self) -> Any:
        return self.cell.state_size

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    def __call__(
        self, state: Any, inputs: Float[Array, "batch features"], *, dropout_masks: Any = None
    ) -> tuple[Any, Float[Array, "batch outputs"]]:
        """Advance one step. Returns the cell's new state, and its output with the inputs added."""
        new_state, output = call_cell(self.cell, state, inputs, dropout_masks)
        if self.residual_fn is not None:
            return new_state, self.residual_fn(inputs, output)
        if inputs.shape != output.shape:
            raise ValueError(
                f"ResidualWrapper: inputs has shape {list(inputs.shape)} and the cell's output "
                f"{list(output.shape)}; expected equal shapes. Maybe you want a residual_fn"
            )
        return new_state, inputs + output

    def zero_state(self, batch: int, dtype: DTypeLike) -> Any:
        """The zero state of the wrapped cell."""
        return self.cell.zero_state(batch, dtype)

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> Any:
        """The masks of the wrapped cell."""
        return draw_dropout_masks(self.cell, key, batch, features, dtype, time=time)


class DeviceWrapper(RNNCell):
    """The wrapped cell, unchanged: a place has no part in a number.

    `tf.compat.v1.nn.rnn_cell.DeviceWrapper` runs its cell on `device`. Here JAX places computations, so
    the name is only kept, for models that are carried over as they stand. Parameters lie under
    `cell/...`.
    """

    cell: nn.Module
    device: str | None = None

    def __post_init__(self) -> None:
        check_cell("DeviceWrapper: cell", self.cell)
        super().__post_init__()

    @property
    def state_size(self) -> Any:
        return self.cell.state_size

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    def __call__(
        self, state: Any, inputs: Float[Array, "batch features"], *, dropout_masks: Any = None
    ) -> tuple[Any, Float[Array, "batch outputs"]]:
        """Advance the wrapped cell one step."""
        return call_cell(self.cell, state, inputs, dropout_masks)

    def zero_state(self, batch: int, dtype: DTypeLike) -> Any:
        """The zero state of the wrapped cell."""
        return self.cell.zero_state(batch, dtype)

    def draw_dropout_masks(
        self, key: Array, batch: int, features: int, dtype: DTypeLike, *, time: int | None = None
    ) -> Any:
        """The masks of the wrapped cell."""
        return draw_dropout_masks(self.cell, key, batch, features, dtype, time=time)


def _spare_c(part: Any) -> Any:
    """TF1's rule by default: the `c` of an LSTM is never dropped."""
    return LSTMState(False, True) if isinstance(part, LSTMState) else True  # pyright: ignore[reportArgumentType]


def _droppable(visit: Callable[[Any], Any], state: Any) -> Any:
    """`state` with None for what `visit` does not want dropped.

    Raises:
        TypeError: unless it returns a bool, or a tuple with one for each part.
    """
    wanted = visit(state)
    if not isinstance(state, tuple):
        if not isinstance(wanted, bool):
            raise TypeError(
                f"DropoutWrapper: dropout_state_filter_visitor returned a {type(wanted).__name__} for an "
                "array of the state, expected a bool"
            )
        return state if wanted else None
    each = (wanted,) * len(state) if isinstance(wanted, bool) else wanted
    if not isinstance(each, tuple) or len(each) != len(state):
        raise TypeError(
            f"DropoutWrapper: dropout_state_filter_visitor returned {wanted!r} for a state of {len(state)} "
            "parts, expected a bool, or a tuple with one for each part"
        )
    parts = [_droppable(visit, part) if want else None for part, want in zip(state, each, strict=True)]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
