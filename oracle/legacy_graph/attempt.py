"""What an attempt at the gradient really does: the graph is loaded and run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oracle.case import check_seed
from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.batches import check_batch, draw_batch
from oracle.legacy_graph.codes import CODES, Code, match_error
from oracle.legacy_graph.connection import describe_break
from oracle.legacy_graph.diagnosis import Finding
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.original import Original
from oracle.legacy_graph.repair import prepare
from oracle.legacy_graph.repaired_model import build_model
from oracle.legacy_graph.selection import Selection
from oracle.legacy_graph.verification import differentiate_model
from oracle.legacy_graph.vjp import find_sources, import_graph


def attempt_gradient(
    path: str | os.PathLike[str],
    *,
    signature: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    batch: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> list[Finding]:
    """Differentiate a model as TensorFlow 2 loads it, and as it would be repaired. Runs the graph.

    Returns:
        What the first attempt raised, if it did; and of the gradients that a repair gives, those that are
        None, zero everywhere, or not finite.

    Raises:
        GraphError: if the model cannot be understood or no inputs are found.
    """
    check_seed(seed)
    prepared = prepare(path, signature=signature, trainable=None, inputs=inputs, outputs=outputs)
    selection, extract, backward = prepared.selection, prepared.extract, prepared.backward
    where = extract.where
    model = build_model(extract, backward, selection.outputs)
    with Original(selection, ()) as original:
        if batch is None:
            batch = draw_batch(model.input_specs, original.run, seed=seed, where=where)
        else:
            batch = check_batch(batch, model.input_specs, where=where)
        results = original.run(batch)
    findings = []
    error = _try_loaded(selection, batch)
    if error is not None:
        code = match_error(str(error)) or CODES["G011"]
        text = _shorten(str(error), code)
        place = f"{where}: the gradient in TensorFlow 2"
        remedy = f"oracle repair {where} DST" if code.code in ("G001", "G006") else code.remedy
        findings.append(Finding(code.code, place, f"{type(error).__name__}: {text}", remedy))
    rng = np.random.default_rng(seed + 1)
    weights = {
        key: np.asarray(rng.standard_normal(results[key].shape), results[key].dtype)
        for key in backward.upstream
    }
    _, gradients = differentiate_model(model, batch, weights)
    known = {variable.name for variable in extract.variables}
    for variable in selection.meta_graph.variables.values():
        if variable.is_trainable and variable.name not in known:
            place = f"{where}: variable {variable.name}"
            findings.append(Finding("G012", place, "no output depends on it", CODES["G012"].remedy))
    return findings + _judge(extract, gradients)


def _try_loaded(selection: Selection, batch: Mapping[str, np.ndarray]) -> Exception | None:
    """Differentiate what TensorFlow 2 loads. Returns what is raised."""
    tf = import_tensorflow()
    try:
        call = _load(tf, selection)
        tensors = {key: tf.constant(array) for key, array in batch.items()}
        watched = [tensor for tensor in tensors.values() if tensor.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            found = [output for output in call(tensors) if output.dtype.is_floating]
        tape.gradient(found, watched)
    except Exception as error:  # Whatever it is: it is the answer.
        return error
    return None


def _shorten(text: str, code: Code) -> str:
    """The part of a message that names its cause, in one line."""
    text = " ".join(text.split())
    found = [re.search(message, text) for message in code.messages]
    start = min((match.start() for match in found if match), default=0)
    return text[max(start - 40, 0) :][:300]


def _load(tf: Any, selection: Selection) -> Any:
    """The model as a function of a dict of tensors, as `tf.saved_model.load` or `wrap_function` gives it."""
    if selection.file.kind == "SavedModel" and selection.signature is not None:
        loaded = tf.saved_model.load(selection.file.path, tags=list(selection.meta_graph.tags))
        signature = loaded.signatures[selection.signature]

        def run(tensors: Mapping[str, Any]) -> list[Any]:
            assert loaded is not None  # A signature does not keep its model alive.
            return list(signature(**tensors).values())

        return run
    graph_def = tf.compat.v1.GraphDef.FromString(bytes(selection.meta_graph.graph))

    def build() -> None:
        import_graph(graph_def, where=selection.file.path)

    wrapped = tf.compat.v1.wrap_function(build, [])
    feeds = [wrapped.graph.get_tensor_by_name(port.tensor) for port in selection.inputs.values()]
    fetches = [wrapped.graph.get_tensor_by_name(port.tensor) for port in selection.outputs.values()]
    pruned = wrapped.prune(feeds, fetches)
    return lambda tensors: pruned(*(tensors[key] for key in selection.inputs))


def _judge(extract: Extract, gradients: Mapping[str, np.ndarray | None]) -> list[Finding]:
    tf = import_tensorflow()
    findings = []
    graph = tf.Graph()
    with graph.as_default():
        import_graph(extract.graph_def, where=extract.where)
    sources = find_sources(graph, extract)
    outputs = [graph.get_tensor_by_name(name) for name in extract.outputs.values()]
    for name, gradient in gradients.items():
        where = f"{extract.where}: {name.replace('/', ' ', 1)}"
        if gradient is None:
            what = describe_break(sources[name], outputs)
            findings.append(Finding("G012", where, what, CODES["G012"].remedy))
        elif not np.isfinite(gradient).all():
            count = int(np.sum(~np.isfinite(gradient)))
            what = f"{count} of {gradient.size} elements are not finite"
            findings.append(Finding("G014", where, what, CODES["G014"].remedy))
        elif gradient.size and not gradient.any():
            findings.append(
                Finding("G013", where, f"all {gradient.size} elements are 0", CODES["G013"].remedy)
            )
    return findings
