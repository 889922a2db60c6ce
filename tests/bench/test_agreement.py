"""A contestant that is wrong is told from one that is right."""

from __future__ import annotations

import numpy as np
import pytest

from bench.agreement import DisagreementError, check_beams, check_gradients, check_move
from oracle.case import random_case, weight_shapes
from oracle.spec import LSTM, EncoderDecoder
from oracle.text import EOS

CASE = random_case(EncoderDecoder(5, 4, LSTM(3), LSTM(3)), batch_size=2, source_time=4, target_time=3)


@pytest.fixture(scope="module")
def truths():
    """What an oracle would say: a float64 run, and float32 runs that err by a few roundings."""
    rng = np.random.default_rng(0)
    shapes = {"loss": (), **{f"gradient/{leaf}": shape for leaf, shape in weight_shapes(CASE.spec).items()}}
    truth = {name: np.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}

    def err():
        return {
            name: np.asarray(array * (1 + 2e-7 * rng.standard_normal(array.shape)), np.float32)
            for name, array in truth.items()
        }

    return [truth, *(err() for _ in range(4))], err()


def test_a_right_one_agrees(truths):
    runs, right = truths
    assert check_gradients(CASE, "right", right, runs).startswith("9 tensors in float32")


def test_one_wrong_element_is_enough(truths):
    runs, right = truths
    kernel = right["gradient/encoder/cell/kernel"].copy()
    kernel[1, 2] += 1e-4
    with pytest.raises(DisagreementError, match="gradient/encoder/cell/kernel is .* times the oracle's own"):
        check_gradients(CASE, "wrong", {**right, "gradient/encoder/cell/kernel": kernel}, runs)


def test_a_transposed_square_matrix_is_wrong(truths):
    runs, right = truths
    name = "gradient/projection/kernel"
    with pytest.raises(DisagreementError, match=name):
        check_gradients(CASE, "wrong", {**right, name: right[name].T}, runs)


@pytest.mark.parametrize("value", [None, "zeros", "missing", "float64"])
def test_a_gradient_that_is_none_zero_missing_or_of_another_dtype_is_wrong(truths, value):
    runs, right = truths
    name = "gradient/encoder/cell/bias"
    wrong = dict(right)
    if value == "missing":
        del wrong[name]
    elif value == "zeros":
        wrong[name] = np.zeros_like(right[name])
    elif value == "float64":
        wrong[name] = right[name].astype(np.float64)
    else:
        wrong[name] = None
    with pytest.raises(DisagreementError, match=name):
        check_gradients(CASE, "wrong", wrong, runs)


def test_a_wrong_loss_is_wrong(truths):
    runs, right = truths
    with pytest.raises(DisagreementError, match="loss"):
        check_gradients(CASE, "wrong", {**right, "loss": np.float32(right["loss"] + 1e-3)}, runs)


def move(gradients, *, rate=1e-3, epsilon=1e-7, clip=None):
    """Adam's first step by its own recurrences."""
    norm = np.sqrt(sum(np.sum(np.square(each)) for each in gradients.values()))
    after = {}
    for leaf, before in CASE.weights.items():
        g = gradients[f"gradient/{leaf}"] * (1.0 if clip is None else clip / max(norm, clip))
        m, v = 0.1 * g, 0.001 * g * g
        alpha = rate * np.sqrt(1 - 0.999) / (1 - 0.9)
        after[leaf] = (before - alpha * m / (np.sqrt(v) + epsilon)).astype(np.float32)
    return after


def draw_gradients(scale):
    rng = np.random.default_rng(1)
    return {
        f"gradient/{leaf}": (scale * rng.standard_normal(each.shape)).astype(np.float32)
        for leaf, each in CASE.weights.items()
    }


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_the_first_step_of_adam_is_that_of_its_formula(clip, scale):
    gradients = draw_gradients(scale)
    check_move(CASE.weights, move(gradients, clip=clip), gradients, epsilon=1e-7, clip=clip)


@pytest.mark.parametrize("wrong", [{"rate": 1.1e-3}, {"rate": 0.0}, {"rate": -1e-3}, {"epsilon": 1e-6}])
def test_another_step_is_not(wrong):
    gradients = draw_gradients(1e-5)
    with pytest.raises(DisagreementError, match="its step of Adam"):
        check_move(CASE.weights, move(gradients, **wrong), gradients, epsilon=1e-7, clip=None)


def test_a_step_without_the_clipping_is_wrong():
    # Where the gradients are not far above epsilon, for Adam's step does not know their scale otherwise.
    gradients = draw_gradients(1.0)
    gradients["gradient/projection/bias"][0] = 1e6
    with pytest.raises(DisagreementError, match="its step of Adam"):
        check_move(CASE.weights, move(gradients), gradients, epsilon=1e-7, clip=1.0)


def test_beams_are_the_same_or_not():
    ids = np.random.default_rng(0).integers(EOS + 1, 9, (3, 5, 2)).astype(np.int32)
    ids[:, 3] = EOS
    ids[:, 4] = 7
    # What follows the end means nothing, and TensorFlow's time ends with the longest row.
    assert check_beams({"ids": ids[:, :4]}, {"ids": ids}, 5) == "6 sequences, all the same"
    wrong = ids.copy()
    wrong[1, 2, 1] += 1
    with pytest.raises(DisagreementError, match="1 of 6 sequences"):
        check_beams({"ids": wrong}, {"ids": ids}, 5)
