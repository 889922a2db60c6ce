"""The wrapper of Keras 2.15 that reads a sequence from both ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from jax_models.checks import check_choice, check_key
from jax_models.keras_rnn import RecurrentLayer

MERGE_MODES = ("concat", "sum", "mul", "ave", None)
"""How `Bidirectional` joins its two outputs; None leaves them apart."""


class Bidirectional(nn.Module):
    """Two copies of a recurrent layer, of which one reads the sequence backwards.

    The copy that reads backwards is `layer` with `go_backwards` reversed, or `backward_layer` where
    given. Its sequence of outputs is turned round, so that both run in the order of `layer`'s outputs.
    Where the layers return sequences, masked steps give zeros, whatever their own
    `zero_output_for_mask` says: Keras sets it to `return_sequences`. The leaves lie under `forward`
    and `backward`. Source: Schuster & Paliwal (1997); `tf.keras.layers.Bidirectional`.
    """

    layer: RecurrentLayer
    backward_layer: RecurrentLayer | None = None
    merge_mode: str | None = "concat"

    def __post_init__(self) -> None:
        check_choice("merge_mode", self.merge_mode, MERGE_MODES)
        for name in ("layer", "backward_layer"):
            layer = getattr(self, name)
            if not isinstance(layer, RecurrentLayer) and (name == "layer" or layer is not None):
                raise TypeError(
                    f"{name} is a {type(layer).__name__}, expected a recurrent layer, as LSTM(units)"
                )
        other = self.backward_layer
        if other is not None:
            for name in ("stateful", "return_sequences", "return_state", "time_major"):
                if getattr(self.layer, name) != getattr(other, name):
                    raise ValueError(
                        f"{name} is {getattr(self.layer, name)} in layer and "
                        f"{getattr(other, name)} in backward_layer; expected the same"
                    )
            if self.layer.go_backwards == other.go_backwards:
                raise ValueError(
                    f"go_backwards is {other.go_backwards} in layer and in backward_layer; "
                    "expected that they differ"
                )
        super().__post_init__()

    def setup(self) -> None:
        backward = self.backward_layer or self.layer
        reverse = {} if self.backward_layer else {"go_backwards": not self.layer.go_backwards}
        zero = self.layer.return_sequences
        self.forward = copy_apart(self.layer, zero_output_for_mask=zero)
        self.backward = copy_apart(backward, zero_output_for_mask=zero, **reverse)

    def __call__(
        self,
        inputs: Any,
        *,
        mask: Shaped[Array, "rows columns"] | None = None,
        initial_state: Any = None,
        recorded_state: Any = None,
        training: bool = False,
        key: PRNGKeyArray | None = None,
        dropout_masks: tuple[Any, Any] | None = None,
    ) -> Any:
        """Run both layers. The arguments are those of `RecurrentLayer`; every state, and
        `dropout_masks`, is a pair: for the forward and for the backward layer.

        Returns:
            The merged output, [batch, units] or [batch, time, units], with 2*units for "concat"; the
            pair of the outputs for `merge_mode=None`. With `return_state` the pair of that and of the
            two final states. (Keras returns a flat list instead: outputs, forward, backward states.)
        """
        for name, pair in (("initial_state", initial_state), ("recorded_state", recorded_state)):
            if pair is not None and (not isinstance(pair, tuple) or len(pair) != 2):
                raise TypeError(f"{name} is {type(pair).__name__}; expected (forward, backward) states")
        if dropout_masks is not None and (not isinstance(dropout_masks, tuple) or len(dropout_masks) != 2):
            raise TypeError("dropout_masks is no pair; expected (forward, backward) masks")
        check_key("key", key)
        keys = (None, None) if key is None else jax.random.split(key)
        results = []
        for direction, layer in enumerate((self.forward, self.backward)):
            result = layer(
                inputs,
                mask=mask,
                initial_state=None if initial_state is None else initial_state[direction],
                recorded_state=None if recorded_state is None else recorded_state[direction],
                training=training,
                key=keys[direction],
                dropout_masks=None if dropout_masks is None else dropout_masks[direction],
            )
            results.append(result if self.layer.return_state else (result, None))
        (ahead, ahead_state), (behind, behind_state) = results
        if self.layer.return_sequences:
            behind = jnp.flip(behind, 0 if self.layer.time_major else 1)
        merged = merge_outputs(ahead, behind, self.merge_mode)
        return (merged, (ahead_state, behind_state)) if self.layer.return_state else merged

    def compute_mask(self, mask: Shaped[Array, "rows columns"] | None) -> Any:
        """The mask that Keras hands on: the same one, twice for `merge_mode=None`; None for a layer
        that returns the last output only.
        """
        handed_on = mask if self.layer.return_sequences else None
        return (handed_on, handed_on) if self.merge_mode is None else handed_on

    def draw_dropout_masks(
        self, key: PRNGKeyArray, inputs: Float[Array, "rows columns features"]
    ) -> tuple[Any, Any]:
        """The pair of masks that a call with `inputs` and `key` uses."""
        ahead, behind = jax.random.split(key)
        return (
            self.forward.draw_dropout_masks(ahead, inputs),
            self.backward.draw_dropout_masks(behind, inputs),
        )


def merge_outputs(
    ahead: Float[Array, "*leading units"], behind: Float[Array, "*leading other"], mode: str | None
) -> Array | tuple[Array, Array]:
    """Join the outputs of two directions as `Bidirectional`'s `merge_mode` says."""
    if mode is None:
        return ahead, behind
    if mode == "concat":
        return jnp.concatenate([ahead, behind], axis=-1)
    if ahead.shape != behind.shape:
        raise ValueError(
            f"merge_mode {mode!r} of outputs {list(ahead.shape)} and {list(behind.shape)}; "
            "expected the same shape"
        )
    if mode == "mul":
        return ahead * behind
    return ahead + behind if mode == "sum" else (ahead + behind) / 2


def copy_apart(module: nn.Module, **changes: Any) -> nn.Module:
    """A copy of `module` with some fields changed, that shares no leaves with it.

    `module.clone()` would keep a cell in a field by reference, and Flax then gives the two layers one
    set of leaves.
    """
    names = {field.name for field in dataclasses.fields(module) if field.init} - {"parent", "name"}
    values = {name: _copy_value(getattr(module, name)) for name in names}
    return type(module)(**(values | changes), parent=None)


def _copy_value(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return copy_apart(value)
    return tuple(_copy_value(item) for item in value) if type(value) is tuple else value
