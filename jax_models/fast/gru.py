"""The gated recurrent unit of Cho et al. (2014), in the two forms that Keras has, and their derivatives.

    z, r = sigmoid(parts_zr + h @ R_zr + b_zr)
    n = tanh(parts_n + r * (h @ R_n + b_n))    `GRU_RESET_AFTER`, tf.keras.layers.GRUCell
    n = tanh(parts_n + (r * h) @ R_n)          `GRU_RESET_BEFORE`, with reset_after=False, and TF1's GRUCell
    h' = z * h + (1 - z) * n

Backward, with a the argument of tanh and `s` = h @ R_n + b_n:

    dz = dh' * (h - n) * z(1 - z)        da = dh' * (1 - z) * (1 - n^2)
    after:   dr = da * s * r(1 - r)      dh = dh' * z + (dz, dr, da * r) @ R^T
    before:  e = da @ R_n^T              dr = e * h * r(1 - r)
             dh = dh' * z + e * r + (dz, dr) @ R_zr^T

The adjoints of the parts are dz, dr, da. The bias is [2, 3*units] in the first form, the inputs' and the
state's, else [3*units].
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
    correlate_with_bias,
    pull_through,
)


class Kept(NamedTuple):
    """What the derivative needs of a step.

    Attributes:
        z, r, n: the gates and the candidate.
        h: that entered.
        s: the state's part of the candidate; None where it is reset before.
    """

    z: Float[Array, "*time batch units"]
    r: Float[Array, "*time batch units"]
    n: Float[Array, "*time batch units"]
    h: Float[Array, "*time batch units"]
    s: Float[Array, "*time batch units"] | None = None


def split_leaves_after(leaves: Mapping[str, Array]) -> tuple[Array | None, Recurrent]:
    """The bias is of two rows: of the inputs' projection and of the state's."""
    bias = leaves.get("bias")
    if bias is None:
        return None, Recurrent(leaves["recurrent_kernel"])
    return bias[0], Recurrent(leaves["recurrent_kernel"], bias[1])


def split_leaves_before(leaves: Mapping[str, Array]) -> tuple[Array | None, Recurrent]:
    """The whole bias belongs to the inputs' projection."""
    return leaves.get("bias"), Recurrent(leaves["recurrent_kernel"])


def advance_after(recurrent: Recurrent, parts: Parts, state: State) -> tuple[State, Kept]:
    """One step, reset after the product."""
    (h,) = state
    from_state = h @ recurrent.kernel
    if recurrent.bias is not None:
        from_state = from_state + recurrent.bias
    s_z, s_r, s = jnp.split(from_state, 3, axis=-1)
    z, r = jax.nn.sigmoid(parts[0] + s_z), jax.nn.sigmoid(parts[1] + s_r)
    n = jnp.tanh(parts[2] + r * s)
    return (z * h + (1 - z) * n,), Kept(z, r, n, h, s)


def advance_before(recurrent: Recurrent, parts: Parts, state: State) -> tuple[State, Kept]:
    """One step, reset before the product."""
    (h,) = state
    units = h.shape[-1]
    s_z, s_r = jnp.split(h @ recurrent.kernel[:, : 2 * units], 2, axis=-1)
    z, r = jax.nn.sigmoid(parts[0] + s_z), jax.nn.sigmoid(parts[1] + s_r)
    n = jnp.tanh(parts[2] + (r * h) @ recurrent.kernel[:, 2 * units :])
    return (z * h + (1 - z) * n,), Kept(z, r, n, h)


def pull_back_after(blocks: Blocks, kept: Kept, d_state: State) -> tuple[Parts, State]:
    """One step's derivative, reset after the product."""
    (dh,), (z, r, n, h, s) = d_state, kept
    dz, da = dh * (h - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
    dr = da * s * r * (1 - r)
    return (dz, dr, da), (dh * z + pull_through(blocks, (dz, dr, da * r)),)


def pull_back_before(blocks: Blocks, kept: Kept, d_state: State) -> tuple[Parts, State]:
    """One step's derivative, reset before the product."""
    (dh,), (z, r, n, h, _) = d_state, kept
    dz, da = dh * (h - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
    e = da @ blocks[2]
    dr = e * h * r * (1 - r)
    return (dz, dr, da), (dh * z + e * r + pull_through(blocks[:2], (dz, dr)),)


def gather_after(kept: Kept, h: Float[Array, "time batch units"], d_parts: Parts) -> Recurrent:
    """The gradient of the recurrent kernel, h^T @ (dz, dr, da * r), and of the state's bias."""
    dz, dr, da = d_parts
    d_state_parts = dz, dr, da * kept.r
    return Recurrent(*correlate_with_bias(h, d_state_parts))


def gather_before(kept: Kept, h: Float[Array, "time batch units"], d_parts: Parts) -> Recurrent:
    """The gradient of the recurrent kernel: h^T @ (dz, dr) and (r * h)^T @ da, side by side."""
    dz, dr, da = d_parts
    return Recurrent(jnp.concatenate([correlate(h, (dz, dr)), correlate(kept.r * h, (da,))], axis=-1))


GRU_RESET_AFTER = Cell(3, split_leaves_after, advance_after, pull_back_after, gather_after)
GRU_RESET_BEFORE = Cell(3, split_leaves_before, advance_before, pull_back_before, gather_before)
