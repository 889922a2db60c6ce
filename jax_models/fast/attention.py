"""The attention mechanisms: what is made of the memory once, one step, and the step's derivative.

Scores, of a query q and the key k of a place:

    dot        <k, q>                   Luong et al. (2015); its scale is multiplied into the keys
    additive   <v, tanh(k + q @ Q)>     Bahdanau et al. (2015); normalised as by Salimans & Kingma (2016),
                                        v is g * v / |v|, and b is added to the keys

Alignments are softmax(scores), or of a monotonic mechanism (Raffel et al. 2017) the walk of
`jax_models.monotonic` over p = sigmoid(scores + bias). A masked place has the score of the lowest number.

Backward, with the adjoint `da` of the alignments a:

    softmax    ds = a * (da - <a, da>)
    dot        dq = sum_m ds_m k_m                           dk_m = ds_m q
    additive   e_m = v * ds_m (1 - tanh^2)   dq = (sum_m e_m) @ Q^T   dk_m = e_m   dv = sum_m ds_m tanh

The keys' gradient of the dot form is one batched product after the loop; that of the additive form is summed
step by step, because what it would be a product of is as large as the memory, once a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_models.monotonic import monotonic_attention


@dataclass(frozen=True)
class Mechanism:
    """What of a mechanism is fixed when it is compiled.

    Args:
        additive: Bahdanau's score, not Luong's.
        monotonic: whether the alignments are those of a walk.
    """

    additive: bool
    monotonic: bool


class Memory(NamedTuple):
    """What is attended to; `mask` is True at what is no padding, None where all counts."""

    keys: Float[Array, "batch src_time depth"]
    values: Float[Array, "batch src_time memory"]
    mask: Bool[Array, "batch src_time"] | None


class Scoring(NamedTuple):
    """The leaves that a step uses: the additive score's are the first two, a monotonic one's the third."""

    query_kernel: Float[Array, "query depth"] | None
    v: Float[Array, " depth"] | None
    bias: Float[Array, ""] | None


class Kept(NamedTuple):
    """What the derivative needs of a step, besides the alignments.

    Attributes:
        query: of the dot score the query, of the additive one its projection.
        scores: of a monotonic mechanism, masked; else None.
        before: of a monotonic mechanism, the alignments before; else None.
    """

    query: Float[Array, "*time batch depth"]
    scores: Float[Array, "*time batch src_time"] | None
    before: Float[Array, "*time batch src_time"] | None


class Pulled(NamedTuple):
    """What a step's derivative gives.

    Attributes:
        query: the adjoint of the query.
        before: of a monotonic mechanism, that of the alignments before; else None.
        scores: that of the scores.
        projected: of the additive score, that of the query's projection; else None.
    """

    query: Float[Array, "batch query"]
    before: Float[Array, "batch src_time"] | None
    scores: Float[Array, "*time batch src_time"]
    projected: Float[Array, "*time batch depth"] | None


def choose_mechanism(name: str) -> Mechanism:
    """The mechanism of a name: `luong`, `bahdanau`, `luong_monotonic` or `bahdanau_monotonic`."""
    return Mechanism(name.startswith("bahdanau"), name.endswith("monotonic"))


def prepare(
    mechanism: Mechanism,
    leaves: Mapping[str, Any],
    outputs: Float[Array, "batch src_time memory"],
    lengths: Int[Array, " batch"] | None,
) -> tuple[Memory, Scoring]:
    """The memory of the encoder's outputs, and the leaves of a step.

    Args:
        mechanism: which one.
        leaves: `memory_layer`, `query_layer`, `attention_v`, `attention_g`, `attention_b` and
            `attention_score_bias`, as far as the mechanism has them.
        outputs: the encoder's.
        lengths: how many places of each row are no padding; the others are multiplied by 0.
    """
    mask = None if lengths is None else jnp.arange(outputs.shape[1]) < lengths[:, None]
    values = outputs if mask is None else outputs * mask[..., None].astype(outputs.dtype)
    keys = values @ leaves["memory_layer"]["kernel"]
    bias = leaves["attention_score_bias"] if mechanism.monotonic else None
    scaled = "attention_g" in leaves
    if not mechanism.additive:
        keys = keys * leaves["attention_g"] if scaled else keys
        return Memory(keys, values, mask), Scoring(None, None, bias)
    v = leaves["attention_v"]
    if scaled:
        keys = keys + leaves["attention_b"]
        v = leaves["attention_g"] * v * jax.lax.rsqrt(jnp.sum(jnp.square(v)))
    return Memory(keys, values, mask), Scoring(leaves["query_layer"]["kernel"], v, bias)


def start_alignments(mechanism: Mechanism, memory: Memory) -> Float[Array, "batch src_time"] | None:
    """The alignments before the first step, of a monotonic mechanism: all on the first place."""
    if not mechanism.monotonic:
        return None
    return jnp.zeros(memory.values.shape[:2], memory.values.dtype).at[:, 0].set(1)


def attend(
    mechanism: Mechanism,
    memory: Memory,
    scoring: Scoring,
    query: Float[Array, "batch query"],
    before: Float[Array, "batch src_time"] | None,
) -> tuple[Float[Array, "batch src_time"], Kept]:
    """One step's alignments, and what their derivative needs."""
    if mechanism.additive:
        query = query @ scoring.query_kernel
        # A sum, not a product with v: the tanh of the whole memory is never written out.
        scores = jnp.sum(jnp.tanh(memory.keys + query[:, None]) * scoring.v, axis=-1)
    else:
        scores = jnp.einsum("bmu,bu->bm", memory.keys, query)
    if scoring.bias is not None:
        scores = scores + scoring.bias
    if memory.mask is not None:
        scores = jnp.where(memory.mask, scores, jnp.finfo(scores.dtype).min)
    if not mechanism.monotonic:
        return jax.nn.softmax(scores), Kept(query, None, None)
    return _walk(scores, before), Kept(query, scores, before)


def average(memory: Memory, alignments: Float[Array, "batch src_time"]) -> Float[Array, "batch memory"]:
    """The context: the values under the alignments."""
    return jnp.einsum("bm,bmd->bd", alignments, memory.values)


def start_sums(mechanism: Mechanism, memory: Memory, scoring: Scoring) -> Any:
    """The zeros to which the additive score's derivative adds at each step: of the keys, and of v."""
    return (jnp.zeros_like(memory.keys), jnp.zeros_like(scoring.v)) if mechanism.additive else None


def pull_back(
    mechanism: Mechanism,
    memory: Memory,
    scoring: Scoring,
    alignments: Float[Array, "batch src_time"],
    kept: Kept,
    d_alignments: Float[Array, "batch src_time"],
    sums: Any,
) -> tuple[Pulled, Any]:
    """One step's derivative, and `sums` with what it adds to them. See the module's docstring."""
    d_before = None
    if mechanism.monotonic:
        # The walk costs next to nothing beside the scores: it is walked again.
        d_scores, d_before = jax.vjp(_walk, kept.scores, kept.before)[1](d_alignments)
    else:
        d_scores = alignments * (d_alignments - jnp.sum(alignments * d_alignments, axis=-1, keepdims=True))
    if memory.mask is not None:
        d_scores = jnp.where(memory.mask, d_scores, 0)
    if not mechanism.additive:
        d_query = jnp.einsum("bm,bmu->bu", d_scores, memory.keys)
        return Pulled(d_query, d_before, d_scores, None), sums
    d_keys, d_v = sums
    d_projected, of_v, d_keys = jax.lax.platform_dependent(
        memory.keys, kept.query, d_scores, d_keys, scoring.v, cpu=_pull_tanh_by_products, default=_pull_tanh
    )
    pulled = Pulled(d_projected @ scoring.query_kernel.T, d_before, d_scores, d_projected)
    return pulled, (d_keys, d_v + of_v)


def gather(
    mechanism: Mechanism,
    memory: Memory,
    queries: Float[Array, "time batch query"],
    alignments: Float[Array, "time batch src_time"],
    pulled: Pulled,
    d_contexts: Float[Array, "time batch memory"],
    sums: Any,
) -> tuple[Memory, Scoring]:
    """The gradients of memory and leaves, of what all steps' derivatives gave."""
    d_values = jnp.einsum("tbm,tbd->bmd", alignments, d_contexts)
    d_bias = jnp.sum(pulled.scores) if mechanism.monotonic else None
    if not mechanism.additive:
        d_keys = jnp.einsum("tbm,tbu->bmu", pulled.scores, queries)
        return Memory(d_keys, d_values, None), Scoring(None, None, d_bias)
    d_keys, d_v = sums
    assert pulled.projected is not None
    flat = queries.reshape(-1, queries.shape[-1]).T
    d_query_kernel = flat @ pulled.projected.reshape(-1, pulled.projected.shape[-1])
    return Memory(d_keys, d_values, None), Scoring(d_query_kernel, d_v, d_bias)


def _walk(scores: Array, before: Any) -> Array:
    return monotonic_attention(jax.nn.sigmoid(scores), before, "parallel")


def _pull_tanh(
    keys: Array, query: Array, d_scores: Array, d_keys: Array, v: Array
) -> tuple[Array, Array, Array]:
    """The additive score's derivative: of the projected query, of v, and that of the keys so far."""
    tanh = jnp.tanh(keys + query[:, None])
    e = d_scores[..., None] * (1 - tanh * tanh) * v
    return jnp.sum(e, axis=1), jnp.einsum("bm,bmu->u", d_scores, tanh), d_keys + e


def _pull_tanh_by_products(
    keys: Array, query: Array, d_scores: Array, d_keys: Array, v: Array
) -> tuple[Array, Array, Array]:
    """The same for a CPU, where XLA's products of matrices are faster than its sums."""
    tanh = jnp.tanh(keys + query[:, None])
    slope = _write_out(1 - tanh * tanh)
    d_query = jnp.einsum("bm,bmu->bu", d_scores, slope) * v
    of_v = jnp.sum(jnp.einsum("bm,bmu->bu", d_scores, tanh), axis=0)
    return d_query, of_v, d_keys + d_scores[..., None] * slope * v


@jax.custom_batching.custom_vmap
def _write_out(array: Array) -> Array:
    """The array, written out: XLA would compute it inside of the product that reads it, number by number."""
    return jax.lax.optimization_barrier(array)


@_write_out.def_vmap
def _write_out_batched(size: int, is_batched: tuple[bool], array: Array) -> tuple[Array, bool]:
    # JAX 0.4.34 has no rule for the barrier.
    return _write_out(array), is_batched[0]
