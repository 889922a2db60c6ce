"""Every bad input: one clear error, nothing written, the source untouched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.repair import check_target, repair_file, write_repaired
from tests.oracle.legacy_graph.golden import GRAPHS

pytestmark = pytest.mark.tf_any


def save(
    path: Path, build: Callable[[Any, Any, Any], dict[str, Any]], *, names: tuple[str, ...] = ("only",)
) -> None:
    """A TF1 SavedModel with the input `x` [batch, 3], and signatures of one kind."""
    from tf_models.legacy.loops import v1_session

    tf = import_tensorflow()
    with v1_session() as (v1, session):
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tensors = {"x": x, **build(tf, v1, x)}
        y = tensors.pop("y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {key: info(tensor) for key, tensor in tensors.items()}, {"y": info(y)}
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], dict.fromkeys(names, signature))
        builder.save()


def loop(v1: Any, x: Any, body: Callable[[Any], Any], **options: Any) -> dict[str, Any]:
    return {"y": v1.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, body(s)), [0, x], **options)[1]}


def table(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
    keys = v1.placeholder(tf.string, [None], "keys")
    initializer = tf.lookup.KeyValueTensorInitializer(["a"], [1.0])
    return {"keys": keys, "y": x * tf.lookup.StaticHashTable(initializer, 0.0).lookup(keys)[:, None]}


REFUSED = {
    "unbounded": ("G208", lambda tf, v1, x: {"y": v1.while_loop(lambda s: tf.constant(True), tf.tanh, [x])}),
    "unchanging": (
        "G208",
        lambda tf, v1, x: {"y": v1.while_loop(lambda i, s: i < 1, lambda i, s: (i, s), [0, x])[1]},
    ),
    "switched_off": ("G209", lambda tf, v1, x: loop(v1, x, tf.tanh, back_prop=False)),
    "random": ("G204", lambda tf, v1, x: loop(v1, x, lambda s: tf.nn.dropout(s, 0.5))),
    "table": ("G205", table),
    "python": (
        "G206",
        lambda tf, v1, x: {"y": tf.ensure_shape(v1.py_func(np.tanh, [x], tf.float32), [None, 3])},
    ),
    "assigned_reference": (
        "G203",
        lambda tf, v1, x: {
            "y": x * v1.assign_add(v1.get_variable("w", [3], use_resource=False), tf.ones([3]))
        },
    ),
    "assigned_resource": (
        "G203",
        lambda tf, v1, x: {"y": x * v1.get_variable("w", [3], use_resource=True).assign_add(tf.ones([3]))},
    ),
    "no_gradient": (
        "G201",
        lambda tf, v1, x: {"y": tf.raw_ops.Bincount(arr=[0, 1, 1], size=2, weights=x[0])},
    ),
    "integers": ("G201", lambda tf, v1, x: {"y": tf.argmax(x, 1)}),
    "unfed": ("G305", lambda tf, v1, x: {"y": x * v1.placeholder(tf.float32, [])}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repaired(name: str, tmp_path: Path) -> None:
    code, build = REFUSED[name]
    save(tmp_path / name, build)
    with pytest.raises(GraphError) as caught:
        repair_file(tmp_path / name)
    assert caught.value.code == code
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


ACCEPTED = {
    "gathered": lambda tf, v1, x: loop(
        v1, x, lambda s: s + tf.nn.embedding_lookup(v1.get_variable("w", [4, 3], use_resource=True), [1])
    ),
    "stopped_within_a_loop": lambda tf, v1, x: loop(v1, x, lambda s: tf.tanh(s) + tf.stop_gradient(s)),
    "a_case": lambda tf, v1, x: loop(
        v1,
        x,
        lambda s: v1.case(
            [(s[0, 0] > 9.0, lambda: s + 1.0), (s[0, 1] > 0.0, lambda: s * 0.5)], lambda: s * s
        ),
    ),
    "passed_on": lambda tf, v1, x: {"y": x},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_repaired(name: str, tmp_path: Path) -> None:
    save(tmp_path / name, ACCEPTED[name])
    figures = repair_file(tmp_path / name).verification
    assert figures.differences
    assert all(difference == 0 for difference, _ in figures.differences.values())


def test_signatures(tmp_path: Path) -> None:
    save(tmp_path / "model", lambda tf, v1, x: {"y": x * 2.0}, names=("first", "second"))
    with pytest.raises(GraphError, match=r"G304.*2 signatures \(first, second\)"):
        repair_file(tmp_path / "model")
    with pytest.raises(GraphError, match="G304.*did you mean 'second'"):
        repair_file(tmp_path / "model", signature="secnd")
    assert repair_file(tmp_path / "model", signature="second").signature == "second"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("variables/variables.data-00000-of-00001", "has no variables.data"),
        ("variables/variables.index", "no checkpoint beside it"),
        ("saved_model.pb", "a folder without saved_model.pb"),
    ],
)
def test_missing_files(missing: str, message: str, tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "stacked-lstm", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(GraphError, match=message):
        repair_file(tmp_path / "model")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "stacked-lstm", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "variables")
    shutil.copytree(GRAPHS / "bidirectional" / "variables", tmp_path / "model" / "variables")
    with pytest.raises(GraphError, match="G307.*no value of the variable"):
        repair_file(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "nothing"}, "G306.*matches no floating constant.*basic_lstm_cell/kernel"),
        ({"trainable": "("}, "G306.*no regular expression"),
        ({"outputs": ["rnn/transpose_2"]}, "G305.*did you mean 'rnn/transpose_1'"),
        ({"outputs": ["rnn/while/Identity_3"]}, "G305.*within the loop"),
        ({"signature": "serving_default"}, "G304.*has none"),
        ({"batch": {"source": np.zeros([1, 1, 3])}}, "G308.*given were source"),
        ({"batch": {"source": np.zeros([1, 1, 4]), "lengths": [1]}}, r"G308.*'source' is \[1, 1, 4\]"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        repair_file(GRAPHS / "frozen-lstm.pb", **options)


def test_targets(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(GraphError, match="G309.*is there already"):
        check_target(tmp_path / "taken")
    with pytest.raises(GraphError, match="G309.*no folder"):
        check_target(tmp_path / "absent" / "model")


def test_a_wrong_gradient_is_not_written(tmp_path: Path) -> None:
    """A repair whose gradient lost a factor is caught by the witness, on a graph without contexts."""
    from oracle.legacy_graph import verification
    from oracle.legacy_graph.repair import prepare
    from oracle.legacy_graph.repaired_model import build_model

    path = GRAPHS / "frozen-loops.pb"
    prepared = prepare(path, signature=None, trainable="^kernel$", inputs=(), outputs=())
    nodes = {node.name: node for node in prepared.backward.graph_def.node}
    # The derivative of tanh is taken for that of the sigmoid: right in form, wrong in value.
    (wrong,) = [node for node in nodes.values() if node.op == "TanhGrad"]
    wrong.op = "SigmoidGrad"
    model = build_model(prepared.extract, prepared.backward, prepared.selection.outputs)
    with pytest.raises(GraphError, match="G210") as caught:
        verification.verify(model, prepared.selection, prepared.extract, prepared.backward, prepared.settings)
    assert "nothing was written" in str(caught.value)


def test_the_source_is_not_touched(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(GRAPHS / "loop-in-loop", source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    write_repaired(repair_file(source), tmp_path / "target")
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
