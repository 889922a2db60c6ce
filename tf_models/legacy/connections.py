"""Graphs whose gradient is there in part only: None, zero, or not finite."""

from __future__ import annotations

from oracle.frameworks import import_tensorflow
from tf_models.legacy.loops import save_signature, v1_session


def save_broken_paths(path: str) -> None:
    """A SavedModel in which one variable is rounded, one stopped, one unused, one used. Finding G012.

    Input: `source` [batch, 3]. Output: `result` [batch, 3].
    """
    tf = import_tensorflow()
    with v1_session() as (v1, session):
        source = v1.placeholder(tf.float32, [None, 3], "source")
        rounded, stopped, unused, used = (
            v1.get_variable(name, [3], use_resource=True) for name in ("rounded", "stopped", "unused", "used")
        )
        whole = tf.cast(tf.cast(rounded * 9.0, tf.int32, name="to_integers"), tf.float32)
        held = tf.stop_gradient(tf.exp(stopped), name="held")
        del unused
        result = source * used + whole + held
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, path, {"source": source}, {"result": result})


def save_zero(path: str) -> None:
    """A SavedModel in which a clip is saturated for every input. Finding G013."""
    tf = import_tensorflow()
    with v1_session() as (v1, session):
        source = v1.placeholder(tf.float32, [None, 3], "source")
        bias = v1.get_variable("bias", initializer=tf.constant([50.0, 60.0, 70.0]), use_resource=True)
        scale = v1.get_variable("scale", [3], use_resource=True)
        result = tf.minimum(tf.tanh(source) + bias, 1.0) * scale
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, path, {"source": source}, {"result": result})


def save_infinite(path: str) -> None:
    """A SavedModel with a norm at zero, whose derivative is undefined. Finding G014."""
    tf = import_tensorflow()
    with v1_session() as (v1, session):
        source = v1.placeholder(tf.float32, [None, 3], "source")
        offset = v1.get_variable("offset", initializer=tf.zeros([3]), use_resource=True)
        result = source + tf.sqrt(tf.reduce_sum(offset * offset))
        session.run(v1.global_variables_initializer())
        save_signature(v1, session, path, {"source": source}, {"result": result})
