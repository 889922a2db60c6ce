"""Models as tutorials write them: each matches in float64 with no mapping written, and a fault turns it red."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import oracle
from oracle.assertion import GradientMismatchError
from oracle.assertion_context import AssertionContext, use_context
from oracle.live_port import LivePort, compare_live

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

PORTS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "subclassed_gru": ("build", {}, None),
    "functional_lstm": ("build", {}, "build_faulty"),
    "networks_nmt": ("build", {}, None),
    "bidirectional_stack": ("build", {}, None),
    "sequential_tagger": ("build", {}, "build_faulty"),
    "tf1_multi_rnn": ("build", {}, None),
    "tied_embeddings": ("build", {}, None),
    "additive_attention": ("build", {}, None),
}


def make(name: str, function: str = "build", **options: Any) -> LivePort:
    """A tutorial's port."""
    module = importlib.import_module(f"tests.oracle.mirror.tutorials.{name}")
    return getattr(module, function)(**options)


@pytest.mark.parametrize("name", PORTS)
def test_tutorial_matches(name):
    """Every tensor within 1e-12 of its largest element."""
    (comparison,) = oracle.assert_gradients_match(lambda: make(name))
    assert len(comparison.rows) >= 6


@pytest.mark.parametrize("name", PORTS)
def test_fault_is_red(name, tmp_path):
    """The same with one fault in what TensorFlow runs."""
    faulty = PORTS[name][2]
    with use_context(AssertionContext(folder=tmp_path)), pytest.raises(GradientMismatchError) as raised:
        oracle.assert_gradients_match(
            lambda: make(name, faulty) if faulty else make(name, faulty=True), witness="never"
        )
    (comparison,) = raised.value.comparisons
    assert any(row.status == "mismatch" and row.name.startswith("gradient/") for row in comparison.findings)


def test_bahdanau_in_the_nmt_tutorial():
    """The tutorial's other attention."""
    oracle.assert_gradients_match(lambda: make("networks_nmt", attention_type="bahdanau"))


@pytest.mark.parametrize("mode", ["function", "xla"])
def test_modes(mode):
    """In `tf.function`, and compiled by XLA."""
    oracle.assert_gradients_match(lambda: make("functional_lstm"), mode=mode)


@pytest.mark.slow
def test_what_raises_is_a_finding():
    """XLA cannot compile a decoder without a bound on its steps: the port raised, and that is the result."""
    comparison = compare_live(lambda: make("networks_nmt"), mode="xla")
    assert comparison.failure is not None
    assert not comparison.matches


@pytest.mark.gradient_oracle(precision="f32")
@pytest.mark.parametrize("name", ["tied_embeddings", "tf1_multi_rnn"])
def test_float32(name):
    """Held against the oracle's own float32 error."""
    (comparison,) = oracle.assert_gradients_match(lambda: make(name))
    assert comparison.port.dtype == "float32"
    assert not compare_live(lambda: make(name, faulty=True), dtype="float32").matches


def test_tied_embedding_is_one_leaf():
    """Both models hold it; it is one leaf, with one gradient, and the other place points to it."""
    from oracle.live_port import record_live

    records = record_live(lambda: make("tied_embeddings"))
    assert records.port.spec.ties == {"decoder/embedding/embedding": "encoder/embedding/embedding"}
    assert "gradient/decoder/embedding/embedding" not in records.port.tensors
