"""The models: the right ones match, and each wrong one is found to be wrong in its own way."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from oracle import zoo
from oracle.case import jitter_case
from oracle.compare import Comparison, compare_records
from oracle.record import Record
from oracle.run_jax import run_oracle
from oracle.run_tf import run_port
from oracle.tolerance import FLOAT32_RUNS
from tests.oracle.cases import small_case

pytestmark = [pytest.mark.tf, pytest.mark.jax]

RIGHT = [
    (choice.name, mode)
    for choice in zoo.choices()
    if choice.model.name != "implicit_state"
    for mode in choice.variant.modes
]
ENCODER = [
    "gradient/encoder/cell/kernel",
    "gradient/encoder/cell/recurrent_kernel",
    "gradient/encoder/cell/bias",
]
STATE = ["gradient/state/encoder/c", "gradient/state/encoder/h"]

# For each wrong conversion: the handoff that it amounts to, and what is found of the encoder's gradients.
WRONG = {
    "outside_tape": ("stopped", "none"),
    "state_discarded": ("zeros", "none"),
    "initial_state_none": ("zeros", "none"),
    "initial_state_zeros": ("zeros", "none"),
    "zeros_silenced": ("zeros", "zero"),
    "exchanged": ("exchanged", "mismatch"),
}


def compare_port(port: str, *, mode: str | None = None, dtype: str = "float64", seed: int = 0) -> Comparison:
    case = small_case(port, seed=seed)
    numbers = range(FLOAT32_RUNS if dtype == "float32" else 0)
    yardstick = [run_oracle(jitter_case(case, number), model=port, dtype=dtype) for number in numbers]
    record = run_port(case, model=port, mode=mode, dtype=dtype)
    return compare_records(record, run_oracle(case, model=port), yardstick=yardstick)


@pytest.mark.parametrize("port, mode", RIGHT)
def test_right_port_matches_in_float64(port: str, mode: str) -> None:
    comparison = compare_port(port, mode=mode)
    assert comparison.failure is None, comparison.failure.traceback
    assert comparison.matches, comparison.findings
    # A gradient through attention may be a small difference of large numbers: a score that all steps share
    # changes nothing, and most of what the query does is of that kind.
    assert comparison.needed < (1e-12 if port.startswith("attention_nmt") else 1e-14)


@pytest.mark.parametrize("port, mode", RIGHT)
def test_right_port_matches_in_float32(port: str, mode: str) -> None:
    comparison = compare_port(port, mode=mode, dtype="float32", seed=3)
    assert comparison.matches, comparison.findings


@pytest.mark.parametrize("average", ["steps", "rows"])
def test_every_average_of_the_loss_matches_and_no_two_are_one(average: str) -> None:
    case = small_case("attention_nmt/gru")
    other = dataclasses.replace(case, spec=msgspec.structs.replace(case.spec, loss=average))
    port = run_port(other, model="attention_nmt/gru", mode="eager")
    assert compare_records(port, run_oracle(other, model="attention_nmt/gru")).matches
    found = compare_records(
        dataclasses.replace(port, spec=case.spec), run_oracle(case, model="attention_nmt/gru")
    )
    assert [row.name for row in found.findings][0] == "loss"


def test_every_wrong_conversion_is_listed() -> None:
    (model,) = [model for model in zoo.MODELS if model.name == "implicit_state"]
    assert {variant.name for variant in model.variants} == WRONG.keys()


@pytest.mark.parametrize("variant", WRONG)
@pytest.mark.parametrize("mode", ["function", "v1"])
def test_wrong_conversion_is_found(variant: str, mode: str) -> None:
    comparison = compare_port(f"implicit_state/{variant}", mode=mode)
    assert not comparison.matches
    statuses = {row.name: row.status for row in comparison.rows}
    _, expected = WRONG[variant]
    assert [statuses[name] for name in ENCODER] == [expected] * 3
    assert statuses["gradient/batch/source"] == expected
    if variant == "state_discarded":
        assert statuses["state/encoder/c"] == "missing"
    else:
        assert [statuses[name] for name in STATE] == [expected] * 2
    # Only where the value is right and the gradient is cut do the outputs agree.
    decoder = "match" if variant == "outside_tape" else "mismatch"
    assert statuses["output/decoder"] == statuses["gradient/decoder/cell/kernel"] == decoder
    assert statuses["output/encoder"] == "match"


@pytest.mark.parametrize("variant", WRONG)
def test_wrong_conversion_is_what_we_say_it_is(variant: str) -> None:
    """The oracle with the wrong handoff computes the port's numbers, None being its zeros."""
    handoff, _ = WRONG[variant]
    port = f"implicit_state/{variant}"
    case = small_case(port)
    record = run_port(case, model=port)
    wrong_spec = msgspec.structs.replace(case.spec, handoff=handoff)
    told = run_oracle(dataclasses.replace(case, spec=wrong_spec), model=port)
    for name, tensor in record.tensors.items():
        expected = told.tensors[name]
        if name.startswith("gradient/state/encoder/"):
            continue  # The port's state is differentiated before the handoff there, ours behind it.
        if tensor is None:
            assert not expected.any(), name
        else:
            np.testing.assert_allclose(
                tensor, expected, rtol=0, atol=1e-14 * max(1e-300, np.abs(expected).max()), err_msg=name
            )


def test_v1_mode_builds_tf1_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a v1 graph the original runs on `Enter` and `Exit`, as in TF1, and not on `While`."""
    import tensorflow as tf

    from tf_models.dynamic_rnn import DynamicRNN

    case = small_case("dynamic_rnn/full")
    with tf.Graph().as_default() as graph:
        DynamicRNN(case.spec).step({name: tf.constant(array) for name, array in case.batch.items()})
        kinds = {operation.type for operation in graph.get_operations()}
    assert {"Enter", "Exit", "NextIteration"} <= kinds
    assert not {"While", "StatelessWhile"} & kinds


def test_code_in_the_wild_runs_as_it_stands() -> None:
    import tensorflow as tf

    from tf_models.explicit_state import BasicRNNDecoder, BasicRNNEncoder

    generator = np.random.default_rng(0)
    inputs = tf.constant(generator.standard_normal((5, 3, 7)), tf.float32)
    targets = tf.constant(generator.standard_normal((4, 3, 256)), tf.float32)
    encoder, decoder = BasicRNNEncoder(256), BasicRNNDecoder(256)
    optimizer = tf.keras.optimizers.Adam(1e-3)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            outputs, state = encoder(inputs)
            outputs, _ = decoder(targets[:-1], initial_state=state)
            loss = tf.reduce_mean(tf.square(outputs - targets[1:]))
        variables = encoder.trainable_variables + decoder.trainable_variables
        gradients = tape.gradient(loss, variables)
        assert len(gradients) == 6
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        losses.append(float(loss))
    assert losses[2] < losses[0]


def test_without_projection_matches() -> None:
    from oracle.case import random_case
    from oracle.spec import LSTM, EncoderDecoder

    spec = EncoderDecoder(3, 6, LSTM(6), LSTM(6), projection=False)
    for port in ("dynamic_rnn/full", "explicit_state/full"):
        case = random_case(spec)
        comparison = compare_records(run_port(case, model=port), run_oracle(case, model=port))
        assert comparison.matches, comparison.findings


def test_forget_biases_of_encoder_and_decoder_are_their_own() -> None:
    from oracle.case import random_case
    from oracle.spec import LSTM, EncoderDecoder

    spec = EncoderDecoder(3, 2, LSTM(5, forget_bias=0.25), LSTM(5, forget_bias=1.5))
    for port in ("dynamic_rnn/full", "explicit_state/full"):
        case = random_case(spec)
        comparison = compare_records(run_port(case, model=port), run_oracle(case, model=port))
        assert comparison.matches, comparison.findings


def test_port_that_raises_is_recorded_not_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tf_models.explicit_state import ExplicitState

    def raise_in_step(self: ExplicitState, batch: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'outer_context'")

    monkeypatch.setattr(ExplicitState, "step", raise_in_step)
    case = small_case("explicit_state/full")
    record = run_port(case, model="explicit_state/full", mode="eager")
    assert isinstance(record, Record)
    assert record.failure.type == "AttributeError"
    assert "outer_context" in record.failure.message
    assert "raise_in_step" in record.failure.traceback
    comparison = compare_records(record, run_oracle(case, model="explicit_state/full"))
    assert not comparison.matches
    assert comparison.failure == record.failure


def test_a_variable_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from oracle.errors import BridgeError
    from tf_models import explicit_state

    named = explicit_state.ExplicitState.variables_by_name

    def forget_one(self: explicit_state.ExplicitState) -> dict:
        return {name: variable for name, variable in named(self).items() if name != "projection/bias"}

    monkeypatch.setattr(explicit_state.ExplicitState, "variables_by_name", forget_one)
    with pytest.raises(BridgeError, match="dense.*bias.* can be trained but has no name"):
        run_port(small_case("explicit_state/full"), model="explicit_state/full")


@pytest.mark.parametrize("variant", ["exchanged", "zeros_silenced"])
def test_weights_of_zeros_are_no_proof(variant: str) -> None:
    from oracle.errors import RecordError

    case = small_case(f"implicit_state/{variant}")
    case = dataclasses.replace(
        case, weights={path: np.zeros_like(array) for path, array in case.weights.items()}
    )
    port = run_port(case, model=f"implicit_state/{variant}")
    with pytest.raises(RecordError, match="zero throughout"):
        compare_records(port, run_oracle(case, model=f"implicit_state/{variant}"))


def test_results_are_the_same_from_run_to_run() -> None:
    case = small_case("explicit_state/full")
    for run, model in ((run_port, "explicit_state/full"), (run_oracle, "explicit_state/full")):
        first, second = run(case, model=model), run(case, model=model)
        for name, tensor in first.tensors.items():
            assert np.array_equal(tensor, second.tensors[name]), name
