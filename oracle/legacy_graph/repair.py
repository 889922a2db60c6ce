"""Repairing a TF1 graph that TensorFlow cannot differentiate."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oracle.case import check_seed
from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.contexts import LoopSettings, read_settings
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import Extract, extract
from oracle.legacy_graph.model_file import read_model_file
from oracle.legacy_graph.repaired_model import build_model, save_model
from oracle.legacy_graph.selection import Selection, select
from oracle.legacy_graph.verification import Verification, differentiate_model, is_same, verify
from oracle.legacy_graph.vjp import Backward, build_backward


@dataclass(frozen=True)
class Repair:
    """A repaired model and how it was verified.

    Args:
        model: a `tf.Module`; see `build_model`.
        verification: the figures.
        signature: the signature's name, or None if the file has none.
        loops: how many loops were given contexts.
        conds: how many branches of conds were.
        added: the nodes that were added to the forward graph.
        source: the file or folder that it was made from.
    """

    model: Any
    verification: Verification
    signature: str | None
    loops: int
    conds: int
    added: tuple[str, ...]
    source: str


def repair(
    path: str | os.PathLike[str],
    *,
    signature: str | None = None,
    trainable: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    batch: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Any:
    """A model with TF1 loops as a callable that `tf.GradientTape` differentiates.

    The graph is run, for verification. Its outputs equal the original's bit for bit, and its gradients
    TF1's own where the file lets TF1 compute them, Flax's where a loop runs over cells that are recognised
    and JAX is installed, and the witness' always.

    Args:
        path: a SavedModel's folder, a frozen GraphDef `.pb`, or a MetaGraph `.meta` with its checkpoint.
        signature: which signature, if there are several.
        trainable: a regular expression; the frozen constants that it matches become variables.
        inputs: the inputs' tensor names, of a graph without signatures; by default its placeholders.
        outputs: the outputs' tensor names; by default the floating results that nothing reads.
        batch: arrays to verify on, by input; by default drawn.
        seed: of what is drawn.

    Returns:
        A `tf.Module`. It is called with the inputs by name, or in one dict, and gives a dict of outputs.
        Its variables are in `variables`, `trainable_variables` and `variables_by_name`; its inputs in
        `input_specs`; the figures in `verification`.

    Raises:
        GraphError: with the code of what is wrong: see `oracle explain`.
    """
    return repair_file(
        path,
        signature=signature,
        trainable=trainable,
        inputs=inputs,
        outputs=outputs,
        batch=batch,
        seed=seed,
    ).model


def repair_file(
    path: str | os.PathLike[str],
    *,
    signature: str | None = None,
    trainable: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    batch: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Repair:
    """As `repair`, with what was done."""
    check_seed(seed)
    prepared = prepare(path, signature=signature, trainable=trainable, inputs=inputs, outputs=outputs)
    selection, extracted, backward = prepared.selection, prepared.extract, prepared.backward
    model = build_model(extracted, backward, selection.outputs)
    verification = verify(model, selection, extracted, backward, prepared.settings, batch=batch, seed=seed)
    model.verification = verification
    flow = backward.control_flow
    return Repair(
        model,
        verification,
        selection.signature,
        len(flow.loops),
        len(flow.branches),
        backward.added,
        selection.file.path,
    )


@dataclass(frozen=True)
class Prepared:
    """A model file on the way to its repair: what was chosen, the forward and the backward graph."""

    selection: Selection
    extract: Extract
    backward: Backward
    settings: Mapping[str, LoopSettings]


def prepare(
    path: str | os.PathLike[str],
    *,
    signature: str | None,
    trainable: str | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Prepared:
    """Read a model file, cut out a signature's forward graph, and build its backward graph. Runs nothing.

    Raises:
        GraphError: with the code of what is wrong.
    """
    file = read_model_file(path)
    if any(graph.is_tf2 for graph in file.meta_graphs):
        raise GraphError(
            "G207",
            f"{file.path}: a SavedModel of TensorFlow 2, whose graph calls functions; loops of TF1 "
            "within them "
            "are repaired in the TF1 model that it was made from: give that",
        )
    selection = select(file, signature=signature, inputs=inputs, outputs=outputs)
    settings = _read_settings(selection)
    extracted = extract(selection, trainable=trainable)
    return Prepared(selection, extracted, build_backward(extracted, settings=settings), settings)


def _read_settings(selection: Selection) -> dict[str, LoopSettings]:
    tf = import_tensorflow()
    data = selection.meta_graph.data
    if data is None:
        return {}
    try:
        return read_settings(tf.compat.v1.MetaGraphDef.FromString(bytes(data)))
    except Exception as error:  # protobuf's DecodeError, whose class moved between versions
        raise GraphError(
            "G301", f"{selection.file.path}: not a MetaGraph ({error}); copy it again"
        ) from error


def write_repaired(repaired: Repair, target: str | os.PathLike[str]) -> None:
    """Write a repaired model as a SavedModel, after what is written was loaded and computed the same.

    Raises:
        GraphError: G309 if the target exists or cannot be written, G210 if what was written computes
            something else. Then nothing is left there.
    """
    tf = import_tensorflow()
    target = Path(target)
    check_target(target, source=repaired.source)
    model, batch = repaired.model, repaired.verification.batch
    weights = _draw_weights(model, batch)
    outputs, gradients = differentiate_model(model, batch, weights)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        written = temporary / "model"
        save_model(model, str(written))
        again, slopes = differentiate_model(tf.saved_model.load(str(written)), batch, weights)
        same = all(is_same(again[key], outputs[key]) for key in outputs)
        for name, gradient in gradients.items():
            other = slopes[name]
            same = same and (
                gradient is None
                if other is None
                else gradient is not None and np.array_equal(gradient, other)
            )
        if not same:
            raise GraphError("G210", f"{target}: what was written computes something else; it was removed")
        os.replace(written, target)
    except OSError as error:
        raise GraphError(
            "G309", f"{target}: cannot be written: {error.strerror or error}; choose another place"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_target(target: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None) -> None:
    """Refuse a place that is taken, lies in the source or cannot be written, before minutes are spent.

    Raises:
        GraphError: G309.
    """
    target = Path(target)
    try:
        is_taken = target.exists() or target.is_symlink()
        folders = target.resolve().parents
    except (OSError, ValueError) as error:
        raise GraphError("G309", f"{str(target)[:100]!r}: is no name for a folder ({error})") from error
    if is_taken:
        raise GraphError("G309", f"{target}: is there already; give a folder that is not")
    if source is not None and Path(source).resolve() in folders:
        raise GraphError(
            "G309", f"{target}: lies in {source}, which is not to be touched; choose another place"
        )
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise GraphError(
            "G309", f"{target}: {target.parent} is no folder that can be written; choose another"
        )


def _draw_weights(model: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    outputs = {key: tensor.numpy() for key, tensor in model(batch).items()}
    return {
        key: np.asarray(rng.standard_normal(array.shape), array.dtype)
        for key, array in outputs.items()
        if array.dtype.kind == "f"
    }
