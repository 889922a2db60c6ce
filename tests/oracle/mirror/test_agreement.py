"""Calls of both sides held against each other: which ways to say one thing are the same."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.bridge.mirror.counterfactual.agreement import compare_arguments
from oracle.bridge.mirror.counterfactual.calls import SETUP_MEMORY, Call

pytestmark = pytest.mark.jax

MEMORY = np.random.default_rng(0).standard_normal((3, 5, 2))
LENGTHS = np.array([5, 2, 4])
MASK = np.arange(5) < LENGTHS[:, None]


def call(**arguments: np.ndarray) -> Call:
    return Call("attention", SETUP_MEMORY, 0, {"input": MEMORY, **arguments}, {})


@pytest.mark.parametrize(
    ("port", "oracle"),
    [
        ({"memory_sequence_length": LENGTHS}, {"memory_mask": MASK}),
        ({"memory_mask": MASK}, {"memory_sequence_length": LENGTHS}),
        ({"memory_sequence_length": LENGTHS}, {"memory_sequence_length": LENGTHS.astype(np.int32)}),
        ({"memory_sequence_length": np.full(3, 5)}, {}),
    ],
)
def test_the_lengths_of_a_memory_are_its_mask(port, oracle):
    assert compare_arguments(call(**port), call(**oracle)) == []


def test_other_lengths_than_the_mask_s_and_none_are_told():
    other = {"memory_sequence_length": np.array([5, 3, 4])}
    (found,) = compare_arguments(call(**other), call(memory_mask=MASK))
    assert found.name == "memory_mask"
    assert found.port is not None
    assert np.argwhere(found.port != MASK).tolist() == [[1, 2]]
    (found,) = compare_arguments(call(), call(memory_sequence_length=LENGTHS))
    assert (found.name, found.port) == ("memory_mask", None)
