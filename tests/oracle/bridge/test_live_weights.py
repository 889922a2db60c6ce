"""Weights written into live models: all of them or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.live import name_variables, write_into
from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.recognition import recognise
from oracle.errors import BridgeError
from oracle.frameworks import import_tensorflow

pytestmark = pytest.mark.tf_any


def build() -> object:
    tf = import_tensorflow()
    encoder, root = tf.Module(), tf.Module()
    encoder.kernel = tf.Variable(np.zeros((3, 2), np.float32), name="enc_kernel")
    encoder.bias = tf.Variable(np.zeros(2, np.float16), name="enc_bias")
    root.encoder, root.again = encoder, encoder
    root.layers = [tf.Variable(np.zeros((), np.float64), name="scale")]
    return root


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    nan = np.array([[0x7FC00001, 0x80000000]] * 3, np.uint32).view(np.float32)
    return {
        "encoder/kernel": nan,
        "encoder/bias": rng.standard_normal(2).astype(np.float16),
        "layers/0": np.array(-0.0),
    }


def test_names_are_those_of_a_checkpoint(tmp_path: Path) -> None:
    tf = import_tensorflow()
    model = build()
    prefix = tf.train.Checkpoint(root=model).write(str(tmp_path / "m.ckpt"))
    assert name_variables(model).keys() == read_weight_file(prefix).variables.keys()


def test_a_checkpoint_goes_into_another_model(tmp_path: Path) -> None:
    tf = import_tensorflow()
    given = weights()
    source, target = build(), build()
    assert write_into(source, given) == ("encoder/bias", "encoder/kernel", "layers/0")
    prefix = tf.train.Checkpoint(root=source).write(str(tmp_path / "m.ckpt"))
    write_into(target, read_weight_file(prefix))
    assert target.encoder.kernel.numpy().tobytes() == given["encoder/kernel"].tobytes()
    assert target.encoder.bias.numpy().tobytes() == given["encoder/bias"].tobytes()
    assert np.signbit(target.layers[0].numpy())


def test_own_names_mappings_and_lists_do_too() -> None:
    given = weights()
    own = dict(zip(("enc_kernel", "enc_bias", "scale"), given.values(), strict=True))
    model = build()
    write_into(model, own)
    assert model.encoder.kernel.numpy().tobytes() == given["encoder/kernel"].tobytes()
    other = build()
    write_into([other.encoder.kernel, other.encoder.bias, other.layers[0]], own)
    assert other.encoder.bias.numpy().tobytes() == given["encoder/bias"].tobytes()
    third = build()
    write_into({"x": third.encoder.bias}, {"x": given["encoder/bias"]})
    assert third.encoder.bias.numpy().tobytes() == given["encoder/bias"].tobytes()


def test_all_problems_are_named_and_nothing_is_changed() -> None:
    model = build()
    before = {name: variable.numpy() for name, variable in name_variables(model).items()}
    given = weights()
    wrong = {
        "encoder/kernl": given["encoder/kernel"],
        "encoder/bias": given["encoder/bias"].astype(np.float32),
        "layers/0": np.zeros(3),
    }
    with pytest.raises(BridgeError) as error:
        write_into(model, wrong)
    message = str(error.value)
    assert "'encoder/kernl' [3, 2] has no variable (did you mean 'encoder/kernel'?)" in message
    assert "the variable 'encoder/kernel' [3, 2] has no weight" in message
    assert "'encoder/bias' is float32, the variable float16" in message
    assert "'layers/0' is [3], the variable []" in message
    for name, variable in name_variables(model).items():
        assert np.array_equal(variable.numpy(), before[name])


def test_an_assignment_that_fails_takes_the_others_back() -> None:
    model = build()

    class Failing:
        """A variable whose assignment fails once."""

        def __init__(self, variable: object) -> None:
            self.variable, self.failed = variable, False
            self.shape, self.dtype, self.name = variable.shape, variable.dtype, variable.name

        def numpy(self) -> np.ndarray:
            return self.variable.numpy()

        def assign(self, value: np.ndarray) -> None:
            if not self.failed:
                self.failed = True
                raise RuntimeError("no memory on the device")
            self.variable.assign(value)

    given = weights()
    targets = {"a": model.encoder.kernel, "b": Failing(model.encoder.bias)}
    with pytest.raises(RuntimeError, match="no memory"):
        write_into(targets, {"a": given["encoder/kernel"], "b": given["encoder/bias"]})
    assert not model.encoder.kernel.numpy().any()


def test_variables_of_a_tf1_graph() -> None:
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        kernel = v1.get_variable("encoder/kernel", [3, 2], use_resource=False)
        with v1.Session() as session:
            session.run(kernel.initializer)
            write_into([kernel], {"encoder/kernel": weights()["encoder/kernel"]}, session=session)
            assert session.run(kernel).tobytes() == weights()["encoder/kernel"].tobytes()


def test_two_variables_of_one_name_need_a_mapping() -> None:
    tf = import_tensorflow()
    twins = [tf.Variable(1.0, name="kernel"), tf.Variable(2.0, name="kernel")]
    with pytest.raises(BridgeError, match="two variables are called 'kernel'"):
        write_into(twins, {"kernel": np.ones((), np.float32)})
    with pytest.raises(BridgeError, match="is no tf.Module"):
        write_into(3, {"kernel": np.ones((), np.float32)})


@pytest.mark.tf
def test_a_keras_model(tmp_path: Path) -> None:
    import tensorflow as tf

    def make() -> object:
        return tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(3), tf.keras.layers.Dense(2)])

    source, target = make(), make()
    source.save_weights(tmp_path / "m.ckpt")
    write_into(target, read_weight_file(tmp_path / "m.ckpt"))
    for mine, theirs in zip(target.get_weights(), source.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the recurrent model are saved, once."""
    return tmp_path_factory.mktemp("recurrent") / "files"


def make_recurrent(folder: Path) -> object:
    """A compiled Keras model whose LSTM and GRU have random weights, and its files in every format."""
    import tensorflow as tf

    layers = tf.keras.layers
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((5,))
    hidden = layers.LSTM(3, return_sequences=True)(layers.Embedding(7, 4)(inputs))
    outputs = layers.Dense(2)(layers.Dense(2)(layers.Bidirectional(layers.GRU(2))(hidden)))
    model = tf.keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 5)), np.zeros((2, 2)))
    rng = np.random.default_rng(7)
    model.set_weights([rng.standard_normal(weight.shape).astype("f") for weight in model.weights])
    if not folder.exists():
        folder.mkdir()
        model.save(folder / "sm")
        for name in ("m.ckpt", "m.weights.h5"):
            model.save_weights(folder / name)
        model.save(folder / "m.keras")
    return model


@pytest.mark.tf
def test_a_saved_model_has_the_names_of_a_checkpoint(folder: Path) -> None:
    make_recurrent(folder)
    saved = read_weight_file(folder / "sm").variables
    checkpoint = read_weight_file(folder / "m.ckpt").variables
    assert list(saved) == list(checkpoint)
    assert all(np.array_equal(saved[name], array) for name, array in checkpoint.items())
    parts = recognise({name: array.shape for name, array in saved.items()})
    assert sorted(part.layout for part in parts if part.layout) == [
        *["keras_dense"] * 2,
        "keras_embedding",
        *["keras_gru_cell"] * 2,
        "keras_lstm_cell",
    ]


@pytest.mark.tf
@pytest.mark.parametrize("name", ["sm", "m.ckpt", "m.weights.h5", "m.keras"])
def test_every_file_of_keras_goes_into_its_model(name: str, folder: Path) -> None:
    model = make_recurrent(folder)
    expected = model.get_weights()
    fresh = make_recurrent(folder)
    fresh.set_weights([np.zeros_like(weight) for weight in expected])
    step = int(fresh.optimizer.iterations)
    write_into(fresh, read_weight_file(folder / name))
    assert all(np.array_equal(*pair) for pair in zip(fresh.get_weights(), expected, strict=True))
    assert int(fresh.optimizer.iterations) == step == 1


@pytest.mark.tf
def test_places_that_do_not_fit_change_nothing(folder: Path) -> None:
    model = make_recurrent(folder)
    before = model.get_weights()
    arrays = {
        name: np.ones_like(array) for name, array in read_weight_file(folder / "m.keras").variables.items()
    }
    arrays["layers/dense/vars/0"] = np.ones((2, 4), np.float32)
    arrays["layers/dense_7/vars/0"] = arrays.pop("layers/dense_1/vars/0")
    with pytest.raises(BridgeError) as error:
        write_into(model, arrays)
    assert "'layers/dense/vars/0' is [2, 4], the variable [4, 2]" in str(error.value)
    assert "'layers/dense_7/vars/0' [2, 2] has no variable" in str(error.value)
    assert "the variable 'layers/dense_1/vars/0' [2, 2] has no weight" in str(error.value)
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True))
