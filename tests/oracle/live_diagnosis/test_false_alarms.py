"""Correct ports give no finding: those that come with the project, and models as tutorials write them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from oracle import zoo
from oracle.live_diagnosis import diagnose_live
from oracle.live_port import LivePort
from tests.oracle.cases import small_case

pytestmark = [pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[3]

TUTORIALS = (
    "subclassed_gru",
    "functional_lstm",
    "networks_nmt",
    "bidirectional_stack",
    "sequential_tagger",
    "tf1_multi_rnn",
    "tied_embeddings",
    "additive_attention",
)


def make_build(name: str, *, is_traced: bool = False) -> Callable[[], LivePort]:
    """A port of `tf_models`, its own step for `gradients`."""
    (choice,) = zoo.choose(name)
    case = small_case(name)

    def build() -> LivePort:
        from oracle.frameworks import import_tensorflow

        tf = import_tensorflow()
        module = importlib.import_module(f"tf_models.{choice.model.name}")
        port = module.build(case.spec, variant=choice.variant.name, dtype=tf.float32)

        def compute(batch: Mapping[str, Any]) -> Any:
            step = port.step(batch)
            return step.loss, dict(step.variable_gradients)

        run = tf.function(compute) if is_traced else compute

        def gradients(batch: Mapping[str, Any]) -> Any:
            loss, found = run(batch)
            variables = port.variables_by_name()
            return loss, [(found[name], variables[name]) for name in variables]

        return LivePort(
            {"port": port}, case.batch, lambda batch: gradients(batch)[0], name=name, gradients=gradients
        )

    return build


@pytest.mark.tf
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials(name: str) -> None:
    module = importlib.import_module(f"tests.oracle.mirror.tutorials.{name}")
    assert diagnose_live(module.build) == []


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.parametrize("name", ["my_port", "mirrored_port"])
def test_examples_of_the_docs(name: str) -> None:
    assert diagnose_live(f"{ROOT}/docs/examples/{name}.py:build") == []


@pytest.mark.tf
@pytest.mark.parametrize("name", ["explicit_state/full", "attention_nmt/lstm", "attention_nmt/gru"])
@pytest.mark.parametrize("is_traced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ports(name: str, is_traced: bool) -> None:
    assert diagnose_live(make_build(name, is_traced=is_traced)) == []


@pytest.mark.tf_any
@pytest.mark.parametrize("name", ["dynamic_rnn/full", "dynamic_rnn/lengths"])
def test_the_original(name: str) -> None:
    """It runs in `tf.function` only, so that nothing but the gradients themselves can be judged."""
    assert diagnose_live(make_build(name, is_traced=True)) == []


@pytest.mark.tf
@pytest.mark.parametrize(
    ("variant", "code"),
    [
        ("outside_tape", "G021"),
        ("state_discarded", "G101"),
        ("initial_state_none", "G101"),
        ("initial_state_zeros", "G101"),
        ("zeros_silenced", "G101"),
    ],
)
def test_the_wrong_conversions(variant: str, code: str) -> None:
    """What a gradient of zeros in None's place hides, the state shows."""
    (finding,) = diagnose_live(make_build(f"implicit_state/{variant}"))
    assert finding.code == code
