"""Sums over rows taken one row after another, as TensorFlow's BiasAddGrad takes them on a CPU.

In which order a float32 sum is taken is no one's fault, and decides what it errs: by pairs, as XLA takes it,
an error hardly grows with the number of rows; one row after another it grows with the root of it. Of 16,384
rows and more the second is some 50 times the first. A port's framework may take either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_SUM = "reduce_sum"

_AGAIN = ("checkpoint", "remat", "remat2")
"""What versions of JAX call the primitive of `jax.checkpoint`."""


class SequenceError(Exception):
    """A function whose sums cannot be taken in sequence: it looks at values, or has parts unknown here."""


def sum_in_sequence(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with every sum that keeps the last axis taken row after row.

    Sums over the last axis, and products of matrices, stay the compiler's.

    Args:
        function: of arrays, or trees of them, which JAX can trace. It gives the same.

    Raises:
        SequenceError: when it is called, if it cannot be done.

    Source: "Writing custom Jaxpr interpreters" in JAX's documentation.
    """

    def compute(*args: Any) -> Any:
        try:
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
            results = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        except (Exception, SystemExit) as error:
            raise SequenceError(f"its sums cannot be taken in sequence: {error}") from error
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return compute


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if equation.primitive.name == _SUM and _keeps_last_axis(values[0], equation.params["axes"]):
            results = [_sum_rows(values[0], equation.params["axes"])]
        else:
            again = equation.primitive.name in _AGAIN
            params = {name: _rewrite(value, again=again) for name, value in equation.params.items()}
            bound = equation.primitive.get_bind_params(params)
            # Older versions of JAX give functions beside the parameters, newer ones the parameters alone.
            functions, params = bound if isinstance(bound, tuple) else ((), bound)
            results = equation.primitive.bind(*functions, *values, **params)
            results = results if equation.primitive.multiple_results else [results]
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _rewrite(param: Any, *, again: bool) -> Any:
    """A loop's body, a branch, a function that is called: with its own sums in sequence."""
    if type(param) is tuple:
        return tuple(_rewrite(each, again=again) for each in param)
    if isinstance(param, core.ClosedJaxpr):
        return jax.make_jaxpr(lambda *args: _evaluate(param.jaxpr, param.consts, args))(*param.in_avals)
    if again and isinstance(param, core.Jaxpr) and not param.constvars:
        # Nothing here makes constants.
        inputs = [variable.aval for variable in param.invars]
        return jax.make_jaxpr(lambda *args: _evaluate(param, (), args))(*inputs).jaxpr
    return param


def _keeps_last_axis(array: Any, axes: Sequence[int]) -> bool:
    has_rows = bool(axes) and jnp.ndim(array) - 1 not in axes and jnp.size(array) > 0
    return has_rows and jnp.issubdtype(array.dtype, jnp.floating)


def _sum_rows(array: Any, axes: Sequence[int]) -> Any:
    kept = [axis for axis in range(array.ndim) if axis not in axes]
    rows = jnp.transpose(array, [*axes, *kept]).reshape(-1, *(array.shape[axis] for axis in kept))
    total, _ = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros_like(rows[0]), rows)
    return total
