"""What a loop asks of a cell: a step, the step's derivative, and the weights' gradients of all steps at once.

A cell's gates are kept apart, as a tuple of arrays: their pre-activations `x @ kernel + bias` are the `parts`
of a step. An array for each gate costs less than columns of one array, of which every use is a strided copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

State = tuple[Float[Array, "batch units"], ...]
"""(c, h) of an LSTM, (h,) of a GRU: h, which is the output, comes last."""

Parts = tuple[Float[Array, "*steps units"], ...]
"""An array for each gate, of one step or of all."""


Blocks = tuple[Float[Array, "units rows"], ...]
"""A kernel's block for each gate, transposed."""


class Recurrent(NamedTuple):
    """The leaves that a step multiplies the state by; the bias is of a GRU that resets after the product."""

    kernel: Float[Array, "units columns"]
    bias: Float[Array, " columns"] | None = None


class Cell(NamedTuple):
    """A kind of cell.

    Attributes:
        gates: how many parts a step has.
        split_leaves: of the leaves, the inputs' bias [gates*units] (or None) and the `Recurrent`.
        advance: recurrent, parts, state -> the next state, and what `pull_back` needs of the step.
        pull_back: the transposed blocks of the recurrent kernel, what was kept, the adjoint of the next
            state -> the adjoints of the parts and of the state.
        gather: what was kept, the h that entered, and the adjoints of the parts, each of all steps -> the
            gradient of the `Recurrent`.
    """

    gates: int
    split_leaves: Callable[[Mapping[str, Array]], tuple[Array | None, Recurrent]]
    advance: Callable[[Recurrent, Parts, State], tuple[State, Any]]
    pull_back: Callable[[Blocks, Any, State], tuple[Parts, State]]
    gather: Callable[[Any, Array, Parts], Recurrent]


def project(
    inputs: Float[Array, "*steps features"],
    kernel: Float[Array, "features columns"],
    bias: Float[Array, " columns"] | None,
    gates: int,
) -> Parts:
    """The parts that `inputs` give, of all steps at once: a matrix product for each gate."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    if bias is not None:
        # The bias as a row of the kernel: its gradient is a part of the kernel's, not a pass by itself.
        flat, kernel = _append_ones(flat), jnp.concatenate([kernel, bias[None]])
    parts = [flat @ block for block in jnp.split(kernel, gates, axis=-1)]
    return tuple(part.reshape(*inputs.shape[:-1], part.shape[-1]) for part in parts)


def transpose_blocks(kernel: Float[Array, "rows columns"], gates: int) -> Blocks:
    """Each gate's block, transposed.

    Written out before a loop: a product with the second factor's rows contracted, step for step, costs XLA
    on a CPU about twice as much.
    """
    return tuple(block.T for block in jnp.split(kernel, gates, axis=-1))


def pull_through(blocks: Blocks, d_parts: Parts) -> Float[Array, "*steps rows"]:
    """The adjoint of x from those of the parts x @ block."""
    return sum((d @ block for d, block in zip(d_parts[1:], blocks[1:], strict=True)), d_parts[0] @ blocks[0])


def correlate(
    inputs: Float[Array, "time batch features"], d_parts: Parts
) -> Float[Array, "features columns"]:
    """The gradient of the kernel by which all steps' `inputs` were multiplied: inputs^T @ d_parts."""
    flat = inputs.reshape(-1, inputs.shape[-1]).T
    return jnp.concatenate([flat @ d.reshape(-1, d.shape[-1]) for d in d_parts], axis=-1)


def correlate_with_bias(
    inputs: Float[Array, "time batch features"], d_parts: Parts
) -> tuple[Float[Array, "features columns"], Float[Array, " columns"]]:
    """The gradients of the kernel and of the bias that is added to the product."""
    both = correlate(_append_ones(inputs), d_parts)
    return both[:-1], both[-1]


def _append_ones(inputs: Float[Array, "*steps features"]) -> Float[Array, "*steps more"]:
    return jnp.concatenate([inputs, jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)], axis=-1)
