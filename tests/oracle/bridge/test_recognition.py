"""Cells recognised by names and shapes, in files of real TensorFlow, and where names do not say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle import zoo
from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.mapping import read_weights
from oracle.bridge.mapping_file import parse_mapping
from oracle.bridge.recognition import Part, recognise
from oracle.bridge.sites import find_sites
from oracle.bridge.spec_inference import infer_spec
from oracle.conversion import map_weights
from oracle.inspection import inspect_weights, render_json, render_mapping, render_text
from oracle.spec import LSTM, AttentionNMT, EncoderDecoder
from tests.oracle.bridge.golden_files import GOLDEN

CHECKPOINTS = Path(zoo.TRAINED_WEIGHTS).parent


def parts_of(path: Path) -> dict[str, Part]:
    weights = read_weight_file(path)
    parts = recognise({name: array.shape for name, array in weights.variables.items()})
    names = [name for part in parts for name in part.variables.values()]
    assert sorted(names) == sorted(weights.variables)
    return {part.scope: part for part in parts}


def seen(part: Part) -> tuple[str, str | None, dict[str, Any]]:
    return part.kind, part.layout, dict(part.sizes)


def test_tf1_s_cells() -> None:
    parts = parts_of(GOLDEN / "tf115" / "cells.ckpt")
    assert {
        scope: seen(part) for scope, part in parts.items() if "decoder" not in scope and "memory" not in scope
    } == {
        "basic_rnn/basic_rnn_cell": ("TF1 BasicRNNCell", "tf1_basic_rnn", {"features": 5, "units": 3}),
        "bidirectional_rnn/bw/lstm_cell": (
            "TF1 LSTMCell, backward of two directions",
            "tf1_lstm",
            {"features": 5, "units": 3},
        ),
        "bidirectional_rnn/fw/lstm_cell": (
            "TF1 LSTMCell, forward of two directions",
            "tf1_lstm",
            {"features": 5, "units": 3},
        ),
        "gru/gru_cell": ("TF1 GRUCell", "tf1_gru", {"features": 5, "units": 3}),
        "layer_norm/layer_norm_basic_lstm_cell": (
            "contrib LayerNormBasicLSTMCell",
            "contrib_layer_norm_lstm",
            {"features": 5, "units": 3},
        ),
        "peepholes/lstm_cell": (
            "TF1 LSTMCell, peepholes, projection to 4",
            "tf1_lstm_cell",
            {"features": 5, "units": 6, "use_peepholes": True, "num_proj": 4},
        ),
        "stack/multi_rnn_cell/cell_0/gru_cell": ("TF1 GRUCell", "tf1_gru", {"features": 5, "units": 3}),
        "stack/multi_rnn_cell/cell_1/lstm_cell": ("TF1 LSTMCell", "tf1_lstm", {"features": 3, "units": 4}),
    }


def test_tf1_s_attention_and_the_memory_layers_that_lie_elsewhere() -> None:
    parts = parts_of(GOLDEN / "tf115" / "cells.ckpt")
    bahdanau = parts["decoder_bahdanau/attention_wrapper/bahdanau_attention"]
    assert bahdanau.layout == "bahdanau_attention"
    assert dict(bahdanau.sizes) == {"query": 4, "units": 6, "normalize": True, "monotonic": False, "depth": 7}
    # No other memory layer has six units.
    assert bahdanau.variables["memory_layer/kernel"] == "memory_layer_1/kernel"
    luong = parts["decoder_luong/attention_wrapper/luong_attention"]
    assert luong.kind == "LuongAttention"
    assert luong.layout is None
    assert luong.doubt == "its memory layer may be 'memory_layer' or 'memory_layer_2'"
    assert parts["decoder_luong/attention_wrapper/attention_layer"].layout == "attention_layer"
    assert parts["decoder/embedding"].layout == "keras_embedding"


@pytest.mark.parametrize(
    ("path", "lstm", "stacked"),
    [
        ("tf215/keras-legacy.h5", "both/forward_lstm/lstm_cell", "stack/stacked_rnn_cells/gru_cell"),
        (
            "tf215/keras.keras",
            "layers/bidirectional/forward_layer/cell/vars",
            "layers/rnn/cell/cells/gru_cell/vars",
        ),
        (
            "keras3/keras.keras",
            "layers/bidirectional/forward_layer/cell/vars",
            "layers/rnn/cell/cells/gru_cell/vars",
        ),
    ],
)
def test_keras_layers_in_every_layout(path: str, lstm: str, stacked: str) -> None:
    parts = parts_of(GOLDEN / path)
    assert seen(parts[lstm]) == (
        "LSTM, forward of two directions",
        "keras_lstm_cell",
        {"features": 4, "units": 3, "use_bias": True},
    )
    assert seen(parts[stacked]) == (
        "GRU, reset_after",
        "keras_gru_cell",
        {"features": 3, "units": 2, "use_bias": True, "reset_after": True},
    )
    kinds = sorted(part.kind.split(",")[0] for part in parts.values())
    assert kinds.count("Embedding") == 1
    assert kinds.count("Dense") >= 1


def test_a_gru_is_reset_after_by_the_rank_of_its_bias() -> None:
    part = parts_of(GOLDEN / "tf215" / "objects.ckpt")["model/gru/cell"]
    assert part.kind == "GRU, not reset_after"
    assert part.sizes["reset_after"] is False
    (part,) = recognise({"g/kernel": (4, 6), "g/recurrent_kernel": (2, 6)})
    assert part.sizes == {"features": 4, "units": 2, "use_bias": False, "reset_after": False}
    assert "without a bias" in part.doubt


def test_tfa_s_cells() -> None:
    norms = {
        f"{norm}/{name}": (4 * 3 if norm != "state_norm" else 3,)
        for norm in ("kernel_norm", "recurrent_norm", "state_norm")
        for name in ("gamma", "beta")
    }
    cells = {
        "tfa_layer_norm_lstm": {"kernel": (5, 12), "recurrent_kernel": (3, 12), "bias": (12,), **norms},
        "tfa_peephole_lstm": {
            "kernel": (5, 12),
            "recurrent_kernel": (3, 12),
            "bias": (12,),
            **{f"{gate}_gate_peephole_weights": (3,) for gate in ("input", "forget", "output")},
        },
        "tfa_nas": {"kernel": (5, 24), "recurrent_kernel": (2, 24), "projection_weights": (3, 2)},
        "tfa_layer_norm_simple_rnn": {"kernel": (5, 3), "recurrent_kernel": (3, 3), "gamma": (3,)},
    }
    for layout, shapes in cells.items():
        (part,) = recognise({f"cell/{name}": shape for name, shape in shapes.items()})
        assert part.layout == layout
        assert set(part.variables) == set(shapes)


def test_what_the_names_do_not_say_is_in_doubt() -> None:
    (part,) = recognise({"model/my_cell/kernel": (17, 16), "model/my_cell/bias": (16,)})
    assert part.layout == "keras_dense"
    assert "tf1_lstm with features = 13, units = 4" in part.doubt
    assert "tf1_basic_rnn with features = 1, units = 16" in part.doubt
    (part,) = recognise({"model/dense/kernel": (17, 16), "model/dense/bias": (16,)})
    assert part.doubt == ""
    (part,) = recognise({"r/kernel": (5, 3), "r/recurrent_kernel": (3, 3), "r/bias": (3,)})
    assert (part.kind, part.doubt) == ("SimpleRNN", "an ESNCell has the same variables")
    (part,) = recognise({"x/vars/0": (7, 4)})
    assert part.doubt == "an Embedding has the same shape"


def test_shapes_that_contradict_the_names_are_no_cell() -> None:
    for shapes in (
        {"lstm_cell/kernel": (4, 16), "lstm_cell/bias": (16,)},
        {"lstm_cell/kernel": (9, 16), "lstm_cell/bias": (15,)},
        {"c/kernel": (5, 12), "c/recurrent_kernel": (3, 11), "c/bias": (12,)},
        {
            "g/gates/kernel": (8, 6),
            "g/gates/bias": (6,),
            "g/candidate/kernel": (8, 4),
            "g/candidate/bias": (4,),
        },
    ):
        parts = recognise(shapes)
        assert not {part.layout for part in parts} & {"tf1_lstm", "tf1_gru", "keras_lstm_cell"}
        assert sorted(name for part in parts for name in part.variables.values()) == sorted(shapes)


def test_specs_of_our_own_checkpoints() -> None:
    inspection = inspect_weights(zoo.TRAINED_WEIGHTS)
    assert inspection.inference.spec == EncoderDecoder(13, 12, LSTM(256), LSTM(256))
    assert "forget_bias" in inspection.inference.reason
    inspection = inspect_weights(GOLDEN / "tf115" / "saver-v1.ckpt")
    assert inspection.inference.spec == EncoderDecoder(5, 2, LSTM(3), LSTM(3))


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*-nmt*.index")), ids=lambda path: path.stem)
def test_specs_of_our_own_translators(path: Path) -> None:
    weights = read_weight_file(path)
    inference = inspect_weights(path).inference
    assert isinstance(inference.spec, AttentionNMT)
    leaves = read_weights(find_sites(inference.spec, "keras"), weights.variables, where=str(path))
    assert leaves


def test_why_there_is_no_spec() -> None:
    reason = inspect_weights(GOLDEN / "tf115" / "cells.ckpt").inference.reason
    assert "an encoder-decoder has encoder/rnn/basic_lstm_cell/kernel" in reason
    shapes = {
        f"{scope}/rnn/basic_lstm_cell/{name}": shape
        for scope in ("encoder", "decoder")
        for name, shape in (("kernel", (8, 12)), ("bias", (12,)))
    }
    assert "without a projection" in infer_spec(shapes, "tf1").reason
    more = {**shapes, "projection/kernel": (3, 5), "projection/bias": (5,), "extra": (1,)}
    inference = infer_spec(more, "tf1")
    assert inference.spec is None
    assert "'extra' [1] has no place" in inference.reason


MAPPED = [
    *(GOLDEN / "tf115" / name for name in ("cells.ckpt", "saver-v1.ckpt", "keras-model.h5", "frozen.pb")),
    *(GOLDEN / "tf215" / name for name in ("objects.ckpt", "keras.keras", "keras-legacy.h5")),
    GOLDEN / "keras3" / "keras.keras",
    Path(zoo.TRAINED_WEIGHTS),
    *sorted(path.with_suffix("") for path in CHECKPOINTS.glob("*-nmt*.index")),
]


@pytest.mark.parametrize("path", MAPPED, ids=lambda path: path.name)
def test_the_inferred_mapping_can_be_used_as_it_is(path: Path) -> None:
    inspection = inspect_weights(path)
    sites = parse_mapping(tomllib.loads(render_mapping(inspection)), where="the inferred mapping")
    leaves = map_weights(inspection.weights, sites, to="leaves")
    back = map_weights(leaves, sites, to="variables")
    assert back.variables.keys() == inspection.weights.variables.keys()
    for name, array in inspection.weights.variables.items():
        assert back.variables[name].dtype == array.dtype
        assert np.array_equal(back.variables[name], array), name
    if inspection.inference.spec is not None:
        # The leaves are those of the spec's own sites.
        own = read_weights(inspection.inference.sites, inspection.weights.variables, where="here")
        assert own.keys() == leaves.variables.keys()
        assert all(np.array_equal(own[name], leaves.variables[name]) for name in own)


def test_the_description_for_programs_names_everything_once() -> None:
    inspection = inspect_weights(GOLDEN / "tf115" / "saver-v2.ckpt")
    described = json.loads(render_json(inspection))
    names = [
        entry["name"]
        for group in ("variables", "slots", "averages", "counters")
        for entry in described[group]
    ]
    assert sorted(names) == sorted(inspection.weights.everything())
    assert described["spec"]["encoder"] == {"cell": "lstm", "units": 3, "forget_bias": 1.0}
    assert described["parts"][0]["sizes"] == {"features": 2, "units": 3}


def test_the_description_for_people() -> None:
    text = render_text(inspect_weights(GOLDEN / "tf115" / "saver-v2.ckpt"))
    assert "encoder/rnn/basic_lstm_cell: TF1 BasicLSTMCell, features 5, units 3" in text
    assert "6 variables of 188 numbers, 12 slots, 6 averages, 3 counters" in text
    assert "global_step  []             int64  3" in text
    assert "LSTM(3) encoder-decoder, 5 -> 2 features" in text
    text = render_text(inspect_weights(GOLDEN / "tf215" / "objects.ckpt"))
    assert "... and 12 more (--verbose lists them)" in text
    assert "none: not an encoder-decoder that a spec describes" in text


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"\x1b[2J\nevil/kernel": np.ones((2, 3), np.float32)}, path)
    text = render_text(inspect_weights(path)) + render_mapping(inspect_weights(path))
    assert "\x1b" not in text
    assert "\nevil" not in text
    sites = parse_mapping(tomllib.loads(render_mapping(inspect_weights(path))), where="here")
    assert sites[0].variables["kernel"] == "\x1b[2J\nevil/kernel"
