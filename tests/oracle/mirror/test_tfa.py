"""The mirror of tfa's cells, attention and decoders: results and gradients against the live objects."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.jax]

side = pytest.importorskip("tests.parity.tensorflow_side")
hold = pytest.importorskip("tests.oracle.mirror.compare").hold
tf, tfa = side.tf, side.tfa

RNG = np.random.default_rng(0)
BATCH, STEPS, MEMORY, FEATURES, DEPTH, UNITS = 3, 4, 5, 2, 6, 7
INPUTS = RNG.normal(size=(BATCH, STEPS, FEATURES))
VALUES = RNG.normal(size=(BATCH, MEMORY, DEPTH))
LENGTHS = np.array([5, 2, 3], np.int32)
H, C = RNG.normal(size=(2, BATCH, UNITS))

CELLS = {
    "layer norm lstm": (lambda: tfa.rnn.LayerNormLSTMCell(UNITS, norm_epsilon=0.1), "hc"),
    "layer norm simple": (lambda: tfa.rnn.LayerNormSimpleRNNCell(UNITS, layernorm_epsilon=0.1), "h"),
    "nas": (lambda: tfa.rnn.NASCell(UNITS, use_bias=True), "ch"),
    "nas projected": (lambda: tfa.rnn.NASCell(4, projection=UNITS), "dh"),
    "esn": (lambda: tfa.rnn.ESNCell(UNITS, connectivity=0.6, leaky=0.4), "h"),
    "peephole": (lambda: tfa.rnn.PeepholeLSTMCell(UNITS, activation="relu"), "hc"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cell(kind):
    """Each cell's own order of states."""
    make, order = CELLS[kind]
    mirrored = hold(
        make(),
        lambda cell, x: cell(x["x"], [x[name] for name in order]),
        lambda m, p, x: m.apply(x["x"], [x[name] for name in order], params=p),
        {"x": RNG.normal(size=(BATCH, 8)), "h": H, "c": C, "d": C[:, :4]},
    )
    assert bool(mirrored.spec.frozen) == (kind == "esn")


MECHANISMS = {
    "luong": lambda: tfa.seq2seq.LuongAttention(UNITS, scale=True),
    "luong unscaled": lambda: tfa.seq2seq.LuongAttention(UNITS),
    "bahdanau": lambda: tfa.seq2seq.BahdanauAttention(5, normalize=True),
    "bahdanau hardmax": lambda: tfa.seq2seq.BahdanauAttention(5, probability_fn="hardmax"),
    "luong monotonic": lambda: tfa.seq2seq.LuongMonotonicAttention(UNITS, scale=True),
    "bahdanau monotonic hard": lambda: tfa.seq2seq.BahdanauMonotonicAttention(5, normalize=True, mode="hard"),
}


@pytest.mark.parametrize("kind", MECHANISMS)
def test_mechanism(kind):
    """The memory is set up by a pure function; the call is TensorFlow's, and the memory."""

    def run_tf(mechanism, x):
        mechanism.setup_memory(x["memory"], memory_sequence_length=x["lengths"])
        return mechanism([x["query"], mechanism.initial_state(BATCH, tf.float64)])[0]

    def run_jax(m, p, x):
        memory = m.setup_memory(x["memory"], memory_sequence_length=x["lengths"], params=p)
        return m.apply([x["query"], m.initial_state(memory, params=p)], memory, params=p)[0]

    hold(MECHANISMS[kind](), run_tf, run_jax, {"memory": VALUES, "lengths": LENGTHS, "query": H})


@pytest.mark.parametrize("options", [{"attention_layer_size": 3}, {"output_attention": False}, {}], ids=str)
@pytest.mark.parametrize("kind", ["luong", "bahdanau", "luong monotonic"])
def test_attention_wrapper_and_decoder(kind, options):
    """Outputs, ids, lengths, and the state of the cell, whose form is Keras'."""
    mechanism = MECHANISMS[kind]()
    wrapper = tfa.seq2seq.AttentionWrapper(tf.keras.layers.LSTMCell(UNITS), mechanism, **options)
    decoder = tfa.seq2seq.BasicDecoder(
        wrapper, tfa.seq2seq.TrainingSampler(), output_layer=tf.keras.layers.Dense(9)
    )
    lengths = np.array([2, 3, 0], np.int32)

    def run_tf(decoder, x):
        mechanism.setup_memory(x["memory"], memory_sequence_length=x["lengths"])
        state = wrapper.get_initial_state(batch_size=BATCH, dtype=tf.float64)
        state = state.clone(cell_state=[x["h"], x["c"]])
        outputs, state, final = decoder(x["x"], initial_state=state, sequence_length=lengths)
        return [*outputs, state.cell_state, state.attention, final]

    def run_jax(m, p, x):
        memory = m.cell.setup_memory(x["memory"], memory_sequence_length=x["lengths"], params=p["cell"])
        state = m.cell.initial_state(memory, cell_state=[x["h"], x["c"]], params=p["cell"])
        outputs, state, final = m.apply(x["x"], initial_state=state, sequence_length=lengths, params=p)
        return [*outputs, state.cell_state, state.attention, final]

    hold(decoder, run_tf, run_jax, {"x": INPUTS, "memory": VALUES, "lengths": LENGTHS, "h": H, "c": C})


def test_wrapper_of_a_stack_with_two_mechanisms_called_once():
    """`output, state = wrapper(inputs, state)`; everything is told apart by position."""
    mechanisms = [MECHANISMS["bahdanau"](), MECHANISMS["luong"]()]
    stack = tf.keras.layers.StackedRNNCells([tf.keras.layers.GRUCell(4), tf.keras.layers.LSTMCell(UNITS)])
    wrapper = tfa.seq2seq.AttentionWrapper(stack, mechanisms, attention_layer_size=[3, 2])

    def run_tf(wrapper, x):
        for mechanism in mechanisms:
            mechanism.setup_memory(x["memory"], memory_sequence_length=x["lengths"])
        state = wrapper.get_initial_state(batch_size=BATCH, dtype=tf.float64)
        state = state.clone(cell_state=(x["h"][:, :4], [x["h"], x["c"]]))
        output, state = wrapper(x["x"][:, 0], state)
        return [output, state.cell_state, state.attention, state.alignments]

    def run_jax(m, p, x):
        memories = m.setup_memory(x["memory"], memory_sequence_length=x["lengths"], params=p)
        start = (x["h"][:, :4], [x["h"], x["c"]])
        state = m.initial_state(memories, cell_state=start, params=p)
        output, state = m.apply(x["x"][:, 0], state, params=p)
        return [output, state.cell_state, state.attention, state.alignments]

    mirrored = hold(
        wrapper, run_tf, run_jax, {"x": INPUTS, "memory": VALUES, "lengths": LENGTHS, "h": H, "c": C}
    )
    assert "attention_mechanism_1/memory_layer/kernel" in mirrored.variables
    assert mirrored.attention_mechanism_1.spec.root.kind == "tfa.seq2seq.LuongAttention"


def test_greedy_decoding_with_a_model_as_output_layer():
    """The output layer is a `Sequential`; the loop ends where TensorFlow's does."""
    output = tf.keras.Sequential([tf.keras.layers.Dense(5, activation="tanh"), tf.keras.layers.Dense(9)])
    decoder = tfa.seq2seq.BasicDecoder(
        tf.keras.layers.GRUCell(UNITS),
        tfa.seq2seq.GreedyEmbeddingSampler(),
        output_layer=output,
        maximum_iterations=6,
    )
    given = {"start_tokens": np.array([1, 2, 3], np.int32), "end_token": 0}
    table = RNG.normal(size=(9, FEATURES))
    hold(
        decoder,
        lambda d, x: list(d(tf.constant(table), initial_state=x["h"], **given)[0]),
        lambda m, p, x: list(m.apply(table, initial_state=x["h"], params=p, **given)[0]),
        {"h": H},
    )


def test_beam_search():
    """Ids and scores of all beams; a length penalty of 1 is exact in float32."""
    cell = tf.keras.layers.LSTMCell(UNITS)
    decoder = tfa.seq2seq.BeamSearchDecoder(
        cell, 2, output_layer=tf.keras.layers.Dense(5), maximum_iterations=4
    )
    given = {"start_tokens": np.array([1, 2, 3], np.int32), "end_token": 0}
    table = RNG.normal(size=(5, FEATURES))

    def run_tf(decoder, x):
        state = tfa.seq2seq.tile_batch([x["h"], x["c"]], 2)
        outputs, state, lengths = decoder(tf.constant(table), initial_state=state, **given)
        return [outputs.predicted_ids, state.cell_state, tf.cast(lengths, tf.int32)]

    def run_jax(m, p, x):
        from jax_models.seq2seq import tile_batch

        state = tile_batch([x["h"], x["c"]], 2)
        outputs, state, lengths = m.apply(table, initial_state=state, params=p, **given)
        ids = outputs.predicted_ids[:, : int(lengths.max())]
        return [ids, state.cell_state, lengths]

    hold(decoder, run_tf, run_jax, {"h": H, "c": C})


def test_losses():
    """Losses are mirrored too; a sample weight and each reduction."""
    keras, rng = tf.keras.losses, np.random.default_rng(3)
    ids, logits, weights = rng.integers(0, 5, (3, 4)), rng.normal(size=(3, 4, 5)), rng.random((3, 4))
    for loss, targets in (
        (keras.SparseCategoricalCrossentropy(from_logits=True), ids),
        (keras.SparseCategoricalCrossentropy(), ids),
        (keras.CategoricalCrossentropy(label_smoothing=0.1, reduction="sum"), np.eye(5)[ids]),
        (keras.CategoricalCrossentropy(from_logits=True), 2 * rng.random((3, 4, 5))),
        (keras.BinaryCrossentropy(reduction="none"), rng.random((3, 4, 5))),
        (keras.BinaryCrossentropy(from_logits=True), rng.random((3, 4, 5))),
        (keras.MeanSquaredError(), rng.normal(size=(3, 4, 5))),
        (keras.MeanAbsoluteError(), rng.normal(size=(3, 4, 5))),
        (tfa.seq2seq.SequenceLoss(), ids),
    ):
        outputs = logits if getattr(loss, "_fn_kwargs", {}).get("from_logits") else np.abs(logits) / 4
        hold(
            loss,
            lambda loss, x, targets=targets: loss(targets, x["outputs"], weights),
            lambda m, p, x, targets=targets: m.apply(targets, x["outputs"], weights, params=p),
            {"outputs": outputs},
            redraw=False,
        )
