"""The repaired model: forward and backward graphs as functions, joined by `tf.custom_gradient`."""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oracle.errors import UsageError
from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.graph import parse_tensor
from oracle.legacy_graph.model_file import Port
from oracle.legacy_graph.vjp import Backward, import_graph, strip_graph

SECOND_ORDER = (
    "this model was repaired from TF1 loops and has first derivatives only: do not differentiate its gradient"
)


def build_model(extract: Extract, backward: Backward, outputs: Mapping[str, Port]) -> Any:
    """A `tf.Module` that is called with tensors and differentiated as any other.

    Its `__call__` takes the inputs by name, or in one dict, and gives a dict of outputs. Its variables are
    ordinary `tf.Variable`s: `variables`, `trainable_variables`, and by name in `variables_by_name`.
    """
    return _model_class()(extract, backward, outputs)


@functools.cache
def _model_class() -> Any:
    tf = import_tensorflow()

    class RepairedModel(tf.Module):
        """A TF1 graph that `tf.GradientTape` can differentiate."""

        def __init__(self, extract: Extract, backward: Backward, outputs: Mapping[str, Port]) -> None:
            super().__init__(name="repaired_model")
            self.input_specs = _specify_inputs(tf, extract)
            self.output_names = tuple(extract.outputs)
            with tf.init_scope():
                self.variables_by_name = {
                    variable.name: tf.Variable(
                        variable.value, trainable=variable.is_trainable, name=variable.name
                    )
                    for variable in extract.variables
                }
            self._call = _join(tf, extract, backward, self.input_specs, outputs)

        @tf.autograph.experimental.do_not_convert
        def __call__(self, inputs: Mapping[str, Any] | None = None, /, **named: Any) -> dict[str, Any]:
            given = {**(inputs or {}), **named}
            if given.keys() != self.input_specs.keys():
                raise UsageError(
                    f"the model takes the inputs {', '.join(self.input_specs)}; given were "
                    f"{', '.join(given) or 'none'}"
                )
            tensors = [tf.convert_to_tensor(given[key], spec.dtype) for key, spec in self.input_specs.items()]
            values = [variable.read_value() for variable in self.variables_by_name.values()]
            results = self._call(*tensors, *values)
            return dict(zip(self.output_names, results, strict=True))

    return RepairedModel


def save_model(model: Any, path: str) -> None:
    """Write a repaired model as a TF2 SavedModel that needs nothing of this project to load.

    What is loaded has `variables`, `trainable_variables`, `variables_by_name`, a signature
    `serving_default`, and is itself called with one dict of inputs. An input whose key is no identifier,
    as `scope/source`, has one made of it in the signature, `scope_source`.
    """
    tf = import_tensorflow()
    arguments = name_arguments(model.input_specs)
    specs = {
        key: tf.TensorSpec(spec.shape, spec.dtype, arguments[key]) for key, spec in model.input_specs.items()
    }
    call = tf.function(model.__call__, autograph=False)
    root = tf.train.Checkpoint()
    root.variables = list(model.variables_by_name.values())
    root.trainable_variables = list(model.trainable_variables)
    root.variables_by_name = dict(model.variables_by_name)
    call.get_concrete_function(specs)
    root.__call__ = call

    def serve(**tensors: Any) -> Any:
        return call({key: tensors[argument] for key, argument in arguments.items()})

    flat = {arguments[key]: spec for key, spec in specs.items()}
    concrete = tf.function(serve, autograph=False).get_concrete_function(**flat)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(root, path, signatures={"serving_default": concrete}, options=options)


def name_arguments(keys: Iterable[str]) -> dict[str, str]:
    """For every key an identifier of its own, the key itself where it is one."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys, key=lambda key: not _is_argument(key)):
        name = re.sub(r"\W", "_", key, flags=re.ASCII).lstrip("_")
        base = name = key if _is_argument(key) else name if _is_argument(name) else f"input_{name}"
        number = 0
        # TensorFlow tells names of upper and of lower case apart in places only.
        while name.lower() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.lower())
        names[key] = name
    return {key: names[key] for key in keys}


def _is_argument(key: str) -> bool:
    is_name = re.fullmatch(r"[A-Za-z]\w*", key, flags=re.ASCII) is not None
    return is_name and not keyword.iskeyword(key) and key != "self"


def _specify_inputs(tf: Any, extract: Extract) -> dict[str, Any]:
    nodes = {node.name: node for node in extract.graph_def.node}
    specs = {}
    for key, name in extract.inputs.items():
        node = nodes[name]
        shape = tf.TensorShape(node.attr["shape"].shape) if "shape" in node.attr else tf.TensorShape(None)
        specs[key] = tf.TensorSpec(shape, tf.as_dtype(node.attr["dtype"].type), key)
    return specs


def _join(
    tf: Any, extract: Extract, backward: Backward, inputs: Mapping[str, Any], outputs: Mapping[str, Port]
) -> Any:
    """The function of inputs and variables' values whose gradient is the backward graph."""
    names = [*extract.inputs.values(), *(variable.placeholder for variable in extract.variables)]
    specs = [*inputs.values()]
    specs += [tf.TensorSpec(variable.value.shape, variable.value.dtype) for variable in extract.variables]
    sources = [f"input/{key}" for key in extract.inputs]
    sources += [f"variable/{variable.name}" for variable in extract.variables]
    tensors = list(extract.outputs.values())
    shapes = [outputs[key].shape for key in extract.outputs]
    forward = _make_function(tf, extract.graph_def, names, specs, tensors, shapes, where=extract.where)
    found = [backward.gradients.get(source) for source in sources]
    wanted = [tensor for tensor in found if tensor is not None]
    upstream = [key in backward.upstream for key in extract.outputs]
    upstream_specs = [
        tf.TensorSpec(None, output.dtype)
        for output, used in zip(forward.outputs, upstream, strict=True)
        if used
    ]
    back = _make_function(
        tf,
        backward.graph_def,
        [*names, *(backward.upstream[key] for key in extract.outputs if key in backward.upstream)],
        [*specs, *upstream_specs],
        wanted,
        [specs[index].shape for index, tensor in enumerate(found) if tensor is not None],
        where=extract.where,
    )

    @tf.custom_gradient
    def call(*arguments: Any) -> Any:
        def differentiate(*weights: Any) -> list[Any]:
            used = [weight for weight, is_used in zip(weights, upstream, strict=True) if is_used]
            # Unwatched, lest a tape try to differentiate the backward function itself.
            watched = [*arguments, *used]
            gradients = iter(_refuse_second(tf, back(*map(tf.stop_gradient, watched)), watched))
            return [None if tensor is None else next(gradients) for tensor in found]

        # Unwatched, lest a tape try to differentiate the forward function itself.
        return tuple(forward(*map(tf.stop_gradient, arguments))), differentiate

    return call


def _refuse_second(tf: Any, gradients: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
    """Let the gradients of gradients fail when they are computed, instead of being zero.

    They must not fail when they are built: TensorFlow builds them wherever two tapes watch a loaded
    function, though nobody asks for their results. So a zero that depends on the sources is added, whose
    derivative overflows before it passes a CheckNumerics; the derivative of what is not asked for is 0 and
    passes.
    """
    firsts = [
        tf.cast(tf.reshape(source, [-1])[:1], tf.float32) for source in sources if source.dtype.is_floating
    ]
    zero = tf.add_n([tf.reduce_sum(tf.where(False, first, 0.0)) for first in firsts])
    refused = []
    for gradient in gradients:
        dtype = gradient.dtype
        trap = tf.raw_ops.CheckNumerics(
            tensor=tf.fill(tf.shape(gradient), tf.cast(zero, dtype)), message=SECOND_ORDER
        )
        # Two factors with a function between them: the graph optimizer would make one infinite factor of two.
        refused.append(tf.stop_gradient(gradient) + tf.tanh(trap * (dtype.max / 2)) * (dtype.max / 2))
    return refused


def _make_function(
    tf: Any,
    graph_def: Any,
    names: Sequence[str],
    specs: Sequence[Any],
    results: Sequence[str],
    shapes: Sequence[Any],
    *,
    where: str,
) -> Any:
    """A function that runs a graph. Nothing is added to it: in TF1 loops, added control edges do harm."""
    stripped = strip_graph(graph_def, results)
    read = {
        parse_tensor(text)[0] for node in stripped.node for text in node.input if not text.startswith("^")
    }
    kept = [node for node in stripped.node if node.name not in names]
    del stripped.node[:]
    stripped.node.extend(kept)
    _drop_controls(stripped, set(names))

    def run(*tensors: Any) -> list[Any]:
        given = dict(zip(names, tensors, strict=True))
        inside = [name for name in results if parse_tensor(name)[0] not in given]
        feeds = {f"{name}:0": tensor for name, tensor in given.items() if name in read}
        elements = import_graph(
            stripped, where=where, prefix="model", input_map=feeds, return_elements=inside
        )
        found = dict(zip(inside, elements or (), strict=True))
        outputs = []
        for name, shape in zip(results, shapes, strict=True):
            output = found[name] if name in found else tf.identity(given[parse_tensor(name)[0]])
            if shape is not None:
                output.set_shape(shape)
            outputs.append(output)
        return outputs

    return tf.compat.v1.wrap_function(run, list(specs))


def _drop_controls(graph_def: Any, names: set[str]) -> None:
    """A node need not wait for an argument, which is there from the beginning."""
    for node in graph_def.node:
        kept = [text for text in node.input if not (text.startswith("^") and text[1:] in names)]
        if len(kept) < len(node.input):
            del node.input[:]
            node.input.extend(kept)
