"""The contexts that are rebuilt from a graph, against those that `import_meta_graph` restores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.completion import complete_graph
from oracle.legacy_graph.contexts import LoopSettings, read_settings, rebuild_contexts
from oracle.legacy_graph.graph import read_graph
from oracle.legacy_graph.model_file import read_model_file
from oracle.legacy_graph.vjp import v1_control_flow
from tests.oracle.legacy_graph.golden import GRAPHS, SAVED, part, read_expected

pytestmark = pytest.mark.tf_any


def describe(operation: Any) -> list[tuple[Any, ...]]:
    """The contexts of an operation, from the innermost."""
    context, found = operation._get_control_flow_context(), []
    while context is not None:
        if context.IsWhileContext():
            found.append(
                ("while", context.name, context.back_prop, context.swap_memory, context.parallel_iterations)
            )
        else:
            found.append(("cond", context.branch, context.pivot.name))
        context = context.outer_context
    return found


@pytest.mark.parametrize("name", SAVED)
def test_every_operation_is_in_the_context_it_was_built_in(name: str) -> None:
    tf = import_tensorflow()
    (meta,) = read_model_file(GRAPHS / name).meta_graphs
    meta_graph = tf.compat.v1.MetaGraphDef.FromString(bytes(meta.data))
    original, rebuilt = tf.Graph(), tf.Graph()
    with original.as_default():
        tf.compat.v1.train.import_meta_graph(meta_graph)
    control_flow, added = complete_graph(meta_graph.graph_def, where=name)
    assert added == ()
    with rebuilt.as_default():
        tf.graph_util.import_graph_def(meta_graph.graph_def, name="")
    nodes = read_graph(meta_graph.graph_def.SerializeToString(), where=name)
    assert describe(rebuilt.get_operation_by_name(next(iter(control_flow.loops.values())).condition)) == []
    rebuild_contexts(rebuilt, nodes, control_flow, read_settings(meta_graph))
    compared = 0
    for operation in original.get_operations():
        # TensorFlow's collections list tensors, so they forget operations without outputs.
        if operation.outputs:
            assert describe(operation) == describe(rebuilt.get_operation_by_name(operation.name)), (
                operation.name
            )
            compared += bool(describe(operation))
    assert compared > 20


@pytest.mark.parametrize("name", ["stacked-gru", "loop-in-loop"])
def test_loops_are_defined_alike(name: str) -> None:
    tf = import_tensorflow()
    (meta,) = read_model_file(GRAPHS / name).meta_graphs
    meta_graph = tf.compat.v1.MetaGraphDef.FromString(bytes(meta.data))
    original, rebuilt = tf.Graph(), tf.Graph()
    with original.as_default():
        tf.compat.v1.train.import_meta_graph(meta_graph)
    control_flow, _ = complete_graph(meta_graph.graph_def, where=name)
    with rebuilt.as_default():
        tf.graph_util.import_graph_def(meta_graph.graph_def, name="")
    nodes = read_graph(meta_graph.graph_def.SerializeToString(), where=name)
    rebuild_contexts(rebuilt, nodes, control_flow, read_settings(meta_graph))
    for loop in control_flow.loops.values():
        one, other = (
            graph.get_operation_by_name(loop.condition)._get_control_flow_context().to_proto()
            for graph in (original, rebuilt)
        )
        for field in ("context_name", "pivot_name", "pivot_for_pred_name", "pivot_for_body_name"):
            assert getattr(one, field) == getattr(other, field)
        assert sorted(one.loop_exit_names) == sorted(other.loop_exit_names)
        assert sorted(one.loop_enter_names) == sorted(other.loop_enter_names)


def test_settings_are_read() -> None:
    tf = import_tensorflow()
    (meta,) = read_model_file(GRAPHS / "loop-in-loop").meta_graphs
    found = read_settings(tf.compat.v1.MetaGraphDef.FromString(bytes(meta.data)))
    assert found["while/while_context"] == LoopSettings(True, False, 3)
    (meta,) = read_model_file(GRAPHS / "stacked-gru").meta_graphs
    found = read_settings(tf.compat.v1.MetaGraphDef.FromString(bytes(meta.data)))
    assert found["encoder/rnn/while/while_context"].swap_memory


def test_a_frozen_graph_has_tf1s_own_gradients() -> None:
    """Frozen and rebuilt, against the MetaGraph that kept its contexts: the difference is exactly 0."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    batch = part(read_expected("stacked-lstm"), "input")
    found = []
    for kind in ("meta", "frozen"):
        graph = tf.Graph()
        with graph.as_default(), v1.Session() as session, v1_control_flow():
            if kind == "meta":
                saver = v1.train.import_meta_graph(str(GRAPHS / "meta-lstm.meta"))
                saver.restore(session, str(GRAPHS / "meta-lstm"))
            else:
                graph_def = v1.GraphDef.FromString((GRAPHS / "frozen-lstm.pb").read_bytes())
                control_flow, added = complete_graph(graph_def, where=kind)
                assert len(added) == 4
                assert all(name.endswith("added_exit") for name in added)
                tf.graph_util.import_graph_def(graph_def, name="")
                nodes = read_graph(graph_def.SerializeToString(), where=kind)
                rebuild_contexts(graph, nodes, control_flow, {})
            kernel = "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel:0"
            sources = [graph.get_tensor_by_name(name) for name in ("source:0", kernel)]
            outputs = graph.get_tensor_by_name("rnn/transpose_1:0")
            gradients = tf.gradients(tf.reduce_sum(tf.sin(outputs)), sources)
            found.append(session.run(gradients, {f"{key}:0": array for key, array in batch.items()}))
    for one, other in zip(*found, strict=True):
        assert one.any()
        assert np.array_equal(one, other)
