"""Where a reference has knobs: its calls of the mirror's parts, and the cells among its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from oracle.bridge.mirror.counterfactual.calls import (
    APPLY,
    LENGTHS,
    MASKS,
    OUTPUT,
    SETUP_MEMORY,
    is_float,
    is_state,
    map_arguments,
    map_arrays,
)
from oracle.bridge.mirror.counterfactual.reference import References, call_plainly, label_call
from oracle.bridge.mirror.mirrored import Mirror
from oracle.frameworks import precise_jax

INITIAL_STATE = "initial_state"

TURNED = (APPLY, SETUP_MEMORY, INITIAL_STATE, "dynamic_rnn")
"""The methods whose calls have knobs."""


@dataclass(frozen=True)
class Site:
    """A call of the reference that has knobs.

    Args:
        number: which of all such calls.
        part: the attribute path of the object.
        method: the method.
        count: which of the part's calls of the method.
        shapes: of each argument, by name.
        floats: the arguments that are floating-point numbers.
        kind: the class of the object.
        has_outputs: whether what it gives has floating-point numbers to hold the gradient back from.
        ends: for lengths, whether they may be other numbers without changing a shape.
    """

    number: int
    part: str
    method: str
    count: int
    shapes: Mapping[str, tuple[int, ...]]
    floats: frozenset[str]
    kind: str
    has_outputs: bool
    ends: Mapping[str, bool]

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the parts of the state that is passed, those that a caller decides."""
        return tuple(
            name
            for name in self.shapes
            if is_state(name) and name in self.floats and name.rpartition("/")[2] != "attention"
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The other floating-point arguments."""
        return tuple(name for name in self.shapes if name in self.floats and not is_state(name))

    @property
    def counted(self) -> tuple[str, ...]:
        """The masks and lengths that can be taken away."""
        masks = [name for name in self.shapes if name.split("/", maxsplit=1)[0] in MASKS]
        return (*masks, *(name for name, free in self.ends.items() if free))


@dataclass(frozen=True)
class CellSite:
    """A recurrent cell of Keras' layout: `kernel`, `recurrent_kernel` and maybe `bias`.

    Args:
        path: of its leaves.
        gates: 4 of an LSTM, 3 of a GRU, 1 of a simple cell.
        has_bias: whether it has one.
    """

    path: str
    gates: int
    has_bias: bool


def find_sites(references: References) -> tuple[Site, ...]:
    """The calls of a reference that have knobs, in order."""
    finder = _Finder(references)

    def run(params: Any, floats: Any) -> Any:
        finder.sites.clear()
        finder.counts.clear()
        return references.compute(params, floats, finder)[0]

    with precise_jax():
        try:
            jax.eval_shape(run, references.params, references.floats)
        except jax.errors.JAXTypeError:
            # A reference that looks at values cannot be traced.
            run(references.params, references.floats)
    return tuple(finder.sites)


def find_cells(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[CellSite]:
    """The cells among the leaves, by the names and shapes that Keras' have."""
    for leaf, shape in shapes.items():
        path, _, name = leaf.rpartition("/")
        if name != "recurrent_kernel" or len(shape) != 2 or shape[1] % shape[0]:
            continue
        gates, bias = shape[1] // shape[0], shapes.get(f"{path}/bias")
        kernel = shapes.get(f"{path}/kernel")
        known = gates in (1, 3, 4) and kernel is not None and kernel[-1] == shape[1]
        if known and (bias is None or bias[-1] == shape[1]):
            yield CellSite(path, gates, bias is not None)


def note_in(arrays: dict[str, Any]) -> Callable[[str, Any], Any]:
    """Notes arrays by name, and leaves them as they are."""

    def note(name: str, array: Any) -> Any:
        arrays[name] = array
        return array

    return note


class _Finder:
    """Notes the calls that have knobs."""

    def __init__(self, references: References) -> None:
        self._references = references
        self.sites: list[Site] = []
        self.counts: dict[tuple[str, str], int] = {}

    def __call__(self, mirror: Mirror, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call_plainly(mirror, method, args, kwargs)
        if method not in TURNED:
            return result
        part = self._references.name_part(mirror, method)
        count = self.counts.get((part, method), 0)
        self.counts[part, method] = count + 1
        options = {name: value for name, value in kwargs.items() if name != "params"}
        arrays: dict[str, Any] = {}
        map_arguments(label_call(mirror, method, args, options), args, options, note_in(arrays))
        if method == INITIAL_STATE:
            # The memory has its knobs where it is set up.
            arrays = {name: array for name, array in arrays.items() if is_state(name)}
        outputs: dict[str, Any] = {}
        if method not in (SETUP_MEMORY, INITIAL_STATE):
            map_arrays(result, OUTPUT, note_in(outputs))
        self.sites.append(
            Site(
                len(self.sites),
                part,
                method,
                count,
                {name: tuple(np.shape(array)) for name, array in arrays.items()},
                frozenset(name for name, array in arrays.items() if is_float(array)),
                mirror._piece.kind,
                any(is_float(array) for array in outputs.values()),
                {
                    name: _may_end(name, array, arrays, method)
                    for name, array in arrays.items()
                    if name in LENGTHS
                },
            )
        )
        return result


def _may_end(name: str, array: Any, arrays: Mapping[str, Any], method: str) -> bool:
    """Whether lengths may become the whole time without changing a shape.

    A decoder's outputs are as long as its longest row, so its lengths may only if one is the whole time.
    """
    inputs = arrays.get("input")
    if inputs is None or np.ndim(inputs) < 2:
        return False
    if name != "sequence_length" or method != APPLY:
        return True
    known = isinstance(array, np.ndarray)
    return known and int(np.max(array, initial=0)) == np.shape(inputs)[1]
