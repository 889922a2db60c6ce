"""Writes `tf115/`: models whose loops are TF1's, made by a real TensorFlow 1.15.5, and what it computed.

    $(python -m tests.golden.install_tf115) tests/golden/graphs/make_tf115.py [FOLDER]

It runs under Python 3.7 and imports nothing of this project. Of every model there is a SavedModel, or a
frozen graph, or a checkpoint with its MetaGraph, and `NAME.npz` with

- `input/KEY` and `output/KEY`: a batch, and what the model made of it;
- `weight/KEY`: random arrays of the outputs' shapes;
- `gradient/input/KEY`, `gradient/variable/NAME`: those of sum(weight * output), from TF1's own graph;
- `target/KEY`, `loss`: what 50 steps of Adam (learning rate 0.01, epsilon 1e-8) on the mean squared error
  made of the loss, before every step and after the last.
"""

import os
import shutil
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
tf1 = tf.compat.v1
rnn_cell = tf1.nn.rnn_cell
seq2seq = tf.contrib.seq2seq
FOLDER = (
    sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tf115")
)
STEPS = 50


class Model:
    """Tensors of one graph by their keys, and a batch."""

    def __init__(self, inputs, outputs, batch):
        self.inputs, self.outputs, self.batch = inputs, outputs, batch


def source_of(features):
    source = tf1.placeholder(tf.float32, [None, None, features], "source")
    lengths = tf1.placeholder(tf.int32, [None], "lengths")
    return source, lengths


def stacked_lstm(rng):
    source, lengths = source_of(3)
    cells = [rnn_cell.BasicLSTMCell(5), rnn_cell.LSTMCell(4, use_peepholes=True, num_proj=2)]
    outputs, state = tf1.nn.dynamic_rnn(
        rnn_cell.MultiRNNCell(cells), source, sequence_length=lengths, dtype=tf.float32
    )
    batch = {"source": rng.standard_normal([4, 6, 3]), "lengths": [6, 2, 5, 0]}
    return Model(
        {"source": source, "lengths": lengths},
        {"outputs": outputs, "state": state[1].h, "c": state[0].c},
        batch,
    )


def stacked_gru(rng):
    """Its variables are resources, which the loop reads."""
    source, lengths = source_of(4)
    with tf1.variable_scope("encoder", use_resource=True):
        outputs, state = tf1.nn.dynamic_rnn(
            rnn_cell.MultiRNNCell([rnn_cell.GRUCell(3), rnn_cell.GRUCell(5)]),
            source,
            sequence_length=lengths,
            dtype=tf.float32,
            swap_memory=True,
        )
    batch = {"source": rng.standard_normal([3, 5, 4]), "lengths": [5, 1, 3]}
    return Model({"source": source, "lengths": lengths}, {"outputs": outputs, "state": state[1]}, batch)


def bidirectional(rng):
    source, lengths = source_of(3)
    outputs, states = tf1.nn.bidirectional_dynamic_rnn(
        rnn_cell.LSTMCell(4), rnn_cell.LSTMCell(2), source, sequence_length=lengths, dtype=tf.float32
    )
    batch = {"source": rng.standard_normal([3, 5, 3]), "lengths": [5, 2, 4]}
    return Model(
        {"source": source, "lengths": lengths},
        {"outputs": tf.concat(outputs, 2), "state": states[1].c},
        batch,
    )


def attention_decoder(rng):
    source, lengths = source_of(3)
    tokens = tf1.placeholder(tf.int32, [None, None], "tokens")
    token_lengths = tf1.placeholder(tf.int32, [None], "token_lengths")
    memory, state = tf1.nn.dynamic_rnn(
        rnn_cell.BasicLSTMCell(5), source, sequence_length=lengths, dtype=tf.float32
    )
    embedding = tf1.get_variable("embedding", [7, 4])
    helper = seq2seq.TrainingHelper(tf.nn.embedding_lookup(embedding, tokens), token_lengths)
    mechanism = seq2seq.BahdanauAttention(6, memory, memory_sequence_length=lengths, normalize=True)
    cell = seq2seq.AttentionWrapper(rnn_cell.BasicLSTMCell(5), mechanism, attention_layer_size=4)
    initial = cell.zero_state(tf.shape(source)[0], tf.float32).clone(cell_state=state)
    decoder = seq2seq.BasicDecoder(cell, helper, initial, output_layer=tf1.layers.Dense(7, use_bias=False))
    outputs, final, _ = seq2seq.dynamic_decode(decoder, impute_finished=True)
    batch = {
        "source": rng.standard_normal([4, 6, 3]),
        "lengths": [6, 2, 5, 3],
        "tokens": rng.randint(0, 7, [4, 5]),
        "token_lengths": [5, 1, 4, 3],
    }
    return Model(
        {"source": source, "lengths": lengths, "tokens": tokens, "token_lengths": token_lengths},
        {"logits": outputs.rnn_output, "attention": final.attention},
        batch,
    )


def loop_in_cond(rng):
    source = tf1.placeholder(tf.float32, [None, 3], "source")
    deep = tf1.placeholder(tf.bool, [], "deep")
    kernel = tf1.get_variable("kernel", [3, 3])
    bias = tf1.get_variable("bias", [3])

    def loop():
        return tf.while_loop(
            lambda step, value: step < 4,
            lambda step, value: (step + 1, tf.tanh(tf.matmul(value, kernel) + bias) + 0.1 * value),
            [0, source],
        )[1]

    output = tf.cond(deep, loop, lambda: tf.matmul(source, kernel) * 2.0)
    return Model(
        {"source": source, "deep": deep},
        {"output": output},
        {"source": rng.standard_normal([4, 3]), "deep": True},
    )


def loop_in_loop(rng):
    """Two loops, one within the other, and in the inner one a cond whose branches have constants."""
    source = tf1.placeholder(tf.float32, [None, 3], "source")
    turns = tf1.placeholder(tf.int32, [], "turns")
    kernel = tf1.get_variable("kernel", [3, 3])
    gate = tf1.get_variable("gate", [3])

    def inner(outer_step, value):
        def body(step, state, total):
            changed = tf.cond(
                tf.equal(step % 2, 0),
                lambda: tf.tanh(tf.matmul(state, kernel) + tf.cast(outer_step, tf.float32)),
                lambda: state * tf.sigmoid(gate) + 0.3,
            )
            return step + 1, changed, total + changed

        return tf.while_loop(lambda step, *_: step < outer_step + 2, body, [0, value, tf.zeros_like(value)])

    def outer(step, value, total):
        _, value, part = inner(step, value)
        return step + 1, value * 0.9, total + part

    _, value, total = tf.while_loop(
        lambda step, *_: step < turns, outer, [0, source, tf.zeros_like(source)], parallel_iterations=3
    )
    return Model(
        {"source": source, "turns": turns},
        {"value": value, "total": total},
        {"source": rng.standard_normal([4, 3]), "turns": 3},
    )


SAVED = {
    "stacked-lstm": stacked_lstm,
    "stacked-gru": stacked_gru,
    "bidirectional": bidirectional,
    "attention-decoder": attention_decoder,
    "loop-in-cond": loop_in_cond,
    "loop-in-loop": loop_in_loop,
    "hub-module": stacked_gru,
}


def initialise(session, rng):
    session.run(tf1.global_variables_initializer())
    for variable in tf1.trainable_variables():
        variable.load(0.6 * rng.standard_normal(variable.shape.as_list()).astype("f"), session)


def save(name, session, model):
    folder = os.path.join(FOLDER, name)
    hub = name == "hub-module"
    inputs = {key: tf1.saved_model.build_tensor_info(tensor) for key, tensor in model.inputs.items()}
    outputs = {key: tf1.saved_model.build_tensor_info(tensor) for key, tensor in model.outputs.items()}
    method = "" if hub else "tensorflow/serving/predict"
    signature = tf1.saved_model.build_signature_def(inputs, outputs, method)
    builder = tf1.saved_model.Builder(folder)
    builder.add_meta_graph_and_variables(
        session, [] if hub else ["serve"], {"default" if hub else "serving_default": signature}
    )
    builder.save()
    if hub:
        # tensorflow_hub's ModuleDef with its one field, the format SAVED_MODEL.
        with open(os.path.join(folder, "tfhub_module.pb"), "wb") as file:
            file.write(b"\x08\x03")


def freeze(name, session, model):
    names = [tensor.op.name for tensor in model.outputs.values()]
    graph = tf1.graph_util.convert_variables_to_constants(
        session, tf1.get_default_graph().as_graph_def(), names
    )
    with open(os.path.join(FOLDER, name + ".pb"), "wb") as file:
        file.write(graph.SerializeToString())


def compute(session, model, rng):
    """The batch's outputs, gradients and losses; adds to the graph and changes the variables."""
    kept = {
        "input/" + key: np.asarray(array, model.inputs[key].dtype.as_numpy_dtype)
        for key, array in model.batch.items()
    }
    feed = {model.inputs[key]: kept["input/" + key] for key in model.batch}
    for key, array in session.run(model.outputs, feed).items():
        kept["output/" + key] = array
        kept["weight/" + key] = rng.standard_normal(array.shape).astype("f")
        kept["target/" + key] = 0.5 * rng.standard_normal(array.shape).astype("f")
    variables = tf1.trainable_variables()
    floating = {key: tensor for key, tensor in model.inputs.items() if tensor.dtype == tf.float32}
    sources = list(floating.values()) + variables
    names = ["gradient/input/" + key for key in floating]
    names += ["gradient/variable/" + variable.op.name for variable in variables]
    weighted = [tf.reduce_sum(kept["weight/" + key] * tensor) for key, tensor in model.outputs.items()]
    gradients = tf.gradients(tf.add_n(weighted), sources)
    for name, gradient in zip(names, gradients):
        if gradient is not None:
            kept[name] = session.run(tf.convert_to_tensor(gradient), feed)
    loss = tf.add_n(
        [tf.reduce_mean((t - kept["target/" + k]) ** 2) for k, t in sorted(model.outputs.items())]
    )
    optimizer = tf1.train.AdamOptimizer(0.01)
    train = optimizer.minimize(loss, var_list=variables)
    session.run(tf1.variables_initializer(optimizer.variables()))
    losses = []
    for _ in range(STEPS):
        losses.append(session.run(loss, feed))
        session.run(train, feed)
    losses.append(session.run(loss, feed))
    kept["loss"] = np.asarray(losses, "f")
    return kept


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    for seed, (name, build) in enumerate(sorted(SAVED.items())):
        rng = np.random.RandomState(seed)
        with tf.Graph().as_default(), tf1.Session() as session:
            model = build(rng)
            initialise(session, rng)
            save(name, session, model)
            if name == "stacked-lstm":
                freeze("frozen-lstm", session, model)
                tf1.train.Saver().save(session, os.path.join(FOLDER, "meta-lstm"), write_state=False)
            if name == "loop-in-loop":
                freeze("frozen-loops", session, model)
            kept = compute(session, model, rng)
        for copy in {"stacked-lstm": ("stacked-lstm", "frozen-lstm")}.get(name, (name,)):
            np.savez_compressed(os.path.join(FOLDER, copy + ".npz"), **kept)


if __name__ == "__main__":
    main()
