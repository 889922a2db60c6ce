"""The values of a model's variables, from its checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from oracle.bridge.checkpoints import read_checkpoint
from oracle.errors import BridgeError
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.model_file import ModelFile, SavedVariable


def read_values(file: ModelFile, variables: Sequence[SavedVariable]) -> dict[str, np.ndarray]:
    """The values by the variables' names. TensorFlow's own reader is not used.

    Raises:
        GraphError: G307 if there is no checkpoint, a file of it is missing, or it lacks a variable.
    """
    if not variables:
        return {}
    if file.checkpoint is None:
        raise GraphError(
            "G307",
            f"{file.path}: the graph has {len(variables)} variables ({variables[0].name!r}) and there is no "
            "checkpoint beside it; copy its variables (variables.index and every variables.data-...) too",
        )
    try:
        checkpoint = read_checkpoint(file.checkpoint)
    except BridgeError as error:
        raise GraphError("G307", str(error)) from error
    stored = {**checkpoint.variables, **checkpoint.slots, **checkpoint.counters}
    values = {}
    for variable in variables:
        if variable.checkpoint_name not in stored:
            near = difflib.get_close_matches(variable.checkpoint_name, stored, 1)
            raise GraphError(
                "G307",
                f"{file.checkpoint}: no value of the variable {variable.checkpoint_name!r}"
                f"{f' (there is {near[0]!r})' if near else ''}; save the model again",
            )
        value = np.asarray(stored[variable.checkpoint_name])
        if variable.offset is not None and variable.shape is not None:
            parts = zip(variable.offset, variable.shape, strict=True)
            value = value[tuple(slice(start, start + size) for start, size in parts)]
        values[variable.name] = value
    return values
