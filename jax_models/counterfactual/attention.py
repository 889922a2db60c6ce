"""The four attention mechanisms, with knobs: the memory that is attended to, and one step's alignments.

The leaves lie under `decoder/attention_mechanism`. The knobs are `AttentionKnobs` of `oracle.knobs`.

Sources: Luong et al. (2015), Bahdanau et al. (2015), Salimans & Kingma (2016), Raffel et al. (2017); their
namesakes in `tfa.seq2seq`. A monotonic mechanism is tfa's with its defaults: mode "parallel", no noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jax_models.counterfactual.blend import blend, mix, pass_gradient

SITE = "decoder/attention_mechanism"

SMALLEST_DIVISOR = 1e-10
"""tfa's lower bound on the products by which "parallel" mode divides."""


class Memory(NamedTuple):
    """What is attended to; `mask` is True at what is no padding."""

    keys: Float[Array, "batch src_time depth"]
    values: Float[Array, "batch src_time memory"]
    mask: Bool[Array, "batch src_time"]


def choose_memory(
    knobs: Any, passed: Float[Array, ""], layers: list[Float[Array, "batch src_time memory"]]
) -> Float[Array, "batch src_time memory"]:
    """The encoder's outputs that are the memory, zero past the memory's lengths.

    Args:
        knobs: `AttentionKnobs`.
        passed: what of the gradient passes to the encoder.
        layers: the outputs of each of the encoder's layers.
    """
    outputs = pass_gradient(passed, mix(knobs.memory_layers, layers))[knobs.memory_rows]
    return jnp.where(_memory_mask(knobs, outputs)[..., None], outputs, 0)


def make_memory(
    weights: Mapping[str, Array], knobs: Any, values: Float[Array, "batch src_time memory"]
) -> Memory:
    """The keys beside the values: values @ memory_layer."""
    keys = values @ weights[f"{SITE}/memory_layer/kernel"]
    return Memory(keys, values, _memory_mask(knobs, values))


def start_alignments(mechanism: str, memory: Memory) -> Float[Array, "batch src_time"]:
    """The alignments before the first step: zeros, or of a monotonic mechanism all on the first place."""
    none = jnp.zeros(memory.values.shape[:2], memory.values.dtype)
    return none.at[:, 0].set(1) if mechanism.endswith("monotonic") else none


def align(
    mechanism: str,
    weights: Mapping[str, Array],
    knobs: Any,
    memory: Memory,
    query: Float[Array, "batch query"],
    before: Float[Array, "batch src_time"],
) -> Float[Array, "batch src_time"]:
    """The alignments of one step.

    Args:
        mechanism: `luong`, `bahdanau`, `luong_monotonic` or `bahdanau_monotonic`.
        weights: every leaf, by path.
        knobs: `AttentionKnobs`.
        memory: what is attended to.
        query: what it is compared with.
        before: the alignments of the step before, on which those of a monotonic mechanism build.
    """
    leaves = {name.removeprefix(f"{SITE}/"): leaf for name, leaf in weights.items() if name.startswith(SITE)}
    score = _score_luong if mechanism.startswith("luong") else _score_bahdanau
    scores = score(leaves, knobs, memory.keys, query) / knobs.divisor
    if mechanism.endswith("monotonic"):
        chosen = jax.nn.sigmoid(scores + leaves["attention_score_bias"])
        return walk_on(jnp.where(memory.mask, chosen, 0), before)
    # The lowest number, not minus infinity: a row of no memory attends to all of it alike, as in tfa.
    return jax.nn.softmax(jnp.where(memory.mask, scores, jnp.finfo(scores.dtype).min))


def walk_on(
    chosen: Float[Array, "batch src_time"], before: Float[Array, "batch src_time"]
) -> Float[Array, "batch src_time"]:
    """The expected alignments of a walk that stops at place i with the probability `chosen[:, i]`.

    b_i = p_i c_i (a_0 / c_0 + ... + a_i / c_i) with c_i = (1 - p_0) ... (1 - p_{i-1}), as tfa computes it:
    the products by their logarithms, and c bounded where it divides.
    """
    logarithms = jnp.log(_bound(1 - chosen, float(jnp.finfo(chosen.dtype).tiny)))
    places = chosen.shape[-1]
    earlier = jnp.tri(places, k=-1, dtype=chosen.dtype)
    passed = jnp.exp(logarithms @ earlier.T)
    reached = jnp.cumsum(before / _bound(passed, SMALLEST_DIVISOR), axis=-1)
    return chosen * passed * reached


def _score_luong(leaves: Mapping[str, Array], knobs: Any, keys: Array, query: Array) -> Array:
    scores = jnp.einsum("bmu,bu->bm", keys, query)
    if "attention_g" not in leaves:
        return scores
    return scores * blend(knobs.scaled, jnp.ones_like(knobs.scaled), leaves["attention_g"])


def _score_bahdanau(leaves: Mapping[str, Array], knobs: Any, keys: Array, query: Array) -> Array:
    mixed = keys + (query @ leaves["query_layer/kernel"])[:, None]
    v = leaves["attention_v"]
    if "attention_g" in leaves:
        mixed = mixed + knobs.scaled * leaves["attention_b"]
        v = blend(knobs.scaled, v, leaves["attention_g"] * v / jnp.sqrt(jnp.sum(v * v)))
    return jnp.tanh(mixed) @ v


def _memory_mask(knobs: Any, memory: Array) -> Array:
    return jnp.arange(memory.shape[1]) < knobs.memory_lengths[:, None]


def _bound(x: Array, low: float) -> Array:
    """`x`, but at least `low`; at a tie the whole gradient passes, as `tf.clip_by_value` has it."""
    return jnp.where(x < low, low, x)
