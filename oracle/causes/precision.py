"""C71: arithmetic that is coarser than float64 or float32.

The search compares sizes of errors, not numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oracle.causes.cause import Setting, cause

MANTISSAS = {"bfloat16": 7, "TF32": 10, "float16": 10, "float32": 23}
"""The bits of a number's mantissa, its leading one not counted, that a matrix product is given."""

_CAST = (
    "Look for what is float32 in the port: a `tf.cast`, a layer made with `dtype='float32'`, an array that "
    "was cast before it was saved; `tf.keras.backend.set_floatx('float64')` makes all layers float64."
)

_REMEDY = (
    "Nothing in the model is wrong. Turn it off to compare: "
    "`tf.config.experimental.enable_tensor_float_32_execution(False)`, a policy of `float64` or `float32` in "
    "place of a mixed one."
)


def round_mantissa(
    array: np.ndarray, bits: int, *, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Round to so many bits of mantissa; whole numbers are left as they are.

    To nearest, ties to even; with a generator up or down, as drawn by where the number lies between the two.
    """
    if array.dtype.kind != "f":
        return array
    mantissa, exponent = np.frexp(np.asarray(array, np.float64))
    step = 2.0 ** (bits + 1)
    scaled = mantissa * step
    rounded = np.round(scaled) if generator is None else np.floor(scaled + generator.random(scaled.shape))
    return np.ldexp(rounded / step, exponent)


def _propose(*given: Any) -> Iterator[Setting]:
    """The search measures these itself."""
    return iter(())


for _code, _name, _where, _remedy in (
    ("C711", "bfloat16", "a mixed_bfloat16 policy, or a TPU's matrix products", _REMEDY),
    ("C712", "TF32", "an Ampere or later GPU's float32 matrix products", _REMEDY),
    ("C713", "float16", "a mixed_float16 policy", _REMEDY),
    ("C714", "float32", "a float32 cast in a port that is run in float64", _CAST),
):
    cause(
        _code,
        title=f"computed in {_name}",
        sentence=f"its errors are of the size that {_name} makes, and have no structure: {_where}",
        remedy=_remedy,
        kind="precision",
    )(_propose)

PRECISIONS = {"bfloat16": "C711", "float16": "C713", "TF32": "C712", "float32": "C714"}
"""The causes by the name of their arithmetic, the coarsest first."""
