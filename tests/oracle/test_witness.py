"""What the witness measures, and that every claim about what it sees holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.witness_detection import CHECKS, OURS, SIZES, count_seen, find_wrong_element
from oracle.witness import (
    Arrays,
    check_gradient,
    draw_signs,
    measure_noise,
    measure_order,
    measure_slope,
)

POINT = {
    "kernel": np.random.default_rng(0).standard_normal((5, 7)),
    "bias": np.random.default_rng(1).standard_normal(7),
    "scale": np.array(0.7),
}
X, Y = np.random.default_rng(2).standard_normal((3, 5)), np.random.default_rng(3).standard_normal((3, 7))


def loss(point: Arrays) -> float:
    predicted = point["scale"] * np.tanh(X @ point["kernel"] + point["bias"])
    return float(np.mean((predicted - Y) ** 2))


def gradients(point: Arrays) -> dict[str, np.ndarray]:
    activated = np.tanh(X @ point["kernel"] + point["bias"])
    d_predicted = 2 * (point["scale"] * activated - Y) / Y.size
    d_before = d_predicted * point["scale"] * (1 - activated**2)
    return {
        "kernel": X.T @ d_before,
        "bias": d_before.sum(axis=0),
        "scale": np.sum(d_predicted * activated),
    }


def test_a_right_gradient_is_not_accused_and_the_bound_is_fine() -> None:
    for seed in range(20):
        for testimony in check_gradient(loss, POINT, gradients(POINT), seed=seed):
            assert not testimony.is_wrong, testimony
            assert testimony.bound < 1e-10
            assert testimony.order.order is None or testimony.order.order > 2.7


@pytest.mark.parametrize("name, place", [("kernel", (3, 4)), ("bias", (6,)), ("scale", ())])
@pytest.mark.parametrize("factor", [0.0, -1.0, 1 + 1e-6])
def test_one_wrong_element_is_seen_and_found(name: str, place: tuple[int, ...], factor: float) -> None:
    claimed = {key: np.array(array) for key, array in gradients(POINT).items()}
    claimed[name][place] *= factor
    found = check_gradient(loss, POINT, claimed)
    assert {testimony.name for testimony in found if testimony.is_wrong} == {name, "all"}
    assert [t.element for t in found if t.name == name] == [place, place]
    for testimony in found:
        if testimony.name in (name, "all"):
            assert testimony.is_proven_wrong
            assert testimony.order.order == pytest.approx(1, abs=0.3)


def test_the_error_of_a_slope_is_bounded_by_what_is_said() -> None:
    """On functions of which the slope is known, over scales of 10^-6 to 10^6."""
    for scale in (1e-6, 1.0, 1e6):
        for number in range(30):
            rng = np.random.default_rng(number)
            w = rng.standard_normal(50)

            def of(point: Arrays, scale: float = scale) -> float:
                return float(scale * np.sum(np.exp(np.sin(point["w"]))))

            direction = draw_signs({"w": w}, [number])
            noise = measure_noise(of, {"w": w}, direction)
            slope = measure_slope(of, {"w": w}, direction, noise=noise)
            truth = scale * float(np.sum(np.exp(np.sin(w)) * np.cos(w) * direction["w"]))
            assert abs(slope.value - truth) <= slope.bound
            assert slope.bound <= 1e-8 * scale
            assert slope.jump == 0.0


def test_noise_is_measured() -> None:
    """Of a loss that is rounded to a grid the deviation is that of the grid, 0.29 of its step."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(20)

    def jittery(point: Arrays) -> float:
        value = float(np.sum(np.sin(point["w"])))
        return value + 1e-6 * (hash(value) % 1000 / 1000 - 0.5)

    noise = measure_noise(jittery, {"w": w}, draw_signs({"w": w}, [0]))
    assert 0.05e-6 < noise < 1e-6
    assert measure_slope(jittery, {"w": w}, draw_signs({"w": w}, [0]), noise=noise).error > 1e-6


def test_a_kink_is_seen_and_any_slope_between_its_sides_is_accepted() -> None:
    def kinked(point: Arrays) -> float:
        return float(np.sum(np.abs(point["w"])) + point["w"][1] ** 3)

    point = {"w": np.array([0.0, 1.0, 2.0])}
    direction = {"w": np.array([1.0, 1.0, 1.0])}
    slope = measure_slope(kinked, point, direction, noise=1e-16)
    assert slope.jump == pytest.approx(2.0, rel=1e-6)
    for claimed, wrong in ((-1.0, False), (0.0, False), (1.0, False), (1.01, True)):
        (testimony, *_) = check_gradient(
            kinked, point, {"w": np.array([claimed, 4.0, 1.0])}, directions=1, locate=False
        )
        assert testimony.deviates is wrong
        assert testimony.is_wrong is wrong


def test_a_kink_nearby_makes_the_bound_wide_or_is_stepped_inside_of() -> None:
    for distance in (1e-1, 1e-2, 1e-3, 1e-4):
        point = {"w": np.array([distance])}
        slope = measure_slope(lambda p: float(np.abs(p["w"])[0]), point, {"w": np.ones(1)}, noise=1e-16)
        assert abs(slope.value - 1.0) <= slope.bound


def test_the_order_is_1_or_3_or_hidden() -> None:
    point, direction = {"w": np.array([0.3])}, {"w": np.ones(1)}

    def cubic(point: Arrays) -> float:
        return float(point["w"][0] ** 3)

    right = measure_order(cubic, point, direction, slope=3 * 0.09, noise=1e-17)
    assert right.steps > 5
    wrong = measure_order(cubic, point, direction, slope=3 * 0.09 + 1e-3, noise=1e-17)
    assert right.order == pytest.approx(3, abs=0.05)
    assert wrong.order == pytest.approx(1, abs=0.05)
    linear = measure_order(lambda p: float(2 * p["w"][0]), point, direction, slope=2.0, noise=1e-16)
    assert linear.order is None
    assert not linear.is_wrong


def test_a_loss_that_is_not_finite_gives_no_slope() -> None:
    slope = measure_slope(lambda p: math.nan, {"w": np.ones(2)}, {"w": np.ones(2)}, noise=1e-16)
    assert slope.error == math.inf
    # Only far from the point.
    slope = measure_slope(
        lambda p: float(np.log(p["w"][0])) if p["w"][0] > 0 else math.nan,
        {"w": np.array([0.01])},
        {"w": np.ones(1)},
        noise=1e-16,
    )
    assert abs(slope.value - 100) <= slope.bound < 1e-5


NUMPY_ONLY = [check for check in OURS if "mode" not in check]


@pytest.mark.parametrize("check", NUMPY_ONLY)
@pytest.mark.parametrize("size", [1, 1000, 10**5])
def test_our_checks_see_one_wrong_element(check: str, size: int) -> None:
    for fault, expected in (("right", 0), ("1 % too large", 5), ("missing", 5)):
        assert count_seen(check, size, fault, trials=5) == expected


@pytest.mark.jax
def test_forward_mode_sees_one_wrong_element() -> None:
    check = OURS[2]
    for size in (1, 1000, SIZES[-1]):
        for fault, expected in (("right", 0), ("1 % too large", 2), ("missing", 2)):
            assert count_seen(check, size, fault, trials=2) == expected


@pytest.mark.parametrize("check", NUMPY_ONLY)
@pytest.mark.slow
def test_our_checks_see_one_wrong_element_of_a_million(check: str) -> None:
    assert SIZES[-1] == 10**6
    for fault, expected in (("right", 0), ("1 % too large", 2), ("missing", 2)):
        assert count_seen(check, 10**6, fault, trials=2) == expected


@pytest.mark.jax
def test_the_common_checks_miss_what_ours_see() -> None:
    jax_check = "`jax.test_util.check_grads`"
    assert count_seen(jax_check, 1, "missing", trials=5) == 5
    for size, fault in ((1000, "1 % too large"), (10**6, "missing")):
        seen = count_seen(jax_check, size, fault, trials=5)
        assert seen is not None
        assert seen < 5, (size, fault)
    assert set(CHECKS) > set(OURS)


@pytest.mark.tf_any
def test_the_elementwise_check_misses_what_is_below_its_tolerance() -> None:
    check = "`tf.test.compute_gradient`, error < 1e-3"
    assert count_seen(check, 1, "missing", trials=3) == 3
    assert count_seen(check, 1000, "1 % too large", trials=1) == 0
    assert count_seen(check, 10**4, "missing", trials=1) is None


def test_halving_finds_the_element_without_an_oracle() -> None:
    for size in (1, 10, 1000):
        found, calls = find_wrong_element(size, "1 % too large", 0)
        assert found
        assert calls < 60 * (1 + math.log2(size))


def test_a_check_that_shares_its_losses_computes_few_of_them() -> None:
    """A wrong slope's remainder never vanishes in the rounding: it must settle, not go on to the end."""
    from oracle.witness import testify

    count = 0

    def counted(point: Arrays) -> float:
        nonlocal count
        count += 1
        return loss(point)

    cut = {**gradients(POINT), "kernel": np.zeros((5, 7))}
    direction = draw_signs({"kernel": POINT["kernel"]}, [0])
    found = testify("kernel", counted, POINT, cut, direction, noise=1e-17)
    assert found.is_proven_wrong
    assert found.order.order == pytest.approx(1, abs=0.01)
    assert count <= 24
