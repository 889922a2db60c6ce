"""The mirror object: spec, module, weights, ties, gradients, and writing back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from oracle.bridge.mirror import MirrorError, mirror, mirrors, registry
from oracle.bridge.mirror.gradients import densify
from oracle.errors import BridgeError, SpecError
from oracle.frameworks import precise_jax
from oracle.spec import decode, encode
from oracle.steps.leaves import nest_leaves

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.filterwarnings("ignore")]

jax = pytest.importorskip("jax")
jnp = jax.numpy
mirrored_module = pytest.importorskip("oracle.bridge.mirror.mirrored")
flatten, nest = mirrored_module.flatten, nest_leaves
side = pytest.importorskip("tests.parity.tensorflow_side")
tf, tfa = side.tf, side.tfa
L = tf.keras.layers

X = np.random.default_rng(0).normal(size=(3, 5, 4))


@pytest.fixture
def pair():
    """An encoder and a decoder that share their embedding, on ids."""
    embedding = L.Embedding(9, 4)
    encoder = tf.keras.Sequential([embedding, L.LSTM(6)])
    decoder = tf.keras.Sequential([embedding, L.GRU(3)])
    ids = np.array([[1, 2, 1], [3, 1, 8]])
    encoder(ids)
    decoder(ids)
    return encoder, decoder, ids


def test_spec_round_trip(pair):
    """The spec is plain JSON, read strictly, and says where each part is in the live model."""
    spec = mirror(encoder=pair[0], decoder=pair[1]).spec
    text = msgspec.json.encode(encode(spec))
    assert decode(msgspec.json.decode(text)) == spec
    assert hash(decode(msgspec.json.decode(text))) == hash(spec)
    lstm = spec.root.parts["encoder"].parts["lstm"]
    assert (lstm.kind, lstm.options["return_sequences"]) == ("keras.layers.LSTM", False)
    assert lstm.parts["cell"].leaves["kernel"] == (4, 24)
    for broken in ({"unknown": 1}, {"ties": {"a": "b"}}, {"frozen": ["a"]}, {"root": 3}):
        with pytest.raises(SpecError):
            decode(encode(spec) | broken)


def test_shared_layer_is_one_leaf(pair):
    """One leaf, one gradient: the sum of what both models give it."""
    encoder, decoder, ids = pair
    mirrored = mirror(encoder=encoder, decoder=decoder)
    assert mirrored.spec.ties == {"decoder/embedding/embedding": "encoder/embedding/embedding"}
    assert "embedding" not in mirrored.params["decoder"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(ids) ** 2) + tf.reduce_sum(decoder(ids) ** 2)
    theirs = mirrored.gradients_to_leaves(tape.gradient(loss, dict(mirrored.tensors)))

    def loss_of(params):
        whole = mirrored.expand(params)
        parts = [getattr(mirrored, name).apply(ids, params=whole[name]) for name in ("encoder", "decoder")]
        return sum(jnp.sum(part**2) for part in parts)

    with precise_jax():
        ours = flatten(jax.grad(loss_of)(mirrored.params))
    assert theirs.keys() == ours.keys()
    for leaf, gradient in theirs.items():
        np.testing.assert_allclose(ours[leaf], gradient, rtol=0, atol=1e-14)


def test_exchanged_kernels_are_seen(pair):
    """Two kernels of one shape, exchanged in the port's gradients, disagree with the mirror's."""
    layer = L.Bidirectional(L.LSTM(6))
    layer(X)
    mirrored = mirror(layer)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(X) ** 2)
    gradients = tape.gradient(loss, dict(mirrored.tensors))
    names = [f"{way}_layer/cell/kernel" for way in ("forward", "backward")]
    gradients[names[0]], gradients[names[1]] = gradients[names[1]], gradients[names[0]]
    exchanged = mirrored.gradients_to_leaves(gradients)
    with precise_jax():
        ours = flatten(jax.grad(lambda p: jnp.sum(mirrored.apply(X, params=p) ** 2))(mirrored.params))
    assert np.abs(exchanged["forward/cell/kernel"] - ours["forward/cell/kernel"]).max() > 1e-3


def test_wrong_option_is_seen():
    """The real option is read, not the class's default: a reset gate before the product."""
    layer = L.GRU(6, reset_after=False)
    layer(X)
    with precise_jax():
        np.testing.assert_allclose(mirror(layer).apply(X), layer(X), rtol=0, atol=1e-14)
    assert mirror(layer).cell.spec.root.options["reset_after"] is False


def test_module_takes_the_params():
    """`mirror.module` is an ordinary Flax module of `jax_models`."""
    layer = L.LSTM(6)
    layer(X)
    mirrored = mirror(layer)
    with precise_jax():
        variables = {"params": jax.tree.map(jnp.asarray, mirrored.params)}
        np.testing.assert_allclose(
            mirrored.module.apply(variables, jnp.asarray(X)), layer(X), rtol=0, atol=1e-14
        )
    composite = mirror(one=layer)
    shapes = jax.eval_shape(lambda: composite.expand(composite.params))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(np.shape, composite.params)


def test_weights_tied_transposed(monkeypatch):
    """A registered class may read another's weight transposed; it stays one leaf."""

    class Tied(tf.keras.layers.Layer):
        def __init__(self, embedding):
            super().__init__()
            self.embedding = embedding

        def call(self, x):
            return tf.einsum("btw,vw->btv", x, tf.convert_to_tensor(self.embedding.embeddings))

    from oracle.bridge.layout import Layout, whole
    from oracle.bridge.mirror.keras_layers import SizedDense
    from oracle.bridge.mirror.pieces import Piece

    monkeypatch.setattr(registry, "_USERS", {})

    @mirrors(Tied)
    def mirror_tied(layer, context):
        table = layer.embedding.embeddings
        shape = tuple(table.shape)
        block = whole("kernel", "table", shape[::-1], transposed=True)
        layout = Layout({"kernel": shape[::-1]}, {"table": shape}, (block,))
        return Piece(SizedDense(shape[0], use_bias=False), {"table": table}, layout)

    embedding = L.Embedding(9, 4)
    tied = Tied(embedding)
    ids = np.array([[1, 2, 1], [3, 1, 8]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tied(embedding(ids)) ** 3)
    mirrored = mirror(embedding=embedding, projection=tied)
    assert mirrored.spec.ties == {"projection/kernel": "embedding/embedding"}
    assert mirrored.spec.transposed == ("projection/kernel",)
    theirs = mirrored.gradients_to_leaves(tape.gradient(loss, dict(mirrored.tensors)))

    def loss_of(params):
        whole = mirrored.expand(params)
        embedded = mirrored.embedding.apply(ids, params=whole["embedding"])
        return jnp.sum(mirrored.projection.apply(embedded, params=whole["projection"]) ** 3)

    with precise_jax():
        ours = jax.grad(loss_of)(mirrored.params)["embedding"]["embedding"]
    np.testing.assert_allclose(ours, theirs["embedding/embedding"], rtol=0, atol=1e-13)


def test_own_cell_in_ten_lines(monkeypatch):
    """A cell of one's own, in Keras' loop."""
    from jax_models.cell_base import RNNCell
    from oracle.bridge.mirror.pieces import Piece

    class Cell(L.Layer):
        state_size = output_size = 4

        def build(self, shape):
            self.kernel = self.add_weight("kernel", (4, 4))
            self.gain = self.add_weight("gain", (4,), initializer="ones")

        def call(self, x, states):
            h = tf.sin(x @ self.kernel) + self.gain * states[0]
            return h, [h]

    class FlaxCell(RNNCell):
        state_size = output_size = property(lambda self: 4)

        @__import__("flax").linen.compact
        def __call__(self, state, x):
            ones = jax.nn.initializers.ones
            h = jnp.sin(x @ self.param("kernel", ones, (4, 4))) + self.param("gain", ones, (4,)) * state
            return h, h

    monkeypatch.setattr(registry, "_USERS", {})
    mirrors(Cell)(lambda cell, context: Piece(FlaxCell(), {"kernel": cell.kernel, "gain": cell.gain}))
    layer = L.RNN(Cell(), return_sequences=True)
    layer(X)
    mirrored = mirror(layer)
    with precise_jax():
        np.testing.assert_allclose(mirrored.apply(X), layer(X), rtol=0, atol=1e-13)
    assert mirrored.spec.root.parts["cell"].kind == "Cell"


def test_assign_writes_all_or_nothing(pair):
    """Back into the live variables; a leaf that does not fit leaves every variable as it was."""
    encoder, decoder, _ = pair
    mirrored = mirror(encoder=encoder, decoder=decoder)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, mirrored.params)
    mirrored.assign(doubled)
    again = flatten(mirror(encoder=encoder, decoder=decoder).params)
    assert all(np.array_equal(again[leaf], value) for leaf, value in flatten(doubled).items())

    before = {name: variable.numpy() for name, variable in mirrored.tensors.items()}
    wrong = flatten(doubled) | {"decoder/gru/cell/bias": np.zeros(3)}
    for broken in (wrong, {"encoder/embedding/embedding": np.zeros((9, 4))}, wrong | {"more": np.zeros(1)}):
        with pytest.raises(BridgeError):
            mirrored.assign(nest(broken))
    whole = {leaf: np.array(value) for leaf, value in flatten(mirrored.expand(doubled)).items()}
    whole["decoder/embedding/embedding"] = np.zeros((9, 4))
    with pytest.raises(MirrorError, match="are one weight, but were given different values"):
        mirrored.assign(nest(whole))
    assert all(np.array_equal(variable.numpy(), before[name]) for name, variable in mirrored.tensors.items())


def test_gradients_by_name_or_in_pairs():
    """As a tape gives them, or as an optimizer takes them; one that is missing is an error, None is not."""
    layer = L.Dense(2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(X) ** 2)
    mirrored = mirror(layer)
    variables = layer.trainable_variables
    by_pairs = mirrored.gradients_to_leaves(zip(tape.gradient(loss, variables), variables, strict=True))
    assert by_pairs["kernel"].shape == (4, 2)
    assert mirrored.gradients_to_leaves({"kernel": None, "bias": None}) == {"kernel": None, "bias": None}
    with pytest.raises(MirrorError, match="no gradient was given for bias"):
        mirrored.gradients_to_leaves({"kernel": None})
    with pytest.raises(MirrorError, match="other is no variable of the model"):
        mirrored.gradients_to_leaves({"kernel": None, "bias": None, "other": None})
    with pytest.raises(MirrorError, match="is no variable of the model"):
        mirrored.gradients_to_leaves([(None, tf.Variable(1.0, name="loose"))])
    with pytest.raises(MirrorError, match=r"the gradient of bias is \[3\], the variable \[2\]"):
        mirrored.gradients_to_leaves({"kernel": None, "bias": np.zeros(3)})


def test_sparse_gradients():
    """Repeated indices are summed; an index outside, or values of another shape, are errors."""

    def slices(indices, values, shape=(4, 2)):
        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant(shape))

    dense = densify(slices([1, 3, 1], [[1.0, 2.0], [5.0, 6.0], [10.0, 20.0]]), (4, 2), where="table")
    np.testing.assert_array_equal(dense, [[0, 0], [11, 22], [0, 0], [5, 6]])
    ones = [[1.0, 1.0]]
    for wrong in (
        slices([4], ones),
        slices([-1], ones),
        slices([1, 2], ones),
        slices([1], [[1.0]]),
        slices([0], ones, (5, 2)),
    ):
        with pytest.raises(MirrorError, match="the sparse gradient of table"):
            densify(wrong, (4, 2), where="table")


def test_params_of_another_model():
    layer = L.Dense(2)
    layer(X)
    mirrored = mirror(layer)
    with pytest.raises(MirrorError, match="params have no leaf bias"):
        mirrored.apply(X, params={"kernel": mirrored.params["kernel"]})
    with pytest.raises(MirrorError, match="params have a leaf more"):
        mirrored.apply(X, params={**mirrored.params, "more": np.zeros(1)})
    with pytest.raises(AttributeError, match="has no part and no method 'cell'"):
        _ = mirrored.cell


def test_mirror_is_a_snapshot_and_frozen():
    """Training afterwards changes neither the mirror nor its parts."""
    layer = L.LSTM(6)
    layer(X)
    mirrored = mirror(layer)
    before = mirrored.params["cell"]["kernel"].copy()
    layer.cell.kernel.assign_add(tf.ones((4, 24), tf.float64))
    np.testing.assert_array_equal(mirrored.cell.params["kernel"], before)
    with pytest.raises(AttributeError, match="a mirror is frozen"):
        mirrored.params = {}
    with pytest.raises(ValueError, match="read-only"):
        mirrored.params["cell"]["kernel"][:] = 0


def test_jit_and_grad():
    """The mirror works under JAX's transformations, in the dtype of its params."""
    layer = L.LSTM(6, return_state=True)
    layer(X)
    mirrored = mirror(layer)
    with precise_jax():
        run = jax.jit(lambda params, x: mirrored.apply(x, params=params))
        outputs, h, c = run(mirrored.params, X)
        assert outputs.dtype == h.dtype == c.dtype == jnp.float64
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32), mirrored.params)
        assert run(single, X.astype(np.float32))[0].dtype == jnp.float32
