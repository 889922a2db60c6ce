"""Files of real TensorFlow 1.15.5 and 2.15, Keras 2 and 3, Flax and Orbax, read bit for bit, without TensorFlow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.checkpoints import read_checkpoint
from oracle.bridge.formats.crc32c import crc32c, unmask
from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.formats.table import uncompress
from oracle.errors import BridgeError
from tests.fuzz.tables import mask
from tests.oracle.bridge.golden_files import GOLDEN, expected_of, read_expected, same_bits

BY_NAME = [
    ("tf115", "saver-v1.ckpt", "tf1-checkpoint-v1", "tf1"),
    ("tf115", "saver-v2.ckpt", "tf1-checkpoint", "tf1"),
    ("tf115", "cells.ckpt", "tf1-checkpoint", "tf1"),
    ("tf115", "dtypes-v1.ckpt", "tf1-checkpoint-v1", "tf1"),
    ("tf115", "dtypes-v2.ckpt", "tf1-checkpoint", "tf1"),
    ("tf115", "saved-model", "saved-model", "tf1"),
    ("tf115", "frozen.pb", "graph-def", "tf1"),
    ("tf115", "keras-model.h5", "keras-h5", "layers"),
    ("tf115", "keras-weights.h5", "keras-h5", "layers"),
    ("tf215", "objects.ckpt", "tf2-checkpoint", "keras"),
    ("tf215", "objects-legacy-optimizer.ckpt", "tf2-checkpoint", "keras"),
    ("tf215", "dtypes.ckpt", "tf2-checkpoint", "keras"),
    ("tf215", "saved-model", "saved-model", "keras"),
    ("tf215", "keras-model.h5", "keras-h5", "layers"),
    ("tf215", "keras-legacy.h5", "keras-h5", "layers"),
]


@pytest.mark.parametrize(("folder", "file", "format", "convention"), BY_NAME)
def test_every_tensor_is_what_tensorflow_reads(folder: str, file: str, format: str, convention: str) -> None:
    weights = read_weight_file(GOLDEN / folder / file)
    assert (weights.format, weights.convention) == (format, convention)
    expected = expected_of(folder, file)
    # Keras' whole models hold their optimizer too, which Keras does not count among the weights.
    read = weights.variables if format == "keras-h5" else weights.everything()
    assert expected
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert same_bits(read[name], array), name


@pytest.mark.parametrize("file", ["keras-legacy.h5", "keras-model.h5"])
def test_the_order_of_a_legacy_file_is_the_model_s(file: str) -> None:
    weights = read_weight_file(GOLDEN / "tf215" / file)
    assert list(weights.variables) == list(expected_of("tf215", file))


@pytest.mark.parametrize(
    ("folder", "file", "format"),
    [
        ("tf215", "keras.weights.h5", "keras-weights-h5"),
        ("tf215", "keras.keras", "keras-archive"),
        ("keras3", "keras.weights.h5", "keras-weights-h5"),
        ("keras3", "keras.keras", "keras-archive"),
    ],
)
def test_keras_places_hold_the_model_s_weights(folder: str, file: str, format: str) -> None:
    weights = read_weight_file(GOLDEN / folder / file)
    assert (weights.format, weights.convention) == (format, "places")
    expected = expected_of(folder, file) if folder == "tf215" else read_expected(folder)
    # No two of the golden model's weights are alike, so that each is found by its bits.
    bits = {array.tobytes() for array in expected.values()}
    found = {array.tobytes() for array in weights.variables.values()}
    assert len(expected) == len(weights.variables)
    assert bits == found
    if folder == "keras3":
        assert weights.variables["layers/dense/vars/0"].dtype.name == "bfloat16"
    assert weights.variables["layers/bidirectional/forward_layer/cell/vars/0"].shape == (4, 12)
    # Numbered places are in the order of their numbers.
    assert list(weights.slots)[:3] == sorted(weights.slots, key=lambda name: int(name.split("/")[-1]))[:3]


@pytest.mark.parametrize(
    "path",
    [
        "weights.msgpack",
        "weights.safetensors",
        pytest.param("orbax-ocdbt", marks=pytest.mark.jax),
        pytest.param("orbax-zarr", marks=pytest.mark.jax),
    ],
)
def test_flax_files_hold_their_leaves(path: str) -> None:
    weights = read_weight_file(GOLDEN / "flat" / path)
    expected = dict(read_expected("flat"))
    if path == "weights.safetensors":
        del expected["params/half"]
    else:
        assert set(weights.slots) == {"opt_state/mu", "opt_state/flags"}
        assert set(weights.counters) == {"step"}
        expected = {name.removeprefix("params/"): array for name, array in expected.items()}
    read = weights.everything()
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert same_bits(read[name], array), name


def test_slots_averages_and_counters_are_set_apart() -> None:
    weights = read_weight_file(GOLDEN / "tf115" / "saver-v2.ckpt")
    assert len(weights.variables) == 6
    assert {name.rpartition("/")[2] for name in weights.slots} == {"Adam", "Adam_1"}
    assert {name.rpartition("/")[2] for name in weights.averages} == {"ExponentialMovingAverage"}
    assert set(weights.counters) == {"beta1_power", "beta2_power", "global_step"}

    # Keras' optimizer numbers its variables: which are averages stands in the graph of objects.
    weights = read_weight_file(GOLDEN / "tf215" / "objects.ckpt")
    assert (len(weights.variables), len(weights.slots), len(weights.averages)) == (12, 24, 12)
    assert set(weights.counters) == {"step", "training/_iterations", "training/_learning_rate"}
    assert weights.full_names["training/_variables/1"] == "Adam/average/encoder/embedding/embeddings"

    weights = read_weight_file(GOLDEN / "tf215" / "objects-legacy-optimizer.ckpt")
    assert len(weights.slots) == 24
    assert all("/.OPTIMIZER_SLOT/training/" in name for name in weights.slots)

    weights = read_weight_file(GOLDEN / "tf215" / "keras.keras")
    assert (len(weights.variables), len(weights.slots), len(weights.counters)) == (19, 34, 3)


def test_what_is_no_numbers_is_told() -> None:
    assert read_weight_file(GOLDEN / "tf115" / "dtypes-v2.ckpt").others == {
        "words": "strings, shape [3], 10 bytes"
    }
    notes = read_weight_file(GOLDEN / "tf215" / "keras.keras").notes
    assert notes["model_config"] == "Functional 'golden' of 6 layers, as JSON; not run"
    assert notes["keras_version"] == "2.15.0"


def test_a_frozen_tf2_graph_holds_its_variables() -> None:
    weights = read_weight_file(GOLDEN / "tf215" / "frozen.pb")
    expected = expected_of("tf215", "frozen.pb")
    # Freezing takes the variables' names away.
    assert same_bits(weights.variables["matmul"], expected["kernel"])
    assert same_bits(weights.variables["add"], expected["bias"])


def test_a_sharded_v1_checkpoint_is_whole_or_refused(tmp_path: Path) -> None:
    weights = read_weight_file(GOLDEN / "tf115" / "saver-v1-sharded.ckpt")
    expected = expected_of("tf115", "saver-v1-sharded.ckpt-?????-of-00001")
    assert weights.everything().keys() == expected.keys()
    shutil.copy(GOLDEN / "tf115" / "saver-v1-sharded.ckpt-00000-of-00001", tmp_path / "m.ckpt-00000-of-00002")
    with pytest.raises(BridgeError, match="1 of its files are here, which is not all"):
        read_weight_file(tmp_path / "m.ckpt")


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_checkpoint_may_be_named_by_its_files_or_its_folder(tmp_path: Path, suffix: str) -> None:
    prefix = GOLDEN / "tf115" / "saver-v2.ckpt"
    assert len(read_weight_file(f"{prefix}{suffix}").variables) == 6
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(BridgeError, match="no `checkpoint` file"):
        read_weight_file(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/saver-v2.ckpt"\n')
    assert len(read_weight_file(tmp_path).variables) == 6
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "../elsewhere/saver-v2.ckpt"\n')
    assert len(read_weight_file(tmp_path).variables) == 6
    with pytest.raises(BridgeError, match=r"no such file.*beside it are saver-v2\.ckpt\.data"):
        read_weight_file(tmp_path / "saver-v2")


@pytest.mark.tf_any
def test_a_checkpoint_of_several_data_files(tmp_path: Path) -> None:
    from oracle.frameworks import import_tensorflow

    tf = import_tensorflow()
    rng = np.random.default_rng(8)
    arrays = {f"part_{index}": rng.standard_normal((3, index + 1)) for index in range(3)}
    parts = []
    for name, array in arrays.items():
        parts.append(str(tmp_path / f"parts-{name}"))
        tf.raw_ops.SaveV2(prefix=parts[-1], tensor_names=[name], shape_and_slices=[""], tensors=[array])
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "m.ckpt"))
    assert len(list(tmp_path.glob("m.ckpt.data-*-of-00003"))) == 3
    read = read_weight_file(tmp_path / "m.ckpt").variables
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    (tmp_path / "m.ckpt.data-00001-of-00003").unlink()
    with pytest.raises(BridgeError, match=r"m\.ckpt\.data-00001-of-00003 is missing"):
        read_weight_file(tmp_path / "m.ckpt")


def test_read_checkpoint_takes_every_kind_of_checkpoint() -> None:
    for name in ("saver-v1.ckpt", "saver-v2.ckpt"):
        checkpoint = read_checkpoint(GOLDEN / "tf115" / name)
        assert (checkpoint.convention, len(checkpoint.variables), len(checkpoint.slots)) == ("tf1", 6, 18)
    assert read_checkpoint(GOLDEN / "tf215" / "saved-model").convention == "keras"


def test_reading_imports_no_framework() -> None:
    files = [GOLDEN / folder / file for folder, file, _, _ in BY_NAME]
    files += [GOLDEN / "tf215" / "keras.keras", GOLDEN / "flat" / "weights.msgpack"]
    code = (
        "import sys; from oracle.bridge.formats.reading import read_weight_file\n"
        "for path in sys.argv[1:]: read_weight_file(path)\n"
        "assert not {'tensorflow', 'jax', 'flax', 'keras', 'h5py'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True)


def test_crc32c_is_that_of_the_rfc() -> None:
    # RFC 3720, appendix B.4.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E

    def slowly(data: bytes) -> int:
        state = 0xFFFFFFFF
        for byte in data:
            state ^= byte
            for _ in range(8):
                state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
        return state ^ 0xFFFFFFFF

    data = np.random.default_rng(0).bytes(3 * 8192 + 5)
    for size in (0, 1, 8191, 8192, 8193, len(data)):
        assert crc32c(data[:size]) == slowly(data[:size]), size
    assert unmask(mask(0x12345678)) == 0x12345678


def test_snappy_blocks() -> None:
    # A literal of four, then a copy of eight from four before, which repeats what it makes.
    assert uncompress(memoryview(b"\x0c\x0cabcd" + bytes([(8 - 4) << 2 | 1, 4]))) == b"abcdabcdabcd"
    # A literal of 61 has its length in a byte of its own; a copy with a distance of two bytes.
    literal = bytes(range(61))
    packed = bytes([66, 60 << 2, 60]) + literal + bytes([(5 - 1) << 2 | 2, 61, 0])
    assert uncompress(memoryview(packed)) == literal + literal[:5]


def test_a_path_with_pattern_characters_is_read(tmp_path: Path) -> None:
    source = GOLDEN / "tf115" / "saver-v1.ckpt"
    shutil.copy(source, tmp_path / "m[1]*.ckpt")
    assert len(read_weight_file(tmp_path / "m[1]*.ckpt").variables) == 6
    with pytest.raises(BridgeError, match="no such file"):
        read_weight_file(tmp_path / "m[2]*.ckpt")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    shutil.copy(GOLDEN / "flat" / "weights.safetensors", path)
    path.chmod(0)
    with pytest.raises(BridgeError, match="cannot be read"):
        read_weight_file(path)


def test_what_tf1_s_training_adds_is_told_apart_in_anyone_s_safetensors(tmp_path: Path) -> None:
    import safetensors.numpy

    pair, scalar = np.ones(2, np.float32), np.ones((), np.float32)
    arrays = {
        "w": pair,
        "w/Adam": pair,
        "w/Adam_1": pair,
        "w/ExponentialMovingAverage": pair,
        "lone/Adam": pair,
        "head/local_step": pair,
        "beta1_power": scalar,
        "step": scalar,
    }
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    weights = read_weight_file(tmp_path / "w.safetensors")
    assert set(weights.variables) == {"w", "lone/Adam", "head/local_step"}
    assert set(weights.slots) == {"w/Adam", "w/Adam_1"}
    assert set(weights.averages) == {"w/ExponentialMovingAverage"}
    assert set(weights.counters) == {"beta1_power", "step"}
