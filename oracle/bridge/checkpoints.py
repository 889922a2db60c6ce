"""Reading TensorFlow checkpoints: those of a TF1 Saver, and TF2's object checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oracle.bridge.formats.bundle import read_bundle
from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.reading import find_format, find_latest, read_weight_file, sort_bundle
from oracle.bridge.formats.weight_file import WeightFile
from oracle.bridge.sites import Convention
from oracle.errors import BridgeError

PATTERN_CHARACTERS = "*?["
"""What a checkpoint's path must not contain, since TensorFlow looks for its files by a pattern."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, the model's variables set apart from what training added.

    Args:
        path: the checkpoint's prefix.
        convention: how its variables are named.
        variables: the model's variables.
        slots: the optimizer's slots and moving averages.
        counters: step counters and the like.
    """

    path: str
    convention: Convention
    variables: Mapping[str, np.ndarray]
    slots: Mapping[str, np.ndarray]
    counters: Mapping[str, np.ndarray]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read every tensor of a checkpoint. No code in it is run, and TensorFlow is not imported.

    `path` is the checkpoint's prefix; its `.index` file, or a directory with a `checkpoint` file that
    names the latest, will do as well, and so will the folder of a SavedModel and a V1 checkpoint.

    Raises:
        BridgeError: if there is no checkpoint, a part of it is missing, or it is damaged.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return _as_checkpoint(read_weight_file(path))
    if path.is_file() and _is_saver_v1(path):
        return _as_checkpoint(read_weight_file(path))
    prefix = _find_prefix(path)
    try:
        return _as_checkpoint(sort_bundle(prefix, read_bundle(prefix)))
    except (DamageError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BridgeError(
            f"{prefix}: not a whole checkpoint ({reason}); copy all of its files again "
            "(.index and every .data-...)"
        ) from error


def _find_prefix(path: Path) -> str:
    if path.is_dir():
        latest = find_latest(path)
        if latest is None:
            raise BridgeError(f"{path}: a directory with no `checkpoint` file; give a checkpoint's prefix")
        return str(latest)
    if any(character in str(path) for character in PATTERN_CHARACTERS):
        raise BridgeError(
            f"{path}: TensorFlow takes {' '.join(PATTERN_CHARACTERS)} in a checkpoint's name for a pattern "
            "and cannot read it; rename its files"
        )
    prefix = str(path).removesuffix(".index")
    prefix = re.sub(r"\.data-\d{5}-of-\d{5}$", "", prefix)
    if not Path(f"{prefix}.index").is_file():
        raise BridgeError(
            f"{path}: no checkpoint there ({prefix}.index does not exist); give the prefix, "
            "as in `model.ckpt` for `model.ckpt.index`"
        )
    if not any(path.name.startswith(f"{Path(prefix).name}.data-") for path in Path(prefix).parent.iterdir()):
        raise BridgeError(f"{prefix}.index has no {Path(prefix).name}.data-... beside it; copy that too")
    return prefix


def _is_saver_v1(path: Path) -> bool:
    try:
        return find_format(path)[0] == "tf1-checkpoint-v1"
    except BridgeError:
        return False


def _as_checkpoint(weights: WeightFile) -> Checkpoint:
    convention: Convention = "tf1" if weights.convention == "tf1" else "keras"
    slots = {**weights.slots, **weights.averages}
    return Checkpoint(weights.path, convention, weights.variables, slots, weights.counters)
