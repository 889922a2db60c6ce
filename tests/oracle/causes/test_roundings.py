"""A tensor that is cast to a coarser dtype is named, with the dtype; products that are, by their sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle.case import cast_case
from oracle.causes.cause import Setting
from oracle.causes.checking import make_port
from oracle.causes.roundings import round_products
from oracle.explain import explain_record
from oracle.knobs import ROUNDINGS, Knobs
from oracle.steps.counterfactual import Evaluator
from tests.oracle.cases import small_case

pytestmark = pytest.mark.jax


class Bench:
    """A case, the oracle's record of it, and what turns its knobs."""

    def __init__(self, port: str) -> None:
        from oracle.run_jax import run_oracle

        self.case = small_case(port, seed=5)
        self.evaluator = Evaluator(self.case.spec, *cast_case(self.case, "float64"))
        self.truth = run_oracle(self.case, model=port)

    def explain(self, knobs: Knobs) -> Any:
        return explain_record(make_port(self.case, Setting("", knobs)), self.truth, self.evaluator)

    def cast(self, code: int, *names: str) -> Knobs:
        neutral = self.evaluator.neutral
        return neutral._replace(rounded={**neutral.rounded, **dict.fromkeys(names, np.int32(code))})


@pytest.fixture(scope="module", params=["explicit_state/full", "attention_nmt/gru"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


@pytest.mark.parametrize("name", ["source", "handoff", "decoded", "prediction"])
@pytest.mark.parametrize("dtype", ROUNDINGS[1:])
def test_a_tensor_that_is_cast_is_named_with_its_dtype(bench: Bench, name: str, dtype: str) -> None:
    explanation = bench.explain(bench.cast(ROUNDINGS.index(dtype), name))
    assert explanation.kind == "precision"
    assert explanation.best.codes == ("C715",)
    assert f"cast to {dtype} and back" in explanation.best.sentence
    assert explanation.best.distance < 1e-12


def test_a_weight_that_is_cast_is_told_from_one_that_was_rounded_before(bench: Bench) -> None:
    site = next(iter(bench.evaluator.neutral.cells))
    for code, said in ((3, "cast to float16 and back"), (-3, "rounded to float16 beforehand")):
        explanation = bench.explain(bench.cast(code, f"{site}/kernel"))
        assert explanation.kind == "precision"
        assert explanation.best.sentence == f"a tensor is rounded: {site}/kernel is {said}"


def test_all_weights_in_half_precision_are_named_together(bench: Bench) -> None:
    leaves = [name for name in bench.evaluator.neutral.rounded if "/" in name]
    explanation = bench.explain(bench.cast(-2, *leaves))
    assert explanation.best.sentence.endswith("all weights are rounded to bfloat16 beforehand")


def test_the_state_of_one_cell_cast_at_each_step_is_named(bench: Bench) -> None:
    cells = bench.evaluator.neutral.cells
    site = list(cells)[-1]
    knobs = bench.evaluator.neutral._replace(cells={**cells, site: cells[site]._replace(rounded=np.int32(1))})
    explanation = bench.explain(knobs)
    assert explanation.best.codes == ("C715",)
    assert f"the state that {site} multiplies is cast to float32" in explanation.best.sentence


def test_products_in_float32_are_told_by_the_sizes_of_their_errors(bench: Bench) -> None:
    explanation = bench.explain(round_products(bench.evaluator.neutral, "float32"))
    assert explanation.kind == "precision"
    assert explanation.best.codes == ("C714",)


def test_an_error_of_a_roundings_size_in_one_tensor_is_no_rounding(bench: Bench) -> None:
    knobs = bench.cast(1, "handoff")
    knobs = knobs._replace(loss_weights=knobs.loss_weights * (1 + 3e-7))
    assert bench.explain(knobs).kind != "precision"
