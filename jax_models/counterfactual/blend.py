"""How a knob turns a formula: by weighted sums that are exact at 0 and 1, and by holding gradients back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

Knob = Float[Array, ""]


def blend(weight: Knob, zero: Float[Array, "*shape"], one: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`zero` where the weight is 0 and `one` where it is 1, exactly, with the gradient of that one alone."""
    return (1 - weight) * zero + weight * one


def mix(weights: Float[Array, " terms"], terms: Sequence[Float[Array, "*shape"]]) -> Float[Array, "*shape"]:
    """The weighted sum of the terms."""
    return sum((weights[i] * term for i, term in enumerate(terms[1:], 1)), weights[0] * terms[0])


def mix_rows(
    weights: Float[Array, "rows terms"], terms: Sequence[Float[Array, "*shape"]]
) -> list[Float[Array, "*shape"]]:
    """For each row of weights, the weighted sum of the terms."""
    return [mix(weights[row], terms) for row in range(weights.shape[0])]


@jax.custom_vjp
def pass_gradient(part: Knob, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The values as they are, of whose gradient a part passes: p*x + (1-p)*stop_gradient(x)."""
    return values


def _keep_part(part: Knob, values: Array) -> tuple[Array, Knob]:
    return values, part


def _scale_adjoint(part: Knob, adjoint: Array) -> tuple[Array, Array]:
    return jnp.zeros_like(part), part * adjoint


pass_gradient.defvjp(_keep_part, _scale_adjoint)


_BITS, _LEAST = (0, 23, 7, 10), (0, -126, -126, -14)
"""Of each of `oracle.knobs.ROUNDINGS`, the bits of the mantissa and the least exponent of a normal number."""


@jax.custom_vjp
def round_tensor(code: Int[Array, ""], values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The values as a cast to a dtype and back leaves them, and of a code above 0 their adjoint, too.

    Args:
        code: 0 for nothing, else the number of one of `oracle.knobs.ROUNDINGS`, or minus that for the values
            alone.
        values: what is cast.
    """
    return _round(code, values)


def _round_values(code: Array, values: Array) -> tuple[Array, Array]:
    return _round(code, values), code


def _round_adjoint(code: Array, adjoint: Array) -> tuple[None, Array]:
    return None, _round(jnp.maximum(code, 0), adjoint)


round_tensor.defvjp(_round_values, _round_adjoint)


def _round(code: Array, values: Array) -> Array:
    number = jnp.abs(code)
    rounded = values
    if values.dtype == jnp.float64:
        # Eigen, with which TensorFlow casts, goes from float64 to half precision by way of float32.
        rounded = _round_mantissa(rounded, jnp.int32(_BITS[1]), jnp.int32(_LEAST[1]))
    halved = _round_mantissa(rounded, jnp.asarray(_BITS)[number], jnp.asarray(_LEAST)[number])
    return jnp.where(number == 0, values, jnp.where(number == 1, rounded, halved))


def _round_mantissa(values: Array, bits: Array, least: Array) -> Array:
    """To nearest, ties to even, fewer bits than the values' own; below the least exponent, fewer still."""
    own = jnp.finfo(values.dtype)
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    bias = own.maxexp - 1
    exponents = (jax.lax.bitcast_convert_type(jnp.abs(values), whole) >> own.nmant) - bias
    # A number so large that what is to be rounded away falls off the sum's end.
    high = jnp.maximum(exponents, least) - bits + own.nmant
    power = jax.lax.bitcast_convert_type((high.astype(whole) + bias) << own.nmant, values.dtype)
    large = 1.5 * power
    return (values + large) - large


def keep_slope(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """A blend of elementwise functions of x, `function(knob, x)`, of which a loop keeps the slope alone.

    By itself it would keep, for every step, what the gradient of each of the blended functions needs.
    The knob has no gradient.
    """
    kept = jax.custom_jvp(function)

    @kept.defjvp
    def push(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        knob, x = primals
        value, slope = jax.jvp(functools.partial(function, knob), (x,), (jnp.ones_like(x),))
        return value, slope * tangents[1]

    return kept


def reorder(
    values: Shaped[Array, "batch time *rest"], order: Int[Array, "batch steps"]
) -> Shaped[Array, "batch steps *rest"]:
    """Step t of row b is `values[b, order[b, t]]`."""
    return jax.vmap(lambda row, steps: row[steps])(values, order)


def swap_time(values: Shaped[Array, "rows columns *rest"]) -> Shaped[Array, "columns rows *rest"]:
    """Batch first to time first, and back."""
    return jnp.swapaxes(values, 0, 1)
