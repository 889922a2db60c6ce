"""Where and why a live port is not its reference: the right part named, the right cause first."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle.errors import RecordError
from oracle.live_port import LivePort, LiveRecords, read_records, record_live, write_records
from tests.oracle.mirror.faulty_ports import UNITS, build, build_cell

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

slow = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def inspect(make: Any) -> LiveRecords:
    """Everything that is asked of a port."""
    return record_live(make, localise=True, explain=True)


def said_where(records: LiveRecords) -> str:
    assert records.localisation is not None
    return "\n".join(records.localisation.lines)


def best_of(records: LiveRecords) -> tuple[tuple[str, ...], str]:
    """The best cause's codes and sentence, which must explain every tensor."""
    explanation = records.explanation
    assert explanation is not None
    assert explanation.kind == "explained", explanation.lines
    best = explanation.best
    assert best is not None
    assert best.distance <= 1e-12
    assert best.matching == best.total
    return best.codes, best.sentence


def test_a_right_port_is_asked_nothing():
    records = inspect(build)
    assert records.compare().matches
    assert records.localisation is None
    assert records.explanation is None


@pytest.mark.parametrize(
    ("fault", "codes", "sentence", "where"),
    [
        (
            "exchanged",
            ("C102",),
            "h and c of the state of `decoder.lstm` are exchanged",
            "forward, what goes into `decoder.lstm` is where it begins: `initial_state/0` and "
            "`initial_state/1` are exchanged in your port",
        ),
        (
            "outside-tape",
            ("C601",),
            "no gradient reaches `encoder`: it is called outside of the tape",
            "`encoder` is called outside of the tape",
        ),
        pytest.param(
            "zeros",
            ("C101",),
            "`decoder.lstm` starts from zeros",
            "what goes into `decoder.lstm` is where it begins: `initial_state` is not passed in your port",
            marks=slow,
        ),
        pytest.param(
            "state-stopped",
            ("C602",),
            "no gradient passes from the state that `decoder.lstm` starts from",
            "the gradient stops between the final state of `encoder.lstm` (output 1) and `decoder.lstm`",
            marks=slow,
        ),
        pytest.param(
            "mask-forgotten",
            ("C301",),
            "the mask of `encoder.lstm` is not passed",
            "what goes into `encoder.lstm` is where it begins: `mask` is not passed in your port",
            marks=slow,
        ),
        pytest.param(
            "clipped",
            ("C613",),
            "clipped to a global norm",
            "so do the gradients as the tape gives them: your train step changes them afterwards",
            marks=slow,
        ),
        pytest.param("accumulated", ("C611",), "is 2 times what it should be", "afterwards", marks=slow),
        pytest.param(
            "constant-embedding",
            ("C601",),
            "no gradient reaches `decoder.embedding`",
            "the gradient stops between the output of `decoder.embedding` and `decoder.lstm`",
            marks=slow,
        ),
        pytest.param(
            "exchanged-and-stopped",
            ("C102", "C602"),
            "are exchanged, and no gradient passes from the state that `decoder.lstm` starts from",
            "`initial_state/0` and `initial_state/1` are exchanged",
            marks=slow,
        ),
    ],
)
def test_fault(fault, codes, sentence, where):
    records = inspect(lambda: build(fault))
    assert where in said_where(records)
    found, said = best_of(records)
    assert found == codes
    assert sentence in said
    if fault in ("exchanged", "zeros", "mask-forgotten"):
        # The part is right; what it is given is not.
        assert "itself is right" in said_where(records)
        localisation = records.localisation
        assert localisation is not None
        assert localisation.forward is not None
        assert not [check for check in localisation.checks if not check.output_agrees]


@pytest.mark.slow
def test_a_fault_that_no_cause_is_says_so_and_where():
    """What is computed between two parts is another."""
    records = inspect(lambda: build("unknown"))
    explanation = records.explanation
    assert explanation is not None
    assert explanation.kind == "unexplained"
    assert "No cause that is known explains it" in explanation.lines[0]
    assert "what goes into `decoder.dense` is where it begins" in said_where(records)
    assert "`decoder.dense` itself is right" in said_where(records)


def test_a_cell_that_adds_a_forget_bias_and_a_mirror_that_does_not():
    """The part itself is wrong: its input agrees, its output does not from the second step on."""
    records = inspect(lambda: build_cell(1.0))
    assert best_of(records) == (
        ("C202",),
        "a forget bias of 1 is added in `rnn.cell`, which the reference does not add",
    )
    localisation = records.localisation
    assert localisation is not None
    assert "`rnn` is where it begins: what goes in agrees, what comes out does not" in localisation.lines[0]
    place = localisation.forward
    assert place is not None
    # The first cell state is zero, so that the forget gate has no effect in the first step.
    assert (place.layer, place.step, place.row) == ("rnn", 1, 0)
    (check,) = [check for check in localisation.checks if check.direction == "forward"]
    assert check.input_agrees
    assert not check.output_agrees
    (drawn,) = localisation.maps
    errors = drawn.errors[0]
    assert errors[0] is not None
    assert errors[0] < 1e-12
    assert all(error is not None and error > 1e-3 for error in errors[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codes", "part", "where"),
    [
        ("networks_nmt", ("C603",), "`decoder.attention_mechanism`", "`decoder.attention_mechanism`: none"),
        (
            "subclassed_gru",
            ("C607",),
            "each call of `decoder.gru` but the first",
            "final state of `decoder.gru`",
        ),
        ("tf1_multi_rnn", ("C301",), "the lengths of `model.cell`", "`sequence_length` is another in 2 of 3"),
        ("tied_embeddings", ("C605",), "`encoder/embedding/embedding` where it is read", "read outside"),
    ],
)
def test_tutorial(name, codes, part, where):
    module = importlib.import_module(f"tests.oracle.mirror.tutorials.{name}")
    records = inspect(lambda: module.build(faulty=True))
    found, said = best_of(records)
    assert found == codes
    assert part in said
    assert where in said_where(records)


@pytest.mark.slow
def test_the_readme_s_port_with_its_memory_from_outside_the_tape(tmp_path):
    """tfa's decoder and wrapper, whose memory the mechanism keeps."""
    text = (EXAMPLES / "my_port.py").read_text()
    assert "setup_memory(memory)" in text
    wrong = text.replace("setup_memory(memory)", "setup_memory(tf.constant(memory.numpy()))")
    # Under pytest the types of this project's functions are checked, which want arrays of JAX.
    wrong = wrong.replace('batch["target"][:, 1:], jnp', 'jnp.asarray(batch["target"][:, 1:]), jnp')
    (tmp_path / "wrong.py").write_text(wrong)
    records = inspect(f"{tmp_path / 'wrong.py'}:build")
    codes, said = best_of(records)
    assert codes == ("C603",)
    assert "the memory of `decoder.attention`" in said
    assert "between the output of `encoder.lstm` and `decoder.attention`" in said_where(records)


class TestWhatCannotBeSaid:
    """A failure to say where or why is what the lines say; the comparison stands."""

    def port(self, wrap: Any) -> LivePort:
        """A dense layer with a fault of the forward pass, and what a test makes of its loss."""
        import tensorflow as tf

        generator = np.random.default_rng(0)
        batch = {"x": generator.standard_normal((3, UNITS)), "y": generator.standard_normal((3, 2))}
        dense = tf.keras.layers.Dense(2)

        def loss(batch: Any) -> Any:
            return wrap(tf.reduce_mean((1.5 * dense(batch["x"]) - batch["y"]) ** 2))

        def reference(mirror: Any, params: Any, batch: Any) -> Any:
            import jax.numpy as jnp

            return jnp.mean((mirror.dense.apply(batch["x"], params=params["dense"]) - batch["y"]) ** 2)

        return LivePort({"dense": dense}, batch, loss, reference)

    def test_a_loss_that_does_not_bear_to_be_called_again(self):
        calls = []

        def wrap(value: Any) -> Any:
            calls.append(0)
            if len(calls) > 2:
                raise ValueError("the memory is used up")
            return value

        records = record_live(lambda: self.port(wrap), localise=True)
        assert not records.compare().matches
        assert said_where(records) == (
            "cannot say where: run once more with its parts watched, it raised ValueError: the memory is used up"
        )

    def test_a_loss_that_changes_from_run_to_run(self):
        calls = []

        def wrap(value: Any) -> Any:
            calls.append(0)
            return value * len(calls)

        records = record_live(lambda: self.port(wrap), localise=True)
        assert "run once more, eagerly, your port computes something else" in said_where(records)

    def test_a_part_that_is_called_past_its_layer(self):
        """The port multiplies by the kernel itself."""
        import tensorflow as tf

        def build() -> LivePort:
            port = self.port(lambda value: value)
            dense = port.models["dense"]
            dense.build((None, UNITS))

            def loss(batch: Any) -> Any:
                return tf.reduce_mean((batch["x"] @ dense.kernel - dense.bias - batch["y"]) ** 2)

            return LivePort(port.models, port.batch, loss, port.reference)

        records = record_live(build, localise=True)
        assert "your port calls none of the parts that the reference calls" in said_where(records)
        assert "`dense` is never called in your port, and once in the reference" in said_where(records)

    def test_answers_travel_with_the_records(self, tmp_path):
        records = record_live(lambda: self.port(lambda value: value), localise=True, explain=True)
        assert records.localisation is not None
        assert records.explanation is not None
        write_records(records, tmp_path)
        again = read_records(tmp_path)
        assert again.localisation == records.localisation
        assert again.explanation == records.explanation
        assert again.compare().localisation == records.localisation
        (tmp_path / "explanation.msgpack").write_bytes(b"\xc1")
        with pytest.raises(RecordError, match="not why a port leaves the oracle"):
            read_records(tmp_path)

    def test_everything_that_was_replaced_is_put_back(self):
        import tensorflow as tf

        owner = tf.keras.layers.Layer
        before = (
            owner.__call__,
            tf.GradientTape.gradient,
            tf.GradientTape.__enter__,
            tf.GradientTape.__exit__,
        )
        port = self.port(lambda value: value)
        port.loss({name: tf.constant(array) for name, array in port.batch.items()})
        weights = [np.array(weight) for weight in port.models["dense"].get_weights()]
        record_live(lambda: port, localise=True, explain=True)
        after = (
            owner.__call__,
            tf.GradientTape.gradient,
            tf.GradientTape.__enter__,
            tf.GradientTape.__exit__,
        )
        assert before == after
        assert not tf.config.functions_run_eagerly()
        for old, new in zip(weights, port.models["dense"].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
