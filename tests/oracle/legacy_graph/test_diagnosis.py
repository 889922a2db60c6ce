"""What is found in files, and what an attempt at the gradient finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.attempt import attempt_gradient
from oracle.legacy_graph.diagnosis import Finding, diagnose, render_findings
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.repair import repair_file
from tests.oracle.legacy_graph.golden import FILES, GRAPHS


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


@pytest.mark.parametrize("name", FILES)
def test_kept_files(name: str) -> None:
    found = codes(diagnose(GRAPHS / name))
    loops = 2 if name in ("attention-decoder", "bidirectional", "loop-in-loop", "frozen-loops.pb") else 1
    assert found.count("G001") == loops
    assert ("G002" in found) == (
        name in ("attention-decoder", "bidirectional", "loop-in-cond", "loop-in-loop", "stacked-lstm")
    )
    assert ("G004" in found) == name.startswith("frozen")


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        (
            "stacked-lstm",
            ["TF1 BasicLSTMCell (rnn/multi_rnn_cell/cell_0/basic_lstm_cell)", "projection to 2"],
        ),
        ("stacked-gru", ["TF1 GRUCell (encoder/rnn/multi_rnn_cell/cell_1/gru_cell)"]),
        ("frozen-lstm.pb", ["TF1 BasicLSTMCell", "exits pruned: 4"]),
        (
            "attention-decoder",
            ["BahdanauAttention (decoder/attention_wrapper/bahdanau_attention)", "conds within: 1"],
        ),
        ("bidirectional", ["forward of two directions", "backward of two directions"]),
        ("loop-in-loop", ["in the loop 'while/while_context'", "loops within: 1"]),
        ("loop-in-cond", ["in the true branch of the cond on 'deep'"]),
        ("meta-lstm.meta", ["its collections keep the contexts"]),
    ],
)
def test_what_a_loop_is(name: str, cells: list[str]) -> None:
    text = render_findings(diagnose(GRAPHS / name))
    for cell in cells:
        assert cell in text
    assert f"oracle repair {GRAPHS / name} DST" in text


def test_a_checkpoint_is_read_through_its_graph(tmp_path: Path) -> None:
    assert codes(diagnose(GRAPHS / "meta-lstm")) == codes(diagnose(GRAPHS / "meta-lstm.index")) == ["G001"]
    for part in ("index", "data-00000-of-00001"):
        (tmp_path / f"alone.{part}").write_bytes((GRAPHS / f"meta-lstm.{part}").read_bytes())
    with pytest.raises(GraphError, match="G310.*no graph beside it"):
        diagnose(tmp_path / "alone")


@pytest.mark.tf_any
@pytest.mark.parametrize(
    ("example", "still", "attempted"),
    [
        ("save_loop", ["G001", "G002"], ["G001"]),
        ("freeze_loop", ["G001", "G004"], ["G001"]),
        ("save_cond_of_references", ["G005", "G002"], []),
        ("save_cond_of_resources", ["G006"], ["G006"]),
        ("save_broken_paths", [], ["G012", "G012", "G012"]),
        ("save_zero", [], ["G013", "G013"]),
        ("save_infinite", [], ["G014"]),
    ],
)
def test_examples(example: str, still: list[str], attempted: list[str], tmp_path: Path) -> None:
    path = tmp_path / ("model.pb" if example == "freeze_loop" else "model")
    _examples()[example](str(path))
    assert codes(diagnose(path)) == still
    found = attempt_gradient(path)
    assert codes(found) == attempted
    if example == "save_broken_paths":
        by_name = {finding.where.rpartition(" ")[2]: finding.what for finding in found}
        assert by_name == {
            "unused": "no output depends on it",
            "rounded": "the connection is lost at 'to_integers' (Cast)",
            "stopped": "the connection is lost at 'held' (StopGradient)",
        }
    if attempted in (["G001"], ["G006"]):
        # What was found is what the repair removes.
        figures = repair_file(path).verification
        assert all(difference == 0 for difference, _ in figures.differences.values())


def _examples() -> dict[str, Callable[[str], None]]:
    from tf_models.legacy import connections, loops

    return {
        "save_loop": loops.save_loop,
        "freeze_loop": loops.freeze_loop,
        "save_cond_of_references": lambda path: loops.save_cond(path, use_resource=False),
        "save_cond_of_resources": lambda path: loops.save_cond(path, use_resource=True),
        "save_broken_paths": connections.save_broken_paths,
        "save_zero": connections.save_zero,
        "save_infinite": connections.save_infinite,
    }


@pytest.mark.tf_any
def test_saved_again(tmp_path: Path) -> None:
    from tf_models.legacy.loops import save_again

    save_again(str(tmp_path / "tf1"), str(tmp_path / "tf2"))
    assert set(codes(diagnose(tmp_path / "tf2"))) == {"G003"}
    with pytest.raises(GraphError, match="G207"):
        repair_file(tmp_path / "tf2")


@pytest.mark.tf_any
def test_the_seeds_error_is_what_tensorflow_raises() -> None:
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(GRAPHS / "stacked-gru"))
    source = tf.ones([2, 3, 4])
    with (
        pytest.raises(AttributeError, match="'NoneType' object has no attribute 'outer_context'"),
        tf.GradientTape() as tape,
    ):
        tape.watch(source)
        loaded.signatures["serving_default"](source=source, lengths=tf.constant([3, 1]))


@pytest.mark.tf_any
def test_a_training_graph(tmp_path: Path) -> None:
    """It holds the loop of its own gradient, which is no fault."""
    from tf_models.legacy.loops import v1_session

    tf = import_tensorflow()
    with v1_session() as (v1, _):
        kernel = v1.get_variable("kernel", [3, 3])
        source = v1.placeholder(tf.float32, [None, 3], "source")
        end = v1.while_loop(
            lambda step, value: step < 3,
            lambda step, value: (step + 1, tf.tanh(value @ kernel)),
            [0, source],
        )[1]
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(end))
        v1.train.export_meta_graph(str(tmp_path / "train.meta"))
    forward, backward = diagnose(tmp_path / "train.meta")
    assert (forward.code, forward.is_note) == ("G001", False)
    assert (backward.code, backward.is_note) == ("G001", True)
    assert backward.what.endswith("it computes a gradient")
