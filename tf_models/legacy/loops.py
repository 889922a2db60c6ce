"""Loops and conds of TF1, saved in the ways in which they lose their contexts.

`tf.compat.v1` builds them in TensorFlow 2 as TF1 does, so no TF1 is needed to reproduce the failures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from oracle.frameworks import import_tensorflow


def save_loop(path: str) -> None:
    """A SavedModel of a recurrence, as `tf.while_loop` of TF1 builds it. Findings G001 and G002.

    Inputs: `source` [batch, 3], `steps` []. Output: `state` [batch, 3].
    """
    with v1_session() as (v1, session):
        inputs, state = _build_loop(v1, use_resource=False)
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, path, inputs, {"state": state})


def save_again(source: str, path: str) -> None:
    """A TF1 SavedModel at `source`, loaded in TensorFlow 2 and saved to `path`. Finding G003."""
    tf = import_tensorflow()
    with v1_session() as (v1, session):
        inputs, state = _build_loop(v1, use_resource=True)
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, source, inputs, {"state": state})
    loaded = tf.saved_model.load(source)
    tf.saved_model.save(loaded, path, signatures=dict(loaded.signatures))


def freeze_loop(path: str) -> None:
    """The GraphDef of the recurrence, its variables frozen, an exit pruned. Findings G001 and G004."""
    with v1_session() as (v1, session):
        _, state = _build_loop(v1, use_resource=False)
        session.run(v1.global_variables_initializer())
        graph_def = v1.graph_util.convert_variables_to_constants(
            session, v1.get_default_graph().as_graph_def(), [state.op.name]
        )
    with open(path, "wb") as file:
        file.write(graph_def.SerializeToString())


def save_cond(path: str, *, use_resource: bool) -> None:
    """A SavedModel with `tf.cond` of TF1 and no loop. Finding G006 with a resource variable, else note G005.

    Inputs: `source` [batch, 3], `bent` []. Output: `result` [batch, 3].
    """
    tf = import_tensorflow()
    with v1_session() as (v1, session):
        source = v1.placeholder(tf.float32, [None, 3], "source")
        bent = v1.placeholder(tf.bool, [], "bent")
        kernel = v1.get_variable("kernel", [3, 3], use_resource=use_resource)
        result = v1.cond(bent, lambda: tf.tanh(source @ kernel), lambda: source * 2.0)
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, path, {"source": source, "bent": bent}, {"result": result})


def _build_loop(v1: Any, *, use_resource: bool) -> tuple[dict[str, Any], Any]:
    tf = import_tensorflow()
    source = v1.placeholder(tf.float32, [None, 3], "source")
    steps = v1.placeholder(tf.int32, [], "steps")
    kernel = v1.get_variable("kernel", [3, 3], use_resource=use_resource)
    bias = v1.get_variable("bias", [3], use_resource=use_resource)
    _, state = v1.while_loop(
        lambda step, state: step < steps,
        lambda step, state: (step + 1, tf.tanh(state @ kernel + bias)),
        [0, source],
    )
    return {"source": source, "steps": steps}, state


@contextlib.contextmanager
def v1_session(seed: int = 0) -> Iterator[tuple[Any, Any]]:
    """A graph and session in which loops and conds are TF1's."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    was_enabled = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(seed)
            yield v1, session
    finally:
        if was_enabled:
            v1.enable_control_flow_v2()


def save_signature(v1: Any, session: Any, path: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Save a session as a TF1 SavedModel with the signature `serving_default`."""
    signature = v1.saved_model.signature_def_utils.build_signature_def(
        {key: v1.saved_model.build_tensor_info(tensor) for key, tensor in inputs.items()},
        {key: v1.saved_model.build_tensor_info(tensor) for key, tensor in outputs.items()},
        "tensorflow/serving/predict",
    )
    builder = v1.saved_model.Builder(path)
    builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
    builder.save()
