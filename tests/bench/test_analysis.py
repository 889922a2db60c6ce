"""What follows from measurements."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis import find_exponent, find_fastest, find_floor, fit_exponent, quartiles, ratio, sweeps
from bench.results import Measurement
from bench.targets import check_targets, judge
from tests.bench.runs import SECONDS, make_run

CASE = "gradient/lstm/32x32x256"


def test_an_exponent_is_that_of_the_power():
    sizes = [64, 256, 1024, 4096]
    assert fit_exponent(sizes, [3e-3 * size**1.3 for size in sizes]) == pytest.approx(1.3, rel=1e-12)
    assert fit_exponent(sizes, [0.5] * 4) == pytest.approx(0.0, abs=1e-12)


def test_an_exponent_of_noisy_times_is_near():
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, 7))
    sizes = 2.0 ** np.arange(6, 13)
    assert fit_exponent(sizes, sizes**0.9 * noise) == pytest.approx(0.9, abs=0.05)


def test_one_size_has_no_exponent():
    assert fit_exponent([64], [1.0]) is None
    assert fit_exponent([64, 64], [1.0, 2.0]) is None
    assert fit_exponent([], []) is None


def test_a_sweep_has_the_exponent_of_its_contestant():
    run = make_run()
    ((group, cases),) = sweeps(run).items()
    assert group == "sweep-T/lstm"
    assert find_exponent(run, cases, "fast") == pytest.approx(1.5)
    assert find_exponent(run, cases, "plain") is None


def test_quartiles():
    assert quartiles(Measurement("c", "n", (1.0, 2.0, 3.0, 4.0, 5.0))) == (2.0, 4.0)
    assert quartiles(Measurement("c", "n", (1.5,))) == (1.5, 1.5)


def test_the_floor_is_the_faster_and_tensorflow_is_as_fast_as_its_fastest():
    run = make_run()
    floor, fastest = find_floor(run, CASE), find_fastest(run, CASE)
    assert floor is not None
    assert floor.contestant == "floor-numpy"
    assert fastest is not None
    assert fastest.contestant == "tf-function"
    assert ratio(run.find(CASE, "fast"), floor) == pytest.approx(1.25)
    assert ratio(run.find(CASE, "fast"), None) is None


def found(run):
    return {(target.what, target.where): target for target in check_targets(run)}


def test_targets_are_met_or_not_or_not_measured():
    targets = found(make_run())
    against_tf = targets["fast path / TensorFlow's fastest", CASE]
    assert (against_tf.found, against_tf.bound, against_tf.state) == (0.5, 0.5, "met")
    assert against_tf.note == "against tf-function"
    flax = targets["fast path / Flax's own", CASE]
    assert (flax.found, flax.state) == (pytest.approx(0.625), "met")
    assert targets["plain path / fast path", CASE].state == "reported"
    exponent = targets["fast path, exponent of T from 64 to 4,096", "sweep-T/lstm"]
    assert exponent.state == "not met"
    assert targets["fast path / floor", "gradient/lstm/64x50x512"].state == "not measured"
    assert targets["fast path / floor", "gradient/lstm/64x50x512"].bound == 1.5
    assert targets["fast path / floor", "gradient/lstm/16x200x256"].bound == 2.0


def test_compilations_are_counted_against_none():
    key = ("programs that a second `oracle compare` compiles", "latency/compare")
    assert found(make_run(compilations=0))[key].state == "met"
    assert found(make_run(compilations=1))[key].state == "not met"
    assert found(make_run())[key].state == "not measured"


def of_one_case(seconds):
    import msgspec

    run = make_run(seconds)
    return msgspec.structs.replace(run, cases=run.cases[:1])


def test_a_run_is_judged_by_the_cases_that_it_holds():
    run = of_one_case(SECONDS)
    assert judge(check_targets(run), run)
    slow = of_one_case({**SECONDS, "fast": (0.11,)})
    assert not judge(check_targets(slow), slow)


def test_a_contestant_that_is_missing_meets_no_target():
    without = of_one_case({name: each for name, each in SECONDS.items() if name != "fast"})
    assert not judge(check_targets(without), without)


def test_a_run_without_a_target_meets_none():
    run = make_run(case="gradient/mine.py:build")
    import msgspec

    run = msgspec.structs.replace(run, cases=run.cases[:1])
    assert not judge(check_targets(run), run)
