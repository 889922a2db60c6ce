"""Files that no honest program wrote: refused with one line, and with little memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.reading import find_format, read_weight_file
from oracle.bridge.formats.table import uncompress
from oracle.errors import BridgeError
from tests.fuzz.readers import FINDINGS, describe, fuzz, read_input
from tests.fuzz.tables import HEADER, build_table, encode_entry, encode_field
from tests.oracle.bridge.golden_files import GOLDEN

HUGE = 2**40


def refuse(path: Path) -> str:
    with pytest.raises(BridgeError) as error:
        read_weight_file(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def write_checkpoint(folder: Path, *entries: tuple[bytes, bytes]) -> Path:
    (folder / "m.ckpt.index").write_bytes(build_table([(b"", HEADER), *entries]))
    (folder / "m.ckpt.data-00000-of-00001").write_bytes(bytes(16))
    return folder / "m.ckpt"


SLICE_OUTSIDE = encode_field(7, encode_field(1, encode_field(1, 2) + encode_field(2, 2**64 - 5)))


@pytest.mark.parametrize(
    "entry",
    [
        # TensorFlow's own reader aborts the process on the first five.
        encode_entry(1, [2**64 - 1, 4], 16),
        encode_entry(99, [4], 16),
        encode_entry(1, [2**62, 4], 16),
        encode_entry(1, [1] * 300, 4),
        encode_entry(1, [4], 16, extra=SLICE_OUTSIDE),
        encode_entry(1, [HUGE], 16),
        encode_entry(1, [HUGE], 4 * HUGE),
        encode_entry(1, [4], 2**64 - 16),
        encode_entry(1, [4], 16, offset=2**64 - 100),
        encode_entry(1, [4], 16, offset=1),
        encode_entry(1, [4], 16, shard=5),
        encode_entry(1, [4], 16, shard=2**62),
        encode_entry(1, [4], 16),
        encode_entry(7, [HUGE], 16)[:-3],
    ],
)
def test_a_checkpoint_that_lies_is_refused(tmp_path: Path, entry: bytes) -> None:
    assert "a checkpoint that cannot be read" in refuse(write_checkpoint(tmp_path, (b"x", entry)))


def test_many_tensors_of_the_same_bytes_are_no_bomb(tmp_path: Path) -> None:
    entries = [(f"{index:03d}".encode(), encode_entry(1, [4], 16, content=bytes(16))) for index in range(500)]
    assert "can be trusted with" in refuse(write_checkpoint(tmp_path, *entries))


def test_every_cut_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    source = GOLDEN / "tf115" / "saver-v2.ckpt"
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{source}{suffix}", tmp_path / f"m.ckpt{suffix}")
    for suffix in (".index", ".data-00000-of-00001"):
        path = tmp_path / f"m.ckpt{suffix}"
        whole = path.read_bytes()
        for size in range(0, len(whole), 37):
            path.write_bytes(whole[:size])
            refuse(tmp_path / "m.ckpt")
        path.write_bytes(whole)
    assert len(read_weight_file(tmp_path / "m.ckpt").variables) == 6


@pytest.mark.parametrize("name", ["tf115/saver-v1.ckpt", "tf215/keras.keras", "flat/weights.msgpack"])
def test_a_cut_file_is_refused(tmp_path: Path, name: str) -> None:
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / Path(name).name
    for size in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refuse(path)


def test_a_cut_hdf5_file_is_refused(tmp_path: Path) -> None:
    whole = (GOLDEN / "tf215" / "keras-legacy.h5").read_bytes()
    path = tmp_path / "w.h5"
    for size in (0, 7, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert "Keras' legacy HDF5 that cannot be read" in refuse(path)


def make_h5(path: Path, build: object) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        build(file, h5py)
    return path


def test_hdf5_links_are_refused(tmp_path: Path) -> None:
    outside = make_h5(tmp_path / "outside.h5", lambda file, h5py: file.create_dataset("secret", data=[1.0]))

    def external(file: object, h5py: object) -> None:
        file["layer"] = h5py.ExternalLink(str(outside), "/secret")

    def soft(file: object, h5py: object) -> None:
        file["layer"] = h5py.SoftLink("/../../etc")

    def virtual(file: object, h5py: object) -> None:
        layout = h5py.VirtualLayout((1,), "f8")
        layout[0] = h5py.VirtualSource(str(outside), "secret", (1,))[0]
        file.create_virtual_dataset("layer", layout)

    def raw(file: object, h5py: object) -> None:
        file.create_dataset("layer", (1,), "f8", external=[(str(outside), 0, 8)])

    def loop(file: object, h5py: object) -> None:
        file.create_group("layer")["again"] = file["/"]

    for build, reason in (
        (external, "is a link to"),
        (soft, "is a link to"),
        (virtual, "lies in other files"),
        (raw, "lies in other files"),
        (loop, "contains itself"),
    ):
        assert reason in refuse(make_h5(tmp_path / "w.h5", build))


def test_hdf5_bombs_are_refused(tmp_path: Path) -> None:
    def never_written(file: object, h5py: object) -> None:
        file.create_dataset("x", (HUGE,), "f8", chunks=(2**20,), fillvalue=1.0)

    def contiguous(file: object, h5py: object) -> None:
        file.create_dataset("x", (2**32,), "f8")

    def chunk(file: object, h5py: object) -> None:
        file.create_dataset("x", (4,), "f8", chunks=(2**27,), maxshape=(None,))

    def compressed(file: object, h5py: object) -> None:
        zeros = np.zeros(2**24)
        file.create_dataset("x", data=zeros, chunks=(2**20,), compression="gzip")

    for build in (never_written, contiguous, chunk, compressed):
        assert "can be trusted with" in refuse(make_h5(tmp_path / "w.h5", build))


def test_hdf5_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    strings = make_h5(tmp_path / "s.h5", lambda file, h5py: file.create_dataset("x", data=[b"a"]))
    assert "which is no number" in refuse(strings)
    compound = np.zeros(2, [("a", "f4"), ("b", "i4")])
    assert "which is no number" in refuse(
        make_h5(tmp_path / "c.h5", lambda file, h5py: file.create_dataset("x", data=compound))
    )


def test_a_legacy_file_with_unlisted_or_missing_weights_is_refused(tmp_path: Path) -> None:
    def unlisted(file: object, h5py: object) -> None:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"]
        file["dense"]["kernel:0"] = [1.0]
        file["dense"]["left"] = [2.0]

    def missing(file: object, h5py: object) -> None:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"]

    assert "'dense/left', which no layer lists" in refuse(make_h5(tmp_path / "u.h5", unlisted))
    assert "lists the weight 'kernel:0', which is not there" in refuse(make_h5(tmp_path / "m.h5", missing))


def write_archive(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_zip_escapes_links_and_bombs_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    inner = (GOLDEN / "tf215" / "keras.weights.h5").read_bytes()
    weights = ("model.weights.h5", inner)
    path = tmp_path / "m.keras"
    for name in ("../evil", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil"):
        assert "would leave its folder" in refuse(write_archive(path, [weights, (name, b"")]))
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    assert "is a symbolic link" in refuse(write_archive(path, [weights, (link, b"/etc/passwd")]))
    # Sixty million zeros fit in the archive's allowance, and what HDF5 makes of them does not.
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_dataset("x/vars/0", data=np.zeros(2**20), chunks=(2**20,), compression="gzip")
        file.create_dataset("x/vars/1", (2**23,), "f8", chunks=(2**20,), compression="gzip")
    assert "can be trusted with" in refuse(write_archive(path, [("model.weights.h5", memory.getvalue())]))
    bomb = ("assets/zeros", bytes(2**27))
    assert "would unpack to more than" in refuse(write_archive(path, [weights, bomb]))
    assert "no model.weights.h5" in refuse(write_archive(path, [("config.json", b"{}")]))
    assert "is not JSON" in refuse(write_archive(path, [weights, ("config.json", b"[" * 10**6)]))
    assert len(read_weight_file(write_archive(path, [weights])).variables) == 19
    assert not (tmp_path.parent / "evil").exists()


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "m.keras", [("model.weights.h5", bytes(2**27))])
    data = bytearray(path.read_bytes())
    # The sizes after unpacking, in the member's header and in the directory.
    for place in range(len(data) - 4):
        if data[place : place + 4] == struct.pack("<I", 2**27):
            data[place : place + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    refuse(path)


def test_keras_lambdas_are_not_run(tmp_path: Path) -> None:
    code = {"class_name": "Lambda", "config": {"function": ["4wEAAAAAAAAA", None, None], "name": "evil"}}
    inner = (GOLDEN / "tf215" / "keras.weights.h5").read_bytes()
    path = write_archive(
        tmp_path / "m.keras", [("model.weights.h5", inner), ("config.json", json.dumps(code).encode())]
    )
    assert read_weight_file(path).notes["model_config"] == "Lambda 'evil', as JSON; not run"


def test_graphs_that_lie_are_refused(tmp_path: Path) -> None:
    def constant(shape: list[int], *, kind: int = 1, content: bytes = b"", extra: bytes = b"") -> bytes:
        axes = b"".join(encode_field(2, encode_field(1, axis)) for axis in shape)
        tensor = encode_field(1, kind) + encode_field(2, axes) + encode_field(4, content) + extra
        value = encode_field(1, b"value") + encode_field(2, encode_field(8, tensor))
        return encode_field(1, encode_field(1, b"x") + encode_field(2, b"Const") + encode_field(5, value))

    one = encode_field(5, struct.pack("<f", 1.0))
    path = tmp_path / "g.pb"
    for graph, reason in (
        (constant([HUGE], extra=one), "can be trusted with"),
        (constant([2**13, 2**13], extra=one), "can be trusted with"),
        (constant([2**64 - 1], extra=one), "impossible shape"),
        (constant([4], content=bytes(12)), "has 12 bytes"),
        (constant([1], extra=one + one), "too many for its shape"),
        (constant([4], kind=77), "unknown type"),
        (constant([2], content=bytes(8)) * 2, "two of its nodes"),
        (encode_field(3, 1), "no node"),
        (b"\x0a\xff\xff\xff\xff\x0f", "longer than the rest"),
    ):
        path.write_bytes(graph)
        assert reason in refuse(path)
    # One number stands for all of a constant's.
    path.write_bytes(constant([3, 2], extra=one))
    assert np.array_equal(read_weight_file(path).variables["x"], np.ones((3, 2), np.float32))


def test_msgpack_that_lies_is_refused(tmp_path: Path) -> None:
    msgpack = pytest.importorskip("msgpack")

    def array(shape: list[object], dtype: str, content: bytes) -> object:
        return msgpack.ExtType(1, msgpack.packb((shape, dtype, content), use_bin_type=True))

    path = tmp_path / "w.msgpack"
    chunked = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": HUGE},
        "chunks": {"0": array([1], "uint8", b"a")},
    }
    for tree, reason in (
        ({"x": array([HUGE], "float32", b"")}, "wants others"),
        ({"x": array([-1], "float32", b"")}, "impossible shape"),
        ({"x": array([1], "object", bytes(8))}, "which is no number"),
        ({"x": array([1], "V9999", bytes(8))}, "which is no number"),
        ({"x": msgpack.ExtType(42, b"")}, "unknown extension"),
        ({"x": chunked}, "do not fit its shape"),
        ({"x": [1, 2]}, "not a whole msgpack file"),
        ({b"x": 1}, "and no text"),
        ({"a/b": array([1], "uint8", b"a"), "a": {"b": array([1], "uint8", b"a")}}, "two of its arrays"),
    ):
        path.write_bytes(msgpack.packb(tree))
        assert reason in refuse(path)
    for data in (
        b"\xdf\xff\xff\xff\xff",
        b"\x81" * 2000,
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa1x\xc9\xff\xff\xff\xff\x01",
    ):
        path.write_bytes(data)
        refuse(path)


def test_safetensors_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for header in (
        {"x": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**60]}},
        {"x": {"dtype": "F4", "shape": [32], "data_offsets": [0, 16]}},
    ):
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
        refuse(path)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refuse(path)
    record = Path(__file__).parents[2] / "golden" / "records" / "dynamic_rnn-full.record.safetensors"
    assert "a record or a case of gradient-oracle" in refuse(record)


def test_a_snappy_bomb_is_refused() -> None:
    with pytest.raises(DamageError, match="larger than it can be"):
        uncompress(memoryview(b"\xff\xff\xff\xff\x0f" + b"\xfe\x01\x00" * 10))
    with pytest.raises(DamageError, match="before its start"):
        uncompress(memoryview(b"\x08\x0cabcd\x01\x09"))


@pytest.mark.jax
def test_an_orbax_key_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "flat" / "orbax-zarr", copy)
    metadata = copy / "_METADATA"
    metadata.write_text(metadata.read_text().replace('"key": "scale"', '"key": "../../scale"'))
    assert "would leave its folder" in refuse(copy)
    metadata.write_text(metadata.read_text().replace("../../scale", "scale"))
    array = copy / "params.scale" / ".zarray"
    array.write_text(
        array.read_text().replace('"chunks":[]', '"chunks":[1]').replace('"shape":[]', f'"shape":[{HUGE}]')
    )
    refuse(copy)
    (copy / "link").symlink_to("/etc/passwd")
    assert "links are not followed" in refuse(copy)


def test_nothing_and_unknown_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"GIF89a" + bytes(50))
    assert "in no format that is known" in refuse(tmp_path / "w.bin")
    (tmp_path / "empty").write_bytes(b"")
    refuse(tmp_path / "empty")
    refuse(tmp_path / "absent")
    with pytest.raises(BridgeError, match="cannot be read"):
        read_weight_file(tmp_path / ("x" * 5000))
    with pytest.raises(BridgeError, match="no such file"):
        find_format(Path("a\0b"))


def test_pickles_are_refused(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"x": np.ones(3)}))
    assert "a pickle, which could run code" in refuse(path)
    # The archive that torch.save writes.
    assert "no model.weights.h5" in refuse(
        write_archive(tmp_path / "w.pt", [("archive/data.pkl", b"\x80\x02.")])
    )


IN_PROCESS = ("bundle", "saver-v1", "saved-model", "graph-def", "safetensors", "msgpack")


@pytest.mark.parametrize("reader", IN_PROCESS)
def test_a_short_fuzz_finds_nothing(reader: str) -> None:
    results = [read_input(reader, 0, number) for number in range(150)]
    assert set(results) <= {"read", "refused"}, [
        result for result in results if result not in ("read", "refused")
    ][0]
    assert "refused" in results
    assert "read" in results


@pytest.mark.parametrize("reader", ["hdf5", "keras-archive"])
def test_a_short_fuzz_of_isolated_readers_finds_nothing(reader: str) -> None:
    pytest.importorskip("h5py")
    assert {read_input(reader, 0, number) for number in range(12)} <= {"read", "refused"}


@pytest.mark.slow
@pytest.mark.jax
def test_the_fuzzer_finds_nothing_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz(0.2, 3, ["bundle", "hdf5", "orbax"]) == 0
    assert "0 wrong" in capfd.readouterr().out


def test_a_crash_of_the_hdf5_library_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "w.h5"
    shutil.copy(FINDINGS / "hdf5-crash" / "w.h5", path)
    # The library ends its process on it, or in a later version finds the damage.
    refuse(path)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(path.name, marks=[pytest.mark.slow] if "hang" in path.name else [])
        for path in sorted(FINDINGS.glob("*"))
        if path.is_dir()
    ],
)
def test_what_the_fuzzer_found_is_mended(folder: str, tmp_path: Path) -> None:
    copy = tmp_path / folder
    shutil.copytree(FINDINGS / folder, copy)
    path = copy / (copy / "PATH").read_text()
    (copy / "PATH").unlink()
    with contextlib.suppress(BridgeError):
        describe(read_weight_file(path))


def test_a_damaged_archive_in_memory_is_what_the_fuzzer_makes() -> None:
    # The fuzzer's inputs must differ from the real files, or it would find nothing.
    from tests.fuzz.mutations import find_samples, make_input

    same = [
        make_input("keras-archive", 0, number).files in [s.files for s in find_samples("keras-archive")]
        for number in range(40)
    ]
    assert sum(same) < 8
    assert make_input("bundle", 5, 7) == make_input("bundle", 5, 7)
    assert zipfile.is_zipfile(io.BytesIO(find_samples("keras-archive")[0].files["keras.keras"]))


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="is empty"):
        read_weight_file("")
    os.mkfifo(tmp_path / "pipe")
    assert "give a regular file" in refuse(tmp_path / "pipe")
    assert "give a regular file" in refuse(Path("/dev/null"))
