"""Writes `keras3/`: weight files of Keras 3, and the weights that the model had.

    python3.13 -m venv /tmp/keras3 && /tmp/keras3/bin/pip install 'tensorflow>=2.21' h5py
    /tmp/keras3/bin/python tests/golden/formats/make_keras3.py [FOLDER]

It imports nothing of this project. `expected.npz` holds the model's weights in their order.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "keras3"


def main() -> None:
    """Write every file."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    rng = np.random.default_rng(3)
    layers = keras.layers
    inputs = keras.Input((6,), name="ids")
    vectors = layers.Embedding(7, 4, name="embedding")(inputs)
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(vectors)
    hidden = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)]), name="stack")(hidden)
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(5, name="dense")], name="inner")
    outputs = layers.Dense(8, dtype="bfloat16", name="half")(inner(hidden))
    model = keras.Model(inputs, outputs, name="golden")
    model.compile("adam", "mse")
    model.train_on_batch(rng.integers(0, 7, (3, 6)), rng.standard_normal((3, 8)))
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(rng.standard_normal(weight.shape).astype(np.float32))
    model.save(FOLDER / "keras.keras")
    model.save_weights(FOLDER / "keras.weights.h5")
    expected = {}
    for index, weight in enumerate(model.weights):
        array = np.asarray(weight)
        expected[f"{index:03d}"] = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    np.savez_compressed(FOLDER / "expected.npz", **expected)
    print(f"{FOLDER}: {len(expected)} tensors by Keras {keras.__version__}")


if __name__ == "__main__":
    main()
