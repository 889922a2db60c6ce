"""The mirror of TF1's cells, in eager mode and in a v1 graph with a session."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.jax]

tf = pytest.importorskip("tests.parity.tensorflow_side").tf
hold = pytest.importorskip("tests.oracle.mirror.compare").hold
v1 = tf.compat.v1
CELL = v1.nn.rnn_cell

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4))
LENGTHS = np.array([5, 2, 0], np.int32)


def make_stack():
    """Every wrapper around every kind of cell."""
    return CELL.MultiRNNCell(
        [
            CELL.DropoutWrapper(CELL.LSTMCell(4), input_keep_prob=1.0),
            CELL.ResidualWrapper(CELL.GRUCell(4)),
            CELL.DeviceWrapper(CELL.BasicLSTMCell(3), "/cpu:0"),
            CELL.ResidualWrapper(CELL.BasicRNNCell(3)),
        ]
    )


CELLS = {
    "basic rnn": lambda: CELL.BasicRNNCell(6, activation=tf.nn.relu),
    "basic lstm": lambda: CELL.BasicLSTMCell(6, forget_bias=0.3),
    "lstm": lambda: CELL.LSTMCell(6, use_peepholes=True, num_proj=2, cell_clip=0.4, proj_clip=0.2),
    "gru": lambda: CELL.GRUCell(6),
    "stack": make_stack,
}


class Loop(tf.Module):
    """TF1's variables, kept by the module that makes them."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    @v1.keras.utils.track_tf1_style_variables
    def __call__(self, inputs, lengths):
        return v1.nn.dynamic_rnn(self.cell, inputs, sequence_length=lengths, dtype=inputs.dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CELLS)
def test_cell_in_a_loop(kind):
    """Outputs, and the state in TF1's tuples."""
    hold(
        Loop(CELLS[kind]()),
        lambda loop, x: loop(x["x"], x["lengths"]),
        lambda m, p, x: m.cell.dynamic_rnn(x["x"], sequence_length=x["lengths"], params=p["cell"]),
        {"x": X, "lengths": LENGTHS},
    )


def test_wrappers_of_tf2_around_cells_of_keras():
    """`tf.nn.RNNCellResidualWrapper` and its like, in a Keras loop."""
    # They do not hear of Keras' default precision, and would cast to float32.
    inner = tf.nn.RNNCellDeviceWrapper(tf.keras.layers.LSTMCell(4), "/cpu:0", dtype="float64")
    cell = tf.nn.RNNCellResidualWrapper(inner, dtype="float64")
    hold(
        tf.keras.layers.RNN(cell, return_state=True),
        lambda layer, x: layer(x["x"]),
        lambda m, p, x: m.apply(x["x"], params=p),
        {"x": X},
    )


@pytest.mark.filterwarnings("ignore")
def test_one_cell_in_two_places():
    """`[cell] * 2` is one set of weights, whose gradients are summed."""
    from oracle.bridge.mirror import mirror

    cell = CELL.GRUCell(4)
    loop = Loop(CELL.MultiRNNCell([cell, cell]))
    loop(tf.constant(X), LENGTHS)
    assert mirror(loop).spec.ties["cell/cells_1/kernel"] == "cell/cells_0/kernel"
    hold(
        loop,
        lambda loop, x: loop(x["x"], x["lengths"]),
        lambda m, p, x: m.cell.dynamic_rnn(x["x"], sequence_length=x["lengths"], params=m.expand(p)["cell"]),
        {"x": X, "lengths": LENGTHS},
    )


@pytest.mark.filterwarnings("ignore")
def test_v1_graph_with_a_session():
    """The values come from the session; the outputs are those of the graph."""
    from oracle.bridge.mirror import MirrorError, mirror
    from oracle.frameworks import precise_jax

    with tf.Graph().as_default(), v1.Session() as session:
        cell = CELL.LSTMCell(6, use_peepholes=True)
        outputs, _ = v1.nn.dynamic_rnn(cell, tf.constant(X), sequence_length=LENGTHS, dtype=tf.float64)
        session.run(v1.global_variables_initializer())
        theirs = session.run(outputs)
        with pytest.raises(MirrorError, match="cannot be read here"):
            mirror(cell)
        mirrored = mirror(cell, session=session)
    with precise_jax():
        ours, _ = mirrored.dynamic_rnn(X, sequence_length=LENGTHS)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)
