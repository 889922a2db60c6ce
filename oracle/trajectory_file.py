"""A trajectory in a file, so that its two sides need not meet."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from oracle.errors import RecordError
from oracle.storage import read_arrays, write_arrays
from oracle.trajectory import Step

FORMAT = 1
"""The version of the file's format."""


def write_trajectory(steps: Iterable[Step], path: str | os.PathLike[str]) -> None:
    """Write a trajectory to one safetensors file, whole or not at all. All steps are held in memory.

    Raises:
        RecordError: if the place cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    numbers = []
    for step in steps:
        numbers.append({"step": step.step, "loss": step.loss, "gradient_norm": step.gradient_norm})
        arrays |= {f"{step.step}/{name}": np.asarray(array) for name, array in step.tensors.items()}
    write_arrays(path, arrays, kind="trajectory", format=FORMAT, header={"steps": numbers})


def read_trajectory(path: str | os.PathLike[str]) -> tuple[Step, ...]:
    """Read what `write_trajectory` wrote.

    Raises:
        RecordError: if the file is absent, damaged, or something else.
    """
    header, arrays = read_arrays(path, kind="trajectory", format=FORMAT)
    tensors: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        step, _, rest = name.partition("/")
        tensors.setdefault(step, {})[rest] = array
    try:
        return tuple(
            Step(each["step"], each["loss"], each["gradient_norm"], tensors.get(str(each["step"]), {}))
            for each in header["steps"]
        )
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path}: its header cannot be used ({error!r}); write it anew") from error
