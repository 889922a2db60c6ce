"""Writes `flat/`: weight files of Flax, Orbax and safetensors, by their own libraries, and what they hold.

    uv run python -m tests.golden.formats.make_flax [FOLDER]

`expected.npz` holds the arrays by their paths; bfloat16 as the bits of a uint16.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from flax import serialization

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "flat"


def main() -> None:
    """Write every file."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    rng = np.random.default_rng(7)
    nans = np.array([0x7FC00001, 0xFFC12345, 0x80000000], np.uint32).view(np.float32)
    params = {
        "encoder": {"cell": {"kernel": rng.standard_normal((4, 12)), "bias": nans}},
        "half": rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
        "scale": np.array(-0.0, np.float32),
        "ids": np.array([[-1, 2**31 - 1]], np.int32),
    }
    slots = {"mu": rng.standard_normal((4, 12)).astype(np.float16), "flags": np.array([True, False])}
    state = {"params": params, "opt_state": slots, "step": np.array(7)}
    (FOLDER / "weights.msgpack").write_bytes(serialization.to_bytes(state))
    flat = {"/".join(map(str, path)): leaf for path, leaf in _walk(state, ())}
    for name, use_ocdbt in (("orbax-ocdbt", True), ("orbax-zarr", False)):
        checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=use_ocdbt))
        checkpointer.save((FOLDER / name).resolve(), state)
    plain = {name: array for name, array in flat.items() if array.dtype != ml_dtypes.bfloat16}
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in plain.items()}
    safetensors.numpy.save_file(contiguous, FOLDER / "weights.safetensors", {"made": "by safetensors"})
    expected = {
        name: array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
        for name, array in flat.items()
    }
    np.savez_compressed(FOLDER / "expected.npz", **expected)
    print(f"{FOLDER}: {len(expected)} arrays")


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _walk(value, (*path, key))
    else:
        yield path, tree


if __name__ == "__main__":
    main()
