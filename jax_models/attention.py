"""Attention of `tfa.seq2seq`: what a decoder's step attends to in the encoder's outputs.

A mechanism is used in two moves. `setup_memory` projects the encoder's outputs once and returns them as
a value, an `AttentionMemory`; calling the mechanism with that memory, a query and the mechanism's own
state gives the alignments of one step. Nothing is kept between calls, so a mechanism can be stepped
inside `jax.lax.scan`, and the gradient reaches the encoder and `memory_layer` through the memory.

TensorFlow keeps the memory in the mechanism. Three of its traps come from that, and each is replayed
by what is given to `setup_memory`:

* lengths given to the constructor with `memory=None` are ignored: see `constructor_lengths`;
* a Keras mask of the memory counts when the memory goes through the constructor or `__call__`, and is
  ignored by `.setup_memory()`: give it here as `memory_mask` in the first case only;
* memory set up outside the gradient tape gets the gradient None: `jax.lax.stop_gradient` of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jax_models.checks import (
    check_array,
    check_callable,
    check_choice,
    check_fields,
    check_key,
    check_lengths,
    read_if_known,
)

ProbabilityFunction = Callable[[Array, Array], Array]
"""`probabilities = probability_fn(score, previous_alignments)`, all of shape [batch, memory]."""


class AttentionMemory(NamedTuple):
    """What a mechanism attends to: the outcome of `AttentionMechanism.setup_memory`.

    `keys` are compared with the query, `values` are averaged; a step at which `mask` is False gets the
    mechanism's `masked_score`. `mask` is None if no lengths and no mask were given.
    """

    keys: Float[Array, "batch memory units"]
    values: Float[Array, "batch memory depth"]
    mask: Bool[Array, "batch memory"] | None


def hardmax(logits: Float[Array, "*batch depth"]) -> Float[Array, "*batch depth"]:
    """One-hot vectors at the largest logit, the first of several: `tfa.seq2seq.hardmax`.

    No gradient passes: TensorFlow gives None, JAX zeros.
    """
    logits = check_array("hardmax: logits", logits, (..., "depth"), "float")
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


def glorot_vector(key: PRNGKeyArray | Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Glorot & Bengio's (2010) uniform initializer of a vector, whose length Keras takes for both fans.

    `flax.linen.initializers.glorot_uniform` refuses vectors.
    """
    limit = math.sqrt(3 / shape[0])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class AttentionMechanism(nn.Module, kw_only=True):
    """The base of the mechanisms: `tfa.seq2seq.AttentionMechanism`.

    A mechanism of your own gives `calculate_score`, and sets up (or declares as a field)
    `memory_layer` if the keys are to differ from the values.

    Attributes:
        probability_fn: "softmax", "hardmax", or a function of the score and the previous alignments.
        masked_score: what stands in for the score of a masked step. "lowest", as in tfa, is the
            smallest finite number: a row with every step masked attends uniformly (to values that are
            all zero). "minus_infinity", as in TF1's contrib, makes such a row NaN.
        param_dtype: the dtype of the parameters.
        memory_sequence_length: lengths [batch] given to the constructor, as TensorFlow's constructors take
            them; see `constructor_lengths`.
        constructor_lengths: what becomes of those. TensorFlow ignores them where its constructor is given
            no memory, and ours never is: "ignored". "used": they are the lengths of a memory that is set
            up without lengths and mask of its own.
    """

    probability_fn: str | ProbabilityFunction = "softmax"
    masked_score: Literal["lowest", "minus_infinity"] = "lowest"
    param_dtype: DTypeLike = jnp.float32
    memory_sequence_length: Any = None
    constructor_lengths: Literal["ignored", "used"] = "ignored"

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("constructor_lengths", self.constructor_lengths, ("ignored", "used"))
        if self.memory_sequence_length is not None:
            check_lengths("memory_sequence_length", self.memory_sequence_length, ("batch",))
        if not callable(self.probability_fn) and self.probability_fn not in _PROBABILITY_FUNCTIONS:
            raise ValueError(
                f"probability_fn is {self.probability_fn!r}, expected one of "
                f"{sorted(_PROBABILITY_FUNCTIONS)} or a function of (score, previous_alignments)"
            )
        check_choice("masked_score", self.masked_score, ("lowest", "minus_infinity"))
        super().__post_init__()

    def setup_memory(
        self,
        memory: Float[Array, "batch memory depth"],
        *,
        memory_sequence_length: Int[Array, " batch"] | None = None,
        memory_mask: Bool[Array, "batch memory"] | None = None,
        zero_length: Literal["raise", "attend_uniformly"] = "raise",
    ) -> AttentionMemory:
        """Prepare the encoder's outputs `memory` for being attended to.

        The steps at and past a row's length, or where the mask is False, are multiplied by 0 before
        `memory_layer` sees them. (Multiplied: a NaN there stays a NaN, as in TensorFlow.)

        Args:
            memory: the encoder's outputs.
            memory_sequence_length: how many steps of each row are real.
            memory_mask: which steps of each row are real; may have gaps.
            zero_length: TensorFlow refuses a length of 0, and so does "raise" as far as the lengths are
                known before tracing; under `jit` such a row, and with "attend_uniformly" always, has
                every step masked.

        Raises:
            TypeError: on another dtype than floats, or integers for lengths, or booleans for a mask.
            ValueError: if both lengths and a mask are given, if a shape does not fit, or for a length
                below 1.
        """
        state = "Maybe you passed the encoder's final state instead of its outputs."
        memory = check_array("memory", memory, ("batch", "memory", "depth"), "float", hint=state)
        if memory_sequence_length is None and memory_mask is None and self.constructor_lengths == "used":
            memory_sequence_length = self.memory_sequence_length
        mask = _memory_mask(memory.shape, memory_sequence_length, memory_mask, zero_length)
        values = memory if mask is None else memory * mask[..., None].astype(memory.dtype)
        return AttentionMemory(self.project_memory(values), values, mask)

    def project_memory(
        self, values: Float[Array, "batch memory depth"]
    ) -> Float[Array, "batch memory units"]:
        """The keys: `values` through `memory_layer`, or the values themselves if there is none."""
        layer = getattr(self, "memory_layer", None)
        return values if layer is None else layer(values)

    def calculate_score(
        self,
        keys: Float[Array, "batch memory units"],
        query: Float[Array, "batch query"],
    ) -> Float[Array, "batch memory"]:
        """How well each key fits the query. Masking comes afterwards."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to calculate_score")

    def calculate_alignments(
        self,
        score: Float[Array, "batch memory"],
        state: Float[Array, "batch memory"],
        *,
        noise: Float[Array, "batch memory"] | None = None,
        key: PRNGKeyArray | Array | None = None,
    ) -> Float[Array, "batch memory"]:
        """Turn masked scores, and the previous alignments `state`, into the alignments."""
        if noise is not None:
            raise ValueError(f"noise was given, but {type(self).__name__} is deterministic")
        if callable(self.probability_fn):
            return self.probability_fn(score, state)
        return _PROBABILITY_FUNCTIONS[self.probability_fn](score)

    def __call__(
        self,
        memory: AttentionMemory,
        query: Float[Array, "batch query"],
        state: Float[Array, "batch memory"],
        *,
        noise: Float[Array, "batch memory"] | None = None,
        key: PRNGKeyArray | Array | None = None,
    ) -> tuple[Float[Array, "batch memory"], Float[Array, "batch memory"]]:
        """Attend to `memory` once.

        Args:
            memory: what `setup_memory` returned.
            query: the decoder cell's output.
            state: the previous alignments (at first `initial_state(memory)`). Only the monotonic
                mechanisms look at it.
            noise: standard normal numbers, for the monotonic mechanisms with noise.
            key: what to draw them from, if `noise` is not given.

        Returns:
            The alignments, and the next state, which is the alignments too.

        Raises:
            TypeError: if `memory` was not set up, or on another dtype than floats.
            ValueError: on shapes that do not fit.
        """
        if not isinstance(memory, AttentionMemory):
            raise TypeError(
                f"memory is a {type(memory).__name__}, expected an AttentionMemory. Maybe you passed the "
                "encoder's outputs instead of mechanism.setup_memory(outputs)"
            )
        rows = memory.keys.shape[:2]
        hint = "Maybe it has a time axis, which a loop takes apart, or was not tiled with tile_batch"
        query = check_array("query", query, (rows[0], "query"), "float", hint=hint)
        state = check_array("state", state, rows, "float", hint="The previous alignments")
        if noise is not None:
            noise = check_array("noise", noise, rows, "float")
        check_key("key", key)
        score = self.calculate_score(memory.keys, query)
        if memory.mask is not None:
            lowest = jnp.finfo(score.dtype).min
            masked = lowest if self.masked_score == "lowest" else -jnp.inf
            score = jnp.where(memory.mask, score, jnp.asarray(masked, score.dtype))
        alignments = self.calculate_alignments(score, state, noise=noise, key=key)
        return alignments, alignments

    def attend(
        self,
        memory: Float[Array, "batch memory depth"],
        query: Float[Array, "batch query"],
        *,
        memory_sequence_length: Int[Array, " batch"] | None = None,
        memory_mask: Bool[Array, "batch memory"] | None = None,
        noise: Float[Array, "batch memory"] | None = None,
        key: PRNGKeyArray | Array | None = None,
    ) -> Float[Array, "batch memory"]:
        """Set up the memory and attend to it once.

        `mechanism.init(key, memory, query, method="attend")` makes every parameter of the mechanism.
        """
        ready = self.setup_memory(
            memory, memory_sequence_length=memory_sequence_length, memory_mask=memory_mask
        )
        return self(ready, query, self.initial_state(ready), noise=noise, key=key)[0]

    def initial_alignments(self, memory: AttentionMemory) -> Float[Array, "batch memory"]:
        """The alignments before the first step: zeros."""
        return jnp.zeros(memory.values.shape[:2], memory.values.dtype)

    def initial_state(self, memory: AttentionMemory) -> Float[Array, "batch memory"]:
        """The mechanism's state before the first step: its initial alignments."""
        return self.initial_alignments(memory)


class LuongAttention(AttentionMechanism):
    """Multiplicative attention of Luong et al. (2015), "general" score: `tfa.seq2seq.LuongAttention`.

        keys = values @ memory_layer
        score = attention_g * <keys, query>

    The query must be as wide as the keys: there is no query layer.

    Attributes:
        units: the width of the keys and of the query.
        scale: whether there is a scalar `attention_g` (at first 1).
    """

    units: int
    scale: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "units")
        super().__post_init__()

    def setup(self) -> None:
        self.memory_layer = nn.Dense(self.units, use_bias=False, param_dtype=self.param_dtype)
        if self.scale:
            self.attention_g = self.param("attention_g", nn.initializers.ones_init(), (), self.param_dtype)

    def calculate_score(
        self,
        keys: Float[Array, "batch memory units"],
        query: Float[Array, "batch query"],
    ) -> Float[Array, "batch memory"]:
        """Inner products of the query and the keys."""
        if query.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"query has shape {list(query.shape)} and the keys {list(keys.shape)}; the last axes must "
                f"agree. Maybe you set units={self.units} instead of the decoder cell's units."
            )
        score = jnp.einsum("bmu,bu->bm", keys, query)
        return score * self.attention_g if self.scale else score


class BahdanauAttention(AttentionMechanism):
    """Additive attention of Bahdanau et al. (2015): `tfa.seq2seq.BahdanauAttention`.

        keys = values @ memory_layer
        score = <attention_v, tanh(keys + query @ query_layer)>

    and with `normalize`, after Salimans & Kingma (2016),

        score = <attention_g * attention_v / |attention_v|, tanh(keys + query @ query_layer + attention_b)>

    with nothing added to the norm, so that a zero `attention_v` gives NaN, as in TensorFlow.

    Attributes:
        units: the width of the keys.
        normalize: whether to use the second form.
        kernel_initializer: of `attention_v` (alone: the layers are Glorot uniform).
    """

    units: int
    normalize: bool = False
    kernel_initializer: Callable[..., Array] = glorot_vector

    def __post_init__(self) -> None:
        check_fields(self, "units")
        check_callable("kernel_initializer", self.kernel_initializer, optional=False)
        super().__post_init__()

    def setup(self) -> None:
        dtype, shape = self.param_dtype, (self.units,)
        self.query_layer = nn.Dense(self.units, use_bias=False, param_dtype=dtype)
        self.memory_layer = nn.Dense(self.units, use_bias=False, param_dtype=dtype)
        self.attention_v = self.param("attention_v", self.kernel_initializer, shape, dtype)
        if self.normalize:
            inverse_root = nn.initializers.constant(1 / math.sqrt(self.units))
            self.attention_g = self.param("attention_g", inverse_root, (), dtype)
            self.attention_b = self.param("attention_b", nn.initializers.zeros_init(), shape, dtype)

    def calculate_score(
        self,
        keys: Float[Array, "batch memory units"],
        query: Float[Array, "batch query"],
    ) -> Float[Array, "batch memory"]:
        """A one-layer perceptron of the query and each key."""
        mixed = keys + self.query_layer(query)[:, None, :]
        v = self.attention_v
        if self.normalize:
            mixed = mixed + self.attention_b
            v = self.attention_g * v * jax.lax.rsqrt(jnp.sum(jnp.square(v)))
        return jnp.tanh(mixed) @ v


_PROBABILITY_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "softmax": jax.nn.softmax,
    "hardmax": hardmax,
}


def _memory_mask(
    shape: tuple[int, ...],
    lengths: Any,
    mask: Any,
    zero_length: str,
) -> Array | None:
    """The mask that either argument describes, [batch, memory], or None."""
    batch, time, _ = shape
    check_choice("zero_length", zero_length, ("raise", "attend_uniformly"))
    if lengths is not None and mask is not None:
        raise ValueError("memory_sequence_length and memory_mask were both given, expected at most one")
    if mask is not None:
        hint = "Maybe you mean mask != 0, or tile_batch(mask, beam_width)"
        return check_array("memory_mask", mask, (batch, time), "boolean", hint=hint)
    if lengths is None:
        return None
    name, hint = "memory_sequence_length", ""
    if np.shape(lengths) != (batch,):
        hint = f"The memory has shape {list(shape)}. Maybe only one of them was tiled with tile_batch"
    known = read_if_known(lengths)
    if zero_length == "raise" and known is not None and np.any(known == 0):
        hint = "So TensorFlow asserts. Maybe you want zero_length='attend_uniformly'"
    lengths = check_lengths(name, lengths, (batch,), at_least=1 if zero_length == "raise" else 0, hint=hint)
    return jnp.arange(time)[None, :] < lengths[:, None]
