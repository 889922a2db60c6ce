"""The LSTM of Hochreiter & Schmidhuber (1997) with Gers et al.'s (1999) forget gate, and its derivative.

    i, f, g, o = parts + h @ recurrent_kernel, the first, second and fourth through a sigmoid, g through tanh
    c' = f * c + i * g
    h' = o * tanh(c')

Backward, with t = tanh(c') and the adjoints of c' and h' (`dc`, `dh`):

    dc = dc + dh * o * (1 - t^2)
    d_parts = dc * g * i(1 - i),  dc * c * f(1 - f),  dc * i * (1 - g^2),  dh * t * o(1 - o)
    the adjoint of c is dc * f, that of h is d_parts @ recurrent_kernel^T

What is kept of a step are the four gates and c; c' is computed again, which costs less than to read it.
It is `BasicLSTMCell` of TF1, whose forget bias is a part of `bias` here, and `tf.keras.layers.LSTMCell`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.fast.cell import (
    Blocks,
    Cell,
    Parts,
    Recurrent,
    State,
    correlate,
    pull_through,
)


class Kept(NamedTuple):
    """What the derivative needs of a step: the gates, and the c that entered."""

    i: Float[Array, "*time batch units"]
    f: Float[Array, "*time batch units"]
    g: Float[Array, "*time batch units"]
    o: Float[Array, "*time batch units"]
    c: Float[Array, "*time batch units"]


def split_leaves(leaves: Mapping[str, Array]) -> tuple[Array | None, Recurrent]:
    """The whole bias belongs to the inputs' projection."""
    return leaves.get("bias"), Recurrent(leaves["recurrent_kernel"])


def advance(recurrent: Recurrent, parts: Parts, state: State) -> tuple[State, Kept]:
    """One step."""
    c, h = state
    from_state = jnp.split(h @ recurrent.kernel, 4, axis=-1)
    i, f, g, o = (x + y for x, y in zip(parts, from_state, strict=True))
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c_next = f * c + i * g
    return (c_next, o * jnp.tanh(c_next)), Kept(i, f, g, o, c)


def pull_back(blocks: Blocks, kept: Kept, d_state: State) -> tuple[Parts, State]:
    """One step's derivative: see the module's docstring."""
    dc, dh = d_state
    i, f, g, o, c = kept
    t = jnp.tanh(f * c + i * g)
    dc = dc + dh * o * (1 - t * t)
    d_parts = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)
    return d_parts, (dc * f, pull_through(blocks, d_parts))


def gather(kept: Kept, h: Float[Array, "time batch units"], d_parts: Parts) -> Recurrent:
    """The gradient of the recurrent kernel: h^T @ d_parts, over all steps at once."""
    return Recurrent(correlate(h, d_parts))


def bake_forget_bias(bias: Float[Array, " columns"], forget_bias: float) -> Float[Array, " columns"]:
    """The bias with TF1's `forget_bias`, which is added to the forget gate at run time, made a part of it."""
    units = bias.shape[0] // 4
    return bias.at[units : 2 * units].add(forget_bias)


LSTM = Cell(4, split_leaves, advance, pull_back, gather)
