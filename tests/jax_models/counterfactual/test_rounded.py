"""Casts under the knobs, against NumPy's, and ml_dtypes' for bfloat16."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.frameworks import precise_jax
from oracle.knobs import ROUNDINGS

pytestmark = pytest.mark.jax


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """A cast and back, by way of float32 as Eigen has it."""
    import ml_dtypes

    to = {"": array.dtype, "bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype)
    near = array if dtype == "" else array.astype(np.float32)
    return near.astype(to).astype(array.dtype)


def draw_numbers(dtype: str) -> np.ndarray:
    """Numbers of many sizes, ties, and numbers too small to be normal in float16."""
    generator = np.random.default_rng(3)
    sizes = 10.0 ** generator.integers(-12, 5, 4000)
    ties = 1 + np.outer(np.arange(1, 9, 2), [2.0**-8, 2.0**-11, 2.0**-24]).ravel()
    # Above a tie by less than float32 can tell: a tie once it has been float32.
    twice = 1 + 2.0**-11 + 2.0**-40
    return np.concatenate([generator.standard_normal(4000) * sizes, ties, [twice, 0.0]]).astype(dtype)


@pytest.mark.parametrize("own", ["float64", "float32"])
@pytest.mark.parametrize("number", range(len(ROUNDINGS)))
def test_a_tensor_and_its_adjoint_are_cast_and_back(number: int, own: str) -> None:
    import jax
    import jax.numpy as jnp

    from jax_models.counterfactual.blend import round_tensor

    with precise_jax():
        numbers = draw_numbers(own)
        numbers = numbers[np.abs(numbers) < 6e4]
        expected = cast(numbers, ROUNDINGS[number])

        @jax.jit
        def run(code, values):
            rounded, pull = jax.vjp(lambda given: round_tensor(code, given), values)
            return rounded, pull(values)[0]

        rounded, adjoint = run(jnp.int32(number), numbers)
        np.testing.assert_array_equal(rounded, expected)
        np.testing.assert_array_equal(adjoint, expected)
        rounded, adjoint = run(jnp.int32(-number), numbers)
        np.testing.assert_array_equal(rounded, expected)
        np.testing.assert_array_equal(adjoint, numbers)
        if number > 1 or (number and own == "float64"):
            assert np.any(np.asarray(rounded) != numbers)
