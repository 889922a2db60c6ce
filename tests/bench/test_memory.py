"""The peak of this process' memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells it")

SIZE = 64 * 2**20


def test_what_is_taken_and_given_back_is_in_the_peak():
    before = memory.trim()
    assert before is not None
    if not memory.forget_peak():
        pytest.skip("the peak cannot be forgotten here")
    taken = np.ones(SIZE // 8)
    del taken
    peak = memory.read_peak()
    assert peak is not None
    assert SIZE * 0.95 < peak - before < SIZE * 1.5


def test_a_peak_that_was_forgotten_is_gone():
    taken = np.ones(SIZE // 8)
    del taken
    before = memory.trim()
    if not memory.forget_peak():
        pytest.skip("the peak cannot be forgotten here")
    peak = memory.read_peak()
    assert before is not None
    assert peak is not None
    assert peak - before < SIZE / 2
