"""A repaired model's gradients held against the Flax oracle's, where its loops run over recognised cells.

Of every recognised loop the inputs, lengths and states that it begins with are computed by the graph, and so
is the gradient of what it gives. Flax computes the loop anew from them: what it gives must be the same, or
the cells are not what their names say and nothing is claimed; then the gradients of its variables, inputs
and first states must be. The tolerance is that of `oracle.tolerance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.errors import MissingPackageError
from oracle.frameworks import import_jax, import_tensorflow
from oracle.legacy_graph.contexts import LoopSettings
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.flax_recurrence import Arrays, Point, compute
from oracle.legacy_graph.recurrences import Recurrence, find_recurrences
from oracle.legacy_graph.vjp import build_backward, import_graph
from oracle.tolerance import (
    Tolerance,
    float32_tolerance,
    float64_tolerance,
    largest,
    root_mean_square,
)


@dataclass(frozen=True)
class FlaxVerification:
    """The figures of the comparison with Flax.

    Args:
        cells: what was rebuilt, as `TF1 GRUCell (encoder/rnn/gru_cell)`.
        differences: of every gradient, the largest difference and the largest element.
        others: of every other loop, why it was not rebuilt.
    """

    cells: tuple[str, ...]
    differences: Mapping[str, tuple[float, float]]
    others: tuple[str, ...]

    def describe(self) -> list[str]:
        """The figures, a line each."""
        lines = []
        if self.cells:
            worst = max((far / size for far, size in self.differences.values() if size), default=0.0)
            lines.append(
                f"flax: {len(self.cells)} cells ({', '.join(self.cells)}), {len(self.differences)} "
                f"gradients, largest relative difference {worst:.2g}"
            )
        return [*lines, *(f"flax: not asked about {other}" for other in self.others)]


def verify_by_flax(
    extract: Extract,
    settings: Mapping[str, LoopSettings],
    batch: Arrays,
    weights: Arrays,
    gradients: Mapping[str, np.ndarray | None],
    *,
    optimize: bool = True,
) -> FlaxVerification:
    """Hold a repaired model's gradients of sum(weight * output) against Flax's.

    Args:
        extract: the forward graph.
        settings: of its loops.
        batch: the inputs.
        weights: of every floating output.
        gradients: the repaired model's, by `input/KEY` and `variable/NAME`.
        optimize: whether TensorFlow's graph optimizer was on when they were computed.

    Raises:
        GraphError: G210 if a gradient differs beyond the tolerance.
    """
    known = find_recurrences(extract)
    others = [f"the loop {frame!r}: {reason}" for frame, reason in known.others.items()]
    if not known.found:
        return FlaxVerification((), {}, tuple(others))
    try:
        import_jax()
    except MissingPackageError as error:
        return FlaxVerification((), {}, (f"any loop: {error}",))
    values, slopes = _run(extract, settings, known.found, batch, weights, optimize)
    cells: list[str] = []
    passed: set[str | None] = set()
    truths: dict[str, np.ndarray] = {}
    runs: dict[str, list[np.ndarray]] = {}
    found = {
        f"variable/{one.placeholder}": gradients.get(f"variable/{one.name}") for one in extract.variables
    }
    for loop in known.found:
        point = Point.read(loop, values, slopes)
        reason, computed = point.find_misfit(), []
        if not reason:
            try:
                computed = compute(point)
            except (TypeError, ValueError) as error:
                reason = f"Flax does not take it ({' '.join(str(error).split())[:200]})"
        if computed and not _agrees(point, computed):
            reason = "the cells that its variables' names tell of give other outputs"
        if reason:
            others.append(f"the loop {loop.frame!r}: {reason}")
            continue
        cells += [f"{cell.kind} ({cell.scope})" for cell in loop.cells]
        passed.add(loop.frame)
        for name, truth in computed[0].items():
            if name.startswith("given/"):
                continue
            truths[name] = truths.get(name, 0.0) + truth
            own = [one[name] for one in computed[1:]]
            # Several loops may share a cell, and a variable's gradient is the sum of theirs.
            earlier = runs.get(name, [np.zeros_like(array) for array in own])
            runs[name] = [array + other for array, other in zip(own, earlier, strict=True)]
            if name.startswith("seam/"):
                found[name] = slopes.get(name)
    differences = {}
    for name, truth in truths.items():
        if name not in found or not known.readers.get(name.partition("/")[2], passed) <= passed:
            continue
        array = found[name]
        array = np.zeros(truth.shape, np.float32) if array is None else array
        tolerance = _tolerate(truth, runs[name])
        far = largest(array - truth)
        if array.shape != truth.shape or not tolerance.passes(far, root_mean_square(array - truth)):
            place = name.partition("/")[2]
            raise GraphError(
                "G210",
                f"{extract.where}: the gradient of {place!r} differs from that of the same cells in Flax by "
                f"{far:.3g}, of {largest(truth):.3g}; nothing was written",
            )
        differences[name] = (far, largest(truth))
    if cells and not differences:
        return FlaxVerification((), {}, (*others, "the rest: no gradient is theirs alone"))
    return FlaxVerification(tuple(cells), differences, tuple(others))


def _run(
    extract: Extract,
    settings: Mapping[str, LoopSettings],
    loops: tuple[Recurrence, ...],
    batch: Arrays,
    weights: Arrays,
    optimize: bool,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """The tensors of loops, and the gradients at them, from a graph of their own."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    seams = list(dict.fromkeys(name for loop in loops for name in loop.tensors))
    backward = build_backward(extract, settings=settings, seams=seams)
    nodes = [node for loop in loops for cell in loop.cells for node in cell.variables.values()]
    wanted = [*seams, *(f"{node}:0" for node in nodes)]
    wanted += [loop.lengths for loop in loops if loop.lengths is not None]
    gradients = {name: tensor for name, tensor in backward.gradients.items() if name.startswith("seam/")}
    graph = tf.Graph()
    with graph.as_default():
        import_graph(backward.graph_def, where=extract.where)
    feed: dict[str, Any] = {f"{name}:0": batch[key] for key, name in extract.inputs.items()}
    feed.update({f"{one.placeholder}:0": one.value for one in extract.variables})
    feed.update({f"{backward.upstream[key]}:0": weight for key, weight in weights.items()})
    known = {operation.name for operation in graph.get_operations()}
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
    with v1.Session(graph=graph, config=config) as session:
        values, slopes = session.run(
            ({name: name for name in wanted}, {name: t for name, t in gradients.items() if t is not None}),
            {place: array for place, array in feed.items() if place.partition(":")[0] in known},
        )
    return values, {name: slopes.get(name) for name in gradients}


def _agrees(point: Point, computed: list[dict[str, np.ndarray]]) -> bool:
    """Whether Flax gives what the loop gave."""
    for key, array in point.given.items():
        truth, *runs = [one[f"given/{key}"] for one in computed]
        far = array - truth
        if not _tolerate(truth, runs).passes(largest(far), root_mean_square(far)):
            return False
    return True


def _tolerate(truth: np.ndarray, runs: list[np.ndarray]) -> Tolerance:
    return float32_tolerance(truth, runs) if runs else float64_tolerance(truth)
