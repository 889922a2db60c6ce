"""`Sequential` and functional Keras models: the graph of layers that Keras keeps, walked as Keras walks it.

The masks, which in Keras travel unseen with the tensors, are carried beside the values: each layer gets the
masks of its inputs, and says the mask of its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from oracle.bridge.mirror.containers import compose, name_leaf
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.mirrored import to_jax
from oracle.bridge.mirror.pieces import Call, Child, Piece
from oracle.bridge.mirror.refusals import MirrorError, refuse
from oracle.bridge.mirror.registry import known
from oracle.frameworks import import_tensorflow


@dataclass(frozen=True)
class Value:
    """What flows along an edge: an array and its mask."""

    array: Any
    mask: Any = None


@dataclass(frozen=True)
class Edge:
    """Where an argument of a layer comes from: the number of the tensor in the graph."""

    number: int


@dataclass(frozen=True)
class Step:
    """One call of a layer: which, with what, and the numbers of the tensors that it gives."""

    child: Child
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]


@known("keras.Sequential")
def mirror_sequential(model: Any, context: Context) -> Piece:
    """`tf.keras.Sequential`: each layer is given what the one before gave."""
    # A layer that stands twice is once in `layers`, but each time in the graph that Keras runs.
    order = [node.layer for node in _sort_nodes(model)] if model._graph_initialized else list(model.layers)
    layers = list({id(layer): layer for layer in order}.values())
    if {id(layer) for layer in layers} != {id(layer) for layer in model.layers}:
        refuse(
            context.path,
            f"the Sequential lists {', '.join(layer.name for layer in model.layers)} but runs "
            f"{', '.join(layer.name for layer in order)}",
            "make it anew with the layers that it is to have",
        )
    children = {
        id(layer): context.child(layer, name, leaves=name_leaf(name))
        for layer, name in zip(layers, name_layers(layers), strict=True)
    }
    steps = tuple(
        Step(children[id(layer)], (Edge(number),), {}, (number + 1,)) for number, layer in enumerate(order)
    )
    return _piece(tuple(children.values()), steps, [0], Edge(len(steps)))


def mirror_functional(model: Any, context: Context) -> Piece:
    """A functional `tf.keras.Model`: its nodes in the order in which Keras runs them."""
    nest = import_tensorflow().nest
    numbers: dict[int, int] = {}
    kept = []

    def number(tensor: Any) -> int:
        kept.append(tensor)
        return numbers.setdefault(id(tensor), len(numbers))

    def edges(structure: Any) -> Any:
        return nest.map_structure(
            lambda x: Edge(number(x)) if _is_symbolic(x) else _as_constant(x), structure
        )

    inputs = [number(tensor) for tensor in nest.flatten(model.inputs)]
    nodes = _sort_nodes(model)
    layers = list({id(node.layer): node.layer for node in nodes}.values())
    children = {
        id(layer): context.child(layer, name, leaves=name_leaf(name))
        for layer, name in zip(layers, name_layers(layers), strict=True)
    }
    steps = []
    for node in nodes:
        kwargs = {name: edges(value) for name, value in node.call_kwargs.items() if value is not None}
        steps.append(
            Step(
                children[id(node.layer)],
                tuple(edges(value) for value in node.call_args),
                kwargs,
                tuple(number(tensor) for tensor in nest.flatten(node.outputs)),
            )
        )
    outputs = nest.map_structure(lambda x: Edge(number(x)), model._nested_outputs)
    nested = model._nested_inputs
    names = sorted(nested) if isinstance(nested, Mapping) else list(model.input_names)
    return _piece(tuple(children.values()), tuple(steps), inputs, outputs, names=names)


def _sort_nodes(model: Any) -> list[Any]:
    """The calls of layers in a model's graph, in the order in which Keras runs them."""
    return [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
        if not node.is_input
    ]


def name_layers(layers: Sequence[Any]) -> list[str]:
    """The layers' names; those that Keras made up, counted within this model and not within the process."""
    given = [_made_up(layer) is None and layer.name for layer in layers]
    taken, names = {name for name in given if name}, []
    for layer, own in zip(layers, given, strict=True):
        stem = _made_up(layer)
        candidates = [stem, *(f"{stem}_{number}" for number in range(1, len(layers) + 1))]
        names.append(own or next(name for name in candidates if name not in taken))
        taken.add(names[-1])
    return names


def _made_up(layer: Any) -> str | None:
    """The stem of a name that Keras gave a layer: its class's in snake case, and perhaps a number."""
    words = re.sub(
        r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(layer).__name__)
    )
    stem = words.lower()
    return stem if re.fullmatch(rf"{re.escape(stem)}(_\d+)?", layer.name) else None


def _piece(
    children: tuple[Child, ...],
    steps: Sequence[Step],
    inputs: Sequence[int],
    outputs: Any,
    *,
    names: Sequence[str] = (),
) -> Piece:
    unknown = [step.child for step in steps if step.child.piece.call is None]
    run = _run_graph(steps, inputs, outputs, names)

    def call(bound: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return jax.tree.map(lambda v: v.array, run(bound, inputs, training, mask), is_leaf=_is_value)

    def mask(bound: Any, inputs: Any, mask: Any = None) -> Any:
        return jax.tree.map(lambda v: v.mask, run(bound, inputs, None, mask), is_leaf=_is_value)

    refusal = ""
    if unknown:
        first = unknown[0]
        refusal = f"its layer {first.leaves!r} cannot be called: {first.piece.refusal}"
    return Piece(
        compose(children, {}),
        children=children,
        options={"layers": [step.child.leaves for step in steps]},
        call=None if unknown else call,
        methods={} if unknown else {"compute_mask": mask},
        refusal=refusal,
        takes_mask=True,
        mask=mask,
    )


def _run_graph(steps: Sequence[Step], inputs: Sequence[int], outputs: Any, names: Sequence[str]) -> Any:
    def by_name(given: Any, what: str) -> Any:
        if not isinstance(given, Mapping):
            return given
        if set(given) != set(names):
            raise MirrorError(
                f"mirror: {what} are given by the names {', '.join(map(str, given))}, but the model's inputs "
                f"are {', '.join(names) or 'not named'}; give each of them by its name, or a list"
            )
        return [given[name] for name in names]

    def run(bound: Any, given: Any, training: bool | None, mask: Any) -> Any:
        arrays, mask = by_name(given, "arrays"), by_name(mask, "masks")
        arrays = list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]
        if len(arrays) != len(inputs):
            raise MirrorError(f"mirror: the model takes {len(inputs)} inputs, but was given {len(arrays)}")
        masks = list(mask) if isinstance(mask, (list, tuple)) else [mask] * len(arrays)
        values = {n: Value(a, m) for n, a, m in zip(inputs, arrays, masks, strict=True)}
        for step in steps:
            results = _take_step(step, bound, values, training)
            if len(results) != len(step.outputs):
                raise MirrorError(
                    f"mirror: {step.child.leaves} gave {len(results)} arrays, not {len(step.outputs)}"
                )
            values |= dict(zip(step.outputs, results, strict=True))
        return jax.tree.map(lambda edge: values[edge.number], outputs, is_leaf=_is_edge)

    return run


def _take_step(step: Step, bound: Any, values: Mapping[int, Value], training: bool | None) -> list[Value]:
    piece, module = step.child.piece, step.child.bind_from(bound)

    def look_up(structure: Any, what: str) -> Any:
        def read(x: Any) -> Any:
            if _is_edge(x):
                return getattr(values[x.number], what)
            # A constant of the model, which has no mask.
            return to_jax(x) if what == "array" else None

        return _map_edges(read, structure)

    args, kwargs = look_up(step.args, "array"), look_up(step.kwargs, "array")
    masks = look_up(step.args[0], "mask")
    if not _any_given(masks):
        masks = None
    if piece.takes_mask and "mask" not in kwargs and masks is not None:
        kwargs["mask"] = masks
    if training is not None and "training" not in kwargs and takes_training(piece.call):
        kwargs["training"] = training
    assert piece.call is not None
    arrays = _flatten(piece.call(module, *args, **kwargs))
    handed = None if piece.mask is None else piece.mask(module, args[0], kwargs.get("mask", masks))
    # Keras gives the only mask of a layer to its first output.
    handed = list(handed) if isinstance(handed, (list, tuple)) else [handed, *[None] * (len(arrays) - 1)]
    return [Value(array, mask) for array, mask in zip(arrays, handed, strict=True)]


def _flatten(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in _flatten(part)]
    return [result]


def _map_edges(function: Any, structure: Any) -> Any:
    if isinstance(structure, (list, tuple)):
        return type(structure)(_map_edges(function, part) for part in structure)
    if isinstance(structure, Mapping):
        return {name: _map_edges(function, part) for name, part in structure.items()}
    return function(structure)


def _any_given(masks: Any) -> bool:
    if isinstance(masks, (list, tuple)):
        return any(_any_given(mask) for mask in masks)
    return masks is not None


def takes_training(call: Call | None) -> bool:
    """Whether a piece's call has an argument `training`."""
    code = getattr(call, "__code__", None)
    return code is not None and "training" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _is_symbolic(value: Any) -> bool:
    # The class has no public name.
    return type(value).__module__.endswith(".engine.keras_tensor")


def _as_constant(value: Any) -> Any:
    """A tensor that the model was built with, such as a state of zeros, as an array."""
    return value.numpy() if hasattr(value, "numpy") else value


def _is_edge(value: Any) -> bool:
    return isinstance(value, Edge)


def _is_value(value: Any) -> bool:
    return isinstance(value, Value)
