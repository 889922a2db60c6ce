"""Every public symbol of `jax_models` agrees with TensorFlow, on configurations drawn by hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.parity.subjects import SUBJECTS
from tests.parity.harness import check

pytestmark = pytest.mark.tf


@pytest.mark.parametrize("symbol", sorted(SUBJECTS))
def test_agrees_with_tensorflow(symbol: str) -> None:
    subject = SUBJECTS[symbol]

    @settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(config=subject.configurations)
    def agrees(config: dict) -> None:
        check(subject, config)

    agrees()
