"""What is asked of arguments, and the errors: the argument, its shape and dtype, what was expected.

Shapes and dtypes are known before tracing and are always checked; values where they are known, which those
of an array under `jax.jit`, `jax.grad` or `jax.vmap` are not. Arrays may be NumPy arrays and nested lists,
too: a check returns the `jax.Array`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Kind = Literal["float", "integer", "boolean", "number", "mask", "any"]

Axis = int | str | EllipsisType
"""A size, the name of an axis of any size, or any number of axes."""

_DTYPES: dict[str, tuple[Any, ...]] = {
    "float": (jnp.floating,),
    "integer": (jnp.integer,),
    "boolean": (jnp.bool_,),
    "number": (jnp.number,),
    "mask": (jnp.bool_, jnp.integer),
    "any": (jnp.generic,),
}

_WORDS = {
    "float": " of floats",
    "integer": " of integers",
    "boolean": " of booleans",
    "number": " of numbers",
    "mask": " of booleans (or of 0 and 1)",
    "any": "",
}


def check_array(name: str, value: Any, shape: Sequence[Axis], kind: Kind = "any", *, hint: str = "") -> Array:
    """`value` as an array of the shape and the kind that were expected.

    Args:
        name: the argument, for the error.
        value: an array, a NumPy array, or a nested list or tuple of numbers.
        shape: of each axis its size or its name; `...` for any number of axes.
        kind: what its elements must be.
        hint: the likely mistake: a sentence for the end of an error.

    Raises:
        TypeError: if it is no array, or one of another kind.
        ValueError: if it has another shape.
    """
    expected = f"expected {describe_shape(shape)}{_WORDS[kind]}"
    hint = f". {hint}" if hint else ""
    if not isinstance(value, jax.Array):
        try:
            if value is None or isinstance(value, str):
                raise TypeError
            value = jnp.asarray(value)
        except (TypeError, ValueError):
            what = "None" if value is None else f"a {type(value).__name__}"
            raise TypeError(f"{name} is {what}, {expected}{hint}") from None
    given = f"{name} has shape {list(value.shape)} and dtype {value.dtype}, {expected}{hint}"
    if not _fits(value.shape, tuple(shape)):
        raise ValueError(given)
    if not any(jnp.issubdtype(value.dtype, dtype) for dtype in _DTYPES[kind]):
        raise TypeError(given)
    return value


def check_lengths(
    name: str,
    lengths: Any,
    shape: Sequence[Axis],
    *,
    at_least: int = 0,
    at_most: int | None = None,
    hint: str = "",
) -> Array:
    """Lengths as an int32 array of `shape`, as `check_array`; and, where they are known, not out of bounds.

    Raises:
        TypeError: if they are no integers.
        ValueError: on another shape, or a length below `at_least` or above `at_most`.
    """
    # What is known now is a tracer once it was made an array under `jit`.
    known = read_if_known(lengths)
    lengths = check_array(name, lengths, shape, "integer", hint=hint)
    if known is not None and known.size:
        bounds = f"at least {at_least}" + ("" if at_most is None else f" and at most {at_most}")
        if known.min() < at_least or (at_most is not None and known.max() > at_most):
            hint = f". {hint}" if hint else ""
            raise ValueError(f"{name} is {_show(known)}, expected every length to be {bounds}{hint}")
    return lengths.astype(jnp.int32)


def check_size(name: str, value: Any, *, at_least: int = 1, optional: bool = False) -> int | None:
    """A Python int of at least `at_least`; None too if `optional`.

    Raises:
        TypeError: if it is no int, and so not static.
        ValueError: if it is too small.
    """
    expected = f"expected an int of at least {at_least}" + (", or None" if optional else "")
    if value is None and optional:
        return None
    try:
        size = operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        size = None
    if size is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {_describe(value)}, {expected}")
    if size < at_least:
        raise ValueError(f"{name} is {size}, {expected}")
    return size


def check_number(
    name: str,
    value: Any,
    expected: str = "a finite number",
    *,
    holds: Callable[[np.ndarray], Any] = np.isfinite,
    scalar: bool = True,
) -> None:
    """Raise unless `value` is a real number (or an array of them, if not `scalar`), and `holds` where known.

    Raises:
        TypeError: if it is no number.
        ValueError: on another shape, or a value that does not hold.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.generic, np.ndarray, jax.Array)
    ):
        raise TypeError(f"{name} is {_describe(value)}, expected {expected}")
    dtype = jnp.result_type(value)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"{name} has dtype {dtype}, expected {expected}")
    if scalar and jnp.shape(value):
        raise ValueError(f"{name} has shape {list(jnp.shape(value))}, expected {expected}, a scalar")
    known = read_if_known(value)
    if known is not None and not np.all(holds(known)):
        raise ValueError(f"{name} is {_show(known)}, expected {expected}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        raise ValueError(f"{name} is {value!r}, expected one of {list(choices)}")


def check_callable(name: str, value: Any, *, optional: bool = True) -> None:
    """Raise TypeError unless `value` can be called; None too if `optional`."""
    if not callable(value) and not (value is None and optional):
        raise TypeError(
            f"{name} is {_describe(value)}, expected a function" + (", or None" if optional else "")
        )


def check_dtype(name: str, dtype: Any) -> None:
    """Raise TypeError unless `dtype` is one of floating-point numbers."""
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if dtype is None or not floating:
        raise TypeError(f"{name} is {dtype!r}, expected a dtype of floating-point numbers, as jnp.float32")


def check_key(name: str, key: Any) -> None:
    """Raise TypeError unless `key` is a single JAX key, of the new kind or of the old; or None."""
    if key is None:
        return
    dtype, shape = getattr(key, "dtype", None), jnp.shape(key) if hasattr(key, "shape") else None
    if dtype is not None:
        new = jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
        if new or (dtype == jnp.uint32 and len(shape or ()) == 1):
            return
    raise TypeError(f"{name} is {_describe(key)}, expected one JAX key. Maybe jax.random.key({_seed(key)})")


def check_same(owner: str, name: str, old: Any, new: Any, *, hint: str) -> None:
    """Raise ValueError unless a step hands on what it was given: the same structure, shapes and dtypes."""

    def describe(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{getattr(leaf, 'dtype', type(leaf))}{list(jnp.shape(leaf))}", tree)

    if describe(old) != describe(new):
        raise ValueError(
            f"{owner}: a step made {name} {describe(new)} of {describe(old)}, expected the same structure, "
            f"shapes and dtypes. {hint}"
        )


def read_if_known(x: Any) -> np.ndarray | None:
    """The value of an array outside tracing, None of a tracer."""
    try:
        return np.asarray(x)
    except (jax.errors.TracerArrayConversionError, TypeError, ValueError):
        return None


def check_fields(module: Any, *sizes: str, dtype: bool = True) -> None:
    """Raise unless the named fields of a module are sizes (None where that is their default), and its
    `param_dtype` one of floats.
    """
    owner = type(module).__name__
    for name in sizes:
        optional = getattr(type(module), name, 0) is None
        check_size(f"{owner}: {name}", getattr(module, name), optional=optional)
    if dtype:
        check_dtype(f"{owner}: param_dtype", module.param_dtype)


def describe_shape(shape: Sequence[Axis]) -> str:
    """A shape in words: [batch, 3, ...]."""
    return f"[{', '.join('...' if axis is ... else str(axis) for axis in shape)}]"


def _fits(given: tuple[int, ...], expected: tuple[Axis, ...]) -> bool:
    if ... in expected:
        at = expected.index(...)
        after = len(expected) - at - 1
        if len(given) < at + after:
            return False
        given = given[:at] + given[len(given) - after :]
        expected = expected[:at] + expected[at + 1 :]
    return len(given) == len(expected) and all(
        isinstance(axis, str) or size == axis for size, axis in zip(given, expected, strict=True)
    )


def _describe(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of shape {list(value.shape)} and dtype {value.dtype}"
    return (
        repr(value) if isinstance(value, (bool, int, float, str, type(None))) else f"a {type(value).__name__}"
    )


def _seed(key: Any) -> Any:
    return key if isinstance(key, int) else "seed"


def _show(known: np.ndarray) -> str:
    return np.array2string(known, separator=", ", threshold=16)
