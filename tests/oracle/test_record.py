from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from oracle.errors import RecordError
from oracle.record import FORMAT, Failure, Origin, Record, read_record, write_record
from oracle.storage import METADATA_KEY
from tests.oracle.cases import SMALL

ORIGIN = Origin(
    side="port",
    model="explicit_state/full",
    mode="function",
    dtype="float64",
    framework="tensorflow",
    versions={"tensorflow": "2.15.1"},
    python="3.11.7",
    device="cpu",
    case="0" * 32,
    seed=0,
    weights="random, seed 0",
    data="random, seed 0",
    flags={"tf32": "off"},
)


def make_record() -> Record:
    generator = np.random.default_rng(0)
    tensors = {
        "output/decoder": generator.standard_normal((3, 4, 5)),
        "loss": np.float64(0.25).reshape(()),
        "gradient/encoder/cell/kernel": None,
        "gradient/decoder/cell/kernel": generator.standard_normal((2, 20)).astype(np.float32),
    }
    return Record(SMALL, ORIGIN, tensors, {"gradient/encoder/cell/kernel": ("encoder/cell/kernel",)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "record.safetensors"
    write_record(make_record(), path)
    return path


def rewrite(path: Path, *, change_header=lambda header: None, change_arrays=lambda arrays: None) -> None:
    """Change a file as another program would, digest and all left as it was."""
    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    change_header(header)
    change_arrays(arrays)
    safetensors.numpy.save_file(arrays, path, {METADATA_KEY: json.dumps(header)})


def test_record_survives_a_file(path: Path) -> None:
    record, read = make_record(), read_record(path)
    assert (read.spec, read.origin, read.failure) == (record.spec, record.origin, None)
    assert read.variables == record.variables
    assert list(read.tensors) == list(record.tensors)
    for name, tensor in record.tensors.items():
        if tensor is None:
            assert read.tensors[name] is None
        else:
            assert np.array_equal(read.tensors[name], tensor)
            assert read.tensors[name].dtype == tensor.dtype
            assert read.tensors[name].shape == tensor.shape


@pytest.mark.parametrize("order", ["F", "reversed", "every second", "transposed"])
def test_strided_arrays_are_written_as_they_read(tmp_path: Path, order: str) -> None:
    base = np.arange(48.0).reshape(6, 8)
    array = {
        "F": np.asfortranarray(base),
        "reversed": base[::-1],
        "every second": base[:, ::2],
        "transposed": base.T,
    }[order]
    write_record(Record(SMALL, ORIGIN, {"loss": array}), tmp_path / "r.safetensors")
    assert np.array_equal(read_record(tmp_path / "r.safetensors").tensors["loss"], array)


def test_nan_that_a_port_computed_is_data(tmp_path: Path) -> None:
    array = np.array([1.0, np.nan, np.inf])
    write_record(Record(SMALL, ORIGIN, {"loss": array}), tmp_path / "r.safetensors")
    np.testing.assert_array_equal(read_record(tmp_path / "r.safetensors").tensors["loss"], array)


def test_failure_survives_a_file(tmp_path: Path) -> None:
    failure = Failure("AttributeError", "'NoneType' object has no attribute 'outer_context'", "Traceback")
    write_record(Record(SMALL, ORIGIN, {}, failure=failure), tmp_path / "r.safetensors")
    read = read_record(tmp_path / "r.safetensors")
    assert read.failure == failure
    assert not read.tensors


def test_truncated_file_is_refused_at_every_length(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    short = tmp_path / "short.safetensors"
    for length in [*range(0, len(content), 97), len(content) - 1]:
        short.write_bytes(content[:length])
        with pytest.raises(RecordError, match="short.safetensors"):
            read_record(short)


def test_oversized_file_is_refused(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(RecordError, match="not a whole safetensors file"):
        read_record(path)


def test_any_changed_byte_is_refused(path: Path, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    changed = tmp_path / "changed.safetensors"
    for position in range(0, len(content), 53):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        changed.write_bytes(flipped)
        with pytest.raises(RecordError):
            read_record(changed)


def test_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(RecordError, match="not a whole safetensors file"):
        read_record(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    with pytest.raises(RecordError, match="not one of ours"):
        read_record(path)
    path.write_text("loss,0.25\n")
    with pytest.raises(RecordError, match="not a whole safetensors file"):
        read_record(path)
    with pytest.raises(RecordError, match="no such file"):
        read_record(tmp_path)


def test_newer_format_is_refused(path: Path) -> None:
    rewrite(path, change_header=lambda header: header.update(format=FORMAT + 1))
    with pytest.raises(RecordError, match=f"version is {FORMAT + 1}, newer than the {FORMAT}"):
        read_record(path)


def test_changed_tensor_is_refused(path: Path) -> None:
    rewrite(path, change_arrays=lambda arrays: arrays.update(loss=np.float64(0.5).reshape(())))
    with pytest.raises(RecordError, match="digest differs"):
        read_record(path)


def test_changed_header_is_refused(path: Path) -> None:
    rewrite(path, change_header=lambda header: header["origin"].update(mode="eager"))
    with pytest.raises(RecordError, match="digest differs"):
        read_record(path)


def test_unwritable_place_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        write_record(make_record(), tmp_path / "no such folder" / "r.safetensors")
    folder = tmp_path / "r.safetensors"
    folder.mkdir()
    with pytest.raises(RecordError, match="cannot be written"):
        write_record(make_record(), folder)
    assert os.listdir(tmp_path) == ["r.safetensors"]


def test_failed_write_keeps_the_older_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RecordError, match="No space left"):
        write_record(Record(SMALL, ORIGIN, {"loss": np.zeros(3)}), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_record_of_an_own_port_takes_what_tensorflow_gives() -> None:
    from types import SimpleNamespace

    from oracle.case import random_case
    from oracle.record import record_port

    case = random_case(SMALL)
    slices = SimpleNamespace(
        values=np.ones((3, 2)), indices=np.array([1, 4, 1]), dense_shape=np.array([5, 2])
    )
    record = record_port(
        case, {"loss": np.array(1.0), "gradient/a": None, "gradient/b": slices}, model="mine"
    )
    assert record.tensors["gradient/a"] is None
    assert record.tensors["gradient/b"].tolist() == [[0, 0], [2, 2], [0, 0], [0, 0], [1, 1]]
    assert (record.origin.model, record.origin.dtype, record.origin.seed) == ("mine", "float64", 0)
    with pytest.raises(RecordError, match="float32, float64"):
        record_port(case, {"a": np.zeros(1), "b": np.zeros(1, np.float32)}, model="mine")
    with pytest.raises(RecordError, match="no array of numbers but object"):
        record_port(case, {"a": object()}, model="mine")
    with pytest.raises(RecordError, match="all None"):
        record_port(case, {"a": None}, model="mine")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_stay_what_they_are(tmp_path: Path, kind: str) -> None:
    import threading

    from oracle.storage import write_bytes

    path = tmp_path / "out"
    if kind == "link":
        (tmp_path / "target").write_bytes(b"old")
        path.symlink_to(tmp_path / "target")
        write_bytes(path, b"new")
        assert path.is_symlink()
        assert (tmp_path / "target").read_bytes() == b"new"
    else:
        os.mkfifo(path)
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
        reader.start()
        write_bytes(path, b"new")
        reader.join(timeout=10)
        assert read == [b"new"]
        assert path.is_fifo()


def test_records_of_format_1_are_read_and_written_as_format_2(tmp_path: Path) -> None:
    records = sorted((Path(__file__).parents[1] / "golden" / "records").glob("*.record.safetensors"))
    assert len(records) == 5
    for old in records:
        with safetensors.safe_open(old, "numpy") as file:
            assert json.loads(file.metadata()[METADATA_KEY])["format"] == 1
        read = read_record(old)
        assert (read.naming, dict(read.weights), dict(read.sparse), read.frozen) == ("leaf", {}, {}, ())
        write_record(read, tmp_path / "new")
        again = read_record(tmp_path / "new")
        assert (again.spec, again.origin, again.variables) == (read.spec, read.origin, read.variables)
        assert list(again.tensors) == list(read.tensors)
        for name, tensor in read.tensors.items():
            np.testing.assert_array_equal(again.tensors[name], tensor)


def test_sparse_gradients_keep_their_repeated_rows(tmp_path: Path) -> None:
    from dataclasses import replace

    from oracle.slices import Slices

    slices = Slices(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([2, 2]), (4, 2))
    name = "gradient/decoder/cell/kernel"
    record = make_record()
    record = replace(record, tensors={**record.tensors, name: slices.densify()}, sparse={name: slices})
    write_record(record, tmp_path / "r")
    read = read_record(tmp_path / "r")
    assert read.sparse[name].indices.tolist() == [2, 2]
    assert read.sparse[name].values.tolist() == [[1, 2], [3, 4]]
    assert read.tensors[name].tolist() == [[0, 0], [0, 0], [4, 6], [0, 0]]
    for values, indices, shape in (
        (np.ones((2, 2)), np.array([0, 4]), (4, 2)),
        (np.ones((2, 2)), np.array([0, -1]), (4, 2)),
        (np.ones((2, 3)), np.array([0, 1]), (4, 2)),
        (np.ones((2, 2)), np.array([0.0, 1.0]), (4, 2)),
    ):
        with pytest.raises(RecordError, match="are no gradient of shape"):
            Slices(values, indices, shape)


def test_weights_that_are_not_the_origins_are_not_written(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(RecordError, match="not those that its origin names"):
        write_record(replace(make_record(), weights={"a": np.ones(2)}), tmp_path / "r")
    assert os.listdir(tmp_path) == []
