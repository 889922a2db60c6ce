"""The recurrent layers of Keras 2.15: `RNN` over any cell, `SimpleRNN`, `LSTM` and `GRU`.

A layer is a loop over time around a cell. What it returns, how it treats masks and what its dropout
does are Keras'; its state goes in and out as a value. The leaves are the cell's, under `cell`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from jax_models.cell_base import RNNCell
from jax_models.cell_calls import check_cell, draw_dropout_masks
from jax_models.checks import check_array, check_choice, check_fields, check_key
from jax_models.keras_activations import Activation, get_activation
from jax_models.keras_cells import (
    GRUCell,
    LSTMCell,
    SimpleRNNCell,
)
from jax_models.keras_dropout import DropoutMasks, check_implementation, check_rates, draw_mask
from jax_models.keras_loop import (
    check_sequence,
    check_state,
    choose_recorded_state,
    repeat_last_output,
    run_over_time,
    swap_time_and_batch,
    zero_masked_outputs,
)
from jax_models.keras_stack import StackedRNNCells


class RecurrentLayer(nn.Module, kw_only=True):
    """What the recurrent layers of Keras have in common.

    Attributes:
        return_sequences: return the output of every step, not only of the last.
        return_state: return `(output, state)`. Keras returns a flat list, an LSTM's [output, h, c];
            `flatten_keras_states(state)` gives its tail.
        go_backwards: read the inputs, and the mask, from the end. The outputs come in the order of
            reading: they *stay* reversed, while `compute_mask` hands the mask on unreversed, as Keras
            does; whoever uses both must reverse one.
        stateful: begin where the last batch ended. The state is a value here, so it must be returned
            (`return_state=True`) and passed to the next call as `recorded_state`; see `__call__`.
        unroll: write the loop out. It changes no number but in two ways: `LSTM` and `GRU` leave the
            form that draws a new input mask every step (see there), and see `unrolled_zeros`.
        time_major: inputs, masks and outputs are [time, batch, ...], not [batch, time, ...].
        zero_output_for_mask: a masked step's output is zero. Otherwise, by default, it repeats the
            last output before it (zero if there was none). With it the output of a layer that returns
            the last step only is zero for a row whose last step is masked. Either way a masked step
            hands the state on unchanged.
        unrolled_zeros: which mask zeroes the outputs of an unrolled layer that goes backwards, returns
            sequences and has `zero_output_for_mask`. Keras forgets to reverse it there: outputs that
            count become zero, and masked steps repeat the last output ("tensorflow"). It befalls the
            backward half of every `Bidirectional` around an unrolled layer. "reversed" is right.
            (Keras raises where such a layer, in any direction, returns the last step only.)
    """

    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    time_major: bool = False
    zero_output_for_mask: bool = False
    unrolled_zeros: str = "tensorflow"

    def __post_init__(self) -> None:
        check_choice("unrolled_zeros", self.unrolled_zeros, ("tensorflow", "reversed"))
        if self.stateful and not self.return_state:
            raise ValueError(
                "stateful=True with return_state=False would lose the state, which is a value here. "
                "Set return_state=True and pass what it returns to the next call as recorded_state."
            )
        super().__post_init__()

    def __call__(
        self,
        inputs: Any,
        *,
        mask: Shaped[Array, "rows columns"] | None = None,
        initial_state: Any = None,
        recorded_state: Any = None,
        training: bool = False,
        key: PRNGKeyArray | None = None,
        dropout_masks: Any = None,
    ) -> Any:
        """Run the cell over the time axis.

        Args:
            inputs: [batch, time, features] ([time, batch, features] if `time_major`), or what else the
                cell takes, each array with these first two axes.
            mask: [batch, time] ([time, batch] if `time_major`), nonzero where a step counts. False
                steps may lie anywhere.
            initial_state: the state to start from, in the cell's own structure; zeros if None.
            recorded_state: for `stateful`: the state that the last call returned, None for the first
                call and after what Keras calls `reset_states`. As in Keras no gradient passes to the
                earlier call, and an `initial_state` counts only while the recorded one is all zeros.
            training: whether dropout applies.
            key: what to draw the dropout masks from; needed if `training` and a rate is above 0,
                unless `dropout_masks` holds them. Without `training` it is not used.
            dropout_masks: the cell's `DropoutMasks`, or a tuple of them for stacked cells.

        Returns:
            The output [batch, units], or [batch, time, units] if `return_sequences`; with
            `return_state` the pair of it and the final state.
        """
        cell = self.get_cell()
        if isinstance(cell, RNNCell):
            axes = ("time", "batch") if self.time_major else ("batch", "time")
            hint = "Maybe they are ids, of which an Embedding makes vectors, or lack an axis"
            name = f"{type(self).__name__}: inputs"
            inputs = check_array(name, inputs, (*axes, "features"), "float", hint=hint)
        check_key("key", key)
        mask = check_sequence(inputs, mask)
        masks = self._resolve_dropout(inputs, training, key, dropout_masks)
        inputs, masks = self._drop_inputs(inputs, masks)
        if not self.time_major:
            inputs, mask = jax.tree.map(swap_time_and_batch, (inputs, mask))
        if self.go_backwards:
            inputs, mask = jax.tree.map(lambda steps: jnp.flip(steps, 0), (inputs, mask))
        state = self._choose_start(inputs, initial_state, recorded_state)

        outputs, state = run_over_time(
            cell, inputs, state, mask=mask, dropout_masks=masks, unroll=self.unroll
        )
        if mask is not None:
            outputs = repeat_last_output(outputs, mask)
            if self.zero_output_for_mask:
                outputs = zero_masked_outputs(outputs, self._choose_zeros(mask))
        if not self.return_sequences:
            outputs = jax.tree.map(lambda steps: steps[-1], outputs)
        elif not self.time_major:
            outputs = jax.tree.map(swap_time_and_batch, outputs)
        return (outputs, state) if self.return_state else outputs

    def get_cell(self) -> nn.Module:
        """The cell that the layer loops over."""
        raise NotImplementedError

    def compute_mask(
        self, mask: Shaped[Array, "rows columns"] | None
    ) -> Shaped[Array, "rows columns"] | None:
        """The mask that Keras hands to the next layer: the same one, None for a layer that returns
        the last output only. It is not reversed by `go_backwards`, although the outputs are.
        """
        return mask if self.return_sequences else None

    def draw_dropout_masks(self, key: PRNGKeyArray, inputs: Float[Array, "rows columns features"]) -> Any:
        """The masks that a call with `inputs` and `key` uses; as `dropout_masks` they repeat it."""
        batch, time = inputs.shape[:2][::-1] if self.time_major else inputs.shape[:2]
        features = inputs.shape[-1]
        return draw_dropout_masks(self.get_cell(), key, batch, features, inputs.dtype, time=time)

    def _resolve_dropout(self, inputs: Any, training: bool, key: Any, dropout_masks: Any) -> Any:
        if not training:
            if dropout_masks is not None:
                raise ValueError("dropout_masks was given, but training is False: nothing is dropped then")
            return None
        if dropout_masks is not None:
            if key is not None:
                raise ValueError("both key and dropout_masks were given; expected one of them")
            return dropout_masks
        if key is not None:
            return self.draw_dropout_masks(key, inputs)
        if not hasattr(self.get_cell(), "draw_dropout_masks"):
            return None
        needed = jax.eval_shape(lambda key: self.draw_dropout_masks(key, inputs), jax.random.key(0))
        if jax.tree.leaves(needed):
            raise ValueError("training=True with dropout needs a key, or the dropout_masks themselves")
        return None

    def _drop_inputs(self, inputs: Any, masks: Any) -> tuple[Any, Any]:
        """The inputs, dropped where that is not left to the cell, and the masks left for the cell."""
        return inputs, masks

    def _choose_zeros(self, mask: Bool[Array, "time batch"]) -> Bool[Array, "time batch"]:
        forgets = self.unroll and self.go_backwards and self.return_sequences
        return jnp.flip(mask, 0) if forgets and self.unrolled_zeros == "tensorflow" else mask

    def _choose_start(self, inputs: Any, initial_state: Any, recorded_state: Any) -> Any:
        cell, first = self.get_cell(), jax.tree.leaves(inputs)[0]
        dtype = jnp.result_type(first.dtype, getattr(cell, "param_dtype", first.dtype))
        zeros = cell.zero_state(first.shape[1], dtype)
        for name, state in (("initial_state", initial_state), ("recorded_state", recorded_state)):
            check_state(name, state, zeros)
        if recorded_state is None:
            return zeros if initial_state is None else initial_state
        if not self.stateful:
            raise ValueError(
                "recorded_state was given to a layer with stateful=False; expected initial_state"
            )
        return choose_recorded_state(recorded_state, initial_state)


class RNN(RecurrentLayer):
    """A loop over any cell: Keras' cells, `StackedRNNCells`, and the other cells of `jax_models`.

    A tuple or list of cells stands for `StackedRNNCells` of them. Source: `tf.keras.layers.RNN`.
    """

    cell: Any

    def __post_init__(self) -> None:
        if isinstance(self.cell, (tuple, list)):
            object.__setattr__(self, "cell", StackedRNNCells(tuple(self.cell)))
        check_cell("cell", self.cell)
        super().__post_init__()

    def get_cell(self) -> nn.Module:
        return self.cell


class SimpleRNN(RecurrentLayer):
    """`RNN(SimpleRNNCell(...))`. Source: `tf.keras.layers.SimpleRNN`."""

    units: int
    activation: str | Activation | None = "tanh"
    use_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        check_rates(self.dropout, self.recurrent_dropout)
        super().__post_init__()

    def setup(self) -> None:
        self.cell = SimpleRNNCell(
            self.units,
            activation=self.activation,
            use_bias=self.use_bias,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            param_dtype=self.param_dtype,
        )

    def get_cell(self) -> nn.Module:
        return self.cell


class InputDroppingLayer(RecurrentLayer):
    """What `LSTM` and `GRU` of TF 2 add to `RNN`: a second form of input dropout.

    With the defaults that cuDNN can run (activation tanh, recurrent_activation sigmoid, no recurrent
    dropout, a bias, no unrolling; for a GRU also `reset_after`), Keras 2.15 drops the whole inputs
    before the loop, also on a CPU: a *new mask every step*, `implementation` ignored. Any other option
    silently changes dropout to one mask for all steps, which is also what `RNN(LSTMCell(...))` and
    `tf.compat.v1.keras` always do.

    In the first form `dropout_masks.inputs` has the shape of the inputs.

    Attributes:
        dropout_every_step: None for Keras' rule, or True or False to set the form.
    """

    units: int
    activation: str | Activation | None = "tanh"
    recurrent_activation: str | Activation | None = "sigmoid"
    use_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    implementation: int = 2
    dropout_every_step: bool | None = None
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self, "units")
        get_activation(self.activation)
        get_activation(self.recurrent_activation)
        check_rates(self.dropout, self.recurrent_dropout)
        check_implementation(self.implementation)
        check_choice("dropout_every_step", self.dropout_every_step, (None, True, False))
        if self.dropout_every_step and self.recurrent_dropout:
            raise ValueError("dropout_every_step=True with recurrent_dropout; Keras has no such form")
        super().__post_init__()

    def drops_every_step(self) -> bool:
        """Whether the inputs are dropped before the loop, with a new mask every step."""
        if self.dropout_every_step is not None:
            return self.dropout_every_step
        return (
            get_activation(self.activation) is get_activation("tanh")
            and get_activation(self.recurrent_activation) is get_activation("sigmoid")
            and not self.recurrent_dropout
            and not self.unroll
            and self.use_bias
        )

    def draw_dropout_masks(
        self, key: PRNGKeyArray, inputs: Float[Array, "rows columns features"]
    ) -> DropoutMasks:
        if self.drops_every_step():
            if not self.dropout:
                return DropoutMasks()
            return DropoutMasks(draw_mask(key, self.dropout, inputs.shape, inputs.dtype))
        return super().draw_dropout_masks(key, inputs)

    def _drop_inputs(self, inputs: Any, masks: Any) -> tuple[Any, Any]:
        if masks is None or not self.drops_every_step():
            return inputs, masks
        if not isinstance(masks, DropoutMasks):
            raise TypeError(f"dropout_masks is a {type(masks).__name__}, expected DropoutMasks(inputs, None)")
        of_inputs, of_state = masks
        if of_inputs is None and of_state is None:
            return inputs, None
        if of_inputs is None or of_state is not None or of_inputs.shape != inputs.shape:
            raise ValueError(
                f"dropout_masks has the shapes {jax.tree.map(jnp.shape, masks)}; expected inputs of "
                f"{list(inputs.shape)}, as the layer's, and dropout_masks.recurrent None: with these "
                "options Keras drops the inputs before the loop, every step anew. See dropout_every_step."
            )
        return inputs * of_inputs, None


class LSTM(InputDroppingLayer):
    """A loop over `LSTMCell`. The state is `LSTMState(c, h)`; Keras' is [h, c].

    Source: `tf.keras.layers.LSTM` (TF 2), on its path for a CPU.
    """

    unit_forget_bias: bool = True

    def setup(self) -> None:
        self.cell = LSTMCell(
            self.units,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            use_bias=self.use_bias,
            unit_forget_bias=self.unit_forget_bias,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            implementation=self.implementation,
            param_dtype=self.param_dtype,
        )

    def get_cell(self) -> nn.Module:
        return self.cell


class GRU(InputDroppingLayer):
    """A loop over `GRUCell`. Source: `tf.keras.layers.GRU` (TF 2), on its path for a CPU."""

    reset_after: bool = True

    def setup(self) -> None:
        self.cell = GRUCell(
            self.units,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            use_bias=self.use_bias,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            implementation=self.implementation,
            reset_after=self.reset_after,
            param_dtype=self.param_dtype,
        )

    def get_cell(self) -> nn.Module:
        return self.cell

    def drops_every_step(self) -> bool:
        if self.dropout_every_step is None and not self.reset_after:
            return False
        return super().drops_every_step()
