"""Records that real TensorFlows of ten years made with the recorder, verified on the JAX that is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle.compare import Comparison
from oracle.errors import RecordError
from oracle.pair import compare_pair
from oracle.record import Record, read_record
from oracle.verify import verify_record
from tests.golden.install_tf import find_interpreter
from tests.golden.make_recordings import RECORDINGS, make, path_of

VERSIONS = {
    "tf1.15": ("1.15.5", "3.7"),
    "tf2.4": ("2.4.4", "3.8"),
    "tf2.8": ("2.8.4", "3.10"),
    "tf2.11": ("2.11.1", "3.10"),
    "tf2.15": ("2.15.1", "3.11"),
    "newest": ("2.21.0", "3.13"),
}


def read(name: str) -> Record:
    return read_record(path_of(name))


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_a_recording_is_small_and_says_where_it_is_from(name: str) -> None:
    record, (tensorflow, python) = read(name), VERSIONS[RECORDINGS[name].environment]
    assert path_of(name).stat().st_size < 30_000
    assert record.origin.versions["tensorflow"] == tensorflow
    assert record.origin.python.startswith(python)
    assert record.origin.device == "cpu"
    assert record.origin.flags["eager"] == ("off" if name.endswith("session") else "on")
    mode = {"session": "v1", "float32": "eager"}.get(name.partition("-")[2], name.partition("-")[2])
    assert record.origin.mode == mode


@pytest.mark.jax
@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_a_recording_verifies(name: str) -> None:
    comparison = verify_record(read(name))
    assert isinstance(comparison, Comparison)
    assert comparison.matches, comparison.findings
    assert len(comparison.rows) == 11
    assert "spec inferred" in comparison.port.flags["notes"]
    assert ("forget_bias 1" in comparison.port.flags["notes"]) == name.endswith("session")


@pytest.mark.jax
@pytest.mark.parametrize("name", ["tf1.15-session", "newest-function"])
def test_one_wrong_element_is_found(name: str) -> None:
    record = read(name)
    for tensor, value in record.tensors.items():
        if not tensor.startswith("gradient/"):
            continue
        assert value is not None
        wrong = value.copy()
        wrong.flat[value.size // 2] += 1e-9 * np.abs(value).max()
        comparison = verify_record(replace(record, tensors={**record.tensors, tensor: wrong}))
        assert [row.status for row in comparison.findings] == ["mismatch"], tensor
        held = comparison.findings[0]
        assert tensor.removeprefix("gradient/") in held.variables


@pytest.mark.jax
def test_a_gradient_that_is_none_or_was_not_recorded_is_found() -> None:
    record = read("newest-function")
    name = "gradient/encoder/lstm_cell/kernel"
    none = verify_record(replace(record, tensors={**record.tensors, name: None}))
    assert [(row.name, row.status) for row in none.findings] == [("gradient/encoder/cell/kernel", "none")]
    without = {key: tensor for key, tensor in record.tensors.items() if key != name}
    absent = verify_record(replace(record, tensors=without))
    assert [(row.name, row.status) for row in absent.findings] == [
        ("gradient/encoder/cell/kernel", "missing")
    ]


@pytest.mark.parametrize("name", ["tf1.15-session", "newest-float32"])
def test_a_changed_or_cut_recording_is_refused(name: str, tmp_path: Path) -> None:
    content, changed = path_of(name).read_bytes(), tmp_path / "changed"
    for position in range(0, len(content), 13):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        changed.write_bytes(flipped)
        with pytest.raises(RecordError, match="changed"):
            read_record(changed)
    for length in range(0, len(content), 211):
        changed.write_bytes(content[:length])
        with pytest.raises(RecordError, match="changed"):
            read_record(changed)


FLOAT64 = [name for name in sorted(RECORDINGS) if name.endswith(("eager", "function", "xla"))]


@pytest.mark.parametrize("name", FLOAT64)
def test_one_tensorflow_agrees_with_another(name: str) -> None:
    pair = compare_pair(read(name), read("newest-function"))
    assert pair.matches, pair.findings
    assert (pair.allowed, pair.basis, len(pair.rows)) == (1e-12, "float64", 11)
    # 2.15 and the newest name Keras' cells alike; the others number them, or leave them out.
    assert bool(pair.notes) == (name not in ("tf2.15-function", "newest-function"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf1.15-session", "tf1.15-eager", "tf2.4-function", "newest-function"])
def test_the_recorder_still_makes_it(name: str, tmp_path: Path) -> None:
    interpreter = find_interpreter(RECORDINGS[name].environment)
    if interpreter is None:
        pytest.skip(f"needs python -m tests.golden.install_tf {RECORDINGS[name].environment}")
    make(name, interpreter=interpreter, path=tmp_path / "again")
    again = read_record(tmp_path / "again")
    pair = compare_pair(read(name), again)
    assert pair.matches, pair.findings
    assert (again.naming, again.variables) == (read(name).naming, read(name).variables)
