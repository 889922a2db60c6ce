"""Orbax checkpoints, by Orbax itself. Run in a process of its own, which imports JAX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from oracle.bridge.formats.damage import Budget, DamageError
from oracle.errors import MissingPackageError
from oracle.frameworks import import_jax

METADATA = "_METADATA"


def find_checkpoint(folder: Path) -> Path | None:
    """The folder of an Orbax checkpoint's arrays: this one, or the one item in it; else None."""
    if (folder / METADATA).is_file():
        return folder
    items = [path.parent for path in folder.glob(f"*/{METADATA}")]
    return items[0] if len(items) == 1 else None


def measure(folder: Path) -> int:
    """The bytes of all files of a checkpoint.

    Raises:
        DamageError: if one of them is a link, which could lead out of it.
    """
    size = 0
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise DamageError(f"{path.relative_to(folder)} is a link, and links are not followed")
        size += path.stat().st_size if path.is_file() else 0
    return size


def read(path: str, size: int) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What is no array, and every array by its path.

    Raises:
        DamageError: if the checkpoint is damaged, or its arrays would be far larger than its files.
        MissingPackageError: if Orbax is not installed.
    """
    folder = Path(path)
    _check_metadata(json.loads((folder / METADATA).read_bytes()))
    jax = import_jax()
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise MissingPackageError(
            "reading Orbax needs orbax-checkpoint; install it with `pip install orbax-checkpoint`"
        ) from error
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    checkpointer = ocp.PyTreeCheckpointer()
    described = checkpointer.metadata(folder)
    described = getattr(described, "item_metadata", described)
    tree = getattr(described, "tree", described)
    budget = Budget(size)
    for name, leaf in _walk(tree, ""):
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if shape is not None and dtype is not None:
            budget.take(tuple(shape), np.dtype(dtype).itemsize, name)
    restore_args = jax.tree_util.tree_map(
        # NumPy's arrays: JAX's would lose 64 bits.
        lambda leaf: (
            ocp.RestoreArgs(restore_type=np.ndarray) if hasattr(leaf, "shape") else ocp.RestoreArgs()
        ),
        tree,
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    others, arrays = {}, {}
    for name, leaf in _walk(checkpointer.restore(folder, restore_args=restore_args), ""):
        if name in arrays or name in others:
            raise DamageError(f"two of its arrays are called {name!r}")
        if isinstance(leaf, np.ndarray | np.generic | int | float):
            arrays[name] = np.asarray(leaf)
        else:
            others[name] = f"a value of type {type(leaf).__name__}"
    return others, arrays


def _check_metadata(metadata: Any) -> None:
    """Orbax makes file names of the keys."""
    try:
        keys = [
            str(part["key"]) for leaf in metadata["tree_metadata"].values() for part in leaf["key_metadata"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise DamageError("its metadata name no tree of arrays") from error
    for key in keys:
        if "/" in key or "\\" in key or "\0" in key or key in ("..", "."):
            raise DamageError(f"its key {key!r} would leave its folder")


def _walk(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries and sequences, sorted, by their paths."""
    if isinstance(tree, dict):
        items = sorted(((str(key), value) for key, value in tree.items()), key=lambda item: item[0])
    elif isinstance(tree, list | tuple):
        items = [(str(index), value) for index, value in enumerate(tree)]
    else:
        yield path, tree
        return
    for key, value in items:
        yield from _walk(value, f"{path}/{key}" if path else key)
