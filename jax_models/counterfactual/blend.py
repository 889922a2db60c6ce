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
