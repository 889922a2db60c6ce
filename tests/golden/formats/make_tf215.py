"""Writes `tf215/`: weight files of TensorFlow 2.15 and Keras 2.15, and what they hold.

    uv run python -m tests.golden.formats.make_tf215 [FOLDER]

`expected.npz` holds, for each file, every tensor by the name that the file itself gives it; bfloat16 as
the bits of a uint16.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "tf215"
RNG = np.random.default_rng(215)
EXPECTED: dict[str, np.ndarray] = {}


def expect(file: str, tensors: dict[str, Any]) -> None:
    for name, value in tensors.items():
        array = np.asarray(value)
        EXPECTED[f"{file}|{name}"] = array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def expect_checkpoint(file: str, prefix: Path) -> None:
    reader = tf.train.load_checkpoint(str(prefix))
    expect(
        file,
        {
            key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): reader.get_tensor(key)
            for key, dtype in reader.get_variable_to_dtype_map().items()
            if dtype != tf.string
        },
    )


class Encoder(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(7, 4)
        self.lstm = tf.keras.layers.Bidirectional(tf.keras.layers.LSTM(3))
        self.gru = tf.keras.layers.GRU(2, reset_after=False)
        self.dense = tf.keras.layers.Dense(5)

    def call(self, ids: Any) -> Any:
        vectors = self.embedding(ids)
        return self.dense(tf.concat([self.lstm(vectors), self.gru(vectors)], -1))


def checkpoints() -> None:
    """An object checkpoint of a subclassed model with its optimizer, and one with the legacy optimizer."""
    for file, optimizer in (
        ("objects.ckpt", tf.keras.optimizers.Adam(1e-3, use_ema=True)),
        ("objects-legacy-optimizer.ckpt", tf.keras.optimizers.legacy.Adam(1e-3)),
    ):
        model = Encoder()
        ids = RNG.integers(0, 7, (3, 6))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(ids) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        checkpoint = tf.train.Checkpoint(model=model, training=optimizer, step=tf.Variable(9, dtype=tf.int64))
        prefix = checkpoint.write(str(FOLDER / file))
        expect_checkpoint(file, Path(prefix))


def dtypes() -> None:
    """Every dtype, 0-d and empty arrays, NaN payloads, as a TF2 object checkpoint."""
    module = tf.Module()
    module.held = {
        "nans": tf.Variable(np.array([0x7FC00001, 0xFFC12345, 0x80000000], np.uint32).view(np.float32)),
        "bfloat16": tf.Variable(tf.cast(RNG.standard_normal((2, 3)), tf.bfloat16)),
        "float16": tf.Variable(RNG.standard_normal((1, 4)).astype(np.float16)),
        "float64": tf.Variable(RNG.standard_normal((3, 2))),
        "scalar": tf.Variable(-0.0),
        "empty": tf.Variable(np.zeros((2, 0), np.float32)),
        "bool": tf.Variable([True, False]),
        "uint32": tf.Variable(np.array([0, 2**32 - 1], np.uint32)),
        "uint64": tf.Variable(np.array([2**64 - 1], np.uint64)),
        "complex128": tf.Variable(np.array([1j, -2.5])),
    }
    expect_checkpoint(
        "dtypes.ckpt", Path(tf.train.Checkpoint(root=module).write(str(FOLDER / "dtypes.ckpt")))
    )


def keras() -> None:
    """A functional model in every format of Keras 2.15, with nesting and shared names below."""
    layers = tf.keras.layers
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((6,), name="ids")
    vectors = layers.Embedding(7, 4, name="embedding")(inputs)
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(vectors)
    hidden = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)]), name="stack")(hidden)
    inner = tf.keras.Sequential([tf.keras.Input((2,)), layers.Dense(5, name="dense")], name="inner")
    outputs = layers.BatchNormalization(name="norm")(inner(hidden))
    model = tf.keras.Model(inputs, outputs, name="golden")
    model.compile("adam", "mse")
    model.train_on_batch(RNG.integers(0, 7, (3, 6)), RNG.standard_normal((3, 5)))
    for weight in model.weights:
        weight.assign(RNG.standard_normal(weight.shape).astype(np.float32))
    by_name = {weight.name.removesuffix(":0"): weight.numpy() for weight in model.weights}
    assert len(by_name) == len(model.weights)
    model.save(FOLDER / "keras-model.h5")
    model.save_weights(FOLDER / "keras-legacy.h5")
    model.save_weights(FOLDER / "keras.weights.h5")
    model.save(FOLDER / "keras.keras")
    expect("keras-model.h5", by_name)
    expect("keras-legacy.h5", by_name)
    # Their names are places in the file; the values must be the model's, in its order.
    in_order = {f"{index:03d}": weight.numpy() for index, weight in enumerate(model.weights)}
    expect("keras.weights.h5", in_order)
    expect("keras.keras", in_order)


def frozen() -> None:
    """A TF2 function as a SavedModel, and frozen with its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    module = tf.Module()
    module.kernel = tf.Variable(RNG.standard_normal((4, 3)).astype(np.float32), name="kernel")
    module.bias = tf.Variable(RNG.standard_normal(3).astype(np.float32), name="bias")
    function = tf.function(lambda x: tf.tanh(x @ module.kernel + module.bias))
    concrete = function.get_concrete_function(tf.TensorSpec([None, 4], tf.float32))
    graph = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    tf.saved_model.save(module, str(FOLDER / "saved-model"))
    expect_checkpoint("saved-model", FOLDER / "saved-model" / "variables" / "variables")
    (FOLDER / "frozen.pb").write_bytes(graph.SerializeToString())
    expect("frozen.pb", {"kernel": module.kernel.numpy(), "bias": module.bias.numpy()})


def main() -> None:
    """Write every file."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    checkpoints()
    dtypes()
    keras()
    frozen()
    np.savez_compressed(FOLDER / "expected.npz", **EXPECTED)
    print(f"{FOLDER}: {len(EXPECTED)} tensors by TensorFlow {tf.__version__}")


if __name__ == "__main__":
    main()
