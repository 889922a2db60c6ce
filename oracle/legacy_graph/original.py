"""The model as it was saved, run as TF1 would: the standard that a repair is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import clear_placement
from oracle.legacy_graph.model_file import FLOATING
from oracle.legacy_graph.selection import Selection
from oracle.legacy_graph.vjp import v1_control_flow

TIMEOUT = 60_000
"""Milliseconds that one run may take."""


class Original:
    """A session with the original graph and its values. Use it as a context manager.

    Args:
        selection: the signature.
        variables: the names of the variables that gradients are wanted of.

        optimize: whether TensorFlow's graph optimizer may rewrite it, as it does by default.

    Raises:
        GraphError: if TensorFlow cannot load it.
    """

    def __init__(self, selection: Selection, variables: tuple[str, ...], *, optimize: bool = True) -> None:
        self._tf = tf = import_tensorflow()
        self._graph = tf.Graph()
        self._selection = selection
        self._names = variables
        self._weights: dict[str, Any] = {}
        self._gradients: dict[str, Any] = {}
        with self._graph.as_default():
            config = tf.compat.v1.ConfigProto()
            config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
            self._session = tf.compat.v1.Session(graph=self._graph, config=config)
            try:
                self._load()
            except Exception as error:
                self._session.close()
                text = " ".join(str(error).split())[:300]
                raise GraphError(
                    "G202", f"{selection.file.path}: TensorFlow cannot load it: {text}"
                ) from error
            self._inputs = {key: self._find(port.tensor) for key, port in selection.inputs.items()}
            self._outputs = {key: self._find(port.tensor) for key, port in selection.outputs.items()}

    def __enter__(self) -> Original:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs, by key."""
        return self._run(self._outputs, self._feed(batch))

    def differentiate(
        self, batch: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray | None]:
        """The gradients of sum(weight * output), by `input/KEY` and `variable/NAME`, from TensorFlow's own
        contexts, which the MetaGraph's collections keep.

        Raises:
            GraphError: G201 if TensorFlow cannot, as where a collection knows some of the loops only.
        """
        if not self._gradients:
            try:
                self._build_gradients()
            except (AttributeError, LookupError, TypeError, ValueError, AssertionError) as error:
                text = " ".join(str(error).split())[:200]
                raise GraphError("G201", f"it raises {type(error).__name__}: {text}") from error
        feed = self._feed(batch)
        feed.update({self._weights[key]: weight for key, weight in weights.items()})
        known = {key: tensor for key, tensor in self._gradients.items() if tensor is not None}
        found = self._run(known, feed)
        return {key: found.get(key) for key in self._gradients}

    def _build_gradients(self) -> None:
        tf, v1 = self._tf, self._tf.compat.v1
        with self._graph.as_default(), v1_control_flow():
            sources = {
                f"input/{key}": tensor
                for key, tensor in self._inputs.items()
                if tensor.dtype.base_dtype.as_datatype_enum in FLOATING
            }
            known = {variable.op.name: variable for variable in v1.global_variables() + v1.local_variables()}
            sources.update({f"variable/{name}": known[name] for name in self._names if name in known})
            outputs = {
                key: tensor
                for key, tensor in self._outputs.items()
                if tensor.dtype.as_datatype_enum in FLOATING
            }
            self._weights = {key: v1.placeholder(tensor.dtype, None) for key, tensor in outputs.items()}
            gradients = tf.gradients(
                list(outputs.values()), list(sources.values()), grad_ys=list(self._weights.values())
            )
            self._gradients = {
                key: None if gradient is None else tf.convert_to_tensor(gradient)
                for key, gradient in zip(sources, gradients, strict=True)
            }

    def _load(self) -> None:
        tf, v1, file = self._tf, self._tf.compat.v1, self._selection.file
        data = self._selection.meta_graph.data
        if data is not None:
            # Not tf.saved_model.load, which runs the operation that the file names for a start.
            meta_graph = v1.MetaGraphDef.FromString(bytes(data))
            clear_placement(meta_graph.graph_def)
            saver = v1.train.import_meta_graph(meta_graph, clear_devices=True)
            if file.checkpoint is not None and saver is not None:
                saver.restore(self._session, file.checkpoint)
        else:
            graph_def = v1.GraphDef.FromString(bytes(self._selection.meta_graph.graph))
            clear_placement(graph_def)
            tf.graph_util.import_graph_def(graph_def, name="")

    def _find(self, tensor: str) -> Any:
        return self._graph.get_tensor_by_name(tensor if ":" in tensor else f"{tensor}:0")

    def _feed(self, batch: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
        return {self._inputs[key]: array for key, array in batch.items()}

    def _run(self, fetches: Any, feed: Any) -> Any:
        options = self._tf.compat.v1.RunOptions(timeout_in_ms=TIMEOUT)
        return self._session.run(fetches, feed, options=options)
