"""Asking the witness about a graph's gradients, in float64 where TensorFlow has the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.contexts import LoopSettings
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.precise import COARSE, make_precise
from oracle.legacy_graph.vjp import Backward, build_backward, import_graph
from oracle.legacy_graph.witness import Testimony, call_witness

PRECISION = 1e-3
"""How far, of a gradient's norm, float32 may be from float64. A wrong gradient is of the order of 1.

In a graph that computes in float16 or bfloat16 it is 50 times the distance from 1 to the next number.
"""


def hear_witness(
    extract: Extract,
    backward: Backward,
    settings: Mapping[str, LoopSettings],
    batch: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray | None],
    seed: int,
    *,
    has_reference: bool,
) -> tuple[str, tuple[Testimony, ...], dict[str, float]]:
    """Hold the gradients against directional differences, in float64 if there are kernels for it.

    Returns:
        What it computed in, what it says, and how far float32's gradients are from float64's.

    Raises:
        GraphError: G210 if it contradicts the gradients, or cannot tell.
    """
    tf = import_tensorflow()
    where = extract.where
    stops = _find_stops(extract)
    within = [name for name in stops if backward.control_flow.contexts[name] is not None]
    held = [name for name in stops if name not in within]
    try:
        precise = make_precise(extract)
        asked = _ask(precise, build_backward(precise, settings=settings), batch, weights, seed, held)
        dtype = "float64"
    except (GraphError, tf.errors.OpError, ValueError, TypeError):
        # Some operations have float32 kernels only.
        asked = _ask(extract, backward, batch, weights, seed, held)
        dtype = "float32"
    testimonies, exact = asked
    # What a loop stops cannot be held. It need not matter: that of a variance's mean changes nothing.
    if within and not all(one.agrees for one in testimonies):
        if has_reference:
            return "", (), {}
        raise GraphError(
            "G210",
            f"{where}: it stops gradients within a loop ({within[0]!r}), which directional differences "
            "cannot follow, and TF1 has no gradient of its own here; nothing was written",
        )
    for one in testimonies:
        # Where TF1's own gradient agrees, a contradiction is TensorFlow's: it is reported, not refused.
        if not one.agrees and not has_reference:
            what = "cannot tell" if not one.is_telling else "contradicts the gradient"
            raise GraphError(
                "G210",
                f"{where}: the witness {what} along {one.name!r}: {one.gradient:.6g} by the gradient and "
                f"{one.difference:.6g} +- {one.error:.2g} by differences; nothing was written"
                + ("; try other inputs with --inputs" if not one.is_telling else ""),
            )
    rounding = {}
    limit = max(PRECISION, 50 * _find_epsilon(tf, extract))
    if dtype == "float64":
        largest = max((float(np.linalg.norm(array)) for array in exact.values()), default=0.0)
        for name, array in exact.items():
            found = gradients[name]
            assert found is not None
            distance = float(np.linalg.norm(np.asarray(found, float) - array))
            norm = max(float(np.linalg.norm(array)), 1e-6 * largest)
            rounding[name] = distance / norm if norm else 0.0
            if not rounding[name] <= limit:
                raise GraphError(
                    "G210",
                    f"{where}: the gradient of {name!r} in {found.dtype} is {rounding[name]:.3g} of its "
                    "norm from that "
                    "in float64, which is more than rounding; nothing was written",
                )
    return dtype, testimonies, rounding


def epsilon(dtype: np.dtype) -> float:
    """The distance from 1 to the next number."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def _find_epsilon(tf: Any, extract: Extract) -> float:
    """That of the coarsest dtype that a graph computes in."""
    kinds = {value.type for node in extract.graph_def.node for value in node.attr.values()}
    return max((epsilon(np.dtype(tf.as_dtype(kind).as_numpy_dtype)) for kind in kinds & COARSE), default=0.0)


def _find_stops(extract: Extract) -> list[str]:
    return [node.name for node in extract.graph_def.node if node.op in ("StopGradient", "PreventGradient")]


def _ask(
    extract: Extract,
    backward: Backward,
    batch: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    seed: int,
    held: list[str],
) -> tuple[tuple[Testimony, ...], dict[str, np.ndarray]]:
    """Run forward and backward graphs in plain sessions, and call the witness."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    graph, back = tf.Graph(), tf.Graph()
    with graph.as_default():
        import_graph(extract.graph_def, where=extract.where)
    with back.as_default():
        import_graph(backward.graph_def, where=extract.where)
    values: dict[str, np.ndarray] = {f"input/{key}": array for key, array in batch.items()}
    values.update({f"variable/{variable.name}": variable.value for variable in extract.variables})
    places = {f"input/{key}": f"{name}:0" for key, name in extract.inputs.items()}
    places.update({f"variable/{one.name}": f"{one.placeholder}:0" for one in extract.variables})
    kinds = {name: graph.get_tensor_by_name(place).dtype for name, place in places.items()}
    values = {name: np.asarray(array, kinds[name].as_numpy_dtype) for name, array in values.items()}
    fetches = {key: extract.outputs[key] for key in weights}
    with v1.Session(graph=graph) as session, v1.Session(graph=back) as second:
        # What a gradient is stopped at counts as constant.
        stops = [f"{name}:0" for name in held]
        constant = {places[name]: array for name, array in values.items()}
        constant = dict(zip(stops, session.run(stops, constant), strict=True)) if stops else {}

        def objective(sources: Mapping[str, np.ndarray]) -> float:
            feed = {places[name]: sources.get(name, array) for name, array in values.items()}
            feed.update(constant)
            found = session.run(fetches, feed)
            return float(sum(np.sum(np.asarray(found[key], float) * weights[key]) for key in weights))

        known = {operation.name for operation in back.get_operations()}
        feed = {place: values[name] for name, place in places.items() if place.partition(":")[0] in known}
        feed.update(
            {
                f"{backward.upstream[key]}:0": weights[key]
                for key in weights
                if backward.upstream[key] in known
            }
        )
        wanted = {name: tensor for name, tensor in backward.gradients.items() if tensor is not None}
        exact = second.run(wanted, feed)
        point = {name: array for name, array in values.items() if kinds[name].is_floating}
        return call_witness(objective, point, exact, seed=seed), exact
