"""The oracle over many devices gives what it gives on one.

The devices and the processes are made by running this file: `python -m tests.oracle.test_mesh devices`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("flax")

from oracle import cli, hosts, mesh
from oracle.case import Case, cast_case, random_case
from oracle.errors import CaseError, UsageError
from oracle.frameworks import import_jax, precise_jax
from oracle.mesh import DataMesh, parse_mesh
from oracle.record import Record, write_record
from oracle.run_jax import compile_step, run_oracle
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder
from oracle.steps.leaves import nest_leaves
from oracle.storage import digest_arrays
from oracle.verify import verify_record

pytestmark = [pytest.mark.jax, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ROWS = 24
BOUND = 1e-13
"""Of a tensor's largest element. Measured: at most 3e-15 of the encoder-decoders, 3e-14 of the translators,
whose gradients are sums of terms that nearly cancel."""


def translator(loss: str, cell: str = "lstm", mechanism: str = "bahdanau") -> AttentionNMT:
    units = 5 if mechanism == "bahdanau" else 10
    return AttentionNMT(7, 9, 3, cell, 5, 1, Attention(mechanism, units), loss=loss)


SPECS = {
    "encoder_decoder": EncoderDecoder(3, 2, LSTM(5), LSTM(5)),
    "lengths_and_state": EncoderDecoder(3, 2, LSTM(5), LSTM(5), lengths=True, initial_state="given"),
    "tokens": translator("tokens"),
    "steps": translator("steps", "gru", "luong"),
    "rows": translator("rows", "gru", "luong"),
}


def draw(name: str) -> Case:
    """No size is the number of rows. The longest targets are of the first rows, and so of one shard."""
    case = random_case(SPECS[name], seed=4, batch_size=ROWS, source_time=6, target_time=4)
    if "target_length" not in case.batch:
        return case
    lengths = case.batch["target_length"].copy()
    lengths[3:] = np.minimum(lengths[3:], 3)
    batch = {**case.batch, "target_length": lengths}
    if isinstance(case.spec, AttentionNMT):
        batch["target"] = np.where(np.arange(5) <= lengths[:, None], batch["target"], 0).astype(np.int32)
    return replace(case, batch=batch)


def differ(tensors: dict[str, Any], truth: Record) -> tuple[float, str]:
    """By how much two records' tensors differ at most, as a part of the largest element, and which do."""
    assert tensors.keys() == truth.tensors.keys()
    found = []
    for name, expected in truth.tensors.items():
        assert tensors[name].shape == expected.shape
        assert tensors[name].dtype == expected.dtype
        error = np.abs(tensors[name] - expected).max()
        found.append((float(error / (np.abs(expected).max() or 1.0)), name))
    return max(found)


def run_child(*arguments: str, devices: int, **variables: str) -> subprocess.Popen[str]:
    # What LLVM makes faster is not what is tested, and takes most of the time.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **variables}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.oracle.test_mesh", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_child(process: subprocess.Popen[str]) -> Any:
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def compute_on_devices() -> dict[str, Any]:
    """Every spec, by both paths, on 8 devices, against the plain path on one."""
    answers: dict[str, Any] = {"differ": {}, "flags": {}}
    eight = DataMesh(8)
    for name in SPECS:
        case = draw(name)
        truth = run_oracle(case, model="m", path="plain")
        for path in ("plain", "fast"):
            record = run_oracle(case, model="m", path=path, mesh=eight)
            answers["differ"][f"{name} {path}"] = differ(dict(record.tensors), truth)
            answers["flags"][f"{name} {path}"] = record.origin.flags
    for name in ("lengths_and_state", "tokens"):
        answers[f"arrays {name}"] = list_arrays(draw(name), eight)
    answers["errors"] = [
        catch(lambda: run_oracle(draw("rows"), model="m", mesh=DataMesh(16))),
        catch(lambda: hosts.connect("localhost:1", 2, 0)),
    ]
    return answers


def list_arrays(case: Case, devices: DataMesh) -> list[str]:
    """The shapes of the arrays of numbers in what each device runs."""
    with precise_jax():
        weights, batch = cast_case(case, "float64")
        placed = mesh.place(devices, nest_leaves(weights), batch)
        program = compile_step(case.spec, "fast", devices).lower(*placed).compile()
    return sorted(set(re.findall(r"f64\[([0-9,]+)\]", program.as_text())))


def compute_in_process(folder: str) -> dict[str, Any]:
    """What one of two processes computes, each of which has 2 devices."""
    four, process = DataMesh(4), int(os.environ[hosts.PROCESS])
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.run(["verify", f"{folder}/port.safetensors", "--mesh", "data=4"])
    answers: dict[str, Any] = {"verify": [code, output.getvalue()], "first": hosts.is_first(), "differ": {}}
    for name in ("lengths_and_state", "rows"):
        case = draw(name)
        record = run_oracle(case, model="m", mesh=four)
        answers["flags"] = record.origin.flags
        answers[name] = digest_arrays({}, {key: np.asarray(each) for key, each in record.tensors.items()})
        if hosts.is_first():
            answers["differ"][name] = differ(dict(record.tensors), run_oracle(case, model="m"))
    case = draw("encoder_decoder")
    other = replace(case, batch={**case.batch, "source": case.batch["source"] + np.float32(process)})
    answers["errors"] = [
        catch(lambda: run_oracle(other, model="m", mesh=four)),
        catch(lambda: run_oracle(case, model="m", mesh=DataMesh(3))),
    ]
    return answers


def catch(function: Any) -> str:
    try:
        function()
    except (CaseError, UsageError) as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def on_devices() -> dict[str, Any]:
    return read_child(run_child("devices", devices=8))


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("mesh")
    case = draw("lengths_and_state")
    truth = run_oracle(case, model="right")
    origin = msgspec.structs.replace(truth.origin, side="port", mode="eager", framework="tensorflow")
    record = replace(truth, origin=origin, weights=case.weights, batch=case.batch)
    write_record(record, folder / "port.safetensors")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    ends = {hosts.COORDINATOR: address, hosts.PROCESSES: "2"}
    both = [
        run_child("process", str(folder), devices=2, **ends, **{hosts.PROCESS: number}) for number in "01"
    ]
    return [read_child(process) for process in both]


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", SPECS)
def test_eight_devices_give_what_one_gives(on_devices, name, path) -> None:
    error, tensor = on_devices["differ"][f"{name} {path}"]
    assert error <= BOUND, tensor
    flags = on_devices["flags"][f"{name} {path}"]
    assert flags["mesh"] == "data=8"
    assert flags["path"] == path
    assert "processes" not in flags


@pytest.mark.parametrize("name", ["lengths_and_state", "tokens"])
def test_no_device_has_all_rows(on_devices, name) -> None:
    """Whatever is computed of a row is computed where the row is."""
    shapes = [[int(size) for size in shape.split(",")] for shape in on_devices[f"arrays {name}"]]
    assert any(ROWS // 8 in shape for shape in shapes)
    assert not [shape for shape in shapes if ROWS in shape]


def test_what_eight_devices_cannot_do(on_devices) -> None:
    too_many, too_late = on_devices["errors"]
    assert too_many == (
        "mesh: data=16 needs 16 devices, and JAX has 8 (cpu); give data=8 or less; a CPU has more with "
        "XLA_FLAGS=--xla_force_host_platform_device_count=16"
    )
    assert too_late.startswith("several hosts: process 0 of 2 cannot be connected at localhost:1: jax")
    assert "must be called before" in too_late


def test_two_processes_give_what_one_gives(in_processes) -> None:
    first, second = in_processes
    for name in ("lengths_and_state", "rows"):
        error, tensor = first["differ"][name]
        assert error <= BOUND, tensor
        assert first[name] == second[name]
    for answers in in_processes:
        assert answers["flags"]["mesh"] == "data=4"
        assert answers["flags"]["processes"] == "2"


def test_one_of_two_processes_reports(in_processes) -> None:
    (code, told), (other_code, other_told) = (answers["verify"] for answers in in_processes)
    assert code == other_code == 0
    assert "match" in told
    assert not other_told
    assert [answers["first"] for answers in in_processes] == [True, False]


def test_what_two_processes_cannot_do(in_processes) -> None:
    for answers in in_processes:
        different, uneven = answers["errors"]
        assert "process 1 was given other weights or another batch than process 0" in different
        assert "data=3 cannot have as many devices of each of 2 processes" in uneven


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data", "has no number of devices; give data=N"),
        ("data=", "has no number of devices; give data=N"),
        ("data=two", "has no number of devices; give data=N"),
        ("data=1.5", "has no number of devices; give data=N"),
        ("data=²", "has no number of devices; give data=N"),
        ("data=0", "data=0 is no number of devices; give 1 or more"),
        ("data=-2", "data=-2 is no number of devices; give 1 or more"),
        ("model=2", "'model=2' has no axis that is known; give data=N"),
        ("8", "'8' has no axis that is known; give data=N"),
    ],
)
def test_a_mesh_that_is_none(text, message) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_mesh(text)


def test_a_mesh_is_read_as_it_is_written() -> None:
    assert parse_mesh("data=8") == DataMesh(8)
    assert str(DataMesh(8)) == "data=8"


def test_rows_that_do_not_divide() -> None:
    batch = {"source": np.zeros((12, 3)), "source_length": np.zeros(12, np.int32)}
    with pytest.raises(
        UsageError, match=r"12 rows cannot be .* data=1 or 2 or 3 or 4 or 6 or 12, .* 15 rows"
    ):
        mesh._check_rows(DataMesh(5), batch)
    with pytest.raises(UsageError, match=r"not every array of the batch .* source \[12, 3\], scale \[\]"):
        mesh._check_rows(DataMesh(2), {"source": batch["source"], "scale": np.float64(1)})


def test_a_mesh_of_one_device_and_none() -> None:
    case = draw("encoder_decoder")
    record = run_oracle(case, model="m", mesh=DataMesh(1))
    assert differ(dict(record.tensors), run_oracle(case, model="m")) <= (BOUND, "")
    assert mesh.limit_kept(None) is None
    assert mesh.describe_mesh(None) == {}
    with pytest.raises(UsageError, match="runs over a mesh compiled, not eagerly"):
        run_oracle(case, model="m", mode="eager", mesh=DataMesh(1))


def test_shards_are_put_back_in_order() -> None:
    jax = import_jax()
    rows = {"a": jax.numpy.arange(12).reshape(6, 2), "b": jax.numpy.arange(6)}

    def double(rows):
        assert len(rows["a"]) == len(rows["b"]) == 3
        return {name: 2 * array for name, array in rows.items()}

    doubled = mesh.map_shards(double, rows, 2)
    for name, array in rows.items():
        np.testing.assert_array_equal(doubled[name], 2 * array)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "JAX_COORDINATOR_ADDRESS is ''; set it to host:port"),
        ({hosts.COORDINATOR: "10.0.0.1"}, "JAX_COORDINATOR_ADDRESS is '10.0.0.1'; set it to host:port"),
        (
            {hosts.COORDINATOR: "a:1", hosts.PROCESSES: "two"},
            "JAX_NUM_PROCESSES is 'two'; set it to a number",
        ),
        (
            {hosts.COORDINATOR: "a:1", hosts.PROCESSES: "2", hosts.PROCESS: "2"},
            "there is no process 2 of 2; JAX_PROCESS_ID goes from 0",
        ),
    ],
)
def test_hosts_that_cannot_meet(monkeypatch, given, message) -> None:
    for name in (hosts.COORDINATOR, hosts.PROCESSES, hosts.PROCESS):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=re.escape(message)):
        hosts.connect()


def test_a_coordinator_that_is_not_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(UsageError, match=f"nobody listens at {address} for 0.1 s .*refused"):
        hosts.connect(address, 2, 1, wait_s=0.1)


def test_what_has_no_mesh(monkeypatch, capsys) -> None:
    case = draw("encoder_decoder")
    origin = msgspec.structs.replace(run_oracle(case, model="m").origin, side="port")
    record = Record(case.spec, origin, {}, weights=case.weights, batch=case.batch)
    with pytest.raises(UsageError, match="a mesh is of the oracle's own model"):
        verify_record(record, module=lambda params, batch: 0.0, mesh=DataMesh(1))
    assert cli.run(["compare", "a.safetensors", "b.safetensors", "--mesh", "data=2"]) == 2
    monkeypatch.setenv(hosts.COORDINATOR, "a:1")
    assert cli.run(["compare", "explicit_state/full", "--mesh", "data=2"]) == 2
    told = capsys.readouterr().err
    assert "--mesh is of this project's ports and of `oracle verify`; leave it out" in told
    assert "several hosts verify a record" in told


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    answer = compute_on_devices() if what == "devices" else compute_in_process(*arguments)
    print(json.dumps(answer))
