"""The spec of a mirrored model: what its live objects are, by attribute path, with no framework in it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from oracle.errors import SpecError

Scalar = None | bool | int | float | str

Option = Scalar | list[Scalar]
"""One option of an object's real configuration: a number, a name, or a list of them."""


class MirroredPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One live object.

    Args:
        kind: the public name of its class, `keras.layers.LSTM`; the class's own name if it is a user's.
        options: its real configuration, read from the object as it is.
        leaves: the shapes of the weights that it holds itself.
        parts: the objects within it, by the name under which their leaves lie.
        attributes: for each part whose attribute is called otherwise, the attribute: `layers/0`.
    """

    kind: str
    options: dict[str, Option] = {}
    leaves: dict[str, tuple[int, ...]] = {}
    parts: dict[str, MirroredPart] = {}
    attributes: dict[str, str] = {}

    def walk_leaves(self, path: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every leaf's path and shape, tied ones at every place where they are used."""
        for name, shape in self.leaves.items():
            yield path + name, shape
        for name, part in self.parts.items():
            yield from part.walk_leaves(f"{path}{name}/")


class MirrorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mirror", tag_field="type"):
    """A mirrored model. It compares by value, and is written and read strictly.

    Args:
        root: the mirrored object, or the named objects side by side.
        ties: for each leaf that is another leaf in a second place, the path of that other.
        transposed: those of the tied leaves that are the other one transposed.
        frozen: the leaves that the port does not train, and which therefore have no gradient there.
    """

    root: MirroredPart
    ties: dict[str, str] = {}
    transposed: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes = dict(self.root.walk_leaves())
        for leaf, first in self.ties.items():
            if leaf not in shapes or first not in shapes or first in self.ties:
                raise SpecError(f"spec: the leaf {leaf!r} is tied to {first!r}, but one of them is no leaf")
        if unknown := sorted({*self.transposed, *self.frozen} - shapes.keys()):
            raise SpecError(f"spec: {', '.join(unknown)} is no leaf; there are {', '.join(shapes)}")

    def __hash__(self) -> int:
        # A frozen struct hashes its fields, and dictionaries have no hash.
        return hash(msgspec.json.encode(self, order="deterministic"))

    def describe(self) -> str:
        """Say in one line what was mirrored."""
        parts = [f"{name} ({part.kind})" for name, part in self.root.parts.items()]
        leaves = f"{len(self.leaf_shapes())} leaves"
        return f"mirror of {', '.join(parts) or self.root.kind}, {leaves}"

    def leaf_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the leaves by path, a tied one once."""
        return {leaf: shape for leaf, shape in self.root.walk_leaves() if leaf not in self.ties}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the leaves that the port trains, by path."""
        return {leaf: shape for leaf, shape in self.leaf_shapes().items() if leaf not in self.frozen}
