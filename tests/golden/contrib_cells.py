"""Writes `contrib_cells.npz`: what TF 1.15 computes with `tf.contrib.rnn.LayerNormBasicLSTMCell`.

`tf.contrib` is not in TF 2, so its numbers are kept. This runs under Python 3.7 with TF 1.15 only:

    python3.7 -m venv /tmp/tf115
    /tmp/tf115/bin/pip install 'tensorflow==1.15.5' 'numpy<1.19' 'protobuf<3.21'
    /tmp/tf115/bin/python tests/golden/contrib_cells.py

For case `i` the file holds `i/config` (JSON), `i/variable/...`, `i/source/...` (inputs and initial
state), `i/target/...` (the loss is half the squared distance from it), `i/uniform` (the numbers that
dropout drew, [time, batch, units]) and `i/result/...` with the loss and all gradients. All in float64.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from tensorflow.contrib.rnn import LayerNormBasicLSTMCell, LSTMStateTuple

FEATURES, BATCH = 4, 3


def configurations():
    seed = 0
    for layer_norm in (True, False):
        for keep_prob in (1.0, 0.7):
            for loop in ("steps", "dynamic_rnn"):
                for gain, shift, forget_bias, activation in (
                    (1.0, 0.0, 1.0, "tanh"),
                    (0.8, 0.3, -0.5, "sigmoid"),
                ):
                    seed += 1
                    yield {
                        "units": 5,
                        "time": 3,
                        "layer_norm": layer_norm,
                        "dropout_keep_prob": keep_prob,
                        "loop": loop,
                        "norm_gain": gain,
                        "norm_shift": shift,
                        "forget_bias": forget_bias,
                        "activation": activation,
                        "seed": seed,
                    }


def run(config):
    units, time, rng = config["units"], config["time"], np.random.RandomState(config["seed"])
    source = {
        "inputs": rng.standard_normal((BATCH, time, FEATURES)),
        "c": rng.standard_normal((BATCH, units)),
        "h": rng.standard_normal((BATCH, units)),
    }
    lengths = [2, 0, 3] if config["loop"] == "dynamic_rnn" else None
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(config["seed"])
        cell = LayerNormBasicLSTMCell(
            units,
            forget_bias=config["forget_bias"],
            activation=getattr(tf, config["activation"]),
            layer_norm=config["layer_norm"],
            norm_gain=config["norm_gain"],
            norm_shift=config["norm_shift"],
            dropout_keep_prob=config["dropout_keep_prob"],
        )
        tensors = {name: tf.constant(values) for name, values in source.items()}
        state = LSTMStateTuple(tensors["c"], tensors["h"])
        uniform = []
        if lengths is None:
            outputs = []
            for t in range(time):
                output, state = cell(tensors["inputs"][:, t], state)
                outputs.append(output)
            outputs = tf.stack(outputs, 1)
            uniform = dropout_draws(graph)
        else:
            outputs, state = tf.nn.dynamic_rnn(
                Recording(cell) if config["dropout_keep_prob"] < 1 else cell,
                tensors["inputs"],
                sequence_length=lengths,
                initial_state=state,
            )
            if config["dropout_keep_prob"] < 1:
                outputs, drawn = tf.split(outputs, 2, -1)
                uniform = tf.unstack(drawn, axis=1)
        results = {"outputs": outputs, "c": state.c, "h": state.h}
        target = {
            name: rng.standard_normal([int(size) for size in tensor.shape])
            for name, tensor in sorted(results.items())
        }
        loss = tf.add_n([tf.nn.l2_loss(results[name] - target[name]) for name in sorted(target)])
        variables = {local_name(variable.op.name): variable for variable in tf.trainable_variables()}
        values, initial = {}, {}
        for name, variable in sorted(variables.items()):
            values[name] = rng.standard_normal([int(size) for size in variable.shape])
        wanted = {"gradient/variable/" + name: variable for name, variable in variables.items()}
        wanted.update({"gradient/" + name: tensor for name, tensor in tensors.items()})
        gradients = dict(zip(wanted, tf.gradients(loss, list(wanted.values()))))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            initial = session.run(variables)
            for name, variable in variables.items():
                variable.load(values[name], session)
            results, loss, gradients, uniform = session.run((results, loss, gradients, uniform))
    results.update(gradients, loss=loss)
    stored = {"config": np.array(json.dumps(dict(config, lengths=lengths)))}
    stored.update({"variable/" + name: array for name, array in values.items()})
    stored.update({"initial/" + n: initial[n] for n in ("input/gamma", "state/beta") if n in initial})
    stored.update({"source/" + name: array for name, array in source.items()})
    stored.update({"target/" + name: array for name, array in target.items()})
    stored.update({"result/" + name: array for name, array in results.items()})
    if len(uniform):
        stored["uniform"] = np.stack(uniform)
    return stored


class Recording(tf.nn.rnn_cell.RNNCell):
    """The cell, with the uniform numbers of its dropout beside its output."""

    def __init__(self, cell):
        super().__init__()
        self.recorded = cell

    state_size = property(lambda self: self.recorded.state_size)
    output_size = property(lambda self: 2 * self.recorded.output_size)

    def __call__(self, inputs, state, scope=None):
        output, state = self.recorded(inputs, state)
        (drawn,) = dropout_draws(tf.get_default_graph())
        return tf.concat([output, drawn], -1), state


def dropout_draws(graph):
    operations = graph.get_operations()
    return [op.outputs[0] for op in operations if op.type == "RandomUniform" and "dropout" in op.name]


def local_name(name):
    return name.split("layer_norm_basic_lstm_cell/")[1]


def main():
    stored = {}
    for i, config in enumerate(configurations()):
        stored.update({f"{i}/{name}": array for name, array in run(config).items()})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "contrib_cells.npz")
    np.savez_compressed(path, **stored)
    print(tf.__version__, len(stored), "arrays,", os.path.getsize(path), "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
