"""A port whose gradient is wrong in one element of one tensor is caught, and the element is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.compare import compare_records
from oracle.record import Record
from oracle.run_jax import run_oracle
from oracle.run_tf import run_port
from oracle.tolerance import FLOAT64_BOUND
from tests.oracle.cases import small_case

pytestmark = [pytest.mark.tf, pytest.mark.jax]

PORT = "explicit_state/full"


@pytest.fixture(scope="module")
def records() -> tuple[Record, Record]:
    case = small_case(PORT)
    return run_port(case, model=PORT), run_oracle(case, model=PORT)


@settings(max_examples=300)
@given(data=st.data())
def test_one_element_wrong_by_a_millionth_is_caught_and_located(
    data: st.DataObject, records: tuple[Record, Record]
) -> None:
    port, oracle = records
    name = data.draw(st.sampled_from([name for name in port.tensors if name.startswith("gradient/")]))
    tensor = port.tensors[name].copy()
    # The bound is a part of the tensor's largest element: that much smaller ones may be wrong unseen.
    visible = np.flatnonzero(np.abs(tensor) * 1e-6 > 2 * FLOAT64_BOUND * np.abs(tensor).max())
    index = np.unravel_index(data.draw(st.sampled_from(list(visible))), tensor.shape)
    change = 1e-6 * tensor[index]
    tensor[index] += change
    comparison = compare_records(dataclasses.replace(port, tensors={**port.tensors, name: tensor}), oracle)
    (row,) = comparison.findings
    assert (row.name, row.status, row.index) == (name, "mismatch", index)
    assert row.max_abs == pytest.approx(abs(change), rel=1e-3)


def test_nearly_every_element_is_visible(records: tuple[Record, Record]) -> None:
    """How much the bound leaves unseen: less than one element in a hundred of these gradients."""
    port, _ = records
    gradients = [tensor for name, tensor in port.tensors.items() if name.startswith("gradient/")]
    hidden = sum(int((np.abs(tensor) <= 2e-6 * np.abs(tensor).max()).sum()) for tensor in gradients)
    assert hidden < 0.01 * sum(tensor.size for tensor in gradients)
