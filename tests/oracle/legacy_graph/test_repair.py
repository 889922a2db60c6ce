"""Repairing the kept files of TF 1.15.5, against what TF 1.15.5 computed and learned from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle.frameworks import import_tensorflow, installed_version
from oracle.legacy_graph.repair import Repair, repair, repair_file, write_repaired
from oracle.legacy_graph.verification import differentiate_model
from tests.oracle.legacy_graph.golden import FOLDER, FROZEN_OUTPUTS, GRAPHS, SAVED, part, read_expected

pytestmark = [pytest.mark.tf_any, pytest.mark.slow]

NAMES = (*SAVED, "frozen-lstm.pb")


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Repair, Path]]:
    """Every model, repaired and written."""
    folder = tmp_path_factory.mktemp("repaired")
    found = {}
    for name in NAMES:
        trainable = "kernel$|bias$|diag$" if name.endswith(".pb") else None
        found[name] = repair_file(GRAPHS / name, trainable=trainable), folder / name
        write_repaired(*found[name])
    return found


def rename(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of outputs, under the keys that the model in the file `name` has for them."""
    if name != "frozen-lstm.pb":
        return arrays
    return {key: arrays[saved] for key, saved in FROZEN_OUTPUTS.items()}


REBUILT = {
    "attention-decoder": (1, 5),
    "bidirectional": (2, 10),
    "frozen-lstm.pb": (2, 13),
    "hub-module": (2, 11),
    "stacked-gru": (2, 11),
    "stacked-lstm": (2, 13),
}
"""How many cells Flax rebuilds, and how many of their gradients are compared."""


def check_flax(name: str, figures: Any) -> None:
    if installed_version("flax") is None:
        assert not figures.cells
        return
    assert (len(figures.cells), len(figures.differences)) == REBUILT.get(name, (0, 0))
    assert all(far < 5e-6 * size for far, size in figures.differences.values())
    assert bool(figures.others) == (name in ("attention-decoder", "loop-in-cond", "loop-in-loop"))


@pytest.mark.parametrize("name", NAMES)
def test_the_figures(name: str, repaired: dict[str, tuple[Repair, Path]]) -> None:
    done, _ = repaired[name]
    figures = done.verification
    assert not figures.rewriting
    assert not figures.unconnected
    if name == "frozen-lstm.pb":
        assert not figures.differences
    else:
        assert len(figures.differences) == len(done.model.variables_by_name) + 1
        assert all(difference == 0 and size > 0 for difference, size in figures.differences.values())
    assert figures.dtype == "float64"
    assert len(figures.testimonies) == len(done.model.variables_by_name) + 2
    for one in figures.testimonies:
        assert one.agrees
        assert one.scale > 0
        assert one.deviation < 1e-8 * max(one.scale, 1e-2)
    assert max(figures.rounding.values()) < 1e-5
    check_flax(name, figures.flax)
    assert "equal to the original's bit for bit" in figures.describe()[0]


@pytest.mark.parametrize("name", NAMES)
def test_against_tf115(name: str, repaired: dict[str, tuple[Repair, Path]]) -> None:
    """TF 1.15.5 has other kernels, so its last digits differ."""
    model = repaired[name][0].model
    expected = read_expected(name.removesuffix(".pb"))
    weights = rename(name, part(expected, "weight"))
    outputs, gradients = differentiate_model(model, part(expected, "input"), weights)
    for key, array in rename(name, part(expected, "output")).items():
        np.testing.assert_allclose(outputs[key], array, rtol=1e-5, atol=2e-6)
    slopes = part(expected, "gradient")
    assert slopes.keys() == gradients.keys()
    for key, array in slopes.items():
        assert array.any()
        np.testing.assert_allclose(gradients[key], array, rtol=1e-4, atol=5e-6, err_msg=key)


def train(tf: Any, model: Any, name: str) -> np.ndarray:
    """The losses of 50 steps, as `make_tf115.py` made them in TF 1.15."""
    expected = read_expected(name.removesuffix(".pb"))
    targets = rename(name, part(expected, "target"))
    batch = {key: tf.constant(array) for key, array in part(expected, "input").items()}
    variables = list(model.trainable_variables)
    optimizer = tf.keras.optimizers.Adam(0.01, epsilon=1e-8)

    def measure() -> Any:
        outputs = model(batch)
        return tf.add_n([tf.reduce_mean((outputs[key] - target) ** 2) for key, target in targets.items()])

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = measure()
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return np.array([*(step().numpy() for _ in range(50)), measure().numpy()])


@pytest.mark.parametrize("name", NAMES)
def test_training_follows_tf115(name: str, repaired: dict[str, tuple[Repair, Path]]) -> None:
    tf = import_tensorflow()
    losses = train(tf, tf.saved_model.load(str(repaired[name][1])), name)
    expected = read_expected(name.removesuffix(".pb"))["loss"]
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


def test_eagerly_and_in_a_function(repaired: dict[str, tuple[Repair, Path]]) -> None:
    tf = import_tensorflow()
    model = repaired["loop-in-loop"][0].model
    batch = part(read_expected("loop-in-loop"), "input")

    def differentiate(source: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(source)
            # One output alone: the other's gradient is missing, and counts as 0.
            loss = tf.reduce_sum(model(source=source, turns=batch["turns"])["value"] ** 2)
        return tape.gradient(loss, [source, *model.trainable_variables])

    eager = differentiate(tf.constant(batch["source"]))
    traced = tf.function(differentiate)(tf.constant(batch["source"]))
    for one, other in zip(eager, traced, strict=True):
        assert np.any(one)
        assert np.array_equal(one, other)


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("is_traced", [False, True])
def test_several_tapes(is_loaded: bool, is_traced: bool, repaired: dict[str, tuple[Repair, Path]]) -> None:
    """Two tapes may watch a model side by side; a gradient of a gradient is refused in words."""
    tf = import_tensorflow()
    done, path = repaired["loop-in-loop"]
    model = tf.saved_model.load(str(path)) if is_loaded else done.model

    def call(source: Any) -> Any:
        return tf.reduce_sum(model({"source": source, "turns": tf.constant(2)})["value"] ** 2)

    if is_traced:
        call = tf.function(call)
    source = tf.random.stateless_normal([2, 3], [1, 2])
    kernel = model.variables_by_name["kernel"]
    with tf.GradientTape() as one, tf.GradientTape() as other:
        one.watch(source)
        loss = call(source)
    first, second = one.gradient(loss, source), other.gradient(loss, kernel)
    assert np.any(first)
    assert np.any(second)
    with tf.GradientTape() as alone:
        alone.watch(source)
        loss = call(source)
    for found, expected in zip((first, second), alone.gradient(loss, [source, kernel]), strict=True):
        assert np.array_equal(found, expected)
    with tf.GradientTape() as outer:
        outer.watch(source)
        with tf.GradientTape() as inner:
            inner.watch(source)
            loss = call(source)
        gradient = inner.gradient(loss, source)
    with pytest.raises(tf.errors.InvalidArgumentError, match="has first derivatives only"):
        outer.gradient(gradient, kernel)


LOADING = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
assert not any(name.split(".")[0] == "oracle" for name in sys.modules)
with np.load(sys.argv[2]) as file:
    expected = dict(file)
batch = {key[6:]: tf.constant(array) for key, array in expected.items() if key.startswith("input/")}
assert len(model.trainable_variables) == len(model.variables) == len(model.variables_by_name) > 0
for call in (model, lambda inputs: model.signatures["serving_default"](**inputs)):
    with tf.GradientTape() as tape:
        outputs = call(batch)
        loss = tf.add_n([tf.reduce_sum(array * expected["weight/" + key]) for key, array in outputs.items()])
    for name, gradient in tape.gradient(loss, dict(model.variables_by_name)).items():
        np.testing.assert_allclose(gradient, expected["gradient/variable/" + name], rtol=1e-4, atol=5e-6)
print(tf.__version__)
"""


def load_elsewhere(path: Path, expected: Path, folder: Path) -> str:
    """Load and differentiate a SavedModel in a process that knows nothing of this project."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-c", LOADING, str(path), str(expected)],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("name", ["attention-decoder", "hub-module"])
def test_what_is_written_needs_nothing_of_ours(
    name: str, repaired: dict[str, tuple[Repair, Path]], tmp_path: Path
) -> None:
    load_elsewhere(repaired[name][1], GRAPHS / f"{name}.npz", tmp_path)


def test_what_tf215_wrote_loads_here(tmp_path: Path) -> None:
    load_elsewhere(FOLDER / "repaired" / "loop-in-loop", GRAPHS / "loop-in-loop.npz", tmp_path)


def test_a_meta_graph_and_its_outputs_by_name() -> None:
    done = repair_file(GRAPHS / "meta-lstm.meta", outputs=["rnn/transpose_1:0"])
    assert list(done.model.output_names) == ["rnn/transpose_1"]
    assert done.signature is None
    assert all(difference == 0 for difference, _ in done.verification.differences.values())
    assert len(done.model.trainable_variables) == 8


@pytest.fixture(scope="module")
def frozen() -> Any:
    return repair(GRAPHS / "frozen-loops.pb", trainable="^gate$")


def test_lifted_constants(frozen: Any) -> None:
    """Only those that were asked for; what is not lifted stays a constant."""
    assert list(frozen.variables_by_name) == ["gate"]
    assert frozen.variables_by_name["gate"].trainable
    assert repair(GRAPHS / "frozen-loops.pb").variables == ()


def test_the_model_says_what_it_takes(frozen: Any) -> None:
    from oracle.errors import UsageError

    assert frozen.input_specs.keys() == {"source", "turns"}
    with pytest.raises(UsageError, match="takes the inputs source, turns; given were source"):
        frozen(source=np.zeros([1, 3], np.float32))
