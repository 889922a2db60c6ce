"""JAX's contestants compute what the oracle does."""

from __future__ import annotations

import numpy as np
import pytest

from bench.agreement import DisagreementError, check_gradients, check_move
from bench.cases import attention_spec
from oracle.case import random_case
from oracle.spec import LSTM, EncoderDecoder

pytestmark = pytest.mark.jax

SIZES = {"batch_size": 3, "source_time": 5, "target_time": 4}


@pytest.fixture(scope="module")
def plain():
    from bench.jax_side import compute_truth

    case = random_case(EncoderDecoder(5, 4, LSTM(6, forget_bias=0.7), LSTM(6)), **SIZES)
    return case, compute_truth(case)


@pytest.mark.parametrize("name", ["flax", "plain"])
@pytest.mark.parametrize("job", ["gradient", "training"])
def test_a_contestant_agrees(plain, name, job):
    from bench.jax_side import prepare

    case, truths = plain
    prepared = prepare(name, job, case)
    prepared.step()
    computed = prepared.result()
    assert check_gradients(case, name, computed, truths).startswith("9 tensors")
    assert prepared.trace is not None
    assert prepared.compile is not None
    assert prepared.first >= prepared.trace + prepared.compile
    if job == "training":
        check_move(case.weights, prepared.moved, computed, epsilon=prepared.epsilon, clip=prepared.clip)


def test_the_truth_is_in_float64_and_its_yardstick_in_float32(plain):
    _, truths = plain
    assert {array.dtype for array in truths[0].values()} == {np.dtype("float64")}
    for run in truths[1:]:
        assert {array.dtype for array in run.values()} == {np.dtype("float32")}


def test_cudnn_takes_the_leaves_as_they_are(plain):
    """Its loop in JAX stands for cuDNN's, which needs a GPU; the packing of the weights is the same."""
    import jax

    rnn = pytest.importorskip("jax.experimental.rnn")

    from bench.cudnn import make_cudnn

    def run(inputs, h, c, weights, lengths, **options):
        sizes = [options[name] for name in ("input_size", "hidden_size", "num_layers", "bidirectional")]
        return rnn.lstm_ref(inputs, h, c, *rnn.unpack_lstm_weights(weights, *sizes), lengths, **options)

    case, truths = plain
    compute, params, carry = make_cudnn(case, lstm=run)
    loss, gradients = jax.jit(compute)(params, dict(case.batch))
    computed = {"loss": np.asarray(loss)}
    computed |= {f"gradient/{leaf}": np.asarray(array) for leaf, array in carry(gradients).items()}
    check_gradients(case, "cudnn", computed, truths)


def test_cudnn_is_absent_without_a_gpu(plain):
    import jax

    from bench.jax_side import prepare
    from bench.prepared import AbsentError

    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    with pytest.raises(AbsentError, match="GPU"):
        prepare("cudnn", "gradient", plain[0])


@pytest.mark.parametrize("name", ["fast", "fast-remat"])
def test_the_fast_path_agrees_in_one_piece_and_in_segments(plain, name):
    from bench.jax_side import prepare

    case, truths = plain
    check_gradients(case, name, prepare(name, "gradient", case).result(), truths)


def test_a_path_that_the_oracle_has_not_is_absent(plain, monkeypatch):
    from bench.jax_side import prepare
    from bench.prepared import AbsentError
    from oracle.steps import encoder_decoder

    differentiate = encoder_decoder.differentiate

    def of_old(spec):
        return differentiate(spec)

    monkeypatch.setattr(encoder_decoder, "differentiate", of_old)
    prepare("plain", "gradient", plain[0])
    with pytest.raises(AbsentError, match="no fast path"):
        prepare("fast", "gradient", plain[0])


def test_clipping_and_adam_of_the_translator():
    from bench.jax_side import compute_truth, prepare

    case = random_case(attention_spec("gru", "luong", 4, vocabulary=9), **SIZES)
    prepared = prepare("plain", "training", case)
    computed = prepared.result()
    check_gradients(case, "plain", computed, compute_truth(case))
    assert prepared.clip == 1.0
    check_move(case.weights, prepared.moved, computed, epsilon=prepared.epsilon, clip=prepared.clip)
    with pytest.raises(DisagreementError):
        check_move(case.weights, dict(case.weights), computed, epsilon=prepared.epsilon, clip=prepared.clip)


def test_other_weights_are_told_apart(plain):
    from bench.jax_side import prepare

    case, truths = plain
    other = random_case(case.spec, seed=1, **SIZES)
    with pytest.raises(DisagreementError):
        check_gradients(case, "plain", prepare("plain", "gradient", other).result(), truths)
