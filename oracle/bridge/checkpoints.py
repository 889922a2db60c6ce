"""Reading TensorFlow checkpoints: those of a TF1 Saver, and TF2's object checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oracle.bridge.sites import Convention
from oracle.errors import BridgeError
from oracle.frameworks import import_tensorflow
from oracle.storage import read_arrays, write_arrays

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_TF1_SLOT = re.compile(
    r"/(Adam|Adam_1|Momentum|Adagrad|Adadelta|Adadelta_1|RMSProp|RMSProp_1|Ftrl|Ftrl_1|ExponentialMovingAverage)$"
)
_TF1_COUNTERS = {"global_step", "beta1_power", "beta2_power"}
_TF2_COUNTERS = {"save_counter", "step"}


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
    """Read every tensor of a checkpoint. TensorFlow reads the file; no code in it is run.

    `path` is the checkpoint's prefix; its `.index` file, or a directory with a `checkpoint` file that
    names the latest, will do as well.

    Raises:
        BridgeError: if there is no checkpoint, a part of it is missing, or it is damaged.
    """
    tf = import_tensorflow()
    prefix = _find_prefix(Path(path))
    try:
        reader = tf.train.load_checkpoint(prefix)
        tensors = {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
    except (tf.errors.OpError, LookupError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BridgeError(
            f"{prefix}: not a whole checkpoint ({reason}); copy all of its files again "
            "(.index and every .data-...)"
        ) from error
    if _OBJECT_GRAPH in tensors:
        return _sort_tf2(prefix, tensors)
    return _sort_tf1(prefix, tensors)


def write_variables(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint's variables to a safetensors file, for a process without TensorFlow.

    Raises:
        RecordError: if the place cannot be written.
    """
    header = {"path": checkpoint.path, "convention": checkpoint.convention}
    write_arrays(path, checkpoint.variables, kind="variables", format=1, header=header)


def read_variables(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what `write_variables` wrote. There are no slots and no counters in it.

    Raises:
        RecordError: if the file is absent or damaged.
    """
    header, arrays = read_arrays(path, kind="variables", format=1)
    return Checkpoint(header["path"], header["convention"], arrays, {}, {})


def _find_prefix(path: Path) -> str:
    if path.is_dir():
        latest = import_tensorflow().train.latest_checkpoint(path)
        if latest is None:
            raise BridgeError(f"{path}: a directory with no `checkpoint` file; give a checkpoint's prefix")
        return latest
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


def _sort_tf1(prefix: str, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    # An optimizer that was made inside a scope puts the scope before all of its names.
    counters = {name: tensor for name, tensor in tensors.items() if name.rpartition("/")[2] in _TF1_COUNTERS}
    slots = {
        name: tensor
        for name, tensor in tensors.items()
        # A slot is named after the variable that it belongs to.
        if (match := _TF1_SLOT.search(name)) and _ends_with_any(name[: match.start()], tensors)
    }
    variables = {name: tensors[name] for name in tensors if name not in counters and name not in slots}
    return Checkpoint(prefix, "tf1", variables, slots, counters)


def _ends_with_any(name: str, names: Collection[str]) -> bool:
    """Whether a name is one of the names, perhaps behind a scope."""
    parts = name.split("/")
    return any("/".join(parts[start:]) in names for start in range(len(parts)))


def _sort_tf2(prefix: str, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    variables, slots, counters = {}, {}, {}
    for key, tensor in tensors.items():
        if key == _OBJECT_GRAPH:
            continue
        name = key.removesuffix(_OBJECT_SUFFIX)
        if "/.OPTIMIZER_SLOT/" in key or name.startswith("optimizer/"):
            slots[name] = tensor
        elif name in _TF2_COUNTERS:
            counters[name] = tensor
        else:
            variables[name] = tensor
    return Checkpoint(prefix, "keras", variables, slots, counters)
