"""The bookkeeping of beams: tiling a batch, and following parents back through time.

Sources: `tfa.seq2seq.tile_batch`, `gather_tree` and `gather_tree_from_array` of TensorFlow Addons 0.23.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from jax_models.checks import check_array, check_lengths, check_size, read_if_known


def tile_batch(t: Any, multiplier: int) -> Any:
    """Repeat every row `multiplier` times, copies side by side: [1, 2] becomes [1, 1, 2, 2].

    Args:
        t: a pytree of arrays [batch, ...].
        multiplier: the beam width.

    Returns:
        The pytree with arrays [batch * multiplier, ...].

    Raises:
        TypeError: if the multiplier is no int.
        ValueError: if it is below 1, or an array has no batch axis.
    """
    check_size("tile_batch: multiplier", multiplier)

    def tile(x: Any) -> Array:
        if jnp.ndim(x) < 1:
            raise ValueError(
                "tile_batch: t has an array of rank 0, expected [batch, ...]. Maybe it is a list, which is a "
                "tree of its items: pass jnp.asarray of it"
            )
        return jnp.repeat(jnp.asarray(x), multiplier, axis=0)

    return jax.tree.map(tile, t)


def gather_tree(
    step_ids: Int[Array, "time batch beam"],
    parent_ids: Int[Array, "time batch beam"],
    max_sequence_lengths: Int[Array, " batch"],
    end_token: Any,
) -> Int[Array, "time batch beam"]:
    """Read each final beam's ids back through its parents, as `tfa.seq2seq.gather_tree`.

    Args:
        step_ids: the id that each beam took at each step.
        parent_ids: the beam of the step before that each beam continues, in [0, beam).
        max_sequence_lengths: the number of steps of each batch entry; 0 or less for none.
        end_token: the id, a scalar, that fills the steps past the length and past the first `end_token`.

    Returns:
        The ids of the beams in the order of the last step.

    Raises:
        ValueError: on shapes that do not fit, or a parent out of range (where it is known, that is
            outside tracing).
    """
    parent_ids = _check_parents("gather_tree", parent_ids)
    time, batch, beam = parent_ids.shape
    hint = f"parent_ids have shape {list(parent_ids.shape)}: [time, batch, beam]"
    step_ids = check_array("gather_tree: step_ids", step_ids, parent_ids.shape, "integer", hint=hint)
    max_sequence_lengths = check_array(
        "gather_tree: max_sequence_lengths", max_sequence_lengths, (batch,), "integer"
    )
    check_array("gather_tree: end_token", end_token, (), "integer")
    if time == 0:
        return step_ids
    end = jnp.asarray(end_token, step_ids.dtype)
    own = jnp.broadcast_to(jnp.arange(beam, dtype=parent_ids.dtype), (batch, beam))

    def follow(beams: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        t, ids, parents = now
        inside = (t < max_sequence_lengths)[:, None]
        chosen = jnp.where(inside, jnp.take_along_axis(ids, beams, axis=1), end)
        return jnp.where(inside, jnp.take_along_axis(parents, beams, axis=1), beams), chosen

    _, ids = jax.lax.scan(follow, own, (jnp.arange(time), step_ids, parent_ids), reverse=True)
    ended = jnp.cumsum(ids == end, axis=0) > 0
    return jnp.where(ended, end, ids)


def gather_tree_from_array(
    t: Shaped[Array, "time rows *depth"],
    parent_ids: Int[Array, "time batch beam"],
    sequence_length: Int[Array, "batch beam"],
) -> Shaped[Array, "time rows *depth"]:
    """Put what was recorded beam by beam in the order of the final beams.

    As `tfa.seq2seq.gather_tree_from_array`. A beam's steps at and past its length are left in place.

    Args:
        t: [time, batch, beam, ...] or [time, batch*beam, ...].
        parent_ids: as in `gather_tree`.
        sequence_length: the length of each final beam.

    Returns:
        An array of the shape of `t`. Gradients flow through it to `t`.

    Raises:
        ValueError: on shapes that do not fit.
    """
    t = check_array("gather_tree_from_array: t", t, ("time", "batch", ...))
    parent_ids = _check_parents("gather_tree_from_array", parent_ids)
    time, batch, beam = parent_ids.shape
    if t.shape[:2] != (time, batch * beam) and t.shape[:3] != (time, batch, beam):
        raise ValueError(
            f"gather_tree_from_array: t has shape {t.shape}, expected {(time, batch, beam)} or "
            f"{(time, batch * beam)}, and then any axes"
        )
    sequence_length = check_lengths(
        "gather_tree_from_array: sequence_length", sequence_length, (batch, beam), hint="[batch, beam]"
    )
    own = jnp.broadcast_to(jnp.arange(beam, dtype=parent_ids.dtype), (time, batch, beam))
    longest = jnp.max(sequence_length, axis=1)
    sources = gather_tree(own, parent_ids, longest, beam + 1)
    inside = jnp.arange(time)[:, None, None] < sequence_length
    sources = jnp.where(inside, sources, own)
    by_beam = t.reshape(time, batch, beam, -1)
    return jnp.take_along_axis(by_beam, sources[..., None], axis=2).reshape(t.shape)


def _check_parents(owner: str, parent_ids: Int[Array, "time batch beam"]) -> Int[Array, "time batch beam"]:
    known = read_if_known(parent_ids)
    parent_ids = check_array(f"{owner}: parent_ids", parent_ids, ("time", "batch", "beam"), "integer")
    beam = parent_ids.shape[2]
    if known is not None and known.size and not np.all((known >= 0) & (known < beam)):
        raise ValueError(f"{owner}: parent_ids reach from {known.min()} to {known.max()}, beam is {beam}")
    return parent_ids
