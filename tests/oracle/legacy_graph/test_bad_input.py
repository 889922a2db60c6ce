"""Every bad input: one clear error, nothing written, the source untouched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle.errors import UsageError
from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.repair import check_target, repair_file, write_repaired
from oracle.legacy_graph.repaired_model import name_arguments
from tests.oracle.legacy_graph.golden import GRAPHS

pytestmark = pytest.mark.tf_any


def save(
    path: Path,
    build: Callable[[Any, Any, Any], dict[str, Any]],
    *,
    names: tuple[str, ...] = ("only",),
    strings: bool = False,
) -> None:
    """A TF1 SavedModel with the input `x` [batch, 3], and signatures of one kind; `text` is an output too."""
    from tf_models.legacy.loops import v1_session

    tf = import_tensorflow()
    with v1_session() as (v1, session):
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tensors = {"x": x, **build(tf, v1, x)}
        y = tensors.pop("y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {key: info(tensor) for key, tensor in tensors.items()},
            {"y": info(y)} | ({"text": info(tf.constant(["text"]))} if strings else {}),
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], dict.fromkeys(names, signature))
        builder.save()


def read_saved(file: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(file.read_bytes())


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
    "a_file": (
        "G203",
        lambda tf, v1, x: {"y": x * tf.strings.to_number(tf.io.read_file("/proc/uptime"))},
    ),
    "no_gradient": (
        "G201",
        lambda tf, v1, x: {"y": tf.raw_ops.Bincount(arr=[0, 1, 1], size=2, weights=x[0])},
    ),
    "integers": ("G201", lambda tf, v1, x: {"y": tf.argmax(x, 1)}),
    "unfed": ("G305", lambda tf, v1, x: {"y": x * v1.placeholder(tf.float32, [])}),
    "fed_twice": ("G305", lambda tf, v1, x: {"again": x, **loop(v1, x, tf.tanh)}),
    "a_gradient": ("G201", lambda tf, v1, x: {"y": tf.gradients(loop(v1, x, tf.tanh)["y"], x)[0]}),
    "complex": (
        "G201",
        lambda tf, v1, x: {
            "y": x * tf.math.real(v1.get_variable("w", [3], tf.complex64, tf.zeros_initializer))
        },
    ),
    "all_zero": ("G308", lambda tf, v1, x: loop(v1, x, lambda s: tf.nn.relu(-tf.abs(s)))),
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
    # The forward graph lacks a Switch of what only the condition reads.
    "read_by_the_condition_alone": lambda tf, v1, x: {
        "y": v1.while_loop(
            lambda size, more, s: tf.logical_and(size < 50.0, more),
            lambda size, more, s: (tf.reduce_sum(tf.abs(s)), tf.reduce_sum(s) < 90.0, 1.5 * s),
            [0.0, True, x],
        )[2]
    },
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_repaired(name: str, tmp_path: Path) -> None:
    save(tmp_path / name, ACCEPTED[name])
    figures = repair_file(tmp_path / name).verification
    assert figures.differences
    assert all(difference == 0 for difference, _ in figures.differences.values())


def test_strings_and_half_precision(tmp_path: Path) -> None:
    """An output of strings is compared by value, and float16 in float64."""

    def build(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
        half = v1.while_loop(
            lambda i, s: i < 3,
            lambda i, s: (i + 1, tf.tanh(s @ v1.get_variable("w", [3, 3], tf.float16))),
            [0, tf.cast(x, tf.float16)],
        )[1]
        return {"y": half}

    save(tmp_path / "half", build)
    figures = repair_file(tmp_path / "half").verification
    assert figures.dtype == "float64"
    assert all(one.agrees for one in figures.testimonies)
    save(tmp_path / "model", lambda tf, v1, x: loop(v1, x, tf.tanh), strings=True)
    done = repair_file(tmp_path / "model")
    write_repaired(done, tmp_path / "target")
    assert done.model(x=np.zeros([1, 3]))["text"].numpy().tolist() == [b"text"]


def test_contexts_of_some_loops_only(tmp_path: Path) -> None:
    """A loop that was imported without its contexts, beside one that has them: TF1's own gradient fails."""

    def build(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
        other = tf.Graph()
        with other.as_default():
            inner = v1.placeholder(tf.float32, [None, 3], "inner")
            y = loop(v1, inner, tf.tanh, name="inner_loop")["y"]
        (imported,) = tf.graph_util.import_graph_def(
            other.as_graph_def(), {"inner": x}, return_elements=[y.name], name="other"
        )
        return loop(v1, imported, tf.sin)

    save(tmp_path / "model", build)
    figures = repair_file(tmp_path / "model").verification
    assert not figures.differences
    assert "outer_context" in figures.failure
    assert figures.testimonies


def test_in_a_strategys_scope() -> None:
    tf = import_tensorflow()
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        done = repair_file(GRAPHS / "loop-in-cond")
    assert all(difference == 0 for difference, _ in done.verification.differences.values())


def test_keys_that_are_no_identifiers(tmp_path: Path) -> None:
    """The keys of a graph without signatures are its placeholders' names, with their scopes."""

    def build(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
        others = {key: v1.placeholder(tf.float32, [3]) for key in ("scope/x:0", "X", "class")}
        total = sum(number * other for number, other in enumerate(others.values(), 2))
        return {**others, **loop(v1, x * total, tf.tanh)}

    save(tmp_path / "model", build)
    done = repair_file(tmp_path / "model")
    write_repaired(done, tmp_path / "target")
    loaded = import_tensorflow().saved_model.load(str(tmp_path / "target"))
    rng = np.random.default_rng(0)
    keys = ("x", "scope/x:0", "X", "class")
    batch = {key: rng.standard_normal([2, 3] if key == "x" else [3]).astype("f") for key in keys}
    arguments = name_arguments(done.model.input_specs)
    assert {arguments["scope/x:0"], arguments["class"]} == {"scope_x_0", "input_class"}
    assert len({argument.lower() for argument in arguments.values()}) == 4
    served = loaded.signatures["serving_default"](**{arguments[key]: batch[key] for key in keys})
    expected = done.model(batch)["y"].numpy()
    assert expected.any()
    assert np.array_equal(loaded(batch)["y"], expected)
    assert np.array_equal(served["y"], expected)


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
        (
            {"batch": {"source": np.zeros([1, 1, 3]), "lengths": ["a"]}},
            "G308.*'lengths' cannot be made int32",
        ),
        ({"outputs": ["rnn/transpose_1:5"]}, "G305.*whose operation has 1 outputs"),
        ({"inputs": ["source:3", "lengths"]}, "G305.*'source:3'"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        repair_file(GRAPHS / "frozen-lstm.pb", **options)


def test_a_damaged_collection(tmp_path: Path) -> None:
    """What describes a loop in the collections is read by TensorFlow alone."""
    shutil.copytree(GRAPHS / "loop-in-loop", tmp_path / "model")
    file = tmp_path / "model" / "saved_model.pb"
    data = file.read_bytes()
    place = data.index(b"while/while_context", data.index(b"while_context\x12"))
    file.write_bytes(data[: place - 2] + b"\xff" + data[place - 1 :])
    with pytest.raises(GraphError, match="G301.*not a MetaGraph"):
        repair_file(tmp_path / "model")


def test_where_it_ran_does_not_matter(tmp_path: Path) -> None:
    def build(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
        return loop(v1, x, lambda s: tf.tanh(s) * v1.get_variable("w", [3]))

    save(tmp_path / "model", build)
    tf = import_tensorflow()
    file = tmp_path / "model" / "saved_model.pb"
    saved = read_saved(file)
    for node in saved.meta_graphs[0].graph_def.node:
        node.device = "/job:worker/task:3/gpu:7"
        node.attr["_XlaCompile"].b = True
    file.write_bytes(saved.SerializeToString())
    target = tmp_path / "target"
    write_repaired(repair_file(tmp_path / "model"), target)
    assert tf.saved_model.load(str(target))({"x": np.zeros([1, 3], "f")})["y"].shape == [1, 3]


def test_what_a_file_runs_at_its_start_is_not_run(tmp_path: Path) -> None:
    """A SavedModel names an operation for when it is loaded, and here it writes a file."""
    written = tmp_path / "written"

    def build(tf: Any, v1: Any, x: Any) -> dict[str, Any]:
        write = tf.io.write_file(str(written), "text")
        v1.add_to_collection("legacy_init_op", tf.group(write, name="start"))
        return loop(v1, x, lambda s: tf.tanh(s) * v1.get_variable("w", [3]))

    save(tmp_path / "model", build)
    write_repaired(repair_file(tmp_path / "model"), tmp_path / "target")
    assert not written.exists()


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("kernel", [2**33], "G301.*'kernel' .Const. claims the shape"),
        ("source", [3, 2**45], "G301.*'source' .Placeholder. claims the shape"),
        ("source", [3, 2**27], "G308.*too large to be drawn"),
    ],
)
def test_claims_of_sizes(name: str, sizes: list[int], message: str, tmp_path: Path) -> None:
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef.FromString((GRAPHS / "frozen-loops.pb").read_bytes())
    (node,) = [node for node in graph_def.node if node.name == name]
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(sizes).as_proto())
    if node.op == "Const":
        del node.attr["shape"]
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0))
        node.attr["value"].tensor.tensor_shape.CopyFrom(tf.TensorShape(sizes).as_proto())
    (tmp_path / "graph.pb").write_bytes(graph_def.SerializeToString())
    with pytest.raises(GraphError, match=message):
        repair_file(tmp_path / "graph.pb")


def test_a_seed() -> None:
    with pytest.raises(UsageError, match="seed -1"):
        repair_file(GRAPHS / "frozen-lstm.pb", seed=-1)


def test_targets(tmp_path: Path) -> None:
    for name in ("n" * 300, "a\0b"):
        with pytest.raises(GraphError, match="G309.*no name for a folder"):
            check_target(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "taken")
    with pytest.raises(GraphError, match="G309.*lies in"):
        check_target(tmp_path / "link" / "inner" / "model", source=tmp_path / "taken")
    with pytest.raises(GraphError, match="G309.*is there already"):
        check_target(tmp_path / "link")
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
