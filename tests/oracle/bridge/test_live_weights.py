"""Weights written into live models: all of them or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.live import name_variables, write_into
from oracle.bridge.formats.reading import read_weight_file
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
