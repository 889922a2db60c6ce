"""The command line: exit codes, one-line errors, and nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from oracle.cli import run

FRAMEWORKS = ("tensorflow", "jax", "flax", "keras", "numpy")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No pyproject.toml and no ORACLE_ variable but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("ORACLE_"):
            monkeypatch.delenv(name)
    return tmp_path


def oracle(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oracle", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_and_models_import_no_framework() -> None:
    code = (
        "import sys, oracle, oracle.cli\n"
        "for words in (['--help'], ['compare', '--help'], ['models']):\n"
        "    assert oracle.cli.run(words) == 0\n"
        f"loaded = [name for name in {FRAMEWORKS!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compare" in done.stdout
    assert "implicit_state/exchanged" in done.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["compare", "dynamic_rn"], "did you mean 'dynamic_rnn'?"),
        (["compare", "implicit_state/exchangd"], "did you mean 'implicit_state/exchanged'?"),
        (["compare", "--precision", "f16"], "f16"),
        (["compare", "--mode", "graph"], "graph"),
        (["compare", "dynamic_rnn", "--mode", "eager"], "it can in v1, function, xla"),
        (["compare", "--batch-size", "0"], "batch size 0"),
        (["compare", "--batch-size", "many"], "many"),
        (["compare", "--seed", "-1"], "seed -1"),
        (["compare", "--batchsize", "3"], "batchsize"),
        (["compare", "--output", "no/such/folder/report.txt"], "cannot be written"),
        (["compare", "--data", "none.csv", "--weights", "random"], "none.csv"),
        (["compare", "--data", "short.csv", "--weights", "random"], "at least 32 steps"),
        (["compare", "--data", "nan.csv", "--weights", "random"], "row 2, column 'a': 'nan' is not finite"),
        (["compare", "--data", "constant.csv", "--weights", "random"], "column 'b' is constant"),
        (["compare", "--weights", ""], "path of the weights is empty"),
        (["compare", "--weights", "none.ckpt"], "none.ckpt"),
        (["train", "implicit_state", "--steps", "1", "--output", "m.ckpt"], "cannot be trained"),
        (["train", "dynamic_rnn", "--output", "m.ckpt"], "steps"),
        (
            ["train", "dynamic_rnn", "--steps", "1", "--output", "m.ckpt", "--weight-decay", "1"],
            "translators",
        ),
        (["train", "attention_nmt/gru", "--steps", "1", "--output", "m", "--data", "none.tsv"], "none.tsv"),
        (["decode", "--beam-width", "0"], "beam_width is 0"),
        (["train", "dynamic_rnn", "--steps", "1", "--output", "m.ckpt", "--seed", "-1"], "seed -1"),
        (["train", "dynamic_rnn", "--steps", "1", "--output", ""], "is a directory"),
        (["train", "attention_nmt/lstm", "--steps", "1", "--output", "."], "is a directory"),
        (
            ["train", "attention_nmt/lstm", "--steps", "1", "--output", "m", "--weight-decay", "-1"],
            "from 0 on",
        ),
        (["train", "attention_nmt/lstm", "--steps", "1", "--output", "m", "--slots"], "leave out --slots"),
        (["compare", "none.py:build"], "none.py: no such file"),
        (["compare", "none.py:build", "--weights", "random"], "leave out --weights"),
        (["decode", "--model", "dynamic_rnn"], "is no translator"),
        (["compar"], "compar"),
    ],
)
@pytest.mark.tf
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "year," + ",".join("abcdefghijklm") + "\n"
    (tmp_path / "short.csv").write_text(header + "".join(f"{t}{',1.5' * 13}\n" for t in range(20)))
    (tmp_path / "nan.csv").write_text(header + f"1,nan{',1' * 12}\n")
    rows = "".join(f"{t},{t}{',5' * 12}\n" for t in range(60))
    (tmp_path / "constant.csv").write_text(header + rows)
    before = sorted(tmp_path.iterdir())
    one_process = ["--processes", "1"] if arguments[0] in ("compare", "decode") else []
    assert run([*arguments, *one_process]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.tf
def test_verbose_error_has_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "dynamic_rn", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_settings_go_flag_then_environment_then_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told by which of three impossible batch sizes is complained of."""
    (tmp_path / "pyproject.toml").write_text("[tool.oracle]\nbatch-size = -3\n")
    assert run(["compare"]) == 2
    assert "batch size -3" in capsys.readouterr().err
    monkeypatch.setenv("ORACLE_BATCH_SIZE", "-2")
    assert run(["compare"]) == 2
    assert "batch size -2" in capsys.readouterr().err
    assert run(["compare", "--batch-size", "-1"]) == 2
    assert "batch size -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("[tool.oracle]\nbatchsize = 3\n", "did you mean 'batch-size'?"),
        ("[tool.oracle\n", "cannot be read as TOML"),
        ("[tool]\noracle = 3\n", "not a table"),
        ("tool = 3\n", "not a table"),
        ("[tool.oracle]\nprecision = 'f8'\n", "f8"),
    ],
)
def test_bad_settings_are_refused(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert run(["compare"]) == 2
    assert said in capsys.readouterr().err
    assert run(["models"]) == 0


def test_paths_in_settings_are_of_the_settings_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.oracle]\ndata = 'series.csv'\nweights = 'random'\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert run(["compare", "--processes", "1"]) == 2
    assert f"{tmp_path / 'series.csv'}: cannot be read" in capsys.readouterr().err


def test_settings_are_those_of_compare_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORACLE_OUTPUT", "report.txt")
    assert run(["train", "dynamic_rnn", "--steps", "1"]) == 2
    assert "--output" in capsys.readouterr().err


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"gradient-oracle {version('gradient-oracle')}\n"


def test_closed_and_full_outputs_are_no_findings() -> None:
    done = subprocess.run(
        f"{sys.executable} -m oracle models | true; echo ${{PIPESTATUS[0]}}; "
        f"{sys.executable} -m oracle models > /dev/full; echo $?",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    closed, full = done.stdout.split()
    assert closed in ("0", "141")
    assert full == "2"
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.tf
@pytest.mark.parametrize("number", [2, 15])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    import time

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "oracle", "compare"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(temporary.glob("gradient-oracle-*/*.log")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert not list(temporary.iterdir())


def test_workers_import_nothing_from_the_folder_they_are_called_in(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "oracle.py").write_text("raise SystemExit('shadowed')\n")
    from oracle.errors import OracleError
    from oracle.runner import TwoProcesses
    from tests.oracle.cases import small_case

    case = small_case("explicit_state/full")
    options = {"model": "explicit_state/full", "mode": "none", "dtype": "float64"}
    with TwoProcesses() as runner:
        for side in ("tf", "jax"):
            with pytest.raises(OracleError, match="mode 'none'|not installed"):
                runner.run(side, case, **options).result()


def test_a_defect_of_ours_is_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import oracle.listing

    def fail() -> str:
        raise ZeroDivisionError("somewhere")

    monkeypatch.setattr(oracle.listing, "list_models", fail)
    assert run(["models"]) == 3
    captured = capsys.readouterr()
    assert "please report it: ZeroDivisionError: somewhere" in captured.err
    assert "Traceback" in captured.err


def test_without_a_framework_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert run(["compare", "--processes", "1"]) == 2
    assert "pip install 'gradient-oracle[tf]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "flax.linen", None)
    from oracle.errors import MissingPackageError
    from oracle.run_jax import run_oracle
    from tests.oracle.cases import small_case

    with pytest.raises(MissingPackageError, match=r"gradient-oracle\[jax\]"):
        run_oracle(small_case("dynamic_rnn/full"), model="dynamic_rnn/full")


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_default_run_compares_the_original_and_its_conversion_on_trained_weights() -> None:
    done = oracle("compare", "--precision", "both")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line in (
        "PASS dynamic_rnn/full (v1, float64): all 20 tensors match",
        "PASS dynamic_rnn/full (v1, float32): all 20 tensors match",
        "PASS explicit_state/full (function, float64): all 22 tensors match",
        "PASS explicit_state/full (function, float32): all 22 tensors match",
        "4 of 4 comparisons match",
    ):
        assert line in done.stdout
    assert "weights: sunspots-lstm-256; data: sunspots 1749-2008; seed 0" in done.stdout
    assert done.stdout.count("gradient/encoder/cell/recurrent_kernel   [256, 1024]") == 4


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("processes, witness", [("1", "never"), ("2", "on-finding")])
def test_findings_are_exit_code_1_in_every_format(tmp_path: Path, processes: str, witness: str) -> None:
    done = oracle(
        "compare",
        "implicit_state/exchanged",
        "implicit_state/outside_tape",
        "--weights",
        "random",
        "--output-format",
        "json",
        "--output",
        "report.json",
        "--processes",
        processes,
        "--witness",
        witness,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["matches"] is False
    exchanged, outside = report["comparisons"]
    assert {row["status"] for row in exchanged["rows"]} == {"match", "mismatch"}
    assert {row["status"] for row in outside["rows"]} == {"match", "none"}
    if witness == "never":
        assert exchanged["witness"] is None
    else:
        assert [one["witness"]["verdict"] for one in (exchanged, outside)] == ["forward", "autodiff"]
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_junit_is_xml_and_a_killed_side_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "report.xml"
    arguments = ["compare", "explicit_state", "--weights", "random", "--output", str(path)]
    assert run([*arguments, "--output-format", "junit", "--processes", "1"]) == 0
    (suite,) = ElementTree.parse(path).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("22", "0", "0")
    # A side that dies, as by the kernel for want of memory.
    import oracle.runner

    class Killed(oracle.runner.WorkerProcess):
        def __init__(self, side: str, folder: Path, *, verbose: bool) -> None:
            super().__init__(side, folder, verbose=verbose)
            if side == "tf":
                self._process.kill()

    monkeypatch.setattr(oracle.runner, "WorkerProcess", Killed)
    assert run(["compare", "--weights", "random"]) == 2
    assert "the tf process was ended by signal 9" in capsys.readouterr().err
