"""`oracle.assert_gradients_match`: what passes, what fails and how it reads, and what it leaves behind."""

from __future__ import annotations

import unittest

import numpy as np
import pytest

from oracle.assertion import GradientMismatchError, assert_gradients_match
from oracle.assertion_context import AssertionContext, use_context
from oracle.errors import CaseError, OracleError, UsageError
from oracle.record import read_record

live = [pytest.mark.tf_any, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

X = np.random.default_rng(0).normal(size=(3, 5, 4))
Y = np.random.default_rng(1).normal(size=(3, 5, 2))


def make_model(dtype: str = "float64", *, cut: bool = False):
    """An LSTM and a dense layer; `cut`: the gradient of the dense layer's input is stopped."""
    from oracle.frameworks import import_tensorflow

    tf = import_tensorflow()
    tf.keras.backend.set_floatx(dtype)
    try:
        model = tf.keras.Sequential(
            [tf.keras.layers.LSTM(6, return_sequences=True), tf.keras.layers.Dense(2)]
        )
        model(X)
    finally:
        tf.keras.backend.set_floatx("float32")

    def loss(batch):
        hidden = model.layers[0](batch["x"])
        hidden = tf.stop_gradient(hidden) if cut else hidden
        return tf.reduce_mean(tf.square(model.layers[1](hidden) - batch["y"]))

    return model, loss


def reference(mirror, params, batch):
    """The loss of `make_model`, in JAX."""
    return ((mirror.model.apply(batch["x"], params=params["model"]) - batch["y"]) ** 2).mean()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
class TestLiveModel:
    pytestmark = live

    def test_match(self, dtype):
        from oracle.frameworks import import_tensorflow

        model, _ = make_model(dtype)
        before = [weight.copy() for weight in model.get_weights()]
        (comparison,) = assert_gradients_match(
            model, loss=import_tensorflow().keras.losses.MeanSquaredError(), batch=(X, Y)
        )
        assert comparison.matches
        assert comparison.port.dtype == dtype
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_mismatch(self, dtype, tmp_path):
        model, loss = make_model(dtype, cut=True)
        context = AssertionContext(folder=tmp_path / "records", test="tests/test_port.py::test_it", seed=4)
        with use_context(context), pytest.raises(GradientMismatchError) as raised:
            assert_gradients_match(model, loss=loss, reference=reference, batch={"x": X, "y": Y})
        said = str(raised.value)
        assert "first divergent, in order of computation: gradient/model/lstm/cell/bias" in said
        assert "gradient/model/lstm/cell/kernel: none: the port's gradient is None" in said
        assert "no tolerance would have passed" in said
        assert "seed 4" in said
        if dtype == "float64":
            assert raised.value.comparisons[0].witness.verdict == "autodiff"
            assert "witness: " in said
        assert "repeat:  pytest tests/test_port.py::test_it" in said
        assert str(raised.value.folder) in said
        port = read_record(raised.value.folder / "port.safetensors")
        truth = read_record(raised.value.folder / "oracle.safetensors")
        assert port.tensors["gradient/model/lstm/cell/kernel"] is None
        assert truth.tensors["gradient/model/lstm/cell/kernel"] is not None
        assert context.comparisons == list(raised.value.comparisons)


class TestWorst:
    pytestmark = live

    def test_order(self, tmp_path):
        """What no tolerance would pass comes first, whatever the order of computation."""
        model, loss = make_model(cut=True)

        def doubled(mirror, params, batch):
            return 2 * reference(mirror, params, batch)

        with use_context(AssertionContext(folder=tmp_path)), pytest.raises(GradientMismatchError) as raised:
            assert_gradients_match(
                model, loss=loss, reference=doubled, batch={"x": X, "y": Y}, witness="never"
            )
        lines = str(raised.value).splitlines()
        assert any("first divergent, in order of computation: loss" in line for line in lines)
        shown = [line.split()[1].rstrip(":") for line in lines if line.startswith("  - ")]
        assert shown[:3] == [
            f"gradient/model/lstm/cell/{leaf}" for leaf in ("bias", "kernel", "recurrent_kernel")
        ]
        assert "loss" in shown[3:]

    def test_each_mismatch_has_a_folder_of_its_own(self, tmp_path):
        model, loss = make_model(cut=True)
        folders = []
        for _ in range(2):
            with (
                use_context(AssertionContext(folder=tmp_path)),
                pytest.raises(GradientMismatchError) as raised,
            ):
                assert_gradients_match(
                    model, loss=loss, reference=reference, batch={"x": X, "y": Y}, witness="never"
                )
            folders.append(raised.value.folder)
        assert len(set(folders)) == 2


class TestBadInput:
    pytestmark = live

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"loss": print}, "a loss needs a batch"),
            ({"loss": print, "batch": (X, Y, Y, Y)}, "a tuple of 4"),
            ({"loss": print, "batch": 3}, "the batch is a int"),
            ({"batch": {"x": X}}, "without a loss"),
            ({"loss": print, "batch": {"x": X}, "seed": -1}, "seed"),
            ({"loss": print, "batch": {"x": X}, "mode": "quick"}, "cannot run in mode 'quick'"),
            ({"loss": lambda batch: 0.0, "batch": {"x": X}}, "needs a reference"),
        ],
    )
    def test_refused(self, arguments, message):
        model, _ = make_model()
        with pytest.raises(OracleError, match=message):
            assert_gradients_match(model, **arguments)

    def test_model_without_a_loss(self):
        with pytest.raises(UsageError, match="the port is a int"):
            assert_gradients_match(3)

    def test_weights_of_two_precisions(self):
        first, loss = make_model("float64")
        second, _ = make_model("float32")
        with pytest.raises(CaseError, match=r"float32 \(b\), float64 \(a\)|float64 \(a\), float32 \(b\)"):
            assert_gradients_match(
                {"a": first, "b": second}, loss=loss, reference=reference, batch={"x": X, "y": Y}
            )


class TestUnittest:
    pytestmark = live

    def test_failure_is_a_failure(self, tmp_path):
        """Not an error: `unittest` and `absl` tell them apart."""
        model, loss = make_model(cut=True)

        class Case(unittest.TestCase):
            def test_port(self):
                with use_context(AssertionContext(folder=tmp_path)):
                    assert_gradients_match(
                        model, loss=loss, reference=reference, batch={"x": X, "y": Y}, witness="never"
                    )

        result = unittest.TestResult()
        Case("test_port").run(result)
        assert len(result.failures) == 1
        assert not result.errors
        assert "first divergent" in result.failures[0][1]


def squares(weights, batch):
    """A loss in JAX."""
    return ((batch["x"] @ weights["kernel"] + weights["bias"]) ** 2).sum()


KERNEL = np.random.default_rng(2).normal(size=(4, 3))
BIAS = np.random.default_rng(3).normal(size=3)


def derive(batch, *, kernel=KERNEL, bias=BIAS, scale=1.0):
    """The loss of `squares` and its gradients, by hand."""
    residual = batch["x"].reshape(-1, 4) @ kernel + bias
    gradients = {
        "kernel": scale * 2 * batch["x"].reshape(-1, 4).T @ residual,
        "bias": 2 * residual.sum(axis=0),
    }
    return (residual**2).sum(), gradients


class TestStep:
    pytestmark = [pytest.mark.jax]
    weights = {"kernel": KERNEL, "bias": BIAS}

    def test_match(self):
        (comparison,) = assert_gradients_match(
            derive, reference=squares, weights=self.weights, batch={"x": X}
        )
        assert [row.name for row in comparison.rows] == ["loss", "gradient/kernel", "gradient/bias"]
        assert comparison.port.dtype == "float64"

    def test_float32(self):
        batch = {"x": X.astype(np.float32)}
        kernel, bias = KERNEL.astype(np.float32), BIAS.astype(np.float32)
        (comparison,) = assert_gradients_match(
            lambda batch: derive(batch, kernel=kernel, bias=bias),
            reference=squares,
            weights={"kernel": kernel, "bias": bias},
            batch=batch,
        )
        assert comparison.port.dtype == "float32"
        assert comparison.matches

    def test_mismatch_can_be_verified_again(self, tmp_path):
        from oracle.verify import verify_record

        with use_context(AssertionContext(folder=tmp_path)), pytest.raises(GradientMismatchError) as raised:
            assert_gradients_match(
                lambda batch: derive(batch, scale=1 + 1e-9),
                reference=squares,
                weights=self.weights,
                batch={"x": X},
            )
        said = str(raised.value)
        assert "first divergent, in order of computation: gradient/kernel (tensor 2 of 3)" in said
        assert "oracle verify port.safetensors --module tests.oracle.test_assertion:squares" in said
        record = read_record(raised.value.folder / "port.safetensors")
        again = verify_record(record, module=squares)
        assert [row.name for row in again.findings] == ["gradient/kernel"]

    def test_without_a_batch(self):
        def reference(weights):
            return squares(weights, {"x": X})

        assert_gradients_match(lambda: derive({"x": X}), reference=reference, weights=self.weights)

    def test_nested_weights(self):
        def reference(weights, batch):
            return squares(weights["dense"], batch)

        def step(batch):
            loss, gradients = derive(batch)
            return loss, {"dense": gradients}

        (comparison,) = assert_gradients_match(
            step, reference=reference, weights={"dense": self.weights}, batch={"x": X}
        )
        assert [row.name for row in comparison.rows] == [
            "loss",
            "gradient/dense/kernel",
            "gradient/dense/bias",
        ]

    @pytest.mark.parametrize("lost", ["None", "left out"])
    def test_lost_gradient(self, lost):
        def step(batch):
            loss, gradients = derive(batch)
            del gradients["bias"]
            return loss, gradients | ({"bias": None} if lost == "None" else {})

        with pytest.raises(GradientMismatchError, match="first gradient/bias"):
            assert_gradients_match(step, reference=squares, weights=self.weights, batch={"x": X})

    def test_step_that_raises_is_a_finding(self):
        def step(batch):
            raise AttributeError("'NoneType' object has no attribute 'outer_context'")

        with pytest.raises(GradientMismatchError, match="the port raised AttributeError: 'NoneType'"):
            assert_gradients_match(step, reference=squares, weights=self.weights, batch={"x": X})

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (lambda batch: 3.0, "expected the pair of a scalar loss"),
            (lambda batch: (3.0, [1, 2]), "neither by name nor pairs"),
            (lambda batch: (3.0, {"kernle": KERNEL}), "gradient of kernle, which is not in weights"),
            (lambda batch: (3.0, {"kernel": KERNEL.astype("float16")}), "float16"),
            (3, "the port is a int"),
        ],
    )
    def test_refused(self, step, message):
        with pytest.raises(OracleError, match=message):
            assert_gradients_match(step, reference=squares, weights=self.weights, batch={"x": X})

    def test_without_a_reference(self):
        with pytest.raises(UsageError, match="needs a reference"):
            assert_gradients_match(derive, weights=self.weights, batch={"x": X})


class TestTensorFlowStep:
    pytestmark = live

    @pytest.mark.parametrize("as_function", [False, True])
    def test_pairs_and_sparse_rows(self, as_function):
        """An embedding looked up twice by one token gives `IndexedSlices` with a repeated row."""
        from oracle.frameworks import import_tensorflow

        tf = import_tensorflow()
        table = tf.Variable(np.random.default_rng(5).normal(size=(7, 3)), name="table")
        kernel = tf.Variable(KERNEL[:3], name="kernel")
        ids = np.array([[1, 4, 1], [6, 4, 0]])

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.tanh(tf.gather(table, batch["ids"]) @ kernel))
            variables = [table, kernel]
            return loss, list(zip(tape.gradient(loss, variables), variables))

        def reference(weights, batch):
            import jax.numpy as jnp

            return jnp.tanh(weights["table"][batch["ids"]] @ weights["kernel"]).sum()

        def named(batch):
            loss, pairs = step(batch)
            return loss, {variable.name[:-2]: gradient for gradient, variable in pairs}

        assert_gradients_match(
            tf.function(named) if as_function else step,
            reference=reference,
            weights={"table": table, "kernel": kernel},
            batch={"ids": ids},
        )


class TestCarelessCode:
    pytestmark = [pytest.mark.jax]
    weights = {"kernel": KERNEL, "bias": BIAS}

    def test_a_step_that_changes_its_batch_is_held_to_the_one_it_was_given(self):
        """The reference must not see what the step made of it, nor the caller."""
        batch = {"x": X.copy()}

        def step(batch):
            batch["x"] *= 10
            return derive(batch)

        with pytest.raises(GradientMismatchError, match="first loss"):
            assert_gradients_match(step, reference=squares, weights=self.weights, batch=batch)
        np.testing.assert_array_equal(batch["x"], X)

    def test_a_reference_that_exits(self):
        def reference(weights, batch):
            raise SystemExit(0)

        with pytest.raises(UsageError, match="raised SystemExit"):
            assert_gradients_match(derive, reference=reference, weights=self.weights, batch={"x": X})

    def test_a_reference_with_options(self):
        """A second parameter with a default is no batch, unless there is one."""

        def reference(weights, scale=1.0):
            return scale * squares(weights, {"x": X})

        assert_gradients_match(lambda: derive({"x": X}), reference=reference, weights=self.weights)
