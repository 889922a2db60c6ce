"""Keras makes float64 weights, the same ones every time, in the tests of the mirror."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def float64_weights(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set Keras' default precision, where TensorFlow is needed at all."""
    if not any(request.node.iter_markers("tf")):
        yield
        return
    from tests.parity.tensorflow_side import tf

    before = tf.keras.backend.floatx()
    tf.keras.backend.set_floatx("float64")
    tf.keras.utils.set_random_seed(0)
    yield
    tf.keras.backend.set_floatx(before)
