"""A port's own train step, compared as it is: a fault of its tape is found."""

from __future__ import annotations

import contextlib

import pytest

from oracle.live_port import LivePort, compare_live

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]


def make_port(*, is_inside: bool = True, is_whole: bool = True, is_traced: bool = False) -> LivePort:
    """The tutorial of the subclassed GRU with a train step of its own."""
    from tests.oracle.mirror.tutorials import subclassed_gru
    from tests.parity.tensorflow_side import tf

    port = subclassed_gru.build()
    encoder, decoder = port.models["encoder"], port.models["decoder"]
    inner = port.loss

    def variables():
        return [*encoder.trainable_variables, *(decoder.trainable_variables if is_whole else [])]

    def compute(batch):
        with tf.GradientTape() as tape, contextlib.nullcontext() if is_inside else tape.stop_recording():
            value = inner(batch)
        return value, tape.gradient(value, variables())

    run = tf.function(compute) if is_traced else compute

    def gradients(batch):
        value, found = run(batch)
        return value, zip(found, variables(), strict=True)

    return LivePort(port.models, port.batch, port.loss, port.reference, port.name, gradients=gradients)


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_right_one_matches(mode):
    comparison = compare_live(make_port, mode=mode)
    assert comparison.matches, comparison.findings
    assert len(comparison.rows) >= 6


def test_traced_one_matches():
    assert compare_live(lambda: make_port(is_traced=True)).matches


def test_fault_of_its_tape_is_found():
    """The loss has the right value, and its gradients are None."""
    comparison = compare_live(lambda: make_port(is_inside=False))
    found = {row.name: row.status for row in comparison.findings}
    assert "loss" not in found
    assert found["gradient/encoder/gru/cell/kernel"] == "none"


def test_weights_that_it_leaves_out():
    from oracle.errors import OracleError

    with pytest.raises(OracleError, match="no gradient was given for decoder"):
        compare_live(lambda: make_port(is_whole=False))
