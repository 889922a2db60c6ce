"""TensorFlow's contestants compute what the oracle does, and take Adam's first step as it is."""

from __future__ import annotations

import numpy as np
import pytest

from bench.agreement import check_beams, check_gradients, check_move
from bench.cases import BEAM_STEPS, attention_spec
from oracle.case import random_case, weight_shapes
from oracle.spec import LSTM, EncoderDecoder
from oracle.zoo import choose

pytestmark = [pytest.mark.tf, pytest.mark.jax]

SIZES = {"batch_size": 3, "source_time": 5, "target_time": 4}


def find_truth(case):
    from bench.jax_side import compute_truth

    return case, compute_truth(case)


@pytest.fixture(scope="module")
def plain():
    return find_truth(random_case(EncoderDecoder(5, 4, LSTM(6), LSTM(6)), **SIZES))


@pytest.fixture(scope="module")
def translator():
    return find_truth(random_case(attention_spec("lstm", "bahdanau", 4, vocabulary=9), **SIZES))


def check(case, truths, name, job):
    from bench.tf_side import prepare

    prepared = prepare(name, job, case)
    prepared.step()
    computed = prepared.result()
    check_gradients(case, name, computed, truths)
    assert prepared.first > 0
    assert (prepared.trace is None) == (name == "tf-eager")
    if job == "training":
        check_move(case.weights, prepared.moved, computed, epsilon=prepared.epsilon, clip=prepared.clip)
        prepared.step()
        # What is compared does not depend on the steps between.
        check_gradients(case, name, prepared.result(), truths)


@pytest.mark.parametrize("name", ["tf-eager", "tf-xla", "tf-session", "keras"])
def test_the_gradient_step_agrees(plain, name):
    check(*plain, name, "gradient")


@pytest.mark.parametrize("name", ["tf-function", "tf-session", "keras"])
def test_the_training_step_agrees(plain, name):
    check(*plain, name, "training")


@pytest.mark.slow
def test_the_translator_agrees(translator):
    check(*translator, "tf-function", "training")


@pytest.mark.slow
def test_a_beam_search_agrees():
    from bench import jax_side, tf_side

    case = tf_side.trained_case("attention_nmt/gru", 5)
    truth = jax_side.decode_truth(case)
    for side, name in ((tf_side, "tf-function"), (jax_side, "plain")):
        prepared = side.prepare(name, "beam", case)
        assert check_beams(prepared.result(), truth, BEAM_STEPS) == "20 sequences, all the same"


def test_the_bridge_gives_every_leaf():
    from bench.tf_side import prepare_bridge

    leaves = prepare_bridge("bridge", "dynamic_rnn/full").step()
    spec = choose("dynamic_rnn/full")[0].variant.spec
    assert {name: np.shape(array) for name, array in leaves.items()} == weight_shapes(spec)
    # TF1 keeps a cell's two kernels as one variable.
    read = prepare_bridge("tf-reader", "dynamic_rnn/full").step()
    assert sum(map(np.size, read.values())) == sum(map(np.size, leaves.values()))
