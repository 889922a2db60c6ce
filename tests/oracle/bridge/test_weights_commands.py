"""`oracle inspect` and `oracle convert`, as they are called."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.mapping_file import read_mapping
from oracle.commands.weights import convert, inspect
from oracle.conversion import convert as convert_weights
from oracle.errors import BridgeError, UsageError
from tests.oracle.bridge.golden_files import GOLDEN

SAVER = GOLDEN / "tf115" / "saver-v2.ckpt"


def test_inspect_prints_text_json_or_a_mapping(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert inspect(SAVER) == 0
    assert "TF1 BasicLSTMCell, features 5, units 3" in capsys.readouterr().out
    assert inspect(SAVER, json=True) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "tf1-checkpoint"
    assert inspect(SAVER, mapping=True) == 0
    (tmp_path / "m.toml").write_text(capsys.readouterr().out)
    assert [site.path for site in read_mapping(tmp_path / "m.toml")] == [
        "decoder/cell",
        "encoder/cell",
        "projection",
    ]
    with pytest.raises(UsageError, match="give one"):
        inspect(SAVER, json=True, mapping=True)


def test_convert_says_what_it_wrote_and_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    assert convert(SAVER, target) == 0
    assert capsys.readouterr().out == f"{target}: safetensors, 6 variables from {SAVER}\n"
    assert convert(SAVER, tmp_path / "v.safetensors", weights_only=True) == 0
    out = capsys.readouterr().out
    assert "left out: 12 slots, such as 'decoder/rnn/basic_lstm_cell/bias/Adam'" in out
    assert "left out: 6 averages" in out
    assert "left out: 3 counters" in out
    assert convert(SAVER, target, overwrite=True, quiet=True) == 0
    assert capsys.readouterr().out == ""


def test_what_cannot_be_carried_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"12 slots.*2 counters.*--weights-only"):
        convert(SAVER, tmp_path / "w", format="tf2-checkpoint")
    with pytest.raises(BridgeError, match="which are loaded by name"):
        convert(SAVER, tmp_path / "w.h5", weights_only=True)
    mapping = tmp_path / "m.toml"
    mapping.write_text('[[site]]\npath = "x"\nlayout = "array"\nshape = [2]\nvariables = "x"\n')
    with pytest.raises(BridgeError, match="a mapping carries the model's variables only"):
        convert(SAVER, tmp_path / "w.safetensors", mapping=mapping)
    with pytest.raises(BridgeError, match="has no place in the spec"):
        convert(SAVER, tmp_path / "w.safetensors", mapping=mapping, weights_only=True)
    with pytest.raises(BridgeError, match="without a mapping"):
        convert(SAVER, tmp_path / "w.safetensors", to="leaves")
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


@pytest.mark.jax
def test_variables_go_through_a_mapping_to_flax_and_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inspect(SAVER, mapping=True)
    mapping = tmp_path / "m.toml"
    mapping.write_text(capsys.readouterr().out)
    convert(SAVER, tmp_path / "w.msgpack", mapping=mapping, weights_only=True)
    leaves = read_weight_file(tmp_path / "w.msgpack")
    assert leaves.variables["encoder/cell/recurrent_kernel"].shape == (3, 12)
    convert(tmp_path / "w.msgpack", tmp_path / "back.safetensors", mapping=mapping)
    back, source = read_weight_file(tmp_path / "back.safetensors"), read_weight_file(SAVER)
    assert back.variables.keys() == source.variables.keys()
    assert all(np.array_equal(back.variables[name], array) for name, array in source.variables.items())


@pytest.mark.tf_any
def test_a_chain_through_every_format_ends_where_it_began(tmp_path: Path) -> None:
    source = GOLDEN / "tf115" / "cells.ckpt"
    path: Path = source
    for number, (ending, kind) in enumerate(
        (
            (".safetensors", None),
            ("", "tf2-checkpoint"),
            ("", "tf1-checkpoint"),
        )
    ):
        target = tmp_path / f"{number}{ending}"
        convert_weights(path, target, format=kind)
        path = target
    first, last = read_weight_file(source), read_weight_file(path)
    assert last.variables.keys() == first.variables.keys()
    assert all(last.variables[name].tobytes() == array.tobytes() for name, array in first.variables.items())


def test_the_commands_import_no_framework() -> None:
    code = (
        "import sys; from pathlib import Path; from oracle.commands.weights import inspect\n"
        "inspect(Path(sys.argv[1])); inspect(Path(sys.argv[1]), mapping=True)\n"
        "assert not {'tensorflow', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(SAVER)], check=True, stdout=subprocess.DEVNULL)


def test_slots_are_listed_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    inspect(GOLDEN / "tf215" / "objects.ckpt", verbose=True)
    out = capsys.readouterr().out
    numbers = [
        int(number) for number in re.findall(r"training/_variables/(\d+) ", out.partition("\nslots")[2])
    ]
    assert len(numbers) > 10
    slots, averages = numbers, []
    if "\naverages" in out:
        cut = out.partition("\nslots")[2].partition("\naverages")[0].count("training/_variables/")
        slots, averages = numbers[:cut], numbers[cut:]
    assert slots == sorted(slots)
    assert averages == sorted(averages)


@pytest.mark.parametrize(
    "arguments", [["inspect", ""], ["convert", "", "w.safetensors"], ["convert", "w", ""]]
)
def test_an_empty_path_is_not_the_current_folder(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from oracle.cli import run

    assert run(arguments) == 2
    assert "the path is empty" in capsys.readouterr().err
