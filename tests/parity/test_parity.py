"""Every public symbol of `jax_models` agrees with TensorFlow, on configurations drawn by hypothesis.

`--hypothesis-profile=thorough` draws at least 2,000 of them; `python -m tests.parity` does so too, and
writes what it found to `docs/parity.md`.
"""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow_addons", reason="parity needs TensorFlow 2.15 and tfa")

from hypothesis import HealthCheck, Phase, given, settings

from tests.parity.harness import check
from tests.parity.subjects import SUBJECTS

pytestmark = pytest.mark.tf

FEW, MANY = 4, -(-2000 // len(SUBJECTS))
"""Configurations a symbol, in the bounded profile and in the thorough one."""


@pytest.mark.parametrize("symbol", sorted(SUBJECTS))
def test_agrees_with_tensorflow(symbol: str) -> None:
    subject = SUBJECTS[symbol]
    thorough = settings().max_examples >= 2000

    @settings(
        max_examples=MANY if thorough else FEW,
        derandomize=True,
        phases=[Phase.generate],  # A configuration is small as it is, and shrinking it takes minutes.
        suppress_health_check=list(HealthCheck),
    )
    @given(config=subject.configurations)
    def agrees(config: dict) -> None:
        check(subject, config)

    agrees()
