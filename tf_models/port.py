"""What every port has in common: a `tf.Module` that takes a batch and gives everything a record holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

Batch = Mapping[str, tf.Tensor]
"""The case's batch, batch-major: `source`, `target`, and by the spec lengths and initial state."""


class Step(NamedTuple):
    """One forward and backward pass. A gradient that TensorFlow gives as None is None here.

    Args:
        forward: `output/...` and `state/...`, batch-major, as far as the port has them.
        loss: the loss, a scalar.
        gradients: `batch/...` and `state/...`: of the batch and of the encoder's final state.
        variable_gradients: by the name that the variable has in `variables_by_name`.
    """

    forward: dict[str, tf.Tensor]
    loss: tf.Tensor
    gradients: dict[str, tf.Tensor | None]
    variable_gradients: dict[str, tf.Tensor | None]


class Port(Protocol):
    """A TensorFlow model under test."""

    convention: str
    """How its variables are named and laid out: `tf1` or `keras`; see `oracle.bridge`."""

    trainable_variables: Sequence[tf.Variable]
    """All that it can train, as `tf.Module` finds it; `variables_by_name` must name every one."""

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Its trainable variables, named as the convention has it. Empty before the first step."""
        ...

    def step(self, batch: Batch) -> Step:
        """Compute the outputs, the loss and the gradients of one batch."""
        ...


def dense_gradient(gradient: tf.Tensor | tf.IndexedSlices | None) -> tf.Tensor | None:
    """A gradient as one tensor; repeated rows of `IndexedSlices` are summed. None stays None."""
    return None if gradient is None else tf.convert_to_tensor(gradient)
