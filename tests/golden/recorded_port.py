"""A small encoder-decoder, written with the public API of whatever TensorFlow is here, from 1.15 to the newest.

`record_gradients.py` records it in each environment of `install_tf.py`; see `make_recordings.py`. It runs
from Python 3.7 on, and imports nothing of the project.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

UNITS, SOURCE_FEATURES, TARGET_FEATURES = 4, 3, 2


def draw_batch(dtype):
    generator = np.random.RandomState(7)
    return {
        "source": generator.standard_normal((3, 6, SOURCE_FEATURES)).astype(dtype),
        "target": generator.standard_normal((3, 1 + 5, TARGET_FEATURES)).astype(dtype),
    }


def build(dtype="float64"):
    """Keras layers, eagerly or in a function. TF 1.15 must be asked to execute eagerly."""
    if not tf.executing_eagerly():
        tf.compat.v1.enable_eager_execution()
    # TF 1's LSTM has another recurrent activation by default.
    options = {"dtype": dtype, "recurrent_activation": "sigmoid", "return_sequences": True}
    encoder = tf.keras.layers.LSTM(UNITS, return_state=True, name="encoder", **options)
    decoder = tf.keras.layers.LSTM(UNITS, name="decoder", **options)
    projection = tf.keras.layers.Dense(TARGET_FEATURES, dtype=dtype, name="projection")

    def loss(batch):
        encoded = encoder(batch["source"])
        decoded = decoder(batch["target"][:, :-1], initial_state=list(encoded[1:]))
        prediction = projection(decoded)
        outputs = {"prediction": prediction, "encoder": encoded[0]}
        return tf.reduce_mean((prediction - batch["target"][:, 1:]) ** 2), outputs

    return {
        "models": [encoder, decoder, projection],
        "batch": draw_batch(dtype),
        "loss": loss,
        "weights": "random",
        "name": "keras_seq2seq",
    }


def build_session(dtype="float64"):
    """`dynamic_rnn` over a `BasicLSTMCell`, in a v1 session."""
    v1 = tf.compat.v1
    v1.disable_eager_execution()
    batch = draw_batch(dtype)
    source, target = (
        v1.placeholder(dtype, (None,) + batch[name].shape[1:], name=name) for name in ("source", "target")
    )
    cells = [v1.nn.rnn_cell.BasicLSTMCell(UNITS) for _ in range(2)]
    with v1.variable_scope("encoder"):
        encoded, state = v1.nn.dynamic_rnn(cells[0], source, dtype=dtype)
    with v1.variable_scope("decoder"):
        decoded, _ = v1.nn.dynamic_rnn(cells[1], target[:, :-1], initial_state=state)
    prediction = v1.layers.dense(decoded, TARGET_FEATURES, name="projection")
    loss = tf.reduce_mean((prediction - target[:, 1:]) ** 2)
    variables = v1.trainable_variables()
    gradients = tf.gradients(loss, variables)
    session, generator = v1.Session(), np.random.RandomState(3)
    session.run(v1.global_variables_initializer())
    for variable in variables:
        values = 0.5 * generator.standard_normal([int(size) for size in variable.shape])
        variable.load(values.astype(dtype), session)
    return {
        "session": session,
        "loss": loss,
        "gradients": gradients,
        "variables": variables,
        "outputs": {"prediction": prediction, "encoder": encoded},
        "inputs": {source: batch["source"], target: batch["target"]},
        "name": "dynamic_rnn_session",
    }
