"""The optimizers without TensorFlow: against optax where it is the same, and against formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.jax

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

from jax_models import optimizers  # noqa: E402
from jax_models.optimizers import IndexedSlices, keras, legacy, read_slots, schedules, tf1, tfa  # noqa: E402
from oracle.frameworks import precise_jax  # noqa: E402

STEPS = 100


def draw(seed=0):
    generator = np.random.default_rng(seed)
    params = {"w": generator.standard_normal((5, 3)), "b": generator.standard_normal(4)}
    gradients = [
        {name: generator.standard_normal(each.shape) for name, each in params.items()} for _ in range(STEPS)
    ]
    return params, gradients


def train(optimizer, params, gradients):
    with precise_jax():
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for each in gradients:
            updates, state = update(each, state, params)
            params = optax.apply_updates(params, updates)
        return jax.device_get(params), jax.device_get(read_slots(state))


def rate(count):
    return 0.01 / (1 + count)


SAME = {
    "keras.adagrad": (lambda: keras.adagrad(rate), lambda: optax.adagrad(rate, 0.1, 1e-7)),
    "keras.adadelta": (lambda: keras.adadelta(rate), lambda: optax.adadelta(rate, 0.95, 1e-7)),
    "keras.rmsprop": (
        lambda: keras.rmsprop(rate, momentum=0.5, centered=True),
        lambda: optax.rmsprop(rate, 0.9, 1e-7, centered=True, momentum=0.5, eps_in_sqrt=True),
    ),
    "legacy.sgd": (lambda: legacy.sgd(rate), lambda: optax.sgd(rate)),
    "tf1.gradient_descent": (lambda: tf1.gradient_descent(rate), lambda: optax.sgd(rate)),
    "tf1.momentum": (lambda: tf1.momentum(rate, 0.9), lambda: optax.sgd(rate, 0.9)),
    "tf1.momentum, Nesterov's": (
        lambda: tf1.momentum(rate, 0.9, use_nesterov=True),
        lambda: optax.sgd(rate, 0.9, nesterov=True),
    ),
    "tf1.adagrad": (lambda: tf1.adagrad(rate), lambda: optax.adagrad(rate, 0.1, 0.0)),
    "tf1.adadelta": (lambda: tf1.adadelta(rate), lambda: optax.adadelta(rate, 0.95, 1e-8)),
    "tf1.rmsprop": (
        lambda: tf1.rmsprop(rate, momentum=0.5),
        lambda: optax.rmsprop(rate, 0.9, 1e-10, initial_scale=1.0, momentum=0.5, eps_in_sqrt=True),
    ),
    "tfa.lamb": (lambda: tfa.lamb(rate, weight_decay=0.1), lambda: optax.lamb(rate, weight_decay=0.1)),
    "tfa.rectified_adam": (lambda: tfa.rectified_adam(rate), lambda: optax.radam(rate, eps=1e-7)),
    "clip_by_global_norm": (
        lambda: optax.chain(optimizers.clip_by_global_norm(0.5), optax.sgd(0.1)),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    ),
    "clip_by_value": (
        lambda: optax.chain(optimizers.clip_by_value(0.5), optax.sgd(0.1)),
        lambda: optax.chain(optax.clip(0.5), optax.sgd(0.1)),
    ),
}
"""What the docstrings call the same as optax's."""


@pytest.mark.parametrize("ours, theirs", SAME.values(), ids=SAME)
def test_what_is_said_to_be_optaxs_is(ours, theirs):
    params, gradients = draw()
    with precise_jax():
        one, other = ours(), theirs()
    found, _ = train(one, params, gradients)
    expected, _ = train(other, params, gradients)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-12)


def test_adam_is_the_formula_with_epsilon_hat():
    params, gradients = draw()
    p, m, v = params["w"].copy(), 0.0, 0.0
    beta1, beta2 = float(np.float32(0.9)), float(np.float32(0.999))
    for step, each in enumerate(gradients, start=1):
        g = each["w"]
        m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
        p -= 0.01 * np.sqrt(1 - beta2**step) / (1 - beta1**step) * m / (np.sqrt(v) + 1e-3)
    found, (slots, scalars) = train(keras.adam(0.01, epsilon=1e-3), params, gradients)
    np.testing.assert_allclose(found["w"], p, rtol=1e-11)
    np.testing.assert_allclose(slots["v"]["w"], v, rtol=1e-11)
    assert set(slots) == {"m", "v"}
    assert scalars == {}


def test_ftrl_is_the_formula():
    params, gradients = draw()
    p, n, z = params["w"].copy(), np.full((5, 3), float(np.float32(0.1))), 0.0
    for each in gradients:
        g = each["w"]
        new = n + g * g
        z = z + g + 2 * 0.03 * p - (np.sqrt(new) - np.sqrt(n)) / 0.05 * p
        quadratic = np.sqrt(new) / 0.05 + 2 * 0.02 + 0.1 / 0.05
        p, n = np.where(np.abs(z) > 0.01, (np.sign(z) * 0.01 - z) / quadratic, 0.0), new
    options = {
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
        "l2_shrinkage_regularization_strength": 0.03,
        "beta": 0.1,
    }
    found, _ = train(keras.ftrl(0.05, **options), params, gradients)
    np.testing.assert_allclose(found["w"], p, rtol=1e-10, atol=1e-13)


def test_tf1_adam_keeps_its_powers_in_float32():
    params, gradients = draw()
    _, (_, scalars) = train(tf1.adam(0.01), params, gradients)
    power = np.float32(0.9)
    for _ in range(STEPS):
        power *= np.float32(0.9)
    assert scalars["beta1_power"] == power
    assert scalars["beta1_power"].dtype == np.float32


def test_rows_that_are_named_twice_count_twice():
    params, _ = draw()
    values = np.arange(6.0).reshape(2, 3)
    slices = {"w": IndexedSlices(values, np.array([2, 2])), "b": np.zeros(4)}
    found, _ = train(keras.sgd(1.0), params, [slices])
    expected = params["w"].copy()
    expected[2] -= values.sum(0)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-14)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_row_without_a_gradient(lazy):
    """LazyAdam leaves it, Adam moves it by its old momentum."""
    params, gradients = draw()
    optimizer = tfa.lazy_adam(0.1) if lazy else legacy.adam(0.1)
    slices = {"w": IndexedSlices(np.ones((1, 3)), np.array([0])), "b": np.zeros(4)}
    before, (slots, _) = train(optimizer, params, gradients[:3])
    after, (later, _) = train(optimizer, params, [*gradients[:3], slices])
    assert (after["w"][1:] == before["w"][1:]).all() == lazy
    assert (later["v"]["w"][1:] == slots["v"]["w"][1:]).all() == lazy
    assert (after["w"][0] != before["w"][0]).all()


def test_slices_are_clipped_before_they_are_summed():
    params, _ = draw()
    slices = {"w": IndexedSlices(np.full((2, 3), 4.0), np.array([1, 1])), "b": np.zeros(4)}
    clipped, _ = train(keras.sgd(1.0, clipvalue=1.0), params, [slices])
    np.testing.assert_allclose(params["w"][1] - clipped["w"][1], 2.0)
    clipped, _ = train(keras.sgd(1.0, clipnorm=np.sqrt(6.0)), params, [slices])
    np.testing.assert_allclose(params["w"][1] - clipped["w"][1], 2.0)


def test_decay_is_coupled_or_not():
    params, gradients = draw()
    zeros = {name: np.zeros_like(each) for name, each in params.items()}
    coupled, _ = train(optax.chain(optimizers.coupled_l2(0.1), keras.sgd(0.01)), params, [zeros])
    np.testing.assert_allclose(coupled["w"], params["w"] * (1 - 0.001))
    uncoupled, _ = train(tfa.sgdw(0.1, 0.01), params, [zeros])
    np.testing.assert_allclose(uncoupled["w"], params["w"] * 0.9)
    scaled, _ = train(keras.sgd(0.01, weight_decay=0.1), params, [zeros])
    np.testing.assert_allclose(scaled["w"], params["w"] * (1 - 0.001), rtol=1e-9)


def test_lookahead_steps_back():
    params, gradients = draw()
    inner, _ = train(legacy.sgd(0.1), params, gradients[:3])
    found, (slots, _) = train(tfa.lookahead(legacy.sgd(0.1), 3, 0.25), params, gradients[:3])
    expected = params["w"] + 0.25 * (inner["w"] - params["w"])
    np.testing.assert_allclose(found["w"], expected)
    np.testing.assert_allclose(slots["slow"]["w"], expected)


def test_schedules_at_their_corners():
    with precise_jax():
        piecewise = schedules.piecewise_constant_decay((2, 4), (1.0, 0.5, 0.25), dtype="float64")
        assert [float(piecewise(step)) for step in range(6)] == [1, 1, 1, 0.5, 0.5, 0.25]
        cosine = schedules.cosine_decay(1.0, 10, dtype="float64")
        theirs = optax.cosine_decay_schedule(1.0, 10)
        for step in (0, 3, 10, 12):
            assert float(cosine(step)) == pytest.approx(float(theirs(step)), abs=1e-15)
        polynomial = schedules.polynomial_decay(1.0, 10, 0.1, 2.0, dtype="float64")
        theirs = optax.polynomial_schedule(1.0, 0.1, 2.0, 10)
        for step in (0, 3, 10, 12):
            assert float(polynomial(step)) == pytest.approx(float(theirs(step)), abs=1e-15)
        restarts = schedules.cosine_decay_restarts(1.0, 4, 2.0, 0.5, dtype="float64")
        assert [float(restarts(step)) for step in (0, 4, 12)] == pytest.approx([1.0, 0.5, 0.25])
        assert schedules.exponential_decay(0.1, 3, 0.9)(5).dtype == np.float32


def test_it_runs_in_float32_too_and_asks_for_the_parameters():
    params = {"w": np.ones((2, 3), np.float32)}
    for optimizer in (
        keras.adam(),
        tf1.adam(),
        tfa.rectified_adam(),
        keras.nadam(),
        tfa.lamb(),
        keras.ftrl(),
    ):
        state = optimizer.init(params)
        updates, _ = optimizer.update(params, state, params)
        assert updates["w"].dtype == np.float32
    with pytest.raises(ValueError, match="expected the parameters"):
        keras.adam().update(params, keras.adam().init(params))
