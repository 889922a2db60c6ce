"""Whether a mirror holds every weight that the live objects train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from oracle.bridge.mirror.aliases import variable_key
from oracle.bridge.mirror.refusals import MirrorError

if TYPE_CHECKING:
    from oracle.bridge.mirror.mirrored import Mirror


def check_coverage(mirrored: Mirror, objects: Sequence[Any]) -> None:
    """Check that every trainable variable of the objects, as TensorFlow itself finds them, is mirrored.

    Raises:
        MirrorError: naming those that are not.
    """
    if lost := find_unheld(mirrored, (v for obj in objects for v in trainable_variables(obj))):
        raise MirrorError(
            f"mirror: the model trains {', '.join(lost)}, which no mirrored part holds; make it an attribute "
            "of the model, or of a part that is registered with @oracle.mirrors"
        )


def find_unheld(mirrored: Mirror, variables: Iterable[Any]) -> list[str]:
    """The names of those of the variables that the mirror does not hold."""
    held = {variable_key(variable) for variable in mirrored.tensors.values()}
    return [variable.name for variable in variables if variable_key(variable) not in held]


def trainable_variables(obj: Any) -> Sequence[Any]:
    """What an object of TensorFlow says that it trains; nothing for other objects."""
    try:
        return tuple(getattr(obj, "trainable_variables", None) or ())
    except (AttributeError, ValueError):
        return ()
