"""The walk over live objects: from an object to its piece, with the attribute path for every message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jax_models.attention_wrapper import AttentionWrapper
from jax_models.cell_base import RNNCell
from oracle.bridge.mirror.containers import mirror_container
from oracle.bridge.mirror.originals import check_original
from oracle.bridge.mirror.pieces import Child, Piece, cell_call, default_state
from oracle.bridge.mirror.refusals import MirrorError, refuse
from oracle.bridge.mirror.registry import find_mirror, known_classes

CELLS = (RNNCell, AttentionWrapper)
"""The classes of the modules that can stand in a loop."""


@dataclass(frozen=True)
class Context:
    """Where in the model the object stands that is being mirrored.

    Args:
        path: its attribute path, for messages.
        ancestors: the identities of the objects around it.
    """

    path: str
    ancestors: frozenset[int] = frozenset()

    def mirror(self, obj: Any, attribute: str) -> Piece:
        """The piece of a part, which the object has as `attribute`.

        Raises:
            MirrorError: if the part, or something within it, cannot be mirrored.
        """
        path = f"{self.path}/{attribute}" if self.path else attribute
        if id(obj) in self.ancestors:
            refuse(path, "the object holds itself", "mirror its parts one by one")
        return mirror_object(obj, Context(path, self.ancestors | {id(obj)}))

    def child(self, obj: Any, attribute: str, *, leaves: str | None = None) -> Child:
        """The same as a `Child`, whose leaves lie under `leaves`, by default under the attribute's name."""
        return Child(self.mirror(obj, attribute), leaves or attribute.replace("/", "_"), attribute)

    def cell(self, obj: Any, attribute: str, *, leaves: str | None = None) -> Child:
        """As `child`, of a cell, which must be one that can stand in a loop.

        Raises:
            MirrorError: if it is no cell that can be mirrored.
        """
        child = self.child(obj, attribute, leaves=leaves)
        if child.piece.state is None or not isinstance(child.piece.module, CELLS):
            name = type(obj).__name__
            refuse(
                f"{self.path}/{attribute}",
                f"{name} is a cell of your own, and what a step of it computes is not known",
                f"say it in a function decorated with @oracle.mirrors({name})",
            )
        return child

    def variables(self, holder: Any, attributes: Mapping[str, str] | tuple[str, ...]) -> dict[str, Any]:
        """The variables that `holder` has under these attributes, by the names that a layout has for them.

        Raises:
            MirrorError: if one is missing, which means that the object was never called, or is no variable.
        """
        if not isinstance(attributes, Mapping):
            attributes = {name: name for name in attributes}
        found = {}
        for name, attribute in attributes.items():
            value: Any = holder
            for part in attribute.split("/"):
                value = getattr(value, part, None)
            if value is None:
                refuse(
                    self.path,
                    f"the {type(holder).__name__} has no variable {attribute!r} yet",
                    "call the model once on a batch before it is mirrored, so that it makes its weights",
                )
            if not is_variable(value):
                refuse(
                    self.path,
                    f"{attribute} of the {type(holder).__name__} is a {type(value).__name__}, not a variable",
                    "give it its own weights back, or register its class with @oracle.mirrors",
                )
            found[name] = value
        return found


def mirror_object(obj: Any, context: Context) -> Piece:
    """The piece of a live object.

    Raises:
        MirrorError: if it cannot be mirrored.
    """
    found = find_mirror(type(obj))
    if found is None:
        return mirror_container(obj, context)
    base, function, name = found
    check_original(obj, base, context.path, library=base in known_classes())
    _check_policy(obj, context.path)
    piece = function(obj, context)
    if not isinstance(piece, Piece):
        raise MirrorError(
            f"mirror: {context.path}: the function that mirrors {name} gave a {type(piece).__name__}; "
            "expected an oracle.Piece"
        )
    return complete(piece, name, _read_notes(obj, context.path))


def complete(piece: Piece, kind: str, notes: tuple[str, ...] = ()) -> Piece:
    """Fill in what a mirror function may leave out: the kind, and how a module is called by default."""
    if isinstance(piece.module, RNNCell) and piece.state is None:
        piece = replace(piece, state=default_state(piece.module))
    if piece.call is None and not piece.refusal:
        call = cell_call(piece.state) if piece.state is not None else _call_directly
        piece = replace(piece, call=call)
    return replace(piece, kind=piece.kind or kind, notes=piece.notes + notes)


def is_variable(value: Any) -> bool:
    """Whether this is a `tf.Variable`, of TF2 or of TF1."""
    return hasattr(value, "assign") and hasattr(value, "trainable") and hasattr(value, "shape")


def _call_directly(bound: Any, *args: Any, **kwargs: Any) -> Any:
    return bound(*args, **kwargs)


def _check_policy(obj: Any, path: str) -> None:
    compute, stored = getattr(obj, "compute_dtype", None), getattr(obj, "variable_dtype", None)
    if compute is not None and stored is not None and compute != stored:
        refuse(
            path,
            f"its weights are {stored} and it computes in {compute}",
            "mirror it with a policy of one dtype",
        )


def _read_notes(obj: Any, path: str) -> tuple[str, ...]:
    """A regulariser has no part in what a call returns, but it adds a term to `losses`."""
    return tuple(
        f"{path}: {name} adds a term to the port's `losses`, which is no part of what `apply` returns"
        for name in REGULARIZERS
        if getattr(obj, name, None) is not None
    )


REGULARIZERS = (
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "embeddings_regularizer",
)
