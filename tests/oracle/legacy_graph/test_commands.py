"""`oracle diagnose`, `oracle repair` and `oracle explain`, as functions that return exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from oracle.commands.explain import explain
from oracle.commands.legacy import diagnose, repair
from oracle.errors import UsageError
from oracle.legacy_graph.errors import GraphError
from tests.oracle.legacy_graph.golden import GRAPHS


def test_an_error_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(error="AttributeError: 'NoneType' object has no attribute 'outer_context'") == 1
    assert "# G001" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no known cause"):
        diagnose(error="KeyError: 3")
    with pytest.raises(UsageError, match="give a file"):
        diagnose()


def test_findings_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(GRAPHS / "stacked-gru", verbose=True) == 1
    text = capsys.readouterr().out
    assert "G001" in text
    assert "TF1 GRUCell" in text
    assert "why" in text
    assert diagnose(GRAPHS / "frozen-lstm.pb", output_format="json") == 1
    assert [finding["code"] for finding in json.loads(capsys.readouterr().out)] == ["G001", "G004"]


@pytest.mark.tf_any
def test_a_live_port(capfd: pytest.CaptureFixture[str]) -> None:
    """It runs in a process of its own, which the command says before."""
    target = Path("tf_models.legacy.live_gradients:stopped")
    assert diagnose(target, output_format="json") == 1
    captured = capfd.readouterr()
    assert captured.err == f"{target}: runs the port\n"
    (finding,) = json.loads(captured.out)
    assert finding["code"] == "G023"
    assert finding["where"].startswith("stopped: ")


@pytest.mark.tf_any
def test_a_live_port_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no module 'no_such_package"):
        diagnose(Path("no_such_package.module:build"))
    with pytest.raises(UsageError, match="brings its own inputs"):
        diagnose(Path("package.module:build"), input_names=("x",))


def test_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain() == 0
    codes = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sum(code.startswith("G") for code in codes) > 20
    assert sum(code.startswith("C") for code in codes) > 40
    assert explain("G012") == 0
    assert "stop_gradient" in capsys.readouterr().out


@pytest.mark.tf_any
def test_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(GRAPHS / "loop-in-cond.npz") as file:
        np.savez(tmp_path / "inputs.npz", source=file["input/source"], deep=file["input/deep"])
    target = tmp_path / "repaired"
    assert repair(GRAPHS / "loop-in-cond", target, inputs=tmp_path / "inputs.npz") == 0
    text = capsys.readouterr().out
    assert "forward: 1 outputs, 12 elements, equal to the original's bit for bit" in text
    assert "gradients: 3 against TF1's own, largest difference 0\n" in text
    assert "witness: 4 directional differences in float64" in text
    assert "variables: 2, of which 2 trainable" in text
    assert (target / "saved_model.pb").is_file()
    with pytest.raises(GraphError, match="is there already"):
        repair(GRAPHS / "loop-in-cond", target)
    assert diagnose(target) == 0
    assert "G003 note" in capsys.readouterr().out


@pytest.mark.tf_any
def test_no_inputs_no_output(tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="not a .npz"):
        repair(GRAPHS / "loop-in-cond", tmp_path / "repaired", inputs=tmp_path / "inputs.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.npz"]


@pytest.mark.tf_any
def test_an_attempt_says_that_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(GRAPHS / "loop-in-cond", gradient=True) == 1
    captured = capsys.readouterr()
    assert "the graph is loaded and run" in captured.err
    assert "AttributeError: 'NoneType' object has no attribute 'outer_context'" in captured.out
