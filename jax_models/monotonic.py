"""Monotonic attention of Raffel et al. (2017), which never looks back, as `tfa.seq2seq` computes it.

The decoder walks along the memory from where it stopped before, and stops at step i with probability
`p_i`. With the previous alignments `a`, the expected alignments `b` are

    q_0 = a_0,   q_i = (1 - p_{i-1}) q_{i-1} + a_i,   b_i = p_i q_i,

which is the "recursive" mode. Solved for b, with c_i = (1 - p_0) ... (1 - p_{i-1}),

    b_i = p_i c_i (a_0 / c_0 + ... + a_i / c_i),

which is the "parallel" mode; c is computed in logarithms and clipped where it divides, so that value
and gradient are other ones where some p is 1: what `a` holds past such a step is lost. "hard" takes
every p for 0 or 1. The rows need not sum to 1: the decoder may walk off the end.

Where TensorFlow's gradient is not the derivative
-------------------------------------------------
* `tf.clip_by_value` passes the whole gradient at a tie with a bound, `jnp.clip` half of it. Ties are the
  rule here: a masked step has p = 0. See `gradient_at_ties`.
* `tf.math.cumprod` gives the gradient 0 to every factor that is 0. In "hard" mode those are all the
  steps with p = 1, whose true gradient is not 0. See `gradient_at_zero_factors`.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jax_models.attention import AttentionMechanism, AttentionMemory, BahdanauAttention, LuongAttention
from jax_models.checks import check_array, check_choice, check_number

Mode = Literal["parallel", "recursive", "hard"]
GradientAtTies = Literal["tensorflow", "split"]
GradientAtZeroFactors = Literal["tensorflow", "exact"]

MODES = ("parallel", "recursive", "hard")

SMALLEST_DIVISOR = 1e-10
"""The "parallel" mode's lower bound on the products it divides by."""


def safe_cumprod(
    x: Float[Array, "*shape"],
    *,
    axis: int = 0,
    exclusive: bool = False,
    reverse: bool = False,
    gradient_at_ties: GradientAtTies = "tensorflow",
) -> Float[Array, "*shape"]:
    """The cumulative product along `axis`, as exp(cumsum(log(x))): `tfa.seq2seq.safe_cumprod`.

    `x` is clipped to [the smallest normal number, 1] first. It gets no gradient outside, thus none where
    it is 0; `gradient_at_ties` says how much it gets where it equals a bound, above all at x = 1:
    "tensorflow" the whole, "split" (what `jnp.clip` does) half.

    Raises:
        ValueError: if `axis` is not an axis of `x`.
    """
    x = check_array("x", x, (...,), "float")
    check_choice("gradient_at_ties", gradient_at_ties, ("tensorflow", "split"))
    smallest = float(jnp.finfo(x.dtype).tiny)
    logarithms = jnp.log(_clip(x, smallest, 1.0, gradient_at_ties))
    return jnp.exp(_cumsum(logarithms, axis, exclusive=exclusive, reverse=reverse))


def monotonic_attention(
    p_choose_i: Float[Array, "batch memory"],
    previous_attention: Float[Array, "batch memory"],
    mode: str,
    *,
    gradient_at_ties: GradientAtTies = "tensorflow",
    gradient_at_zero_factors: GradientAtZeroFactors = "tensorflow",
) -> Float[Array, "batch memory"]:
    """The expected alignments (see the module's docstring): `tfa.seq2seq.monotonic_attention`.

    Args:
        p_choose_i: the probability of stopping at each step of the memory, in [0, 1].
        previous_attention: the alignments before; at first [1, 0, 0, ...] in every row.
        mode: "parallel", "recursive", or "hard", for which every probability should be 0 or 1.
        gradient_at_ties: of "parallel" mode's clips; see `safe_cumprod`.
        gradient_at_zero_factors: of "hard" mode's product. "tensorflow" gives the factors 1 - p that are
            0 no gradient; "exact" gives the derivative.

    Raises:
        ValueError: on another mode, or if the shapes differ.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {list(MODES)}")
    check_choice("gradient_at_ties", gradient_at_ties, ("tensorflow", "split"))
    check_choice("gradient_at_zero_factors", gradient_at_zero_factors, ("tensorflow", "exact"))
    p_choose_i = check_array("p_choose_i", p_choose_i, ("batch", "memory"), "float")
    hint = f"p_choose_i has shape {list(p_choose_i.shape)}"
    previous_attention = check_array(
        "previous_attention", previous_attention, p_choose_i.shape, "float", hint=hint
    )
    if mode == "recursive":
        return p_choose_i * _reach(p_choose_i, previous_attention)
    if mode == "hard":
        chosen = p_choose_i * jnp.cumsum(previous_attention, axis=1)
        if gradient_at_zero_factors == "tensorflow":
            return chosen * _cumprod_as_tensorflow(1 - chosen)
        return chosen * _shift(jnp.cumprod(1 - chosen, axis=1), 1.0)
    passed = safe_cumprod(1 - p_choose_i, axis=1, exclusive=True, gradient_at_ties=gradient_at_ties)
    divisor = _clip(passed, SMALLEST_DIVISOR, 1.0, gradient_at_ties)
    return p_choose_i * passed * jnp.cumsum(previous_attention / divisor, axis=1)


class MonotonicMechanism(AttentionMechanism, kw_only=True):
    """What the two monotonic mechanisms share; use one of those.

    The alignments are `monotonic_attention` of p = sigmoid(score + score bias + noise), or in "hard"
    mode of p = 1 where that sum is positive and 0 elsewhere, which passes no gradient to any weight. A
    masked step has p = 0; a row with every step masked attends to nothing.

    Attributes:
        sigmoid_noise: the standard deviation of the noise added before the sigmoid. TensorFlow has no
            training flag: a mechanism with noise is noisy at inference too. 0 for none (TensorFlow takes
            what is negative for 0).
        score_bias_init: the first value of the scalar `attention_score_bias`. Negative for long memories.
        mode, gradient_at_ties, gradient_at_zero_factors: see `monotonic_attention`.
    """

    sigmoid_noise: float = 0.0
    score_bias_init: float = 0.0
    mode: str = "parallel"
    gradient_at_ties: GradientAtTies = "tensorflow"
    gradient_at_zero_factors: GradientAtZeroFactors = "tensorflow"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {list(MODES)}")
        if self.probability_fn != "softmax":
            raise ValueError(
                f"probability_fn is {self.probability_fn!r}, but a monotonic mechanism has its own: set mode"
            )
        number = "a standard deviation of 0 or more"
        check_number("sigmoid_noise", self.sigmoid_noise, number, holds=lambda noise: noise >= 0)
        check_number("score_bias_init", self.score_bias_init)
        check_choice("gradient_at_ties", self.gradient_at_ties, ("tensorflow", "split"))
        check_choice("gradient_at_zero_factors", self.gradient_at_zero_factors, ("tensorflow", "exact"))
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        bias = nn.initializers.constant(self.score_bias_init)
        self.attention_score_bias = self.param("attention_score_bias", bias, (), self.param_dtype)

    def calculate_score(
        self,
        keys: Float[Array, "batch memory units"],
        query: Float[Array, "batch query"],
    ) -> Float[Array, "batch memory"]:
        """The score of the softmax mechanism, plus `attention_score_bias`."""
        return super().calculate_score(keys, query) + self.attention_score_bias

    def calculate_alignments(
        self,
        score: Float[Array, "batch memory"],
        state: Float[Array, "batch memory"],
        *,
        noise: Float[Array, "batch memory"] | None = None,
        key: PRNGKeyArray | Array | None = None,
    ) -> Float[Array, "batch memory"]:
        """Monotonic alignments, with noise if the mechanism has any.

        Args:
            score: the masked scores.
            state: the previous alignments.
            noise: standard normal numbers; `sigmoid_noise` times them is added to the scores.
            key: what to draw them from, if `noise` is not given.

        Raises:
            ValueError: if the mechanism has noise, and neither is given; or it has none, and noise is.
        """
        if self.sigmoid_noise > 0:
            if noise is None and key is None:
                raise ValueError(
                    f"sigmoid_noise is {self.sigmoid_noise}, but neither noise nor a key was given. "
                    "TensorFlow's mechanism is noisy at inference too; maybe you want sigmoid_noise=0 there."
                )
            if noise is None:
                noise = jax.random.normal(key, score.shape, score.dtype)
            score = score + self.sigmoid_noise * noise
        elif noise is not None:
            raise ValueError(f"noise was given, but sigmoid_noise is {self.sigmoid_noise}")
        chosen = (score > 0).astype(score.dtype) if self.mode == "hard" else jax.nn.sigmoid(score)
        return monotonic_attention(
            chosen,
            state,
            self.mode,
            gradient_at_ties=self.gradient_at_ties,
            gradient_at_zero_factors=self.gradient_at_zero_factors,
        )

    def initial_alignments(self, memory: AttentionMemory) -> Float[Array, "batch memory"]:
        """[1, 0, 0, ...] in every row: the walk begins at the memory's first step."""
        batch, time = memory.values.shape[:2]
        return jnp.zeros((batch, time), memory.values.dtype).at[:, 0].set(1)


class LuongMonotonicAttention(MonotonicMechanism, LuongAttention):
    """Monotonic alignments of `LuongAttention`'s score: `tfa.seq2seq.LuongMonotonicAttention`."""


class BahdanauMonotonicAttention(MonotonicMechanism, BahdanauAttention):
    """Monotonic alignments of `BahdanauAttention`'s score: `tfa.seq2seq.BahdanauMonotonicAttention`."""


def _clip(x: Array, low: float, high: float, gradient_at_ties: str) -> Array:
    """`x` within [low, high]."""
    if gradient_at_ties == "split":
        return jnp.clip(x, low, high)
    return jnp.where(x < low, low, jnp.where(x > high, high, x)).astype(x.dtype)


def _cumsum(x: Array, axis: int, *, exclusive: bool, reverse: bool) -> Array:
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}, but x has shape {list(x.shape)}")
    axis %= x.ndim
    sums = jax.lax.cumsum(x, axis=axis, reverse=reverse)
    if not exclusive:
        return sums
    sums = jnp.moveaxis(sums, axis, -1)
    shifted = _shift(sums[..., ::-1], 0.0)[..., ::-1] if reverse else _shift(sums, 0.0)
    return jnp.moveaxis(shifted, -1, axis)


def _shift(x: Array, first: float) -> Array:
    """`x` moved one place along its last axis, and `first` before it."""
    return jnp.concatenate([jnp.full_like(x[..., :1], first), x[..., :-1]], axis=-1)


def _reach(p: Array, previous: Array) -> Array:
    """The probability of coming by each step: q of the module's docstring."""

    def step(q, now):
        walk_on, a = now
        q = walk_on * q + a
        return q, q

    walk_on = _shift(1 - p, 1.0)
    _, q = jax.lax.scan(step, jnp.zeros_like(p[:, 0]), (walk_on.T, previous.T))
    return q.T


@jax.custom_jvp
def _cumprod_as_tensorflow(x: Array) -> Array:
    """Exclusive products along the last axis, with `tf.math.cumprod`'s gradient."""
    return _shift(jnp.cumprod(x, axis=-1), 1.0)


@_cumprod_as_tensorflow.defjvp
def _cumprod_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    products = _cumprod_as_tensorflow(x)
    zero = x == 0
    relative = jnp.where(zero, 0.0, tangent / jnp.where(zero, 1.0, x))
    return products, products * _cumsum(relative, -1, exclusive=True, reverse=False)
