"""Live TensorFlow objects to spec, Flax module and weights: `oracle.mirror`, `oracle.mirrors`.

A mirror function per class (the modules of this package) reads an object's real configuration and gives a
`Piece`; `Mirror` is the tree of pieces with the weights. Importing this package imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oracle.bridge.mirror.refusals import MirrorError
from oracle.bridge.mirror.registry import mirrors
from oracle.bridge.mirror.spec import MirrorSpec

if TYPE_CHECKING:
    from oracle.bridge.mirror.mirrored import Mirror

__all__ = ["MirrorError", "MirrorSpec", "mirror", "mirrors"]


def mirror(obj: Any = None, /, *, session: Any = None, **parts: Any) -> Mirror:
    """Mirror live TensorFlow objects: read their configuration and weights, and give the Flax counterpart.

        mirror = oracle.mirror(encoder=my_keras_lstm, decoder=my_tfa_basic_decoder)
        mirror.spec, mirror.module, mirror.params
        outputs, h, c = mirror.encoder.apply(source)

    Args:
        obj: a Keras layer, cell, model or loss, an object of tfa.seq2seq or tfa.rnn, a cell of
            `tf.compat.v1`, or an object of your own that has such objects as attributes.
        session: for the variables of a TF1 graph, the session that has their values.
        parts: several objects by name, instead of one. What they share stays shared.

    Raises:
        MissingPackageError: if TensorFlow or JAX is not installed, or TensorFlow's Keras is Keras 3.
        MirrorError: if an object, an option of one or an overridden method has no counterpart, or the
            weights were not made yet.
    """
    from oracle.frameworks import import_jax, import_tensorflow

    tensorflow = import_tensorflow()
    import_jax()
    _check_keras(tensorflow)
    from oracle.bridge.mirror.context import Context, mirror_object
    from oracle.bridge.mirror.coverage import check_coverage
    from oracle.bridge.mirror.mirrored import Mirror

    if (obj is None) == (not parts):
        raise MirrorError("mirror: give one object, or several by name (`encoder=..., decoder=...`)")
    read: Callable[[Any], Any] = _read_eagerly if session is None else session.run
    subject = obj if obj is not None else Named(parts)
    path = type(obj).__name__ if obj is not None else ""
    piece = mirror_object(subject, Context(path, frozenset([id(subject)])))
    mirrored = Mirror(piece, read=read)
    check_coverage(mirrored, (obj,) if obj is not None else tuple(parts.values()))
    return mirrored


class Named:
    """Several objects side by side, each an attribute."""

    def __init__(self, parts: dict[str, Any]) -> None:
        vars(self).update(parts)


def _read_eagerly(variable: Any) -> Any:
    return variable.numpy()


def _check_keras(tensorflow: Any) -> None:
    from oracle.errors import MissingPackageError

    version = getattr(tensorflow.keras, "__version__", "2")
    if version.startswith("3"):
        raise MissingPackageError(
            f"mirror: tf.keras is Keras {version}, whose objects are built otherwise; install tf-keras of "
            "TensorFlow's version and set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported"
        )
