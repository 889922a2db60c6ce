"""Layouts are bijections, for values and for gradients, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.bridge import layouts
from oracle.bridge.layout import Block, Layout, whole
from oracle.errors import BridgeError

LAYOUTS = {
    "dense": lambda features, units, bias: layouts.dense(features, units),
    "tf1_lstm": lambda features, units, bias: layouts.tf1_lstm(features, units),
    "keras_lstm": lambda features, units, bias: layouts.keras_lstm(features, units, forget_bias=bias),
    "flax_lstm": lambda features, units, bias: layouts.flax_lstm(features, units, forget_bias=bias),
}


@given(
    name=st.sampled_from(sorted(LAYOUTS)),
    features=st.integers(1, 6),
    units=st.integers(1, 6),
    forget_bias=st.sampled_from([0.0, 1.0, -2.5]),
    seed=st.integers(0, 2**16),
)
def test_round_trips(name: str, features: int, units: int, forget_bias: float, seed: int) -> None:
    layout = LAYOUTS[name](features, units, forget_bias)
    generator = np.random.default_rng(seed)
    # Quarters of whole numbers, so that adding the forget bias and taking it away is exact.
    variables = {
        variable: generator.integers(-64, 64, shape) / 4 for variable, shape in layout.variables.items()
    }
    leaves = layout.to_leaves(variables)
    back = layout.to_variables(leaves)
    assert {leaf: array.shape for leaf, array in leaves.items()} == dict(layout.leaves)
    for variable, array in variables.items():
        assert np.array_equal(back[variable], array)
    # Gradients go the same way, but for the shift, and every number arrives exactly once.
    gradients = layout.gradients_to_leaves(variables)
    assert sorted(np.concatenate([array.ravel() for array in gradients.values()])) == sorted(
        np.concatenate([array.ravel() for array in variables.values()])
    )


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_gradients_follow_the_values(name: str, forget_bias: float) -> None:
    """Moving a variable by d moves the leaves by the carried d: the layout is affine, with this slope."""
    layout = LAYOUTS[name](3, 2, forget_bias)
    generator = np.random.default_rng(0)
    point, step = (
        {variable: generator.integers(-64, 64, shape) / 4 for variable, shape in layout.variables.items()}
        for _ in range(2)
    )
    moved = layout.to_leaves({variable: point[variable] + step[variable] for variable in point})
    for leaf, start in layout.to_leaves(point).items():
        assert np.array_equal(moved[leaf] - start, layout.gradients_to_leaves(step)[leaf])


def test_none_reaches_only_the_leaves_it_holds() -> None:
    tf1 = layouts.tf1_lstm(3, 2)
    bias = np.ones(8)
    carried = tf1.gradients_to_leaves({"kernel": None, "bias": bias})
    assert carried["kernel"] is None
    assert carried["recurrent_kernel"] is None
    assert carried["bias"] is not None


def test_every_leaf_keeps_its_dtype() -> None:
    keras = layouts.keras_lstm(3, 2, forget_bias=1.0)
    gradients = {
        "kernel": np.ones((3, 8), np.float32),
        "recurrent_kernel": None,
        "bias": np.ones(8, np.float64),
    }
    carried = keras.gradients_to_leaves(gradients)
    assert (carried["kernel"].dtype, carried["bias"].dtype) == (np.float32, np.float64)
    assert carried["recurrent_kernel"] is None
    flax = layouts.flax_lstm(3, 2, forget_bias=1.0)
    mixed = {name: np.ones(shape) for name, shape in flax.variables.items()}
    mixed["if/kernel"] = mixed["if/kernel"].astype(np.float32)
    with pytest.raises(BridgeError, match="different dtypes"):
        flax.to_leaves(mixed)


def test_blocks_that_overlap_or_leave_gaps_are_refused() -> None:
    with pytest.raises(BridgeError, match="do not tile leaf 'w'"):
        Layout({"w": (2,)}, {"v": (1,)}, (Block("w", ((0, 1),), "v", ((0, 1),)),))
    with pytest.raises(BridgeError, match="do not tile variable 'v'"):
        twice = (Block("w", ((0, 1),), "v", ((0, 1),)), Block("w", ((1, 2),), "v", ((0, 1),)))
        Layout({"w": (2,)}, {"v": (1,)}, twice)
    with pytest.raises(BridgeError, match="different shapes"):
        Layout({"w": (2, 3)}, {"v": (3, 2)}, (Block("w", ((0, 2), (0, 3)), "v", ((0, 3), (0, 2))),))
    with pytest.raises(BridgeError, match="lies outside"):
        Layout({"w": (2,)}, {"v": (3,)}, (Block("w", ((0, 3),), "v", ((0, 3),)),))


def test_transposed_block_carries_the_transpose() -> None:
    layout = Layout({"w": (2, 3)}, {"v": (3, 2)}, (whole("w", "v", (2, 3), transposed=True),))
    values = np.arange(6.0).reshape(3, 2)
    assert np.array_equal(layout.to_leaves({"v": values})["w"], values.T)
    assert np.array_equal(layout.to_variables({"w": values.T})["v"], values)


def test_missing_extra_and_misshapen_arrays_are_refused_by_name() -> None:
    layout = layouts.dense(3, 2)
    kernel, bias = np.zeros((3, 2)), np.zeros(2)
    with pytest.raises(BridgeError, match=r"variable \['bias'\] not given"):
        layout.to_leaves({"kernel": kernel})
    with pytest.raises(BridgeError, match="no place for variable"):
        layout.to_leaves({"kernel": kernel, "bias": bias, "beta": bias})
    with pytest.raises(BridgeError, match=r"'kernel' has shape \[2, 3\], expected \[3, 2\]"):
        layout.to_leaves({"kernel": kernel.T, "bias": bias})
