"""A recognised recurrence in Flax: what it gives, and its vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.bridge.mapping_file import LAYOUTS
from oracle.frameworks import import_jax, precise_jax
from oracle.legacy_graph.recurrences import LSTMS, Cell, Recurrence
from oracle.tolerance import FLOAT32_RUNS

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Point:
    """A loop, and the numbers at which it is differentiated.

    Args:
        loop: the loop.
        leaves: of every cell, its parameters on the oracle's side.
        arrays: `inputs`, `initial/0` and so on; and the gradients of what the loop gives, `outputs` and
            `final/0` and so on.
        given: what the loop gave, by the same names as its gradients.
        lengths: the rows' lengths, or None.
    """

    loop: Recurrence
    leaves: tuple[Arrays, ...]
    arrays: Arrays
    given: Arrays
    lengths: np.ndarray | None

    @staticmethod
    def read(loop: Recurrence, values: Arrays, slopes: Mapping[str, np.ndarray | None]) -> Point:
        """A loop's point, from a graph's tensors and the gradients at them, by `seam/TENSOR`."""
        leaves = []
        for cell in loop.cells:
            held = {name: values[f"{node}:0"] for name, node in cell.variables.items()}
            leaves.append(_find_layout(cell).to_leaves(held))
        arrays = {"inputs": values[loop.inputs]}
        arrays.update({f"initial/{index}": values[name] for index, name in enumerate(loop.initial)})
        places = {f"final/{index}": name for index, name in enumerate(loop.final)}
        if loop.outputs is not None:
            places["outputs"] = loop.outputs
        given = {key: values[name] for key, name in places.items()}
        for key, name in places.items():
            slope = slopes[f"seam/{name}"]
            arrays[key] = np.zeros_like(given[key]) if slope is None else slope
        return Point(
            loop, tuple(leaves), arrays, given, None if loop.lengths is None else values[loop.lengths]
        )

    def find_misfit(self) -> str:
        """Why the cells cannot run on these arrays; empty if they can."""
        inputs = self.arrays["inputs"]
        dtypes = {array.dtype.name for part in (self.arrays, *self.leaves) for array in part.values()}
        if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
            return f"it computes in {' and '.join(sorted(dtypes))}, not in float32 or float64 alone"
        if inputs.ndim != 3:
            return f"its inputs have {inputs.ndim} axes, not three"
        width, sizes = inputs.shape[-1], []
        for cell in self.loop.cells:
            if cell.sizes["features"] != width:
                return f"{cell.scope} takes {cell.sizes['features']} features, and is given {width}"
            units = cell.sizes["units"]
            width = cell.sizes.get("num_proj") or units
            sizes += [units, width] if cell.layout in LSTMS else [units]
        expected = [(inputs.shape[1], size) for size in sizes]
        lengths = self.lengths
        if lengths is not None and (lengths.shape != inputs.shape[1:2] or lengths.dtype.kind != "i"):
            return "what it compares the time with is no length for each row"
        if [self.arrays[f"initial/{i}"].shape for i in range(len(sizes))] != expected:
            return "its states are not of its cells' sizes"
        return ""


def compute(point: Point) -> list[dict[str, np.ndarray]]:
    """What Flax gives: in float64, and, of a float32 loop, in some runs in float32.

    Each has `given/...`, what the loop gives, and its gradients: `seam/TENSOR`, `variable/NODE`.
    """
    jax = import_jax()
    if point.arrays["inputs"].dtype == np.float64:
        kinds = [("float64", 0)]
    else:
        kinds = [("float64", 0), *(("float32", number) for number in range(FLOAT32_RUNS))]
    with precise_jax():
        differentiate = jax.jit(_build(point))
        computed = []
        for dtype, number in kinds:
            leaves = tuple(_move(one, dtype, number) for one in point.leaves)
            arrays = _move(point.arrays, dtype, number)
            found = differentiate(leaves, arrays, point.lengths)
            computed.append(_name(point, jax.tree.map(np.asarray, found)))
    return computed


def _build(point: Point) -> Any:
    """A function of leaves, arrays and lengths: what the loop gives and its vector-Jacobian product."""
    jax = import_jax()
    from jax_models.rnn import dynamic_rnn
    from jax_models.tf1 import LSTMState, MultiRNNCell

    stack = MultiRNNCell([_build_cell(cell) for cell in point.loop.cells])

    def differentiate(leaves: Any, arrays: Any, lengths: Any) -> Any:
        def run(leaves: Any, inputs: Any, states: Any) -> Any:
            params = {f"cells_{index}": dict(one) for index, one in enumerate(leaves)}
            flat = iter(states)
            nested = tuple(
                LSTMState(next(flat), next(flat)) if cell.layout in LSTMS else next(flat)
                for cell in point.loop.cells
            )
            outputs, final = dynamic_rnn(
                stack.bind({"params": params}),
                inputs,
                sequence_length=lengths,
                initial_state=nested,
                time_major=True,
            )
            given = {f"final/{index}": state for index, state in enumerate(jax.tree.leaves(final))}
            return given | ({} if point.loop.outputs is None else {"outputs": outputs})

        states = [arrays[f"initial/{index}"] for index in range(len(point.loop.initial))]
        given, pull = jax.vjp(run, leaves, arrays["inputs"], states)
        return given, pull({key: arrays[key] for key in given})

    return differentiate


def _build_cell(cell: Cell) -> Any:
    from jax_models import tf1

    sizes = {name: size for name, size in cell.sizes.items() if name != "features"}
    if cell.forget_bias is not None:
        sizes["forget_bias"] = cell.forget_bias
    kinds = {
        "tf1_lstm": tf1.BasicLSTMCell,
        "tf1_lstm_cell": tf1.LSTMCell,
        "tf1_gru": tf1.GRUCell,
        "tf1_basic_rnn": tf1.BasicRNNCell,
    }
    return kinds[cell.layout](**sizes)


def _name(point: Point, computed: Any) -> dict[str, np.ndarray]:
    """What Flax gave, by the names of the graph's tensors."""
    given, (leaves, inputs, states) = computed
    named: dict[str, np.ndarray] = {f"given/{key}": array for key, array in given.items()}
    for tensor, array in zip((point.loop.inputs, *point.loop.initial), (inputs, *states), strict=True):
        if tensor in point.loop.alone:
            named[f"seam/{tensor}"] = array
    for cell, own in zip(point.loop.cells, leaves, strict=True):
        for name, array in _find_layout(cell).to_variables(own).items():
            place = f"variable/{cell.variables[name]}"
            named[place] = named.get(place, 0.0) + array
    return named


def _find_layout(cell: Cell) -> Any:
    return LAYOUTS[cell.layout](**cell.sizes)


def _move(arrays: Arrays, dtype: str, number: int) -> dict[str, np.ndarray]:
    """Arrays in a dtype, every float32 number moved to a neighbour; number 0 leaves them as they are."""
    rng = np.random.default_rng([number])
    moved = {}
    for name, array in sorted(arrays.items()):
        towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        neighbour = np.where(array == 0, array, np.nextafter(array, towards))
        moved[name] = (neighbour if number else array).astype(dtype)
    return moved
