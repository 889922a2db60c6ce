"""A person's own port: targets, errors that name what is wrong, and findings that are never green."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle.errors import CaseError, OracleError, UsageError
from oracle.live_port import LivePort, check_live, compare_live, load_build, record_live
from oracle.user_code import is_target

tf_only = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

X = np.random.default_rng(0).normal(size=(3, 5, 4))
Y = np.random.default_rng(1).normal(size=(3, 5, 2))

SOURCE = """
import numpy as np
import tensorflow as tf
from neighbour import UNITS
from oracle.live_port import LivePort

def build():
    model = tf.keras.Sequential([tf.keras.layers.LSTM(UNITS, return_sequences=True), tf.keras.layers.Dense(2)])
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(3, 5, 4)), "y": rng.normal(size=(3, 5, 2))}
    return LivePort({"model": model}, batch, tf.keras.losses.MeanSquaredError())

def broken():
    raise ValueError("no data")

def other():
    return 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_port.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("UNITS = 6\n")
    return tmp_path


def test_is_target():
    assert is_target("my_port.py:build")
    assert is_target("package.ports:build")
    assert not is_target("dynamic_rnn/full")
    assert not is_target("my_port.py:")
    assert not is_target("C:/x")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:build", "nowhere.py: no such file"),
        ("no_such_module_here:build", "no module 'no_such_module_here'"),
        ("just_a_name", "names no function"),
    ],
)
def test_target_that_is_not_there(target, message):
    with pytest.raises(UsageError, match=message):
        load_build(target)


def test_module_that_raises(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=r"bad.py: importing it raised ZeroDivisionError"):
        load_build(f"{tmp_path}/bad.py:build")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "at least one"),
        ({"models": {"a b": 1}}, "by name"),
        ({"batch": {}}, "the batch is empty"),
        ({"batch": {"x": np.array([np.nan])}}, "is not finite"),
        ({"batch": {"x": np.array(["a"])}}, "give numbers"),
        ({"batch": {"x": np.zeros((0, 3))}}, "at least one"),
        ({"loss": 3}, "give a function of the batch"),
        ({"weights": "none"}, "give 'own' or 'random'"),
    ],
)
def test_port_that_cannot_be_run(options, message):
    given = {"models": {"model": object()}, "batch": {"x": X}, "loss": lambda batch: 0.0}
    with pytest.raises(CaseError, match=message):
        LivePort(**given | options)


class TestWithTensorFlow:
    """What needs TensorFlow."""

    pytestmark = tf_only

    @pytest.fixture
    def tf(self):
        return pytest.importorskip("tests.parity.tensorflow_side").tf

    def port(self, tf, loss=None, reference=None, models=None, **options):
        """A dense layer, and what a test changes."""
        dense = tf.keras.layers.Dense(2)

        def mean_square(batch):
            return tf.reduce_mean(tf.square(dense(batch["x"]) - batch["y"]))

        def reference_of(mirror, params, batch):
            import jax.numpy as jnp

            return jnp.mean(jnp.square(mirror.dense.apply(batch["x"], params=params["dense"]) - batch["y"]))

        models = models or {"dense": dense}
        return LivePort(
            models | {},
            {"x": X, "y": Y},
            loss(dense) if loss else mean_square,
            reference or reference_of,
            **options,
        )

    def test_file(self, folder):
        """A file with an import of its neighbour; the record's origin names it."""
        target = f"{folder}/my_port.py:build"
        comparison = compare_live(target)
        assert comparison.matches, comparison.findings
        assert comparison.port.model == target

    def test_example(self):
        """What the docs show works as it stands."""
        path = Path(__file__).parents[3] / "docs" / "examples" / "mirrored_port.py"
        comparisons = list(check_live([f"{path}:build"], precision="both", mode="function"))
        assert [comparison.port.dtype for comparison in comparisons] == ["float64", "float32"]
        assert all(comparison.matches for comparison in comparisons), comparisons
        assert "gradient/model/rnn/cell/kernel" in {row.name for row in comparisons[0].rows}

    def test_a_long_sum_in_float32_is_no_fault(self, tf):
        """TensorFlow adds the gradient of the bias row after row, and errs far more than XLA does."""
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(2, 131072, 3))

        def build(scale=1.0):
            dense = tf.keras.layers.Dense(3)

            def loss(batch):
                # The gradient is scaled, the loss is not.
                outputs = dense(batch["x"])
                outputs = scale * outputs + (1 - scale) * tf.stop_gradient(outputs)
                return tf.reduce_mean(tf.square(outputs - batch["y"]))

            def reference(mirror, params, batch):
                outputs = mirror.dense.apply(batch["x"], params=params["dense"])
                return ((outputs - batch["y"]) ** 2).mean()

            return LivePort({"dense": dense}, {"x": x, "y": y}, loss, reference)

        records = record_live(build, dtype="float32")
        assert records.spread
        first = replace(records, spread=()).compare()
        assert "gradient/dense/bias" in {row.name for row in first.findings}
        assert records.compare().matches, records.compare().findings
        wrong = compare_live(lambda: build(1.001), dtype="float32")
        assert not wrong.matches

    def test_function_that_is_not_there(self, folder):
        with pytest.raises(UsageError, match="has no function 'biuld'; did you mean 'build'"):
            load_build(f"{folder}/my_port.py:biuld")
        with pytest.raises(UsageError, match="making it raised ValueError: no data"):
            compare_live(f"{folder}/my_port.py:broken")
        with pytest.raises(UsageError, match=r"gave a int; expected an oracle.LivePort"):
            compare_live(f"{folder}/my_port.py:other")

    def test_mode_and_precision(self, tf):
        with pytest.raises(UsageError, match="no precision 'f16'"):
            list(check_live(["a.py:build"], precision="f16"))  # pyright: ignore[reportArgumentType]
        with pytest.raises(UsageError, match="cannot run in mode 'v1'"):
            compare_live(lambda: self.port(tf), mode="v1")
        with pytest.raises(UsageError, match="cannot run in 'float16'"):
            compare_live(lambda: self.port(tf), dtype="float16")  # pyright: ignore[reportArgumentType]

    def test_precision_and_weights_are_put_back(self, tf):
        before, port = tf.keras.backend.floatx(), self.port(tf)
        port.loss({"x": tf.constant(X), "y": tf.constant(Y)})
        own = [weight.copy() for weight in port.models["dense"].get_weights()]
        records = record_live(lambda: port, dtype="float64")
        assert records.port.origin.weights == "random, seed 0"
        assert tf.keras.backend.floatx() == before
        for old, new in zip(own, port.models["dense"].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize("mode", ["eager", "function"])
    def test_weight_of_no_model(self, tf, mode):
        """A variable that the loss reads and no model holds: an error, or it would be compared by no one."""
        loose = tf.Variable(np.ones(2), name="loose")

        def loss(dense):
            return lambda batch: tf.reduce_mean(tf.square(dense(batch["x"]) * loose - batch["y"]))

        with pytest.raises(OracleError, match="the loss reads loose:0, which no mirrored model holds"):
            compare_live(lambda: self.port(tf, loss), mode=mode)

    def test_gradient_that_is_none(self, tf):
        """The port lost the bias: None is a finding."""

        def loss(dense):
            return lambda batch: tf.reduce_mean(
                tf.square(
                    dense(batch["x"]) * 0
                    + batch["x"] @ dense.kernel
                    + tf.stop_gradient(dense.bias)
                    - batch["y"]
                )
            )

        def without(dense):
            def compute(batch):
                dense(batch["x"])
                return tf.reduce_mean(tf.square(batch["x"] @ dense.kernel - batch["y"]))

            return compute

        assert not compare_live(lambda: self.port(tf, loss)).matches
        found = {row.name: row.status for row in compare_live(lambda: self.port(tf, without)).findings}
        assert found["gradient/dense/bias"] == "none"

    def test_loss_that_raises(self, tf):
        """What the port raises is its result; if it never made its weights, there is nothing to compare."""

        def loss(dense):
            def compute(batch):
                dense(batch["x"])
                raise ValueError("no such thing")

            return compute

        failure = compare_live(lambda: self.port(tf, loss)).failure
        assert failure is not None
        assert (failure.type, failure.message) == ("ValueError", "no such thing")

        def at_once(dense):
            def compute(batch):
                raise ValueError("no such thing")

            return compute

        with pytest.raises(UsageError, match="raised ValueError: no such thing, before the model had made"):
            compare_live(lambda: self.port(tf, at_once))

    def test_reference_that_uses_no_weight(self, tf):
        """An oracle whose gradient is zero throughout cannot judge."""

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            return jnp.mean(jnp.square(batch["y"])) + 0.0 * jnp.sum(params["dense"]["kernel"])

        with pytest.raises(OracleError, match="zero throughout"):
            compare_live(lambda: self.port(tf, reference=reference))

    def test_model_that_the_loss_leaves_out(self, tf):
        """A second model without a part in the loss has no gradient: never green."""
        unused = tf.keras.layers.Dense(2)
        unused(X)

        def build():
            port = self.port(tf)
            return LivePort({**port.models, "unused": unused}, port.batch, port.loss, port.reference)

        with pytest.raises(OracleError, match="unused"):
            compare_live(build)

    def test_loss_and_reference_that_are_no_scalars(self, tf):
        with pytest.raises(UsageError, match="the loss: gives"):
            compare_live(lambda: self.port(tf, lambda dense: lambda batch: dense(batch["x"])))
        with pytest.raises(UsageError, match="the reference: gives"):
            compare_live(lambda: self.port(tf, reference=lambda mirror, params, batch: batch["x"]))

    def test_reference_that_raises(self, tf):
        def reference(mirror, params, batch):
            return mirror.dense.apply(batch["nothing"])

        with pytest.raises(UsageError, match="the reference raised KeyError: 'nothing'"):
            compare_live(lambda: self.port(tf, reference=reference))

    def test_reference_that_looks_at_values(self, tf):
        """It runs op by op then."""

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            error = mirror.dense.apply(batch["x"], params=params["dense"]) - batch["y"]
            return jnp.mean(jnp.square(error)) if float(batch["x"][0, 0, 0]) < 1e9 else jnp.zeros(())

        comparison = compare_live(lambda: self.port(tf, reference=reference))
        assert comparison.matches
        assert comparison.oracle.mode == "eager"

    def test_loss_without_a_reference(self, tf):
        def build():
            port = self.port(tf)
            return LivePort(port.models, port.batch, port.loss)

        with pytest.raises(UsageError, match="so it needs a reference"):
            compare_live(build)

    def test_loss_of_keras_without_targets(self, tf):
        def build():
            return LivePort({"dense": tf.keras.layers.Dense(2)}, {"x": X}, tf.keras.losses.MeanSquaredError())

        with pytest.raises(UsageError, match=r"needs one model and batch\['y'\]"):
            compare_live(build)

    def test_missing_output_is_a_finding(self, tf):
        """The reference gives an output that the port does not."""

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            outputs = mirror.dense.apply(batch["x"], params=params["dense"])
            return jnp.mean(jnp.square(outputs - batch["y"])), {"outputs": outputs}

        found = {
            row.name: row.status for row in compare_live(lambda: self.port(tf, reference=reference)).findings
        }
        assert found == {"output/outputs": "missing"}


ROOT = Path(__file__).parents[3]


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
class TestCommandLine:
    """The port runs in a process of its own: what it prints does not reach the report."""

    def test_the_readme_s_port_passes(self, capfd):
        from oracle.cli import run

        target = f"{ROOT / 'docs/examples/my_port.py'}:build"
        assert run(["compare", target, "--precision", "both", "--mode", "function"]) == 0
        said = capfd.readouterr()
        assert said.err == ""
        assert said.out.count("PASS") == 2
        assert "gradient/decoder/attention/memory_layer/kernel" in said.out

    def test_a_fault_in_it_is_found(self, capfd, tmp_path):
        from oracle.cli import run

        text = (ROOT / "docs/examples/my_port.py").read_text()
        assert "decoder(batch" in text
        (tmp_path / "wrong.py").write_text(text.replace("memory, [h, c],", "memory, [c, h],"))
        assert run(["compare", f"{tmp_path / 'wrong.py'}:build"]) == 1
        assert "FAIL" in capfd.readouterr().out

    def test_what_it_raises_is_one_line(self, capfd, tmp_path):
        from oracle.cli import run

        (tmp_path / "raises.py").write_text(
            "def build():\n    print('hello')\n    raise ValueError('no data')\n"
        )
        assert run(["compare", f"{tmp_path / 'raises.py'}:build"]) == 2
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert "raised ValueError: no data" in said.err
