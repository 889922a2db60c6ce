"""Writes `tf115/`: weight files of a real TensorFlow 1.15.5, and what it reads from them itself.

    $(python -m tests.golden.install_tf115) tests/golden/formats/make_tf115.py [FOLDER]

It runs under Python 3.7 and imports nothing of this project. `expected.npz` holds, for each file, every
tensor as TensorFlow's own reader gives it; bfloat16, which NumPy lacks, as the bits of a uint16.
"""

import os
import shutil
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
rnn_cell = tf.compat.v1.nn.rnn_cell
FOLDER = (
    sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tf115")
)
RNG = np.random.RandomState(115)
EXPECTED = {}


def place(name):
    return os.path.join(FOLDER, name)


def bits(array):
    array = np.asarray(array)
    return array.view(np.uint16) if array.dtype == tf.bfloat16.as_numpy_dtype else array


def expect(file, tensors):
    for name, array in tensors.items():
        EXPECTED[f"{file}|{name}"] = bits(array)


def expect_checkpoint(file):
    reader = tf.train.NewCheckpointReader(place(file))
    expect(file, {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})


def fill(session):
    """Random values for every float variable, so that no two are alike."""
    for variable in tf.compat.v1.global_variables():
        if variable.dtype.base_dtype == tf.float32 and variable.shape.ndims:
            variable.load(RNG.standard_normal(variable.shape.as_list()).astype("f"), session)


def encoder_decoder():
    """The sunspots' model, trained by Adam, with EMA shadows: the scopes of `tf_models.dynamic_rnn`."""
    with tf.Graph().as_default():
        source = tf.compat.v1.placeholder(tf.float32, [None, 4, 5], "source")
        target = tf.compat.v1.placeholder(tf.float32, [None, 3, 2], "target")
        with tf.compat.v1.variable_scope("encoder"):
            _, state = tf.compat.v1.nn.dynamic_rnn(rnn_cell.BasicLSTMCell(3), source, dtype=tf.float32)
        with tf.compat.v1.variable_scope("decoder"):
            outputs, _ = tf.compat.v1.nn.dynamic_rnn(rnn_cell.BasicLSTMCell(3), target, initial_state=state)
        prediction = tf.compat.v1.layers.dense(outputs, 2, name="projection")
        loss = tf.reduce_mean((prediction - target) ** 2)
        step = tf.compat.v1.train.get_or_create_global_step()
        train = tf.compat.v1.train.AdamOptimizer(1e-3).minimize(loss, global_step=step)
        average = tf.train.ExponentialMovingAverage(0.99, num_updates=step)
        with tf.control_dependencies([train]):
            train = average.apply(tf.compat.v1.trainable_variables())
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            feed = {source: RNG.standard_normal([6, 4, 5]), target: RNG.standard_normal([6, 3, 2])}
            for _ in range(3):
                session.run(train, feed)
            for version, name in ((1, "saver-v1.ckpt"), (2, "saver-v2.ckpt")):
                saver = tf.compat.v1.train.Saver(write_version=version)
                saver.save(session, place(name), write_meta_graph=False, write_state=False)
                expect_checkpoint(name)
            saver = tf.compat.v1.train.Saver(sharded=True, write_version=1)
            saver.save(session, place("saver-v1-sharded.ckpt"), write_meta_graph=False, write_state=False)
            expect_checkpoint("saver-v1-sharded.ckpt-?????-of-00001")
            trained = tf.compat.v1.trainable_variables()
            values = dict(zip([variable.op.name for variable in trained], session.run(trained)))
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, session.graph_def, [prediction.op.name]
            )
            with open(place("frozen.pb"), "wb") as file:
                file.write(frozen.SerializeToString())
            expect("frozen.pb", values)


def saved_model():
    """The decoder's cell alone, served: a small graph, since the folder holds all of it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        source = tf.compat.v1.placeholder(tf.float32, [1, 5], "source")
        cell = rnn_cell.BasicLSTMCell(3, name="basic_lstm_cell")
        output, _ = cell(source, cell.zero_state(1, tf.float32))
        session.run(tf.compat.v1.global_variables_initializer())
        fill(session)
        tf.compat.v1.saved_model.simple_save(
            session, place("saved-model"), {"source": source}, {"output": output}
        )
        reader = tf.train.NewCheckpointReader(place("saved-model/variables/variables"))
        expect("saved-model", {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()})


def cells():
    """One of every cell, under scopes as the common code makes them, not trained."""
    with tf.Graph().as_default():
        source = tf.random.normal([2, 4, 5])
        made = {
            "peepholes": rnn_cell.LSTMCell(6, use_peepholes=True, num_proj=4),
            "gru": rnn_cell.GRUCell(3),
            "basic_rnn": rnn_cell.BasicRNNCell(3),
            "layer_norm": tf.contrib.rnn.LayerNormBasicLSTMCell(3),
            "stack": rnn_cell.MultiRNNCell(
                [rnn_cell.GRUCell(3), rnn_cell.DropoutWrapper(rnn_cell.LSTMCell(4), 0.9)]
            ),
        }
        for scope, cell in made.items():
            tf.compat.v1.nn.dynamic_rnn(cell, source, dtype=tf.float32, scope=scope)
        tf.compat.v1.nn.bidirectional_dynamic_rnn(
            rnn_cell.LSTMCell(3), rnn_cell.LSTMCell(3), source, dtype=tf.float32
        )
        seq2seq = tf.contrib.seq2seq
        embedding = tf.compat.v1.get_variable("decoder/embedding", [11, 5])
        inputs = tf.nn.embedding_lookup(embedding, tf.constant([[1, 2, 3], [4, 5, 6]]))
        for scope, mechanism in (
            ("luong", seq2seq.LuongAttention(4, tf.random.normal([2, 3, 7]), scale=True)),
            ("bahdanau", seq2seq.BahdanauAttention(6, tf.random.normal([2, 3, 7]), normalize=True)),
            ("monotonic", seq2seq.LuongMonotonicAttention(4, tf.random.normal([2, 3, 7]))),
        ):
            cell = seq2seq.AttentionWrapper(rnn_cell.LSTMCell(4), mechanism, attention_layer_size=8)
            helper = seq2seq.TrainingHelper(inputs, [3, 3])
            decoder = seq2seq.BasicDecoder(
                cell, helper, cell.zero_state(2, tf.float32), tf.compat.v1.layers.Dense(11, use_bias=False)
            )
            seq2seq.dynamic_decode(decoder, scope="decoder_" + scope)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            fill(session)
            saver = tf.compat.v1.train.Saver(write_version=2)
            saver.save(session, place("cells.ckpt"), write_meta_graph=False, write_state=False)
            expect_checkpoint("cells.ckpt")


def dtypes():
    """Every dtype, empty and 0-d arrays, NaN payloads, -0.0, and variables in parts."""
    nans = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800000, 1], np.uint32).view(np.float32)
    arrays = {
        "float16": RNG.standard_normal((2, 3)).astype(np.float16),
        "float32": nans,
        "float64": np.array([[-0.0, np.nan, np.pi]]),
        "complex64": (RNG.standard_normal(3) + 1j).astype(np.complex64),
        "complex128": RNG.standard_normal((2, 1)) * 1j,
        "bool": np.array([True, False]),
        "scalar": np.array(7.25, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "repeated": np.full((4, 5), 2.5, np.float32),
    }
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16"):
        low, high = np.iinfo(name).min, np.iinfo(name).max
        arrays[name] = np.array([low, -1 if low else 1, 0, high], name)
    with tf.Graph().as_default():
        for name, array in arrays.items():
            tf.compat.v1.get_variable("dtypes/" + name, initializer=tf.constant(array))
        rows = RNG.standard_normal((2, 3)).astype("f")
        tf.compat.v1.get_variable("dtypes/bfloat16", initializer=tf.cast(tf.constant(rows), tf.bfloat16))
        parts = {
            "parts/rows": tf.compat.v1.get_variable(
                "parts/rows", [7, 3], partitioner=tf.compat.v1.fixed_size_partitioner(3)
            ),
            "parts/columns": tf.compat.v1.get_variable(
                "parts/columns", [2, 150], partitioner=tf.compat.v1.fixed_size_partitioner(2, axis=1)
            ),
        }
        tf.compat.v1.get_variable("words", initializer=tf.constant(["a", "bc", ""]))
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for version, name in ((1, "dtypes-v1.ckpt"), (2, "dtypes-v2.ckpt")):
                kept = [
                    variable
                    for variable in tf.compat.v1.global_variables()
                    # V1 cannot hold these.
                    if version == 2
                    or variable.dtype.base_dtype not in (tf.string, tf.uint16, tf.complex128, tf.bfloat16)
                ]
                saver = tf.compat.v1.train.Saver(kept, write_version=version)
                saver.save(session, place(name), write_meta_graph=False, write_state=False)
                whole = {v.op.name: v for v in kept if "parts/" not in v.op.name and v.op.name != "words"}
                expect(name, session.run(whole))
                # Its reader cannot put parts together again, nor read every dtype.
                expect(name, {key: session.run(value.as_tensor()) for key, value in parts.items()})


def keras():
    """The HDF5 files of TF 1.15's own Keras: a whole model, and weights only."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        layers = tf.keras.layers
        model = tf.keras.Sequential(
            [
                layers.Embedding(7, 4, input_shape=(5,), name="embedding"),
                layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"),
                layers.GRU(2, reset_after=True, name="gru"),
                layers.Dense(6, name="dense"),
            ]
        )
        model.compile("adam", "mse")
        session.run(tf.compat.v1.global_variables_initializer())
        model.train_on_batch(RNG.randint(0, 7, (3, 5)), RNG.standard_normal((3, 6)))
        model.save(place("keras-model.h5"))
        model.save_weights(place("keras-weights.h5"))
        values = dict(zip([weight.name[:-2] for weight in model.weights], model.get_weights()))
        expect("keras-weights.h5", values)
        expect("keras-model.h5", values)


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    encoder_decoder()
    saved_model()
    cells()
    dtypes()
    keras()
    np.savez_compressed(place("expected.npz"), **EXPECTED)
    print(f"{FOLDER}: {len(EXPECTED)} tensors by TensorFlow {tf.__version__}")
