"""The golden weight files, and what TensorFlow says is in them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"


@functools.cache
def read_expected(folder: str) -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN / folder / "expected.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def expected_of(folder: str, file: str) -> dict[str, np.ndarray]:
    """The tensors of one file by their names in it."""
    return {
        name.partition("|")[2]: array
        for name, array in read_expected(folder).items()
        if name.partition("|")[0] == file
    }


def same_bits(array: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays are alike bit for bit; what NumPy has no dtype for was kept as a uint16's bits."""
    dtype = "uint16" if array.dtype.name == "bfloat16" else array.dtype.name
    return (
        array.shape == expected.shape
        and dtype == expected.dtype.name
        and array.tobytes() == expected.tobytes()
    )
