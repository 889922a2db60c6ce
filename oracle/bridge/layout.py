"""A layout: how the variables of one TensorFlow object hold the leaves of one oracle module.

A layout is data, a list of blocks. Each block says that one rectangle of a leaf *is* one rectangle of
a variable, perhaps transposed, perhaps shifted by a constant (Keras stores an LSTM's forget bias in
its bias; TF1 adds it at run time). The blocks tile every leaf and every variable exactly once, which
is checked when the layout is made. So each layout is a bijection by construction, and carries values
(with the shift) and gradients (without it) in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oracle.errors import BridgeError

Span = tuple[int, int]
"""A half-open range of indices along one axis."""


@dataclass(frozen=True)
class Block:
    """`variable[variable_spans] == leaf[leaf_spans] + shift`, the axes reversed if `transposed`."""

    leaf: str
    leaf_spans: tuple[Span, ...]
    variable: str
    variable_spans: tuple[Span, ...]
    shift: float = 0.0
    transposed: bool = False


@dataclass(frozen=True)
class Layout:
    """A bijection between named variables and named leaves. See the module's docstring.

    Raises:
        BridgeError: if the blocks do not tile every leaf and every variable exactly once.
    """

    leaves: Mapping[str, tuple[int, ...]]
    variables: Mapping[str, tuple[int, ...]]
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        for block in self.blocks:
            leaf_size = tuple(stop - start for start, stop in block.leaf_spans)
            size = tuple(stop - start for start, stop in block.variable_spans)
            if (leaf_size[::-1] if block.transposed else leaf_size) != size:
                raise BridgeError(f"layout: {block} joins rectangles of different shapes")
        _check_tiling("leaf", self.leaves, [(b.leaf, b.leaf_spans) for b in self.blocks])
        _check_tiling("variable", self.variables, [(b.variable, b.variable_spans) for b in self.blocks])

    def to_leaves(self, variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Carry the variables' values to the oracle. Shapes as in `self.variables`.

        Raises:
            BridgeError: on a missing, extra or misshapen variable, or on different dtypes in one leaf.
        """
        _check_shapes("variable", self.variables, variables)
        dtypes = {block.leaf: variables[block.variable].dtype for block in self.blocks}
        leaves = {name: np.empty(shape, dtypes[name]) for name, shape in self.leaves.items()}
        for block in self.blocks:
            values = variables[block.variable][_index(block.variable_spans)]
            if values.dtype != dtypes[block.leaf]:
                raise BridgeError(
                    f"layout: leaf {block.leaf!r} is held by variables of different dtypes, {values.dtype} "
                    f"({block.variable!r}) and {dtypes[block.leaf]}; give them all in one"
                )
            if block.shift:  # Adding zero would change -0.0, and a NaN that signals.
                values = values - values.dtype.type(block.shift)
            leaves[block.leaf][_index(block.leaf_spans)] = values.T if block.transposed else values
        return leaves

    def to_variables(self, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Carry the oracle's leaves to TensorFlow: the inverse of `to_leaves`.

        Raises:
            BridgeError: on a missing, extra or misshapen leaf.
        """
        _check_shapes("leaf", self.leaves, leaves)
        dtypes = {block.variable: leaves[block.leaf].dtype for block in self.blocks}
        variables = {name: np.empty(shape, dtypes[name]) for name, shape in self.variables.items()}
        for block in self.blocks:
            values = leaves[block.leaf][_index(block.leaf_spans)]
            if block.shift:
                values = values + values.dtype.type(block.shift)
            spans = _index(block.variable_spans)
            variables[block.variable][spans] = values.T if block.transposed else values
        return variables

    def gradients_to_leaves(self, gradients: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray | None]:
        """Carry the gradients of the variables to the leaves.

        A constant shift has no part in a gradient, and a permutation is its own adjoint's inverse, so
        this is `to_leaves` without the shifts. A leaf is None if any variable that holds a part of it
        has the gradient None.
        """
        held_by_none = {b.leaf for b in self.blocks if gradients[b.variable] is None}
        known = [gradient.dtype for gradient in gradients.values() if gradient is not None]
        filled = {
            name: np.zeros(self.variables[name], known[0] if known else float)
            if gradient is None
            else gradient
            for name, gradient in gradients.items()
        }
        unshifted = tuple(
            Block(b.leaf, b.leaf_spans, b.variable, b.variable_spans, 0.0, b.transposed) for b in self.blocks
        )
        carried = Layout(self.leaves, self.variables, unshifted).to_leaves(filled)
        return {name: None if name in held_by_none else leaf for name, leaf in carried.items()}


def whole(leaf: str, variable: str, shape: tuple[int, ...], *, transposed: bool = False) -> Block:
    """The block that joins a whole leaf of `shape` to a whole variable."""
    spans = tuple((0, size) for size in shape)
    return Block(leaf, spans, variable, spans[::-1] if transposed else spans, transposed=transposed)


def join(parts: Mapping[tuple[str, str], Layout]) -> Layout:
    """One layout of several objects, such as the cells of a stack.

    Args:
        parts: each one's layout by (the path of its leaves, the scope of its variables), as in
            `{("cells_0/cell", "cell_0/gru_cell"): tf1_gru(3, 5)}`; an empty string adds nothing.
    """
    leaves, variables, blocks = {}, {}, []
    for (path, scope), layout in parts.items():
        leaves |= {_under(path, name): shape for name, shape in layout.leaves.items()}
        variables |= {_under(scope, name): shape for name, shape in layout.variables.items()}
        blocks += [
            Block(
                _under(path, block.leaf),
                block.leaf_spans,
                _under(scope, block.variable),
                block.variable_spans,
                block.shift,
                block.transposed,
            )
            for block in layout.blocks
        ]
    return Layout(leaves, variables, tuple(blocks))


def _index(spans: tuple[Span, ...]) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in spans)


def _check_shapes(
    kind: str, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> None:
    if missing := expected.keys() - given.keys():
        raise BridgeError(f"layout: {kind} {sorted(missing)} not given; given: {sorted(given)}")
    if extra := given.keys() - expected.keys():
        raise BridgeError(f"layout: no place for {kind} {sorted(extra)}; places: {sorted(expected)}")
    for name, shape in expected.items():
        if np.shape(given[name]) != tuple(shape):
            raise BridgeError(
                f"layout: {kind} {name!r} has shape {list(np.shape(given[name]))}, expected {list(shape)}"
            )


def _check_tiling(
    kind: str,
    shapes: Mapping[str, tuple[int, ...]],
    pieces: list[tuple[str, tuple[Span, ...]]],
) -> None:
    """Every element of every array is covered exactly once."""
    for name, shape in shapes.items():
        covered = np.zeros(shape, np.int8)
        for _, spans in (piece for piece in pieces if piece[0] == name):
            inside = len(spans) == len(shape) and all(
                0 <= start < stop <= size for (start, stop), size in zip(spans, shape, strict=True)
            )
            if not inside:
                raise BridgeError(f"layout: {spans} lies outside {kind} {name!r} of shape {list(shape)}")
            covered[_index(spans)] += 1
        if not (covered == 1).all():
            raise BridgeError(f"layout: the blocks do not tile {kind} {name!r} exactly once")
    if unknown := {name for name, _ in pieces} - shapes.keys():
        raise BridgeError(f"layout: blocks name a {kind} without a shape: {sorted(unknown)}")


def _under(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
