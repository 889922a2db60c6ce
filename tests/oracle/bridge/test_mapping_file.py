"""Mappings written by hand: both ways, and every mistake named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.weight_file import WeightFile
from oracle.bridge.mapping_file import LAYOUTS, check_leaves, make_layout, read_mapping
from oracle.case import weight_shapes
from oracle.conversion import map_weights
from oracle.errors import BridgeError
from oracle.spec import LSTM, EncoderDecoder

MAPPING = """
[[site]]
path = "encoder/cell"
layout = "tf1_lstm"
features = 5
units = 3
variables = "theirs/enc"

[[site]]
path = "decoder/cell"
layout = "keras_lstm"
features = 2
units = 3
forget_bias = 1.0
[site.variables]
kernel = "theirs/w_x"
recurrent_kernel = "theirs/w_h"
bias = "theirs/b"

[[site]]
path = "projection"
layout = "keras_dense"
features = 3
units = 2
variables = "theirs/out"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def variables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shapes = {
        "theirs/enc/kernel": (8, 12),
        "theirs/enc/bias": (12,),
        "theirs/w_x": (2, 12),
        "theirs/w_h": (3, 12),
        "theirs/b": (12,),
        "theirs/out/kernel": (3, 2),
        "theirs/out/bias": (2,),
    }
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_a_model_with_names_of_its_own_becomes_leaves_and_back(tmp_path: Path) -> None:
    sites = read_mapping(write(tmp_path, MAPPING))
    given = WeightFile("here", "safetensors", "tf1", variables())
    leaves = map_weights(given, sites)
    spec = EncoderDecoder(5, 2, LSTM(3), LSTM(3))
    assert {name: leaf.shape for name, leaf in leaves.variables.items()} == weight_shapes(spec)
    check_leaves(sites, weight_shapes(spec), where="the spec")
    # TF1's second gate is the oracle's third.
    kernel = given.variables["theirs/enc/kernel"]
    assert np.array_equal(leaves.variables["encoder/cell/kernel"][:, 6:9], kernel[:5, 3:6])
    assert np.array_equal(leaves.variables["decoder/cell/bias"][3:6], given.variables["theirs/b"][3:6] - 1)
    back = map_weights(leaves, sites)
    assert back.variables.keys() == given.variables.keys()
    for name, array in given.variables.items():
        assert np.allclose(back.variables[name], array, rtol=0, atol=1e-15), name


def test_leftovers_gaps_and_near_misses_are_named(tmp_path: Path) -> None:
    sites = read_mapping(write(tmp_path, MAPPING))
    given = variables()
    given["theirs/enc/kernl"] = given.pop("theirs/enc/kernel")
    with pytest.raises(BridgeError) as error:
        map_weights(WeightFile("w.h5", "keras-h5", "layers", given), sites)
    assert "w.h5: no variable 'theirs/enc/kernel' [8, 12] (maybe 'theirs/enc/kernl'" in str(error.value)
    given = variables() | {"theirs/more": np.ones(3)}
    with pytest.raises(BridgeError, match=r"'theirs/more' \[3\] has no place"):
        map_weights(WeightFile("w.h5", "keras-h5", "layers", given), sites)
    given = variables() | {"theirs/w_h": np.ones((12, 3))}
    with pytest.raises(BridgeError, match=re.escape("'theirs/w_h' is [12, 3], the spec wants [3, 12]")):
        map_weights(WeightFile("w.h5", "keras-h5", "layers", given), sites)
    with pytest.raises(BridgeError, match="no variable 'encoder/cell/bias'"):
        check_leaves(sites, {"encoder/cell/bia": (12,)}, where="the spec")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"tf1_lstm"', '"tf1_lsmt"', "no layout 'tf1_lsmt' (did you mean 'tf1_lstm'?)"),
        ("features = 5\n", "feature = 5\n", "has no size 'feature' (did you mean 'features'?)"),
        ("features = 5\n", "", "tf1_lstm needs features"),
        ("features = 5\n", "features = 0\n", "must be a whole number of at least 1"),
        ("features = 5\n", "features = true\n", "must be a whole number of at least 1"),
        ("features = 5\n", "features = 5.0\n", "must be a whole number of at least 1"),
        ("features = 5\n", "features = 99999999999\n", "of at least 1 and at most 2147483647"),
        ('path = "encoder/cell"', 'path = "../dense"', "and none of them . or .."),
        ('path = "encoder/cell"', 'path = "a//b"', "path must be parts joined by /"),
        ("forget_bias = 1.0", 'forget_bias = "1"', "must be a number"),
        ('path = "encoder/cell"\n', "", "site 1: it has no 'path'"),
        ('path = "encoder/cell"', 'path = "/encoder"', "path must be parts joined by /"),
        ('path = "decoder/cell"', 'path = "encoder/cell"', "the leaf 'encoder/cell/kernel' is in the sites"),
        ('"theirs/w_h"', '"theirs/w_x"', "the variable 'theirs/w_x' is in the sites"),
        (
            '"theirs/w_h"',
            '"theirs/out/kernel"',
            "'theirs/out/kernel' is in the sites 'decoder/cell' and 'projection'",
        ),
        (
            "recurrent_kernel =",
            "recurent_kernel =",
            "no variable 'recurent_kernel' (did you mean 'recurrent_kernel'?)",
        ),
        ('recurrent_kernel = "theirs/w_h"\n', "", "variables lacks 'recurrent_kernel' [3, 12]"),
        ('variables = "theirs/out"', "variables = 3", "variables must be a scope"),
        ("[[site]]", "[[sites]]", "unknown entry 'sites' (did you mean 'site'?)"),
        (MAPPING, "", "it has no [[site]]"),
        (MAPPING, "site = 3", "it has no [[site]]"),
        (MAPPING, "site = [3]", "site 1: it is 3"),
        (MAPPING, "[[site", "not TOML"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MAPPING
    path = write(tmp_path, MAPPING.replace(old, new))
    with pytest.raises(BridgeError) as error:
        read_mapping(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="cannot be read"):
        read_mapping(tmp_path / "absent.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BridgeError, match="not TOML"):
        read_mapping(tmp_path / "b.toml")


def test_names_on_both_sides_alike_need_a_direction(tmp_path: Path) -> None:
    text = '[[site]]\npath = "cell"\nlayout = "keras_lstm"\nfeatures = 2\nunits = 3\nforget_bias = 1.0\nvariables = "cell"\n'
    sites = read_mapping(write(tmp_path, text))
    arrays = {
        "cell/kernel": np.ones((2, 12)),
        "cell/recurrent_kernel": np.ones((3, 12)),
        "cell/bias": np.ones(12),
    }
    given = WeightFile("here", "safetensors", "keras", arrays)
    with pytest.raises(BridgeError, match="same names on both sides"):
        map_weights(given, sites)
    assert map_weights(given, sites, to="leaves").variables["cell/bias"][3] == 0
    assert map_weights(given, sites, to="variables").variables["cell/bias"][3] == 2


SIZES = {
    "array": {"shape": [2, 3]},
    "keras_embedding": {"input_dim": 7, "output_dim": 3},
    "keras_lstm": {"features": 5, "units": 3, "forget_bias": 1.0},
    "flax_lstm": {"features": 5, "units": 3, "forget_bias": 0.5},
    "tf1_lstm_cell": {"features": 5, "units": 3, "num_proj": 2, "use_peepholes": True},
    "luong_attention": {"depth": 5, "units": 3, "scale": True, "monotonic": True},
    "bahdanau_attention": {"query": 4, "depth": 5, "units": 3, "normalize": True},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_can_be_named_and_is_a_bijection(name: str) -> None:
    layout = make_layout(name, SIZES.get(name, {"features": 5, "units": 3}), where="here")
    rng = np.random.default_rng(5)
    given = {variable: rng.standard_normal(shape) for variable, shape in layout.variables.items()}
    back = layout.to_variables(layout.to_leaves(given))
    assert all(np.allclose(back[variable], array, rtol=0, atol=1e-15) for variable, array in given.items())


@pytest.mark.parametrize(
    "array",
    [
        np.array([-0.0, 1.0]),
        np.array([0x7F800001], np.uint32).view(np.float32),
        np.array([True, False]),
    ],
)
def test_an_array_is_carried_bit_for_bit(array: np.ndarray) -> None:
    layout = make_layout("array", {"shape": list(array.shape)}, where="here")
    carried = layout.to_variables(layout.to_leaves({"value": array}))["value"]
    assert carried.tobytes() == array.tobytes()
