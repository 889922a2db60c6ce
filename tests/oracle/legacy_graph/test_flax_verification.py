"""A repaired model's gradients against those of the same cells in Flax."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.flax_verification import FlaxVerification, verify_by_flax
from oracle.legacy_graph.precise import make_precise
from oracle.legacy_graph.repair import Prepared, prepare
from oracle.legacy_graph.repaired_model import build_model
from oracle.legacy_graph.verification import differentiate_model, verify
from oracle.legacy_graph.vjp import build_backward
from tests.oracle.legacy_graph.golden import GRAPHS, part, read_expected

pytestmark = [pytest.mark.tf_any, pytest.mark.jax]

GATES = "variable/encoder/rnn/multi_rnn_cell/cell_1/gru_cell/gates/kernel"
"""[features + units, 2 * units], the columns of r before those of u."""


@pytest.fixture(scope="module")
def gru() -> Prepared:
    return prepare(GRAPHS / "stacked-gru", signature=None, trainable=None, inputs=(), outputs=())


def differentiate(prepared: Prepared) -> tuple[Any, Any, Any]:
    """The golden batch and weights, in the model's precision, and the repaired model's gradients."""
    model = build_model(prepared.extract, prepared.backward, prepared.selection.outputs)
    expected = read_expected("stacked-gru")
    dtypes = {key: spec.dtype.as_numpy_dtype for key, spec in model.input_specs.items()}
    batch = {key: np.asarray(array, dtypes[key]) for key, array in part(expected, "input").items()}
    weights = {key: np.asarray(a, dtypes["source"]) for key, a in part(expected, "weight").items()}
    return batch, weights, differentiate_model(model, batch, weights)[1]


@pytest.fixture(scope="module")
def gradients(gru: Prepared) -> tuple[Any, Any, Any]:
    return differentiate(gru)


def compare(prepared: Prepared, computed: tuple[Any, Any, Any], **changed: Any) -> FlaxVerification:
    batch, weights, gradients = computed
    return verify_by_flax(prepared.extract, prepared.settings, batch, weights, {**gradients, **changed})


def test_figures(gru: Prepared, gradients: tuple[Any, Any, Any]) -> None:
    """Eight variables, the inputs and two first states."""
    figures = compare(gru, gradients)
    assert [cell.partition(" (")[0] for cell in figures.cells] == ["TF1 GRUCell", "TF1 GRUCell"]
    assert sum(name.startswith("variable/") for name in figures.differences) == 8
    assert len(figures.differences) == 11
    assert all(far < 2e-6 * size for far, size in figures.differences.values())
    (line,) = figures.describe()
    assert line.startswith("flax: 2 cells (TF1 GRUCell (encoder/rnn/multi_rnn_cell/cell_0/gru_cell), ")
    assert "11 gradients, largest relative difference" in line


def test_in_float64(gru: Prepared) -> None:
    extract = make_precise(gru.extract)
    backward = build_backward(extract, settings=gru.settings)
    precise = replace(gru, extract=extract, backward=backward)
    figures = compare(precise, differentiate(precise))
    assert len(figures.differences) == 11
    assert all(far < 1e-13 * size for far, size in figures.differences.values())


def test_a_wrong_order_of_gates_is_refused(gru: Prepared, gradients: tuple[Any, Any, Any]) -> None:
    r, u = np.split(gradients[2][GATES], 2, axis=1)
    with pytest.raises(GraphError, match=r"G210.*cell_1/gru_cell/gates/kernel.*in Flax by"):
        compare(gru, gradients, **{GATES: np.concatenate([u, r], axis=1)})


def test_a_gradient_that_is_none_is_refused(gru: Prepared, gradients: tuple[Any, Any, Any]) -> None:
    with pytest.raises(GraphError, match=r"G210.*gates/kernel.*in Flax by"):
        compare(gru, gradients, **{GATES: None})


def test_a_wrong_backward_graph_is_refused() -> None:
    """One derivative of sixteen in a loop is another function's; the file keeps no contexts for TF1's own."""
    path = GRAPHS / "frozen-lstm.pb"
    prepared = prepare(path, signature=None, trainable="kernel$|bias$", inputs=(), outputs=())
    wrong = [node for node in prepared.backward.graph_def.node if node.op == "TanhGrad"]
    wrong[0].op = "SigmoidGrad"
    model = build_model(prepared.extract, prepared.backward, prepared.selection.outputs)
    with pytest.raises(GraphError, match="G210.*in Flax by") as caught:
        verify(model, prepared.selection, prepared.extract, prepared.backward, prepared.settings)
    assert "nothing was written" in str(caught.value)


def test_other_cells_than_their_names_say(gru: Prepared, gradients: tuple[Any, Any, Any]) -> None:
    """A cell with another activation has a GRUCell's variables, and gives other outputs: nothing is claimed."""
    graph_def = type(gru.extract.graph_def)()
    graph_def.CopyFrom(gru.extract.graph_def)
    changed = next(node for node in graph_def.node if node.op == "Tanh")
    changed.op = "Relu"
    batch, weights, _ = gradients
    figures = verify_by_flax(replace(gru.extract, graph_def=graph_def), gru.settings, batch, weights, {})
    assert not figures.cells
    (line,) = figures.describe()
    assert line.startswith("flax: not asked about the loop 'encoder/rnn/while/while_context': ")
    assert line.endswith("give other outputs")


def test_without_jax(gru: Prepared, gradients: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flax.linen", None)
    figures = compare(gru, gradients)
    assert not figures.cells
    (line,) = figures.describe()
    assert line.startswith("flax: not asked about any loop: flax ")
