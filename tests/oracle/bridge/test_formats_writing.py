"""Weights written, and read again by the frameworks themselves: bit for bit, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.formats.weight_file import GROUPS, WeightFile
from oracle.bridge.formats.writing import write_weight_file
from oracle.errors import BridgeError, OracleError
from tests.oracle.bridge.golden_files import GOLDEN

NEEDS = {
    "safetensors": (),
    "flax-msgpack": (pytest.mark.jax,),
    "tf1-checkpoint": (pytest.mark.tf_any,),
    "tf2-checkpoint": (pytest.mark.tf_any,),
    "keras-weights-h5": (),
    "keras-h5": (),
}
FORMATS = [pytest.param(name, marks=marks) for name, marks in NEEDS.items()]

ENDINGS = {
    "safetensors": ".safetensors",
    "flax-msgpack": ".msgpack",
    "tf1-checkpoint": ".ckpt",
    "tf2-checkpoint": ".ckpt",
    "keras-weights-h5": ".weights.h5",
    "keras-h5": ".h5",
}

NAN = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800001], np.uint32).view(np.float32)


def all_dtypes(template: str) -> dict[str, np.ndarray]:
    """An array of every dtype, with the values that are lost most easily."""
    import ml_dtypes

    rng = np.random.default_rng(0)
    arrays = [
        NAN,
        np.array([[0x7FF8000000000001, 1 << 63]], np.uint64).view(np.float64),
        rng.standard_normal((2, 3)).astype(np.float16),
        rng.standard_normal((3, 1, 2)).astype(ml_dtypes.bfloat16),
        np.array(-0.0, np.float32),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
        (rng.standard_normal(2) + 1j).astype(np.complex64),
        rng.standard_normal((4, 6))[::2, ::-1].T,
        *(
            np.array([np.iinfo(name).min, np.iinfo(name).max], name)
            for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
        ),
    ]
    return {template.format(index): array for index, array in enumerate(arrays)}


def in_layers(weights: WeightFile) -> WeightFile:
    """The weights as of a legacy file of Keras that has one layer."""
    return replace(weights, layers={"layer": tuple(weights.variables)})


def check_same(read: WeightFile, weights: WeightFile) -> None:
    for group in GROUPS:
        before, after = getattr(weights, group), getattr(read, group)
        assert after.keys() == before.keys()
        for name, array in before.items():
            assert after[name].dtype == array.dtype, name
            assert after[name].shape == array.shape, name
            assert after[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("format", FORMATS)
def test_every_dtype_survives(format: str, tmp_path: Path) -> None:
    arrays = all_dtypes("layers/part_{}/vars/0")
    if format == "keras-h5":
        arrays = {name: array for name, array in arrays.items() if array.dtype.name != "bfloat16"}
    weights = in_layers(WeightFile("here", "safetensors", "places", arrays))
    path = tmp_path / f"written{ENDINGS[format]}"
    assert write_weight_file(weights, path, format=format) == ()
    check_same(read_weight_file(path), weights)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source", ["tf115/saver-v2.ckpt", "tf215/objects.ckpt", "tf215/keras.keras"])
def test_everything_survives_or_is_refused(source: str, format: str, tmp_path: Path) -> None:
    weights = read_weight_file(GOLDEN / source)
    path = tmp_path / f"written{ENDINGS[format]}"
    reason = refusal(lambda: write_weight_file(weights, path, format=format))
    if not reason:
        check_same(read_weight_file(path), weights)
        return
    assert not list(tmp_path.iterdir())
    if format == "keras-h5":
        assert "which are loaded by name" in reason
        return
    assert "--weights-only" in reason or "none; give a mapping" in reason
    assert not list(tmp_path.iterdir())
    reason = refusal(lambda: write_weight_file(weights, path, format=format, weights_only=True))
    if reason:
        # Places are numbered, and these names have no numbers.
        assert format == "keras-weights-h5"
        assert "none; give a mapping" in reason
        return
    left_out = write_weight_file(weights, path, format=format, weights_only=True, overwrite=True)
    assert f"{len(weights.slots)} slots" in " ".join(left_out)
    check_same(read_weight_file(path), replace(weights, slots={}, averages={}, counters={}))


def refusal(write: Callable[[], object]) -> str:
    """Why a file was not written; empty if it was."""
    try:
        write()
    except BridgeError as error:
        return str(error)
    return ""


def test_a_kind_of_its_own_carries_everything() -> None:
    """The refusals above are none of a format for itself."""
    for source, kind in (
        ("tf115/saver-v2.ckpt", "tf1-checkpoint"),
        ("tf215/objects.ckpt", "tf2-checkpoint"),
        ("tf215/keras.keras", "keras-weights-h5"),
    ):
        from oracle.bridge.formats.writing import _choose_groups

        weights = read_weight_file(GOLDEN / source)
        kept, _ = _choose_groups(weights, Path("x"), kind, weights_only=False)
        assert {group: len(arrays) for group, arrays in kept.items()} == {
            group: len(getattr(weights, group)) for group in GROUPS
        }


@pytest.mark.tf_any
def test_tensorflow_restores_what_was_written(tmp_path: Path) -> None:
    from oracle.frameworks import import_tensorflow

    tf = import_tensorflow()
    weights = read_weight_file(GOLDEN / "tf115" / "saver-v2.ckpt")
    write_weight_file(weights, tmp_path / "m.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "m.ckpt"))
    assert set(reader.get_variable_to_shape_map()) == weights.everything().keys()
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        kernel = v1.get_variable("encoder/rnn/basic_lstm_cell/kernel", [8, 12])
        with v1.Session() as session:
            v1.train.Saver([kernel]).restore(session, str(tmp_path / "m.ckpt"))
            assert np.array_equal(session.run(kernel), weights.variables[kernel.op.name])


@pytest.mark.tf_any
def test_tensorflow_restores_objects_and_their_slots(tmp_path: Path) -> None:
    from oracle.frameworks import import_tensorflow

    tf = import_tensorflow()

    class Holder(tf.Module):
        pass

    def build() -> tuple[object, object, object]:
        root, model = Holder(), Holder()
        model.layers = [tf.Variable(np.zeros((3, 2), np.float32))]
        root.model, root.step = model, tf.Variable(0, dtype=tf.int64)
        optimizer = tf.keras.optimizers.legacy.Adam() if hasattr(tf.keras.optimizers, "legacy") else None
        if optimizer is not None:
            optimizer.apply_gradients([(tf.ones((3, 2)), model.layers[0])])
            root.optimizer = optimizer
        return root, model, optimizer

    root, model, optimizer = build()
    model.layers[0].assign(np.random.default_rng(1).standard_normal((3, 2)))
    root.step.assign(41)
    source = tf.train.Checkpoint(root=root).write(str(tmp_path / "source.ckpt"))
    weights = read_weight_file(source)
    assert list(weights.variables) == ["model/layers/0"]
    if optimizer is not None:
        assert len(weights.slots) == 2

    write_weight_file(weights, tmp_path / "again.ckpt")
    check_same(read_weight_file(tmp_path / "again.ckpt"), weights)
    fresh, fresh_model, fresh_optimizer = build()
    status = tf.train.Checkpoint(root=fresh).read(str(tmp_path / "again.ckpt"))
    status.assert_existing_objects_matched()
    assert np.array_equal(fresh_model.layers[0], weights.variables["model/layers/0"])
    assert fresh.step.numpy() == 41
    if optimizer is not None:
        for slot in ("m", "v"):
            mine = fresh_optimizer.get_slot(fresh_model.layers[0], slot)
            assert np.array_equal(mine, optimizer.get_slot(model.layers[0], slot))


@pytest.mark.tf
@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5"])
def test_keras_loads_what_was_written(name: str, tmp_path: Path) -> None:
    import tensorflow as tf

    def build() -> object:
        tf.keras.backend.clear_session()
        layers = tf.keras.layers
        return tf.keras.Sequential(
            [
                tf.keras.Input((6,)),
                layers.Embedding(7, 4),
                layers.Bidirectional(layers.LSTM(3)),
                layers.Dense(5),
            ]
        )

    model = build()
    rng = np.random.default_rng(2)
    model.set_weights([rng.standard_normal(weight.shape).astype("f") for weight in model.weights])
    model.save_weights(tmp_path / f"source.{name}")
    weights = read_weight_file(tmp_path / f"source.{name}")
    write_weight_file(weights, tmp_path / name)
    fresh = build()
    fresh.load_weights(tmp_path / name)
    for mine, theirs in zip(fresh.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.tf
def test_a_legacy_file_is_written_only_where_the_model_s_order_is_known(tmp_path: Path) -> None:
    import tensorflow as tf

    class Pair(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = tf.keras.layers.Dense(4, use_bias=False)
            self.decoder = tf.keras.layers.Dense(4, use_bias=False)

        def call(self, inputs: object) -> object:
            return self.decoder(self.encoder(inputs))

    def build() -> Pair:
        tf.keras.backend.clear_session()
        pair = Pair()
        pair(np.zeros((1, 4), np.float32))
        return pair

    model = build()
    for name in ("m.ckpt", "m.weights.h5", "m.h5"):
        model.save_weights(tmp_path / name)
    write_weight_file(read_weight_file(tmp_path / "m.ckpt"), tmp_path / "m.safetensors")
    for name in ("m.ckpt", "m.weights.h5", "m.safetensors"):
        with pytest.raises(BridgeError, match=r"loads a legacy \.h5 by the order .* write_into"):
            write_weight_file(read_weight_file(tmp_path / name), tmp_path / "x.h5", weights_only=True)
        assert not (tmp_path / "x.h5").exists()
    write_weight_file(read_weight_file(tmp_path / "m.h5"), tmp_path / "x.h5")
    fresh = build()
    fresh.load_weights(tmp_path / "x.h5")
    assert np.array_equal(fresh.encoder.kernel, model.encoder.kernel)
    assert np.array_equal(fresh.decoder.kernel, model.decoder.kernel)


@pytest.mark.jax
def test_flax_restores_what_was_written(tmp_path: Path) -> None:
    from flax import serialization

    weights = read_weight_file(GOLDEN / "tf115" / "saver-v2.ckpt")
    write_weight_file(weights, tmp_path / "w.msgpack")
    tree = serialization.msgpack_restore((tmp_path / "w.msgpack").read_bytes())
    assert set(tree) == {"params", "slots", "averages", "counters"}
    kernel = tree["params"]["encoder"]["rnn"]["basic_lstm_cell"]["kernel"]
    assert np.array_equal(kernel, weights.variables["encoder/rnn/basic_lstm_cell/kernel"])


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    import safetensors.numpy

    weights = read_weight_file(GOLDEN / "tf115" / "saver-v2.ckpt")
    write_weight_file(weights, tmp_path / "w.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert arrays.keys() == weights.everything().keys()
    assert all(np.array_equal(array, weights.everything()[name]) for name, array in arrays.items())
    assert read_weight_file(tmp_path / "w.safetensors").convention == "tf1"


def test_a_safetensors_file_that_misdescribes_itself_is_refused(tmp_path: Path) -> None:
    import safetensors.numpy

    array = {"x": np.ones(2, np.float32)}
    for own in (
        '{"convention": "tf1", "groups": {}}',
        '{"convention": "tf1"}',
        "[",
        '{"convention": 7, "groups": {"variables": ["x"]}}',
    ):
        safetensors.numpy.save_file(array, tmp_path / "w.safetensors", {"gradient-oracle.weights": own})
        with pytest.raises(BridgeError, match="what it says of its arrays"):
            read_weight_file(tmp_path / "w.safetensors")


def test_what_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    def write(arrays: dict[str, np.ndarray], name: str) -> str:
        with pytest.raises(OracleError) as error:
            weights = in_layers(WeightFile("here", "safetensors", "tf1", arrays))
            write_weight_file(weights, tmp_path / name)
        assert not list(tmp_path.iterdir())
        return str(error.value)

    assert "safetensors has no complex128, which 'a/x' is" in write(
        {"a/x": np.ones(2, complex)}, "w.safetensors"
    )
    assert "'a/x' is <U1, which is no number" in write({"a/x": np.array(["b"])}, "w.safetensors")
    assert "'kernel' is none" in write({"kernel": np.ones(2)}, "w.weights.h5")
    assert "'a/../x' is no path" in write({"a/../x": np.ones(2)}, "w.h5")
    assert "holds no arrays" in write({}, "w.safetensors")
    assert "its name does not say its format" in write({"x": np.ones(2)}, "w.xyz")
    assert ".keras holds a model beside its weights" in write({"x": np.ones(2)}, "w.keras")


@pytest.mark.jax
def test_names_that_do_not_nest_are_named(tmp_path: Path) -> None:
    for names in (["a", "a/b"], ["a/b", "a"]):
        arrays = {name: np.ones(1) for name in names}
        with pytest.raises(BridgeError, match="rename one"):
            write_weight_file(WeightFile("here", "safetensors", "tf1", arrays), tmp_path / "w.msgpack")


def test_a_name_that_a_checkpoint_would_misread_is_refused(tmp_path: Path) -> None:
    arrays = {"x": np.ones(2), "x/Adam": np.ones(2)}
    weights = WeightFile("here", "safetensors", "tf1", arrays)
    with pytest.raises(BridgeError, match="1 variables, such as 'x/Adam', which it would take for others"):
        write_weight_file(weights, tmp_path / "m.ckpt", weights_only=True)
    write_weight_file(weights, tmp_path / "w.safetensors")
    assert read_weight_file(tmp_path / "w.safetensors").variables.keys() == arrays.keys()


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_there_stays(format: str, tmp_path: Path) -> None:
    first = in_layers(WeightFile("here", "safetensors", "places", {"a/vars/0": np.ones(3)}))
    second = in_layers(WeightFile("here", "safetensors", "places", {"b/vars/0": np.zeros(5)}))
    path = tmp_path / f"w{ENDINGS[format]}"
    write_weight_file(first, path, format=format)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(BridgeError, match="is there already"):
        write_weight_file(second, path, format=format)
    with pytest.raises(BridgeError, match="is no number"):
        write_weight_file(
            replace(second, variables={"b/vars/0": np.array(["x"])}), path, format=format, overwrite=True
        )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    write_weight_file(second, path, format=format, overwrite=True)
    check_same(read_weight_file(path), second)
    assert {file.name for file in tmp_path.iterdir()} == before.keys()
    with pytest.raises(BridgeError, match="is no folder"):
        write_weight_file(first, tmp_path / "no" / "w", format=format)
    with pytest.raises(BridgeError, match="a folder"):
        write_weight_file(first, tmp_path, format=format, overwrite=True)


@pytest.mark.tf_any
def test_a_checkpoint_that_cannot_be_moved_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = WeightFile("here", "safetensors", "tf1", {"x": np.ones(3)})

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BridgeError, match="No space left"):
        write_weight_file(weights, tmp_path / "m.ckpt")
    assert not list(tmp_path.iterdir())


def test_the_golden_files_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 2 * 2**20
