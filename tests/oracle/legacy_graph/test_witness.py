"""The witness, on a function whose gradient is known."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.legacy_graph import witness


def ask(size: int, dtype: type[np.floating], seed: int, spoil: str) -> witness.Testimony:
    """Ask about sum(w * tanh(kernel @ x)), its gradient right or spoilt."""
    rng = np.random.default_rng([seed, size])
    kernel = (rng.standard_normal([20, size]) / np.sqrt(size)).astype(dtype)
    x, weights = rng.standard_normal(size).astype(dtype), rng.standard_normal(20)
    gradient = (weights * (1 - np.tanh(kernel @ x) ** 2)) @ kernel.astype(float)
    spoilt = {
        "right": gradient,
        "permuted": rng.permutation(gradient),
        "half": np.where(np.arange(size) < size // 2, gradient, 0),
        "smaller": 0.9 * gradient,
        "zero": 0 * gradient,
    }[spoil].astype(dtype)
    (found,) = witness.call_witness(
        lambda point: float(weights @ np.tanh(kernel @ point["x"]).astype(float)),
        {"x": x},
        {"x": spoilt},
        seed=seed,
    )
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [10, 10_000])
def test_right_and_wrong_gradients(size: int, dtype: type[np.floating]) -> None:
    """A direction sees a part of a gradient that shrinks with its size; none of these may hide behind it."""
    for seed in range(8):
        right = ask(size, dtype, seed, "right")
        assert right.agrees
        assert right.is_telling
        for spoil in ("permuted", "half", "smaller", "zero"):
            assert not ask(size, dtype, seed, spoil).agrees


def test_a_gradient_too_large_for_float32() -> None:
    """Where the rounding hides what is wrong, the witness says so rather than agree."""
    assert not ask(300_000, np.float32, 0, "half").agrees
