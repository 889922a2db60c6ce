"""The kept files of TF 1.15.5, and what TF 1.15.5 computed from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "golden" / "graphs"
GRAPHS = FOLDER / "tf115"
SAVED = (
    "attention-decoder",
    "bidirectional",
    "hub-module",
    "loop-in-cond",
    "loop-in-loop",
    "stacked-gru",
    "stacked-lstm",
)
FILES = (*SAVED, "frozen-lstm.pb", "frozen-loops.pb", "meta-lstm.meta")

FROZEN_OUTPUTS = {"rnn/transpose_1": "outputs", "rnn/while/Exit_6": "state", "rnn/while/Exit_3": "c"}
"""What the outputs of `frozen-lstm.pb` are called in the SavedModel that it was frozen from."""


def read_expected(name: str) -> dict[str, np.ndarray]:
    """What TF 1.15.5 computed: see `make_tf115.py`."""
    with np.load(GRAPHS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def part(expected: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays under a prefix, by what follows it."""
    return {
        key.removeprefix(f"{prefix}/"): array
        for key, array in expected.items()
        if key.startswith(f"{prefix}/")
    }
