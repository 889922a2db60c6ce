"""Who is wrong: each of the three, and what the witness must leave open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from oracle.judgement import (
    Hearing,
    Judgement,
    choose_directions,
    hear,
    judge,
    settle,
)
from oracle.witness import Arrays
from tests.oracle.test_witness import POINT, gradients, loss

Losses = Callable[[Arrays], float]


def hold(
    port: dict[str, np.ndarray | None],
    oracle: dict[str, np.ndarray],
    *,
    port_loss: Losses = loss,
    oracle_loss: Losses = loss,
    forward_mode: Callable[[Arrays], float] | None = None,
    findings: tuple[str, ...] = ("gradient/kernel",),
    recorded: float | None = None,
    point: Arrays = POINT,
    record: float | None = None,
    own_reference: bool = False,
) -> Judgement:
    """Hear both sides and judge, as for two records."""
    directions = choose_directions(port, oracle, seed=0)
    claims = {name: settle(port[name], truth) for name, truth in oracle.items()}
    ours: Hearing = hear(port_loss, point, claims, directions)
    theirs = hear(oracle_loss, point, oracle, directions, forward_mode=forward_mode)
    return judge(
        directions,
        ours,
        theirs,
        seed=0,
        oracle_gradients=oracle,
        other_findings=findings,
        recorded_loss=recorded,
        oracle_loss=record,
        own_reference=own_reference,
    )


def spoil(factor: float = 0.0) -> dict[str, np.ndarray]:
    """The right gradients but for one element of the kernel."""
    wrong = {name: np.array(array) for name, array in gradients(POINT).items()}
    wrong["kernel"][3, 4] *= factor
    return wrong


def forward_mode(direction: Arrays) -> float:
    return sum(float(np.sum(gradients(POINT)[name] * v)) for name, v in direction.items())


def test_a_gradient_that_is_cut_is_the_ports_fault() -> None:
    truth = gradients(POINT)
    for cut in (None, np.zeros((5, 7)), np.full((5, 7), np.nan), np.ones((7, 5)), spoil()["kernel"]):
        judgement = hold({**truth, "kernel": cut}, truth, forward_mode=forward_mode)
        assert judgement.verdict == "autodiff"
        assert "compute the same loss" in judgement.lines[0]
        assert "along kernel" in judgement.lines[0]


def test_another_model_is_the_ports_fault_and_its_gradient_is_right() -> None:
    def other(point: Arrays) -> float:
        return loss({**point, "bias": 1.1 * point["bias"]})

    truth = gradients(POINT)
    own = gradients({**POINT, "bias": 1.1 * POINT["bias"]})
    own["bias"] = 1.1 * own["bias"]
    judgement = hold(dict(own), truth, port_loss=other)
    assert judgement.verdict == "forward"
    assert "are right for what it computes" in judgement.lines[0]
    assert hold({**own, "kernel": None}, truth, port_loss=other).verdict == "both"


def test_a_loss_that_is_equal_here_and_changes_otherwise_is_another_model() -> None:
    def other(point: Arrays) -> float:
        return loss(point) + float(np.sum(point["bias"] - POINT["bias"]))

    truth = gradients(POINT)
    judgement = hold({**truth, "bias": truth["bias"] + 1}, truth, port_loss=other)
    assert judgement.verdict == "forward"
    assert "the losses are equal here and change differently along bias" in judgement.lines[0]


def test_an_oracle_that_is_wrong_is_accused_by_either_witness() -> None:
    truth = gradients(POINT)
    judgement = hold(dict(truth), spoil(1.01))
    assert judgement.verdict == "oracle"
    assert "THE ORACLE IS INCONSISTENT along kernel" in judgement.lines[0]
    assert "please report it" in judgement.lines[1]
    # Forward mode alone is enough, and a right oracle is not accused by it.
    assert hold(dict(truth), truth, forward_mode=lambda v: 1.001 * forward_mode(v)).verdict == "oracle"
    assert hold(dict(truth), truth, forward_mode=forward_mode, findings=()).verdict == "consistent"


def test_a_quirk_that_both_share_is_nobodys_fault() -> None:
    judgement = hold(dict(spoil()), spoil(), findings=())
    assert judgement.verdict == "consistent"
    assert "a quirk of TensorFlow's" in judgement.lines[0]


def test_a_reference_of_the_users_that_is_wrong_is_not_called_a_defect_of_ours() -> None:
    judgement = hold(dict(gradients(POINT)), spoil(1.01), own_reference=True)
    assert judgement.verdict == "reference"
    assert (
        "your reference's gradient is not the derivative of its own loss along kernel" in judgement.lines[0]
    )
    assert not any("defect" in line for line in judgement.lines)


def test_a_port_that_is_cut_beside_a_quirk_is_accused_and_not_the_oracle() -> None:
    quirk = {**gradients(POINT), "bias": 1.5 * gradients(POINT)["bias"], "kernel": spoil()["kernel"]}
    port: dict[str, np.ndarray | None] = {**quirk, "kernel": None}
    judgement = hold(port, quirk)
    assert judgement.verdict == "autodiff"
    assert "along kernel" in judgement.lines[0]


def test_an_oracle_whose_record_has_another_loss_is_accused() -> None:
    truth, lost = gradients(POINT), {**gradients(POINT), "kernel": None}
    value = loss(POINT)
    assert hold(lost, truth, record=value * (1 + 1e-12)).verdict == "autodiff"
    judgement = hold(lost, truth, record=value * 1.001)
    assert judgement.verdict == "oracle"
    assert "by the plain path" in judgement.lines[0]


def test_forward_mode_that_gives_no_number_accuses_the_oracle() -> None:
    truth = gradients(POINT)
    assert hold(dict(truth), truth, forward_mode=lambda v: float("nan")).verdict == "oracle"


def test_a_loss_that_is_another_at_every_call_is_not_judged() -> None:
    rng = np.random.default_rng(0)

    def dropping(point: Arrays) -> float:
        return loss(point) * (1 + 0.01 * rng.standard_normal())

    truth = gradients(POINT)
    judgement = hold({**truth, "kernel": None}, truth, port_loss=dropping)
    assert judgement.verdict == "unknown"
    assert "another at every call" in judgement.lines[0]


def test_a_loss_that_is_not_the_records_is_not_judged() -> None:
    truth = gradients(POINT)
    judgement = hold({**truth, "kernel": None}, truth, recorded=loss(POINT) + 1e-6)
    assert judgement.verdict == "unknown"
    assert "the record has" in judgement.lines[0]


def test_a_kink_is_not_judged() -> None:
    def kinked(point: Arrays) -> float:
        return float(np.sum(np.abs(point["w"])) + np.sum(point["w"] ** 2))

    point = {"w": np.array([0.0, 0.5])}
    for claimed in (-1.0, 0.5, 1.0):
        judgement = hold(
            {"w": np.array([claimed, 2.0])},
            {"w": np.array([0.0, 2.0])},
            port_loss=kinked,
            oracle_loss=kinked,
            point=point,
            findings=("gradient/w",),
        )
        assert judgement.verdict == "unknown"
        assert "kink" in judgement.lines[0]


def test_what_is_too_small_to_tell_is_not_judged() -> None:
    truth = gradients(POINT)
    near = {**truth, "kernel": truth["kernel"] * (1 + 3e-12)}
    judgement = hold(near, truth, forward_mode=forward_mode)
    assert judgement.verdict == "unknown"
    assert "less than differences of the loss can tell" in judgement.lines[0]


def test_findings_in_inner_tensors_alone_are_said_to_be_out_of_reach() -> None:
    truth = gradients(POINT)
    judgement = hold(dict(truth), truth, findings=("gradient/state/encoder/c",))
    assert judgement.verdict == "consistent"
    assert "gradient/state/encoder/c, is of an inner tensor" in judgement.lines[0]


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_along_the_difference_one_wrong_element_is_as_far_off_as_it_can_be(size: int) -> None:
    rng = np.random.default_rng(size)
    truth = rng.standard_normal(size)
    port = truth.copy()
    port[size // 2] += 0.25
    directions = choose_directions({"w": port}, {"w": truth}, seed=0)
    for kind in ("difference", "element"):
        (direction,) = [d for d in directions if d.kind == kind]
        apart = float(np.sum((port - truth) * direction.arrays["w"]))
        assert apart == pytest.approx(0.25)


def test_directions_are_drawn_from_the_seed() -> None:
    truth = gradients(POINT)
    port: dict[str, np.ndarray | None] = {**truth, "kernel": None}
    first, second, other = (choose_directions(port, truth, seed=seed) for seed in (0, 0, 1))
    assert [(d.name, d.kind) for d in first] == [("all", "signs")] * 3 + [
        *((name, "signs") for name in sorted(truth)),
        ("kernel", "difference"),
        ("kernel", "element"),
    ]
    for ours, theirs in zip(first, second, strict=True):
        for name, array in ours.arrays.items():
            assert np.array_equal(array, theirs.arrays[name])
    assert not np.array_equal(first[0].arrays["kernel"], other[0].arrays["kernel"])
