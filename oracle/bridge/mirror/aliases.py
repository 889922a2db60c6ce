"""Where each leaf of a mirrored model lives: its variables, and which leaves are one and the same.

Two leaves are tied if the same variables hold them: a layer that stands in two places, or a weight that
two layers share. The first place keeps the leaf, the others point to it, also if one of them reads it
transposed. Anything else that two leaves share is refused, since a gradient could not be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.bridge.layout import Block, Layout, Span
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.refusals import MirrorError


@dataclass(frozen=True)
class Homes:
    """Where the leaves of a model live.

    Args:
        layout: from the variables, by attribute path, to the leaves, a tied one once.
        variables: the live variables by attribute path.
        ties: for each leaf that is another one in a second place, that other.
        transposed: those of them that are the other one transposed.
        frozen: the leaves that the port does not train.
    """

    layout: Layout
    variables: Mapping[str, Any]
    ties: Mapping[str, str]
    transposed: frozenset[str]
    frozen: frozenset[str]

    def expand(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """The leaves with the tied ones at every place. Those that are there already are kept.

        Raises:
            MirrorError: if a leaf is missing, or there is one too many.
        """
        whole = dict(leaves)
        for leaf, first in self.ties.items():
            if leaf not in whole and first in whole:
                whole[leaf] = whole[first].T if leaf in self.transposed else whole[first]
        expected = {*self.layout.leaves, *self.ties}
        if missing := sorted(expected - whole.keys()):
            raise MirrorError(
                f"mirror: params have no leaf {', '.join(missing)}; give all of `mirror.params`, and to a "
                "part whose leaves are tied to another's that part of `mirror.expand(params)`"
            )
        if extra := sorted(whole.keys() - expected):
            raise MirrorError(f"mirror: params have a leaf {', '.join(extra)}, which the model does not")
        return whole


def find_homes(piece: Piece) -> Homes:
    """Where the leaves of a piece and of all within it live.

    Raises:
        MirrorError: if two leaves share a part of a variable, or the weights are of several dtypes.
    """
    names: dict[int, str] = {}
    variables: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    blocks: list[Block] = []
    places: dict[tuple, str] = {}
    ties: dict[str, str] = {}
    transposed: set[str] = set()
    leaves: dict[str, tuple[int, ...]] = {}
    for path, attributes, part in piece.walk():
        layout = part.own_layout()
        for name, variable in part.variables.items():
            key = variable_key(variable)
            if key not in names:
                names[key] = attributes + name
                variables[attributes + name], shapes[attributes + name] = variable, layout.variables[name]
        for leaf, shape in layout.leaves.items():
            own = [
                Block(
                    path + leaf,
                    block.leaf_spans,
                    names[variable_key(part.variables[block.variable])],
                    block.variable_spans,
                    block.shift,
                    block.transposed,
                )
                for block in layout.blocks
                if block.leaf == leaf
            ]
            place = _place(own)
            turned = _place([_turn(block) for block in own])
            if place in places:
                ties[path + leaf] = places[place]
            elif turned in places:
                ties[path + leaf] = places[turned]
                transposed.add(path + leaf)
            else:
                places[place] = path + leaf
                for block in own:
                    _check_free(blocks, block)
                blocks += own
                leaves[path + leaf] = shape
    frozen = {
        leaf
        for leaf in leaves
        if not any(variables[block.variable].trainable for block in blocks if block.leaf == leaf)
    }
    joined = Layout(leaves, shapes, tuple(blocks))
    return Homes(joined, variables, ties, frozenset(transposed), frozenset(frozen))


def variable_key(variable: Any) -> int:
    """What tells one variable from another: Keras may wrap one in several objects."""
    for attribute in ("_variable", "_inner"):
        inner = getattr(variable, attribute, None)
        # A variable of a TF1 graph keeps its operation's output under this name.
        if inner is not None and hasattr(inner, "assign"):
            variable = inner
    return id(variable)


def _place(blocks: list[Block]) -> tuple:
    """What tells where a leaf lies: its blocks but for its own name."""
    parts = [(b.leaf_spans, b.variable, b.variable_spans, b.shift, b.transposed) for b in blocks]
    return tuple(sorted(parts))


def _turn(block: Block) -> Block:
    return Block(
        block.leaf,
        block.leaf_spans[::-1],
        block.variable,
        block.variable_spans,
        block.shift,
        not block.transposed if len(block.leaf_spans) > 1 else block.transposed,
    )


def _check_free(taken: list[Block], block: Block) -> None:
    for other in taken:
        apart = other.variable != block.variable or other.leaf == block.leaf
        if not apart and all(map(_overlap, other.variable_spans, block.variable_spans)):
            raise MirrorError(
                f"mirror: {block.leaf} and {other.leaf} share a part of the variable {block.variable}, "
                "or read it in different layouts, so that their gradients cannot be told apart; register "
                "the class of one of them with @oracle.mirrors, on leaves of the variable's own layout"
            )


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def check_dtypes(values: Mapping[str, np.ndarray]) -> None:
    """Check that all weights have one dtype.

    Raises:
        MirrorError: otherwise, naming one variable of each.
    """
    examples: dict[str, str] = {}
    for name, value in values.items():
        if np.issubdtype(value.dtype, np.floating):
            examples.setdefault(str(value.dtype), name)
    if len(examples) > 1:
        found = ", ".join(f"{name} is {dtype}" for dtype, name in examples.items())
        raise MirrorError(
            f"mirror: the weights are of several dtypes ({found}); make the model under one "
            "`tf.keras.backend.set_floatx`, or give every layer one dtype"
        )
