"""What the oracle has at every step: values that join up, and adjoints that explain the gradients."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.bridge.sites import find_sites
from tests.oracle.steps.counterfactual_cases import (
    SEQUENCES,
    TRANSLATORS,
    build,
    draw_case,
    evaluate,
    relative,
)

pytestmark = pytest.mark.jax

CASES = {
    name: draw_case((SEQUENCES | TRANSLATORS)[name])
    for name in ("lengths-given-projection", "lstm-2-luong", "gru-1-bahdanau")
}


@pytest.fixture(scope="module", params=list(CASES))
def traced(request: pytest.FixtureRequest):
    case = CASES[request.param]
    evaluator = build(case)
    return case, evaluator.trace(), evaluate(evaluator, evaluator.neutral)


def test_every_layer_has_its_values_and_adjoints(traced) -> None:
    case, trace, _ = traced
    values = {
        "embedding": {"output"},
        "attention_mechanism": {"memory", "query", "alignments"},
        "attention_layer": {"input", "output"},
        "output_layer": {"input", "output"},
        "projection": {"input", "output"},
    }
    cell = {"input", "c", "h", "state_c", "state_h"}
    if getattr(case.spec, "cell", "lstm") == "gru":
        cell = {"input", "h", "state_h"}
    wanted = {
        f"step/{site.path}/{value}"
        for site in find_sites(case.spec, "keras")
        for value in values.get(site.path.rpartition("/")[2], cell)
    }
    assert {name for name in trace if name.startswith("step/")} == wanted
    unseen = ("state_c", "state_h", "query")
    adjoints = {f"gradient/{name}" for name in wanted if not name.endswith(unseen)}
    assert {name for name in trace if name.startswith("gradient/")} == adjoints
    for name in adjoints:
        assert trace[name].shape == trace[name.removeprefix("gradient/")].shape
        assert trace[name].dtype == np.float64


def test_the_last_step_leaves_the_final_state(traced) -> None:
    case, trace, record = traced
    time = case.batch["source"].shape[1]
    lengths = case.batch.get("source_length")
    if "encoder/cell" in {site.path for site in find_sites(case.spec, "keras")}:
        finals = {"encoder/cell": {part: record[f"state/encoder/{part}"] for part in "ch"}}
    else:
        units = case.spec.units
        finals = {}
        for i in range(case.spec.layers):
            for k, way in enumerate(("forward", "backward")):
                finals[f"encoder/layers_{i}/{way}/cell"] = {
                    part: record[f"state/encoder/{i}/{part}"][:, k * units : (k + 1) * units]
                    for part in ("ch" if case.spec.cell == "lstm" else "h")
                }
    for site, final in finals.items():
        for part, state in final.items():
            for row, length in enumerate(lengths if lengths is not None else [time] * len(state)):
                if length:
                    assert np.array_equal(trace[f"step/{site}/{part}"][row, length - 1], state[row])
                    # What left a step enters the next one.
                    left = trace[f"step/{site}/{part}"][row, : length - 1]
                    assert np.array_equal(trace[f"step/{site}/state_{part}"][row, 1:length], left)


def test_dense_layers_gradients_are_sums_over_steps(traced) -> None:
    case, trace, record = traced
    seen = 0
    for site in find_sites(case.spec, "keras"):
        path = site.path
        if path.endswith(("attention_layer", "output_layer", "projection")):
            adjoint = trace[f"gradient/step/{path}/output"]
            kernel = np.einsum("btf,btu->fu", trace[f"step/{path}/input"], adjoint)
            assert relative(kernel, record[f"gradient/{path}/kernel"]) < 1e-13
            inner = adjoint @ case.weights[f"{path}/kernel"].astype(np.float64).T
            assert relative(trace[f"gradient/step/{path}/input"], inner) < 1e-13
            if f"gradient/{path}/bias" in record:
                assert relative(adjoint.sum((0, 1)), record[f"gradient/{path}/bias"]) < 1e-13
            seen += 1
    assert seen


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def ran_steps(case, site, values):
    """How many of a layer's steps run: the decoder of a translator ends with its longest row."""
    ends = site.startswith("decoder/cells")
    return case.batch["target_length"].max() if ends else values.shape[1]


def blame_lstm(case, trace, site, forget_bias):
    """The adjoint of an LSTM's pre-activations from those of its c and h, and whether it does step."""
    weights = {leaf: case.weights[f"{site}/{leaf}"].astype(np.float64) for leaf in LEAVES}
    step, adjoint = f"step/{site}", f"gradient/step/{site}"
    sums = trace[f"{step}/input"] @ weights["kernel"] + weights["bias"]
    sums = sums + trace[f"{step}/state_h"] @ weights["recurrent_kernel"]
    i, f, g, o = np.split(sums, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f + forget_bias), np.tanh(g), sigmoid(o)
    c, d_h = trace[f"{step}/c"], trace[f"{adjoint}/h"]
    ran = ran_steps(case, site, c)
    assert relative((f * trace[f"{step}/state_c"] + i * g)[:, :ran], c[:, :ran]) < 1e-13
    assert relative((o * np.tanh(c))[:, :ran], trace[f"{step}/h"][:, :ran]) < 1e-13
    d_c = trace[f"{adjoint}/c"] + d_h * o * (1 - np.tanh(c) ** 2)
    d_f = d_c * trace[f"{step}/state_c"] * f * (1 - f)
    parts = [d_c * g * i * (1 - i), d_f, d_c * i * (1 - g * g), d_h * np.tanh(c) * o * (1 - o)]
    return weights, np.concatenate(parts, axis=-1), None


def blame_gru(case, trace, site):
    """The adjoints of a GRU's two products from that of its h."""
    weights = {leaf: case.weights[f"{site}/{leaf}"].astype(np.float64) for leaf in LEAVES}
    step = f"step/{site}"
    h = trace[f"{step}/state_h"]
    x = trace[f"{step}/input"] @ weights["kernel"] + weights["bias"][0]
    s = h @ weights["recurrent_kernel"] + weights["bias"][1]
    (x_z, x_r, x_h), (s_z, s_r, s_h) = np.split(x, 3, axis=-1), np.split(s, 3, axis=-1)
    z, r = sigmoid(x_z + s_z), sigmoid(x_r + s_r)
    n = np.tanh(x_h + r * s_h)
    ran = ran_steps(case, site, h)
    assert relative((z * h + (1 - z) * n)[:, :ran], trace[f"{step}/h"][:, :ran]) < 1e-13
    d_h = trace[f"gradient/{step}/h"]
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z, d_r = d_h * (h - n) * z * (1 - z), d_n * s_h * r * (1 - r)
    return weights, np.concatenate([d_z, d_r, d_n], -1), np.concatenate([d_z, d_r, d_n * r], -1)


LEAVES = ("kernel", "recurrent_kernel", "bias")


def test_cells_gradients_follow_from_their_adjoints(traced) -> None:
    case, trace, record = traced
    for site in find_sites(case.spec, "keras"):
        path = site.path
        if f"step/{path}/h" not in trace:
            continue
        if f"step/{path}/c" in trace:
            bias = getattr(getattr(case.spec, path.partition("/")[0], None), "forget_bias", 0.0)
            weights, d_input, d_state = blame_lstm(case, trace, path, bias)
        else:
            weights, d_input, d_state = blame_gru(case, trace, path)
        d_sums = d_input if d_state is None else d_state
        gradients = {
            "kernel": np.einsum("btf,btu->fu", trace[f"step/{path}/input"], d_input),
            "recurrent_kernel": np.einsum("btf,btu->fu", trace[f"step/{path}/state_h"], d_sums),
            "bias": d_input.sum((0, 1)),
        }
        if d_state is not None:
            gradients["bias"] = np.stack([gradients["bias"], d_state.sum((0, 1))])
        for leaf, gradient in gradients.items():
            assert relative(gradient, record[f"gradient/{path}/{leaf}"]) < 1e-12, f"{path}/{leaf}"
        inner = d_input @ weights["kernel"].T
        assert relative(trace[f"gradient/step/{path}/input"], inner) < 1e-12


def test_attention_joins_up() -> None:
    case = CASES["lstm-2-luong"]
    evaluator = build(case)
    trace, record = evaluator.trace(), evaluate(evaluator, evaluator.neutral)
    site = "step/decoder/attention_mechanism"
    run = case.batch["target_length"].max()
    assert np.array_equal(trace[f"{site}/alignments"], record["output/alignments"])
    assert np.array_equal(trace[f"{site}/memory"], record["output/encoder"])
    assert np.array_equal(trace[f"{site}/query"], trace["step/decoder/cells_1/h"])
    assert np.array_equal(trace["step/decoder/output_layer/output"], record["output/logits"])
    assert trace["step/decoder/cells_0/h"][:, :run].all()
    assert not trace["step/decoder/cells_0/h"][:, run:].any()
    # The context, behind the cell's output in the layer's input, is the memory under the alignments.
    units = 2 * case.spec.units
    context = trace["step/decoder/attention_layer/input"][..., units:]
    again = np.einsum("btm,bmd->btd", trace[f"{site}/alignments"], trace[f"{site}/memory"])
    assert relative(context, again) < 1e-14
    d_context = trace["gradient/step/decoder/attention_layer/input"][..., units:]
    d_alignments = np.einsum("btd,bmd->btm", d_context, trace[f"{site}/memory"])
    assert relative(trace[f"gradient/{site}/alignments"], d_alignments) < 1e-13
    # Input feeding: a step's attention goes to the output layer and to the next step's first cell.
    fed = trace["gradient/step/decoder/cells_0/input"][..., case.spec.embedding :]
    later = np.concatenate([fed[:, 1:], np.zeros_like(fed[:, :1])], axis=1)
    total = trace["gradient/step/decoder/output_layer/input"] + later
    assert relative(trace["gradient/step/decoder/attention_layer/output"], total) < 1e-13


def test_the_encoders_last_adjoint_is_of_the_handoff_and_of_the_memory() -> None:
    case = CASES["lstm-2-luong"]
    evaluator = build(case)
    trace, record = evaluator.trace(), evaluate(evaluator, evaluator.neutral)
    units, site = case.spec.units, "encoder/layers_1/forward/cell"
    d_memory = trace["gradient/step/decoder/attention_mechanism/memory"]
    for row, length in enumerate(case.batch["source_length"]):
        of_h = record["gradient/state/encoder/1/h"][row, :units] + d_memory[row, length - 1, :units]
        assert relative(trace[f"gradient/step/{site}/h"][row, length - 1], of_h) < 1e-13
        of_c = record["gradient/state/encoder/1/c"][row, :units]
        assert relative(trace[f"gradient/step/{site}/c"][row, length - 1], of_c) < 1e-13
        # The backward cell's first step reads the row's last source step.
        first = trace["step/encoder/layers_0/backward/cell/input"][row, 0]
        assert np.array_equal(first, trace["step/encoder/embedding/output"][row, length - 1])
        assert not trace[f"gradient/step/{site}/h"][row, length:].any()


def test_embeddings_adjoints_are_the_records(traced) -> None:
    case, trace, record = traced
    for side, scope in (("source", "encoder"), ("target", "decoder")):
        if f"gradient/embedded/{side}" in record:
            adjoint = trace[f"gradient/step/{scope}/embedding/output"]
            assert relative(adjoint, record[f"gradient/embedded/{side}"]) < 1e-15


def test_a_turned_knob_is_seen_in_the_trace() -> None:
    case = CASES["lengths-given-projection"]
    evaluator = build(case)
    zeros = evaluator.trace(evaluator.neutral._replace(handoff=np.zeros((2, 2))))
    assert not zeros["step/decoder/cell/state_h"][:, 0].any()
    assert evaluator.trace()["step/decoder/cell/state_h"][:, 0].any()
    assert not zeros["gradient/step/encoder/cell/h"].any()
