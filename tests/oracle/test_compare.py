"""What the comparison must see, and what it must not call right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from oracle.case import weight_shapes
from oracle.compare import Comparison, compare_records
from oracle.errors import RecordError
from oracle.record import Failure, Record
from oracle.tolerance import FLOAT32_RUNS, FLOAT64_BOUND, root_mean_square
from tests.oracle.cases import SMALL
from tests.oracle.test_record import ORIGIN

ORACLE = msgspec.structs.replace(ORIGIN, side="oracle", framework="jax", mode="jit")
PORT32 = msgspec.structs.replace(ORIGIN, dtype="float32")
ORACLE32 = msgspec.structs.replace(ORACLE, dtype="float32")


def truth(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def compare(port: np.ndarray | None, oracle: np.ndarray) -> Comparison:
    return compare_records(
        Record(SMALL, ORIGIN, {"gradient/w": port}), Record(SMALL, ORACLE, {"gradient/w": oracle})
    )


def compare_spread(port: np.ndarray, oracle: np.ndarray, moved: Sequence[np.ndarray]) -> Comparison:
    return compare_records(
        Record(SMALL, ORIGIN, {"gradient/w": port}),
        Record(SMALL, ORACLE, {"gradient/w": oracle}),
        spread=[Record(SMALL, ORACLE, {"gradient/w": run}) for run in moved],
    )


def compare32(port: np.ndarray, oracle: np.ndarray) -> Comparison:
    """A yardstick of independent roundings to float32."""
    noise = [
        (oracle * (1 + 6e-8 * truth(*oracle.shape, seed=100 + run))).astype(np.float32)
        for run in range(FLOAT32_RUNS)
    ]
    return compare_records(
        Record(SMALL, PORT32, {"gradient/w": port}),
        Record(SMALL, ORACLE, {"gradient/w": oracle}),
        yardstick=[Record(SMALL, ORACLE32, {"gradient/w": run}) for run in noise],
    )


def status(comparison: Comparison) -> str:
    (row,) = comparison.rows
    assert comparison.matches == (row.status == "match")
    return row.status


def test_equal_tensors_match() -> None:
    comparison = compare(truth(3, 4), truth(3, 4))
    assert status(comparison) == "match"
    assert comparison.needed == 0


def test_a_small_difference_of_large_numbers_is_held_to_what_float64_leaves_open_of_it() -> None:
    oracle = truth(3, 4)
    moved = [oracle * (1 + 1e-11 * truth(3, 4, seed=10 + run)) for run in range(4)]

    apart = np.abs(np.asarray(moved) - oracle).max()
    port = oracle.copy()
    port[1, 2] += 7 * apart
    assert compare(port, oracle).wants_more_runs
    assert status(compare_spread(port, oracle, moved)) == "match"
    assert compare_spread(port, oracle, moved).rows[0].noise == apart
    port[1, 2] += 2 * apart
    assert status(compare_spread(port, oracle, moved)) == "mismatch"
    with pytest.raises(RecordError, match="not in float64"):
        run = Record(SMALL, ORACLE32, {"gradient/w": oracle})
        compare_records(
            Record(SMALL, ORIGIN, {"gradient/w": port}),
            Record(SMALL, ORACLE, {"gradient/w": oracle}),
            spread=[run],
        )


def test_a_gradient_that_is_zero_in_theory_may_be_zero() -> None:
    # As of the one element of a normalised vector: rounding is all there is of it.
    oracle, wrong = np.asarray([-3e-19]), np.asarray([1e-15])
    port = np.zeros(1)
    assert compare(port, oracle).wants_more_runs

    moved = [np.asarray([each]) for each in (-1e-18, 9e-19, 3e-19, -2e-19)]
    assert status(compare_spread(port, oracle, moved)) == "match"
    assert status(compare_spread(wrong, oracle, moved)) == "mismatch"
    # Where roundings leave it alone, it is lost.
    assert status(compare_spread(port, oracle, [oracle * (1 + 1e-15)])) == "zero"


def test_in_float32_another_order_of_summation_may_err_more_and_zeros_are_no_sum() -> None:
    oracle = truth(30, 40)

    def compare_orders(port: np.ndarray, *sums: np.ndarray, dtype: str = "float32") -> Comparison:
        noise = [
            (oracle * (1 + 6e-8 * truth(30, 40, seed=n))).astype(np.float32) for n in range(FLOAT32_RUNS)
        ]
        spread = msgspec.structs.replace(ORACLE, dtype=dtype)
        return compare_records(
            Record(SMALL, PORT32, {"gradient/w": port}),
            Record(SMALL, ORACLE, {"gradient/w": oracle}),
            yardstick=[Record(SMALL, ORACLE32, {"gradient/w": run}) for run in noise],
            spread=[Record(SMALL, spread, {"gradient/w": run}) for run in sums],
        )

    port = (oracle * (1 + 1e-5 * truth(30, 40, seed=50))).astype(np.float32)
    in_sequence = (oracle * (1 + 1e-5 * truth(30, 40, seed=60))).astype(np.float32)
    assert status(compare_orders(port)) == "mismatch"
    assert compare_orders(port).wants_more_runs
    assert status(compare_orders(port, in_sequence)) == "match"
    assert status(compare_orders(oracle.astype(np.float32) * np.float32(1.001), in_sequence)) == "mismatch"
    # Were it within what the order leaves open, zeros throughout are still no sum of anything.
    lost, wild = np.zeros((30, 40), np.float32), (0.5 * oracle).astype(np.float32)
    assert status(compare_orders(wild, wild)) == "match"
    assert status(compare_orders(lost, wild)) == "zero"
    # An order that overflows says nothing.
    assert status(compare_orders(port, np.full_like(port, np.inf), in_sequence)) == "match"
    assert status(compare_orders(port, np.full_like(port, np.inf))) == "mismatch"
    with pytest.raises(RecordError, match="the oracle's spread is not in float32"):
        compare_orders(port, in_sequence.astype(np.float64), dtype="float64")


def test_a_case_on_which_every_gradient_is_rounding_judges_nothing() -> None:
    generator = np.random.default_rng(0)
    gradients = {f"gradient/{path}": generator.normal(size=s) for path, s in weight_shapes(SMALL).items()}
    tiny = {name: 1e-19 * gradient for name, gradient in gradients.items()}
    lost = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    moved = [{name: each * factor for name, each in tiny.items()} for factor in (-1, 2)]

    def compare_all(last: str = "") -> Comparison:
        truths = tiny | ({last: gradients[last]} if last else {})
        spread = [each | ({last: gradients[last]} if last else {}) for each in moved]
        return compare_records(
            Record(SMALL, ORIGIN, lost),
            Record(SMALL, ORACLE, truths),
            spread=[Record(SMALL, ORACLE, run) for run in spread],
        )

    with pytest.raises(RecordError, match="no larger than roundings leave open"):
        compare_all()
    name = next(iter(gradients))
    assert [row.name for row in compare_all(name).findings] == [name]


def test_rounding_matches() -> None:
    oracle = truth(30, 40)
    assert status(compare(oracle * (1 + 1e-15 * truth(30, 40, seed=1)), oracle)) == "match"


def test_none_zero_nonfinite_and_shape_are_four_findings() -> None:
    oracle = truth(3, 4)
    assert status(compare(None, oracle)) == "none"
    assert status(compare(np.zeros((3, 4)), oracle)) == "zero"
    assert status(compare(np.where(oracle > 0, np.nan, oracle), oracle)) == "nonfinite"
    assert status(compare(oracle.T.copy(), oracle)) == "shape"
    assert status(compare(oracle.astype(np.float32), oracle)) == "shape"
    assert status(compare(-oracle, oracle)) == "mismatch"


def test_missing_and_unexpected_are_findings() -> None:
    port = Record(SMALL, ORIGIN, {"loss": truth(), "output/extra": truth(2)})
    oracle = Record(SMALL, ORACLE, {"loss": truth(), "output/decoder": truth(3)})
    comparison = compare_records(port, oracle)
    assert {row.name: row.status for row in comparison.rows} == {
        "loss": "match",
        "output/decoder": "missing",
        "output/extra": "unexpected",
    }
    assert not comparison.matches
    assert comparison.needed is None


def test_all_zero_truth_is_matched_by_zeros_alone() -> None:
    zeros = np.zeros((3, 4))
    assert status(compare(zeros, zeros)) == "match"
    assert status(compare(zeros + 1e-300, zeros)) == "mismatch"
    assert compare(zeros + 1e-300, zeros).needed is None
    assert status(compare(None, zeros)) == "none"


def test_transposed_square_matrix_is_a_mismatch() -> None:
    """Its mean, its norm and its sum are those of the truth."""
    oracle = truth(8, 8)
    assert status(compare(oracle.T.copy(), oracle)) == "mismatch"


def test_mismatch_is_located() -> None:
    oracle = truth(5, 6, 7)
    port = oracle.copy()
    port[2, 3, 4] += 1e-6
    (row,) = compare(port, oracle).rows
    assert (row.status, row.index) == ("mismatch", (2, 3, 4))
    assert row.max_abs == pytest.approx(1e-6)
    assert (row.port_value, row.oracle_value) == (port[2, 3, 4], oracle[2, 3, 4])
    assert row.needed == pytest.approx(1e-6 / np.abs(oracle).max())


@pytest.mark.parametrize("size", [1, 10, 1000, 10**6])
def test_one_wrong_element_is_caught_in_a_tensor_of_any_size(size: int) -> None:
    oracle = truth(size)
    port = oracle.copy()
    place = int(np.abs(oracle).argmax())
    port[place] *= 1 + 1e-6
    (row,) = compare(port, oracle).rows
    assert (row.status, row.index) == ("mismatch", (place,))


def test_the_bound_is_where_it_is_said_to_be() -> None:
    oracle = truth(20)
    scale = np.abs(oracle).max()
    for factor, expected in ((0.9, "match"), (1.1, "mismatch")):
        port = oracle.copy()
        port[0] += factor * FLOAT64_BOUND * scale
        assert status(compare(port, oracle)) == expected


def test_float32_is_held_against_the_oracles_own_error() -> None:
    oracle = truth(40, 50)
    noisy = oracle * (1 + 6e-8 * truth(40, 50, seed=7))
    assert status(compare32(noisy.astype(np.float32), oracle)) == "match"
    one_wrong = oracle.astype(np.float32)
    one_wrong[3, 4] += np.float32(1e-5)
    assert status(compare32(one_wrong, oracle)) == "mismatch"
    # Each element within the largest noise, but all of them wrong at once.
    all_wrong = (oracle + 1.2e-6 * np.sign(truth(40, 50, seed=8))).astype(np.float32)
    assert status(compare32(all_wrong, oracle)) == "mismatch"


def test_only_what_is_named_is_compared_and_the_rest_is_told() -> None:
    tensors = {"loss": truth(), "gradient/a": truth(3), "gradient/b": truth(4)}
    port = Record(SMALL, ORIGIN, {"loss": truth()})
    oracle = Record(SMALL, ORACLE, tensors)
    comparison = compare_records(port, oracle, only=["loss"])
    assert comparison.matches
    assert comparison.left_out == ("gradient/a", "gradient/b")
    assert not compare_records(port, oracle, only=["loss", "gradient/a"]).matches
    assert not compare_records(port, oracle, only=[]).matches
    with pytest.raises(RecordError, match="no tensor gradient/c"):
        compare_records(port, oracle, only=["gradient/c"])


def test_the_gradients_of_weights_cannot_be_left_out() -> None:
    tensors = {"loss": truth(), "gradient/encoder/cell/bias": truth(20)}
    comparison = compare_records(
        Record(SMALL, ORIGIN, {"loss": truth()}), Record(SMALL, ORACLE, tensors), only=["loss"]
    )
    assert [row.status for row in comparison.rows] == ["match", "missing"]
    assert not comparison.matches


def test_a_gradient_that_is_zero_throughout_proves_nothing() -> None:
    tensors = {"loss": truth(), "gradient/encoder/cell/bias": np.zeros(20)}
    with pytest.raises(RecordError, match="gradient/encoder/cell/bias is zero throughout"):
        compare_records(Record(SMALL, ORIGIN, tensors), Record(SMALL, ORACLE, tensors))


def test_port_that_raised_is_no_success() -> None:
    failure = Failure("AttributeError", "'NoneType' object has no attribute 'outer_context'", "")
    port = Record(SMALL, ORIGIN, {}, failure=failure)
    comparison = compare_records(port, Record(SMALL, ORACLE, {"loss": truth()}))
    assert not comparison.matches
    assert comparison.failure == failure
    assert comparison.needed is None


def test_nothing_compared_is_no_success() -> None:
    loss = {"loss": truth()}
    with pytest.raises(RecordError, match="nothing can be compared"):
        compare_records(Record(SMALL, ORIGIN, {}), Record(SMALL, ORACLE, loss))
    with pytest.raises(RecordError, match="nothing can be compared"):
        compare_records(Record(SMALL, ORIGIN, loss), Record(SMALL, ORACLE, {}))
    assert not Comparison(ORIGIN, ORACLE, ()).matches


def test_records_that_do_not_belong_together_are_refused() -> None:
    loss = {"loss": truth()}
    port, oracle = Record(SMALL, ORIGIN, loss), Record(SMALL, ORACLE, loss)
    other_spec = msgspec.structs.replace(SMALL, lengths=True)
    other_case = msgspec.structs.replace(ORACLE, case="f" * 32)
    with pytest.raises(RecordError, match="different specs"):
        compare_records(port, dataclasses.replace(oracle, spec=other_spec))
    with pytest.raises(RecordError, match="different weights or batches"):
        compare_records(port, dataclasses.replace(oracle, origin=other_case))
    for first, second in ((port, port), (oracle, oracle), (oracle, port)):
        with pytest.raises(RecordError, match="given twice"):
            compare_records(first, second)
    with pytest.raises(RecordError, match="truth must be in float64"):
        compare_records(port, dataclasses.replace(oracle, origin=ORACLE32))
    with pytest.raises(RecordError, match="needs the oracle's float32 records"):
        compare_records(dataclasses.replace(port, origin=PORT32), oracle)
    with pytest.raises(RecordError, match="a float64 port none"):
        compare_records(port, oracle, yardstick=[oracle])


@pytest.mark.parametrize("bad", [None, np.array([1.0, np.nan])])
def test_an_oracle_that_is_not_finite_judges_nobody(bad: np.ndarray | None) -> None:
    with pytest.raises(RecordError, match="oracle's own loss"):
        compare_records(Record(SMALL, ORIGIN, {"loss": truth(2)}), Record(SMALL, ORACLE, {"loss": bad}))


def test_root_mean_square_neither_over_nor_underflows() -> None:
    assert root_mean_square(np.array([3e200, 4e200])) == pytest.approx(3.5355339e200)
    assert root_mean_square(np.array([3e-200, 4e-200])) == pytest.approx(3.5355339e-200)
    assert root_mean_square(np.zeros(3)) == 0
