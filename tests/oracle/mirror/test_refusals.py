"""What is not known is refused by name: the class, the attribute path, and the method or option."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from oracle.bridge.mirror import MirrorError, mirror, mirrors, registry

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

side = pytest.importorskip("tests.parity.tensorflow_side")
tf, tfa = side.tf, side.tfa
L = tf.keras.layers

X = np.random.default_rng(0).normal(size=(3, 5, 4))


def built(layer):
    """The layer with its weights."""
    layer(tf.constant(X))
    return layer


class OwnLSTM(L.LSTM):
    def call(self, inputs, **options):
        return 2 * super().call(inputs, **options)


class OwnDense(L.Dense):
    def build(self, shape):
        super().build(shape)


class OwnCell(L.GRUCell):
    def __call__(self, *args, **options):
        return super().__call__(*args, **options)


class NamedLSTM(L.LSTM):
    """Overrides nothing that decides a number."""

    def __init__(self):
        super().__init__(6, name="mine")

    def get_config(self):
        return {}

    def describe(self):
        return "an LSTM"


class Holder(tf.keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.parts = {"inner": [layer]}

    def call(self, x):
        return self.parts["inner"][0](x)


def test_overridden_call():
    with pytest.raises(MirrorError, match=r"parts/inner/0 is a OwnLSTM, which overrides call of LSTM"):
        mirror(built(Holder(OwnLSTM(6))))


def test_overridden_build():
    with pytest.raises(MirrorError, match="overrides build of Dense"):
        mirror(built(OwnDense(6)))


def test_overridden_dunder_call_of_a_cell_in_a_loop():
    with pytest.raises(MirrorError, match=r"RNN/cell is a OwnCell, which overrides __call__ of GRUCell"):
        mirror(built(L.RNN(OwnCell(6))))


def test_subclass_that_overrides_nothing_is_its_class():
    assert mirror(built(NamedLSTM())).spec.root.kind == "keras.layers.LSTM"


def test_call_replaced_on_the_object():
    layer = built(L.Dense(6))
    layer.call = lambda x: x
    with pytest.raises(MirrorError, match=r"Dense: the object's own `call` stands in for Dense.call"):
        mirror(layer)


@pytest.mark.parametrize("replacement", [lambda self, inputs: inputs, mock.MagicMock()])
def test_call_replaced_on_the_class(replacement):
    layer = built(L.Dense(6))
    with (
        mock.patch.object(L.Dense, "call", replacement),
        pytest.raises(MirrorError, match="Dense.call was replaced"),
    ):
        mirror(layer)


def test_method_of_another_class_put_in_its_place():
    layer = built(L.RNN(L.GRUCell(6)))
    with (
        mock.patch.object(L.GRUCell, "call", L.LSTMCell.call),
        pytest.raises(MirrorError, match=r"RNN/cell: GRUCell.call was replaced by LSTMCell.call"),
    ):
        mirror(layer)


def test_activation_replaced_by_a_lambda():
    layer = built(L.RNN(L.LSTMCell(6)))
    layer.cell.activation = lambda x: tf.tanh(x) * 1.0000001
    with pytest.raises(MirrorError, match=r"RNN/cell: the activation is .*<lambda>"):
        mirror(layer)


def test_activation_that_the_fused_layer_does_not_see():
    """Keras goes on computing tanh, whatever the cell says."""
    layer = built(L.LSTM(6))
    layer.cell.activation = tf.keras.activations.relu
    with pytest.raises(MirrorError, match="was changed after it was made, which its fused form does not see"):
        mirror(layer)


def test_own_activation():
    with pytest.raises(MirrorError, match="leaky_relu"):
        mirror(built(L.Dense(6, activation=tf.nn.leaky_relu)))


def test_cell_of_ones_own_in_a_loop():
    class Elman(L.Layer):
        state_size = 6

        def build(self, shape):
            self.kernel = self.add_weight("kernel", (shape[-1], 6))

        def call(self, x, states):
            return x @ self.kernel + states[0], [x @ self.kernel + states[0]]

    with pytest.raises(MirrorError, match=r"RNN/cell: Elman is a cell of your own.*@oracle.mirrors\(Elman\)"):
        mirror(built(L.RNN(Elman())))


def test_class_with_a_call_of_its_own_has_pieces_only():
    """The pieces can be called; the whole cannot, and says what to compose."""
    mirrored = mirror(built(Holder(L.LSTM(6))))
    with pytest.raises(
        MirrorError, match=r"Holder has a call of its own.*compose its pieces \(parts_inner_0\)"
    ):
        mirrored.apply(X)
    assert mirrored.parts_inner_0.apply(X).shape == (3, 6)


@pytest.mark.parametrize(
    "make", [lambda: L.Lambda(lambda x: 2 * x), lambda: L.Conv1D(3, 2), L.BatchNormalization]
)
def test_layer_without_a_counterpart_in_a_model(make):
    layer = make()
    model = built(tf.keras.Sequential([L.Dense(4), layer, L.Dense(2)]))
    with pytest.raises(
        MirrorError,
        match=rf"its layer .* cannot be called: {type(layer).__name__} is a class that the mirror does not",
    ):
        mirror(model).apply(X)


def test_operator_in_a_functional_model():
    inputs = tf.keras.Input((5, 4))
    model = tf.keras.Model(inputs, L.Dense(2)(tf.sin(inputs)))
    with pytest.raises(MirrorError, match="TFOpLambda is a class that the mirror does not know"):
        mirror(model).apply(X)


def test_unbuilt():
    with pytest.raises(
        MirrorError, match=r"Holder/parts/inner/0/cell: the LSTMCell has no variable.*call the model once"
    ):
        mirror(Holder(L.LSTM(6)))


def test_stateful():
    with pytest.raises(MirrorError, match="stateful=True keeps a state in variables"):
        mirror(built(L.LSTM(6, stateful=True)))


def test_dropout_in_training():
    with pytest.raises(MirrorError, match="Dropout in training draws numbers"):
        mirror(built(L.Dropout(0.5))).apply(X, training=True)


def test_dropout_in_a_cell_needs_its_masks():
    layer = built(L.LSTM(6, dropout=0.5))
    assert mirror(layer).apply(X).shape == (3, 6)
    with pytest.raises(MirrorError, match="LSTM: .*needs a key, or the dropout_masks"):
        mirror(layer).apply(X, training=True)


def test_attention_with_functions_of_ones_own():
    mechanism = tfa.seq2seq.LuongAttention(6)
    mechanism.setup_memory(tf.constant(X))

    def wrap(**options):
        wrapper = tfa.seq2seq.AttentionWrapper(L.GRUCell(6), mechanism, **options)
        state = wrapper.get_initial_state(batch_size=3, dtype=tf.float64)
        wrapper(tf.constant(X[:, 0]), state)
        return wrapper

    mirror(wrap())
    with pytest.raises(MirrorError, match="its cell_input_fn is a function of your own"):
        mirror(wrap(cell_input_fn=lambda x, attention: tf.concat([attention, x], -1)))
    with pytest.raises(MirrorError, match="initial_cell_state"):
        mirror(wrap(initial_cell_state=tf.zeros((3, 6), tf.float64)))
    mechanism.probability_fn = lambda score, state: tf.nn.softmax(2 * score)
    with pytest.raises(MirrorError, match="its probability_fn is not one of tfa's"):
        mirror(wrap())


def test_sampler_of_ones_own_functions():
    sampler = tfa.seq2seq.InferenceSampler(tf.identity, [4], tf.float64, lambda ids: tf.fill([3], False))
    decoder = tfa.seq2seq.BasicDecoder(L.GRUCell(4), sampler, maximum_iterations=2)
    decoder(tf.constant(X[:, 0]), initial_state=tf.zeros((3, 4), tf.float64))
    mirrored = mirror(decoder)
    assert mirrored.cell.spec.root.kind == "keras.layers.GRUCell"
    with pytest.raises(MirrorError, match="InferenceSampler is made of functions of your own"):
        mirrored.apply(X[:, 0])


def test_residual_function_and_joined_state_of_tf1():
    cells = tf.compat.v1.nn.rnn_cell
    wrapper = cells.ResidualWrapper(cells.GRUCell(4), lambda x, y: x - y)
    with pytest.raises(MirrorError, match="its residual_fn is a function of your own"):
        mirror(wrapper)
    with pytest.raises(MirrorError, match="state_is_tuple=False"):
        mirror(cells.BasicLSTMCell(4, state_is_tuple=False))


def test_two_dtypes():
    class Mixed(tf.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = L.Dense(2, dtype="float64"), L.Dense(2, dtype="float32")
            self.one(X)
            self.other(X)

    with pytest.raises(MirrorError, match="one/kernel is float64, other/kernel is float32"):
        mirror(Mixed())
    with pytest.raises(MirrorError, match="its weights are float32 and it computes in float16"):
        mirror(built(L.Dense(2, dtype="mixed_float16")))


def test_weight_that_no_part_holds():
    class Hiding(tf.keras.layers.Layer):
        def build(self, shape):
            self.add_weight("loose", (2,))

        def call(self, x):
            return x

    with pytest.raises(MirrorError, match="the model trains .*loose:0, which no mirrored part holds"):
        mirror(built(Hiding()))


@pytest.mark.parametrize("nothing", [3, "text", object(), lambda x: x])
def test_no_model_at_all(nothing):
    with pytest.raises(MirrorError, match="holds no layer, cell or variable"):
        mirror(nothing)


def test_arguments():
    with pytest.raises(MirrorError, match="give one object, or several by name"):
        mirror()
    with pytest.raises(MirrorError, match="give one object, or several by name"):
        mirror(built(L.Dense(2)), other=built(L.Dense(2)))
    with pytest.raises(TypeError, match="takes a class"):
        mirrors(built(L.Dense(2)))  # pyright: ignore[reportArgumentType]


def test_registered_function_that_gives_no_piece(monkeypatch):
    monkeypatch.setattr(registry, "_USERS", {})
    mirrors(OwnDense)(lambda layer, context: "nothing")
    with pytest.raises(MirrorError, match="gave a str; expected an oracle.Piece"):
        mirror(built(OwnDense(2)))


def test_regularizer_is_noted():
    (note,) = mirror(built(L.Dense(2, kernel_regularizer="l2"))).notes
    assert "Dense: kernel_regularizer adds a term to the port's `losses`" in note
