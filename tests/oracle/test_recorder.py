"""The recorder by itself: what it writes, what it refuses, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from oracle import recorder
from oracle.errors import RecordError
from oracle.record import read_record, write_record
from oracle.recorder import RecorderError, recording
from tests.golden import install_tf

SOURCE = Path(recorder.__file__)
GENERATOR = np.random.default_rng(0)
WEIGHTS = {"encoder/kernel": GENERATOR.standard_normal((2, 3)), "scale": np.float64(0.5)}
GRADIENTS = {"encoder/kernel": GENERATOR.standard_normal((2, 3)), "scale": None}


def record(path: Path, *, weights=WEIGHTS, gradients=GRADIENTS, loss=1.5, **inputs) -> None:
    with recording(str(path), model="plain", mode="eager", seed=3) as r:
        r.weights(weights)
        r.inputs(**(inputs or {"source": np.ones((4, 2))}))
        r.outputs(prediction=np.arange(3.0))
        r.loss(np.float64(loss))
        r.gradients(gradients)


def test_what_it_writes_is_read_as_it_was(tmp_path: Path) -> None:
    record(tmp_path / "r", source=np.arange(6.0).reshape(2, 3).T, length=[1, 2], mask=np.array([True, False]))
    read = read_record(tmp_path / "r")
    assert list(read.tensors) == ["output/prediction", "loss", "gradient/encoder/kernel", "gradient/scale"]
    np.testing.assert_array_equal(read.tensors["gradient/encoder/kernel"], GRADIENTS["encoder/kernel"])
    assert read.tensors["gradient/scale"] is None
    assert (read.tensors["loss"].shape, float(read.tensors["loss"])) == ((), 1.5)
    np.testing.assert_array_equal(read.batch["source"], np.arange(6.0).reshape(2, 3).T)
    assert (read.batch["length"].tolist(), read.batch["mask"].tolist()) == ([1, 2], [True, False])
    assert read.weights["scale"].shape == ()
    assert (read.spec, read.naming, read.origin.side, read.origin.dtype) == (
        None,
        "variable",
        "port",
        "float64",
    )
    assert (read.origin.model, read.origin.mode, read.origin.seed) == ("plain", "eager", 3)
    assert read.variables["gradient/scale"] == ("scale",)


@pytest.mark.parametrize(
    "dtype",
    ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f8", ml_dtypes.bfloat16],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (3, 5)])
def test_every_dtype_and_shape_survives(tmp_path: Path, dtype, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    record(tmp_path / "r", x=array, odd=np.ones(3, np.int8))
    read = read_record(tmp_path / "r").batch["x"]
    assert (read.dtype, read.shape) == (array.dtype.newbyteorder("="), shape)
    np.testing.assert_array_equal(read.astype(np.float64), array.astype(np.float64))


@pytest.mark.parametrize(
    ("dtype", "named"),
    [("f8", "float64"), ("f4", "float32"), ("f2", "float16"), (ml_dtypes.bfloat16, "bfloat16")],
)
def test_the_precision_is_that_of_loss_and_gradients(tmp_path: Path, dtype, named: str) -> None:
    with recording(str(tmp_path / "r")) as r:
        r.weights({"w": np.ones(2)})
        r.loss(np.ones((), dtype))
        r.gradients({"w": np.ones(2, dtype)})
    assert read_record(tmp_path / "r").origin.dtype == named
    with recording(str(tmp_path / "r")) as r:
        r.weights({"w": np.ones(2)})
        r.loss(np.ones((), dtype))
        r.gradients({"w": np.ones(2, dtype), "v": np.ones(2, "f4" if named != "float32" else "f8")})
    assert read_record(tmp_path / "r").origin.dtype == "mixed"


def test_nan_and_infinity_are_data(tmp_path: Path) -> None:
    gradients = {"encoder/kernel": np.full((2, 3), np.nan), "scale": np.array(np.inf)}
    record(tmp_path / "r", gradients=gradients, loss=np.nan)
    read = read_record(tmp_path / "r")
    assert np.isnan(read.tensors["gradient/encoder/kernel"]).all()
    assert np.isnan(read.tensors["loss"])


def test_what_is_recorded_does_not_change_with_its_source(tmp_path: Path) -> None:
    weight, batch = np.ones(3), np.ones(4)
    with recording(str(tmp_path / "r")) as r:
        r.weights({"w": weight})
        r.inputs(x=batch)
        weight += 1
        batch *= 0
        r.gradients({"w": weight})
    read = read_record(tmp_path / "r")
    assert (read.weights["w"].tolist(), read.batch["x"].tolist()) == ([1] * 3, [1] * 4)


def test_a_record_that_is_read_and_written_is_the_same(tmp_path: Path) -> None:
    record(tmp_path / "a")
    write_record(read_record(tmp_path / "a"), tmp_path / "b")
    a, b = read_record(tmp_path / "a"), read_record(tmp_path / "b")
    assert (a.origin, a.variables, list(a.tensors)) == (b.origin, b.variables, list(b.tensors))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: r.inputs(x=np.array(["a"])), "input x is text"),
        (lambda r: r.inputs(x=np.ones(2, complex)), "complex128, which cannot be recorded"),
        (lambda r: r.inputs(x=object()), "has no value here"),
        (lambda r: r.inputs(np.ones(2)), "no name here"),
        (lambda r: r.inputs(x=None), "is None"),
        (lambda r: r.weights(np.ones(2)), "an array has no name"),
        (lambda r: r.weights(object()), "is no variable"),
        (lambda r: r.loss(np.ones(2)), r"the loss is \[2\]"),
        (lambda r: (r.loss(1.0), r.loss(1.0)), "the loss was given twice"),
        (lambda r: (r.inputs(x=1.0), r.inputs(x=1.0)), "'x' was given twice"),
        (lambda r: (r.gradients({"w": 1.0}), r.gradients({"w": 1.0})), "'w' was given twice"),
        (lambda r: r.gradients([1.0, 2.0], []), "2 gradients and 0 variables"),
        (lambda r: r.gradients([1.0]), "1 gradients and no variables"),
        (lambda r: None, "no gradients were given"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_nothing_written(tmp_path: Path, call, said: str) -> None:
    with pytest.raises(RecorderError, match=said), recording(str(tmp_path / "r")) as r:
        call(r)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_refused_before_the_port_runs(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="no folder"), recording(str(tmp_path / "no" / "r")):
        pytest.fail("it ran")
    with pytest.raises(RecorderError, match="no mode 'graph'"), recording(str(tmp_path / "r"), mode="graph"):
        pytest.fail("it ran")
    with pytest.raises(RecorderError, match="is a folder"):
        record(tmp_path)


def test_a_port_that_raises_is_recorded_and_goes_on_raising(tmp_path: Path) -> None:
    with pytest.raises(KeyError), recording(str(tmp_path / "r")) as r:
        r.weights(WEIGHTS)
        r.loss(1.0)
        raise KeyError("first\nthe last line")
    read = read_record(tmp_path / "r")
    assert read.failure is not None
    assert (read.failure.type, dict(read.tensors)) == ("KeyError", {})
    assert "test_a_port_that_raises" in read.failure.traceback
    assert set(read.weights) == set(WEIGHTS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_recorder_keeps_the_older_file(tmp_path: Path, error: type[BaseException]) -> None:
    record(tmp_path / "r")
    before = (tmp_path / "r").read_bytes()
    with pytest.raises(error), recording(str(tmp_path / "r")) as r:
        r.gradients({"w": 1.0})
        raise error
    assert (tmp_path / "r").read_bytes() == before
    assert os.listdir(tmp_path) == ["r"]


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import numpy as np, recorder
def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "fsync":
    os.fsync = kill
else:
    whole, done = recorder._bytes_of, []
    def some(array):
        # Not while the digest is made, but when the second array is written.
        done.append(array)
        return kill() if len(done) > 4 + 1 else whole(array)
    recorder._bytes_of = some
with recorder.recording({path!r}) as r:
    for number in range(4):
        r.gradients({{str(number): np.ones(300_000)}})
"""


@pytest.mark.parametrize("moment", ["fsync", "between arrays"])
@pytest.mark.parametrize("older", [False, True])
def test_a_killed_recorder_leaves_nothing(tmp_path: Path, moment: str, older: bool) -> None:
    path = tmp_path / "r"
    if older:
        record(path)
    before = path.read_bytes() if older else b""
    code = KILLED.format(folder=str(SOURCE.parent), path=str(path), moment=moment)
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert os.listdir(tmp_path) == (["r"] if older else [])
    assert not older or path.read_bytes() == before


def test_without_nameless_files_it_writes_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_open_nameless", lambda folder: None)
    record(tmp_path / "r")
    assert read_record(tmp_path / "r").origin.model == "plain"
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(RecorderError, match="No space left"):
        record(tmp_path / "s")
    assert os.listdir(tmp_path) == ["r"]


def test_a_nameless_file_that_cannot_be_named_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments, **options):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    record(tmp_path / "r")
    assert read_record(tmp_path / "r").origin.model == "plain"
    assert os.listdir(tmp_path) == ["r"]


def test_it_writes_through_a_link_and_as_umask_says(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "r")
    mask = os.umask(0o027)
    try:
        record(tmp_path / "link")
    finally:
        os.umask(mask)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o640


def test_any_changed_byte_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "r")
    content = (tmp_path / "r").read_bytes()
    changed = tmp_path / "changed"
    for position in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        changed.write_bytes(flipped)
        with pytest.raises(RecordError):
            read_record(changed)
    for length in [*range(0, len(content), 101), len(content) - 1]:
        changed.write_bytes(content[:length])
        with pytest.raises(RecordError):
            read_record(changed)


@pytest.mark.parametrize("group", ["weight", "batch"])
def test_weights_of_another_record_are_refused(tmp_path: Path, group: str) -> None:
    """Put together with a digest that is right, as a program could: the case's digest is not."""
    from oracle.storage import read_arrays, write_arrays

    record(tmp_path / "r")
    header, arrays = read_arrays(tmp_path / "r", kind="record", format=recorder.FORMAT)
    name = next(name for name in arrays if name.startswith(group))
    arrays[name] = arrays[name] + 1
    kind, version = header.pop("kind"), header.pop("format")
    write_arrays(tmp_path / "s", arrays, kind=kind, format=version, header=header)
    with pytest.raises(RecordError, match="not those that its origin names"):
        read_record(tmp_path / "s")


class TestCommand:
    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SOURCE), *arguments]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=120)

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("port", "names no function"),
            ("port:build(open('x'))", "names no function"),
            ("port.py:build", "no such file"),
            ("absent_port:build", "no module 'absent_port'"),
        ],
    )
    def test_what_is_not_there_is_said(self, tmp_path: Path, target: str, said: str) -> None:
        done = self.run(tmp_path, target, "-o", "r")
        assert (done.returncode, os.listdir(tmp_path)) == (2, [])
        assert said in done.stderr

    def test_help_needs_no_tensorflow(self, tmp_path: Path) -> None:
        assert "oracle verify" in self.run(tmp_path, "--help").stdout


def interpreters() -> list:
    found = []
    for version in ("3.6", "3.7", "3.8", "3.13"):
        try:
            found.append(pytest.param(install_tf.find_python(version), id=version))
        except install_tf.NoPythonError as error:
            found.append(pytest.param(None, id=version, marks=pytest.mark.skip(reason=str(error))))
    return found


@pytest.mark.parametrize("python", interpreters())
def test_it_compiles_on_old_and_new_pythons(tmp_path: Path, python: Path) -> None:
    code = "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1], 'exec')"
    subprocess.run([str(python), "-c", code, str(SOURCE)], check=True, timeout=60)


@pytest.mark.skipif(
    install_tf.find_interpreter("tf1.15") is None, reason="needs python -m tests.golden.install_tf tf1.15"
)
def test_numpy_of_python_37_writes_the_same_bytes(tmp_path: Path) -> None:
    """But for the versions in the header, which are in the digest too."""
    code = (
        f"import sys, json; sys.path.insert(0, {str(SOURCE.parent)!r}); import recorder, numpy as np\n"
        "arrays = {'a': np.arange(6, dtype='f4').reshape(2, 3).T, 'b': np.ones(3, bool), 'c': np.zeros(())}\n"
        "recorder._write_file(sys.argv[1], {'kind': 'record', 'x': [1, None, 'é']}, arrays)"
    )
    contents = []
    for number, python in enumerate([sys.executable, install_tf.find_interpreter("tf1.15")]):
        path = tmp_path / str(number)
        subprocess.run([str(python), "-c", code, str(path)], check=True, timeout=60)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    size = int.from_bytes(contents[0][:8], "little")
    assert json.loads(contents[0][8 : 8 + size])["a"]["shape"] == [3, 2]


@pytest.mark.parametrize("wrong", ["gradients", "variables", "weights"])
def test_a_session_takes_lists(tmp_path: Path, wrong: str) -> None:
    """The names in a dictionary would be lost, or fetched."""
    given = {"gradients": [], "variables": [], "weights": [], wrong: {"w": 1.0}}
    said = pytest.raises(recorder.RecorderError, match=f"run: {wrong} is a dictionary; give a list")
    with said, recorder.recording(str(tmp_path / "r")) as r:
        r.run(None, loss=None, **given)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(recorder.RecorderError, match="is a folder"), recorder.recording(str(tmp_path)):
        pass
