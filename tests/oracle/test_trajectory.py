"""Two trajectories held against each other, the optimizer's description, and `oracle trajectory`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from oracle.errors import RecordError, UsageError
from oracle.optimizer import (
    DEFAULTS,
    SCHEDULES,
    Optimizer,
    Schedule,
    find_optimizer,
    find_schedule,
    parse_arguments,
)
from oracle.trajectory import (
    Slices,
    Step,
    compare_trajectories,
    gradient_norm,
)
from oracle.trajectory_file import read_trajectory, write_trajectory

INITIAL = {"w": np.array([[3.0, -4.0, 5.0]])}


def make(steps=5, *, fault=None):
    """A trajectory, with `fault(step, tensors)` done to what is so after each step."""
    made = []
    for step in range(1, steps + 1):
        tensors = {"slot/m/w": np.array([[0.1, 0.2, 0.3]]) * step, "parameter/w": INITIAL["w"] + 0.01 * step}
        if fault is not None:
            fault(step, tensors)
        made.append(Step(step, 1 / step, 2.0, tensors))
    return made


def test_equal_trajectories_match():
    comparison = compare_trajectories(make(), make(), initial=INITIAL)
    assert comparison.matches
    assert comparison.needed == 0
    assert [row.tensors for row in comparison.rows] == [4] * 5


@pytest.mark.parametrize("name, finding", [("slot/m/w", "mismatch"), ("parameter/w", "mismatch")])
def test_the_first_divergent_step_and_tensor_are_named(name, finding):
    def fault(step, tensors):
        if step >= 3:
            tensors[name][0, 1] += 1e-7
            tensors["parameter/w"][0, 2] += 1e-7

    comparison = compare_trajectories(make(fault=fault), make(), initial=INITIAL)
    found = comparison.divergence
    assert (found.step, found.name, found.finding) == (3, name, finding)
    assert comparison.needed > comparison.bound
    assert found.port_value != found.oracle_value


def test_a_parameter_is_held_against_how_far_it_has_moved():
    """1e-9 is a part in 1e10 of the weights, but of a step of 0.01 a part in 1e7."""

    def fault(step, tensors):
        tensors["parameter/w"][0, 0] += 1e-9

    comparison = compare_trajectories(make(fault=fault), make(), initial=INITIAL)
    assert comparison.divergence.step == 1
    assert comparison.divergence.needed == pytest.approx(1e-7, rel=1e-3)
    assert comparison.rows[0].drift == pytest.approx(1e-9 / 5.01, rel=1e-3)


@pytest.mark.parametrize(
    "change, finding",
    [
        (lambda tensors: tensors.pop("slot/m/w"), "missing"),
        (lambda tensors: tensors.update({"slot/x": np.zeros(())}), "unexpected"),
        (lambda tensors: tensors.update({"slot/m/w": np.zeros((3, 1))}), "shape"),
        (lambda tensors: tensors.update({"slot/m/w": np.array([[0.1, np.nan, 0.3]])}), "nonfinite"),
    ],
)
def test_other_findings(change, finding):
    def fault(step, tensors):
        if step == 2:
            change(tensors)

    comparison = compare_trajectories(make(fault=fault), make(), initial=INITIAL)
    assert (comparison.divergence.step, comparison.divergence.finding) == (2, finding)
    assert comparison.needed is None


def test_a_loss_that_differs_comes_before_the_tensors():
    port = make()
    port[3] = Step(4, 0.3, 2.0, port[3].tensors)
    comparison = compare_trajectories(port, make(), initial=INITIAL)
    assert (comparison.divergence.step, comparison.divergence.name) == (4, "loss")


def test_trajectories_of_different_lengths_and_an_oracle_that_overflows_are_refused():
    with pytest.raises(RecordError, match="after 4 steps"):
        compare_trajectories(make(4), make(5), initial=INITIAL)

    def fault(step, tensors):
        tensors["parameter/w"][0, 0] = np.inf

    with pytest.raises(RecordError, match="parameter/w is not finite at step 1"):
        compare_trajectories(make(), make(fault=fault), initial=INITIAL)
    assert not compare_trajectories([], [], initial=INITIAL).matches


def test_the_drift_grows_as_it_does():
    def fault(step, tensors):
        tensors["parameter/w"][0, 0] += 1e-14 * step**2

    comparison = compare_trajectories(make(40, fault=fault), make(40), initial=INITIAL)
    assert comparison.growth == pytest.approx(2, abs=0.2)


def test_a_trajectory_is_written_and_read(tmp_path):
    path = tmp_path / "t.safetensors"
    write_trajectory(make(), path)
    assert compare_trajectories(read_trajectory(path), make(), initial=INITIAL).needed == 0
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RecordError):
        read_trajectory(path)


def test_the_gradient_norm_sums_the_slices_of_a_row():
    slices = Slices(np.array([[1.0], [2.0], [4.0]]), np.array([3, 3, 0]))
    assert gradient_norm([slices, None, np.zeros(3)]) == 5.0


def test_names_are_found():
    assert find_optimizer("adam") == "keras.Adam"
    assert find_optimizer("tf1.AdamOptimizer") == "tf1.Adam"
    assert find_optimizer("lamb") == "tfa.LAMB"
    assert find_schedule("cosine-decay") == "CosineDecay"
    for find, name, near in (
        (find_optimizer, "keras.Adamm", "keras.Adam"),
        (find_schedule, "exponentail", "ExponentialDecay"),
    ):
        with pytest.raises(UsageError, match=near):
            find(name)


@pytest.mark.parametrize(
    "make_it, message",
    [
        (lambda: Optimizer("keras.Adam", {"momentun": 0.9}), "takes no 'momentun'"),
        (lambda: Optimizer("keras.SGD", {"momentun": 0.9}), "'momentum'"),
        (lambda: Optimizer("keras.SGD", {"momentum": True}), "momentum is True"),
        (lambda: Optimizer("keras.SGD", {"momentum": float("nan")}), "finite"),
        (
            lambda: Optimizer("keras.SGD", {"learning_rate": 1.0}, schedule=Schedule("CosineDecay")),
            "leave one out",
        ),
        (lambda: Optimizer("tfa.Lookahead"), "inner"),
        (lambda: Optimizer("tfa.Lookahead", inner=Optimizer("keras.Adam")), "keras.Adam is none"),
        (lambda: Optimizer("keras.SGD", {"clipnorm": 1.0, "global_clipnorm": 1.0}), "Keras takes one"),
        (lambda: parse_arguments("keras.SGD", {"momentum": "much"}, DEFAULTS), "give a number"),
        (lambda: parse_arguments("keras.SGD", {"nesterov": "maybe"}, DEFAULTS), "true or false"),
        (lambda: parse_arguments("keras.SGD", {"rho": "1"}, DEFAULTS), "takes no 'rho'"),
        (lambda: parse_arguments("CosineDecay", {"decay_steps": "1.5"}, SCHEDULES), "whole number"),
    ],
)
def test_what_cannot_be_is_refused(make_it, message):
    with pytest.raises(UsageError, match=message):
        make_it()


def test_numbers_are_rounded_as_tensorflow_rounds_them():
    third = float(np.float32(1 / 3))
    given = {"learning_rate": 1 / 3, "epsilon": 1 / 3}
    assert Optimizer("keras.Adam", given).rounded()["learning_rate"] == 1 / 3
    assert Optimizer("keras.Adam", given, floatx="float32").rounded()["learning_rate"] == third
    legacy = Optimizer("legacy.Adam", given).rounded()
    assert (legacy["learning_rate"], legacy["epsilon"]) == (third, 1 / 3)
    tf1 = Optimizer("tf1.Adam", given).rounded()
    assert (tf1["learning_rate"], tf1["epsilon"]) == (third, third)


TRAINED = [
    ("explicit_state/full", Optimizer("keras.Adam"), 0.0),
    ("dynamic_rnn/lengths", Optimizer("tf1.RMSProp", {"momentum": 0.5, "centered": True}), 0.01),
    ("dynamic_rnn/full", Optimizer("tf1.Adam"), 0.0),
    ("attention_nmt/gru", Optimizer("tfa.LAMB", {"weight_decay": 0.01, "clipnorm": 0.5}), 0.0),
    ("attention_nmt/stacked", Optimizer("legacy.SGD", {"momentum": 0.9}, Schedule("CosineDecay")), 0.0),
]


def train(port, optimizer, *, l2=0.0, steps=100):
    from dataclasses import replace

    from oracle import zoo
    from oracle.case import random_case
    from oracle.training import Training, compare_cases
    from tests.oracle.cases import shrink

    (choice,) = zoo.choose(port)
    sizes = {"batch_size": 4, "source_time": 6, "target_time": 7}
    first = random_case(shrink(choice.variant.spec), seed=0, **sizes)
    cases = [first]
    for seed in range(1, steps):
        other = random_case(first.spec, seed=seed, **sizes)
        cases.append(replace(first, seed=seed, batch=other.batch))
    return compare_cases(Training(choice, optimizer, l2=l2, steps=steps), cases)


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize(
    "port, optimizer, l2", TRAINED, ids=lambda each: str(each) if isinstance(each, str) else None
)
def test_a_model_trains_alike_for_a_hundred_steps(port, optimizer, l2):
    comparison = train(port, optimizer, l2=l2)
    assert len(comparison.rows) == 100
    assert comparison.matches, comparison.divergence
    assert comparison.rows[0].port_loss != comparison.rows[-1].port_loss
    assert {"loss", "gradient norm", "slot", "parameter"} == comparison.rows[0].by_kind.keys()


@pytest.mark.tf
@pytest.mark.jax
def test_a_wrong_port_diverges_at_the_first_step():
    comparison = train("implicit_state/exchanged", Optimizer("keras.SGD"), steps=2)
    assert (comparison.divergence.step, comparison.divergence.name) == (1, "loss")


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    from oracle.commands.trajectory import trajectory

    plots = [tmp_path / "plot.png", tmp_path / "plot.svg"]
    options = {"steps": 3, "batch_size": 2, "optimizer": "sgd", "optimizer_arg": ("momentum=0.9",)}
    assert trajectory("explicit_state/full", plot=plots[0], **options) == 0
    text = capsys.readouterr().out
    assert "PASS explicit_state/full (float64), keras.SGD(momentum=0.9): 3 steps agree" in text
    page = tmp_path / "report.html"
    wrong = {"plot": plots[1], "report": page, "output_format": "json"}
    assert trajectory("implicit_state/exchanged", **wrong, **options) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["matches"] is False
    assert report["divergence"]["step"] == 1
    assert report["optimizer"]["name"] == "keras.SGD"
    assert plots[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in plots[1].read_bytes()
    assert "0 of 1 trajectories agree" in page.read_text(encoding="utf-8")
    assert "implicit_state/exchanged (float64), keras.SGD(momentum=0.9)" in page.read_text(encoding="utf-8")
    assert "It is the gradients that differ." in page.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [*plots, page]


@pytest.mark.parametrize(
    "model, options, message",
    [
        ("explicit_stat", {}, "explicit_state"),
        ("attention_nmt", {}, "several ports"),
        ("explicit_state/full", {"steps": 0}, "at least 1"),
        ("explicit_state/full", {"batch_size": 0}, "at least 1"),
        ("explicit_state/full", {"seed": -1}, "from 0 on"),
        ("explicit_state/full", {"l2": -1.0}, "from 0 on"),
        ("explicit_state/full", {"optimizer": "keras.Adamm"}, "did you mean"),
        ("explicit_state/full", {"optimizer_arg": ("momentum",)}, "a name and a value"),
        ("explicit_state/full", {"optimizer_arg": ("beta_1=0.9", "beta_1=0.8")}, "given twice"),
        ("explicit_state/full", {"schedule_arg": ("alpha=0.1",)}, "no schedule"),
        ("explicit_state/full", {"schedule": "cosine", "learning_rate": 0.1}, "leave one out"),
        ("explicit_state/full", {"inner": "legacy.SGD"}, "wraps no other"),
        ("explicit_state/full", {"plot": "x.gif"}, "give a name that ends so"),
        ("explicit_state/full", {"plot": "no/such/place.png"}, "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_error(model, options, message):
    from pathlib import Path

    from oracle.commands.trajectory import trajectory

    options = {name: Path(value) if name == "plot" else value for name, value in options.items()}
    with pytest.raises(UsageError, match=message):
        trajectory(model, **options)
