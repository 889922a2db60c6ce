"""Real weight files, and what a random number makes of them.

An input is all files of a sample, by their names; `mutate` changes one or several. What a format's
checksums would catch at once is put right again half of the time, so that the code behind them is reached.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from oracle.bridge.formats.table import MAGIC, read_table
from tests.fuzz.tables import build_table

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"

Files = dict[str, bytes]


@dataclass(frozen=True)
class Sample:
    """A weight file: its files, and the path among them that is read."""

    files: Mapping[str, bytes]
    path: str


PATHS = {
    "bundle": ["tf115/saver-v2.ckpt", "tf115/dtypes-v2.ckpt", "tf215/objects.ckpt", "tf215/dtypes.ckpt"],
    "saver-v1": ["tf115/saver-v1.ckpt", "tf115/dtypes-v1.ckpt"],
    "saved-model": ["tf115/saved-model", "tf215/saved-model"],
    "graph-def": ["tf115/frozen.pb", "tf215/frozen.pb"],
    "hdf5": [
        "tf115/keras-weights.h5",
        "tf215/keras-legacy.h5",
        "tf215/keras.weights.h5",
        "keras3/keras.weights.h5",
    ],
    "keras-archive": ["tf215/keras.keras", "keras3/keras.keras"],
    "safetensors": ["flat/weights.safetensors"],
    "msgpack": ["flat/weights.msgpack"],
    "orbax": ["flat/orbax-ocdbt", "flat/orbax-zarr"],
}
"""The samples of each reader. Those under `flat/` are made by `tests.golden.formats.make_flax`."""


@functools.cache
def find_samples(reader: str) -> tuple[Sample, ...]:
    """The samples of a reader, in order."""
    samples = []
    for name in PATHS[reader]:
        path = GOLDEN / name
        found = sorted(path.rglob("*")) if path.is_dir() else sorted(path.parent.glob(f"{path.name}*"))
        files = {str(file.relative_to(path.parent)): file.read_bytes() for file in found if file.is_file()}
        samples.append(Sample(files, path.name))
    return tuple(samples)


def make_input(reader: str, seed: int, number: int) -> Sample:
    """The input of a number: always the same."""
    rng = random.Random(f"{reader}-{seed}-{number}")
    samples = find_samples(reader)
    sample = rng.choice(samples)
    files = dict(sample.files)
    for _ in range(rng.choice((1, 1, 1, 2))):
        name = rng.choice(sorted(files))
        other = rng.choice(samples)
        donor = other.files[rng.choice(sorted(other.files))]
        files[name] = _mutate_file(files[name], donor, rng)
    if len(files) > 1 and rng.random() < 0.03:
        del files[rng.choice(sorted(files))]
    return Sample(files, sample.path)


def _mutate_file(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        try:
            if data[-8:] == MAGIC:
                return _mutate_table(data, donor, rng)
            if data[:4] == b"PK\x03\x04":
                return _mutate_archive(data, donor, rng)
        except (ValueError, zipfile.BadZipFile):
            # It was damaged before, too far to be taken apart.
            pass
    return mutate_bytes(data, donor, rng)


def _mutate_table(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    entries = [(key, bytes(value)) for key, value in read_table(memoryview(data))]
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(entries))
        key, value = entries[index]
        choice = rng.random()
        if choice < 0.7:
            entries[index] = key, mutate_bytes(value, donor, rng)
        elif choice < 0.8:
            entries[index] = mutate_bytes(key, donor[:64], rng), value
        elif choice < 0.9:
            entries[index] = key, entries[rng.randrange(len(entries))][1]
        elif len(entries) > 1:
            del entries[index]
    return build_table(sorted(entries))


def _mutate_archive(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as made:
        members = archive.infolist()
        changed = rng.randrange(len(members))
        for index, member in enumerate(members):
            content = archive.read(member)
            if index == changed:
                content = mutate_bytes(content, donor, rng)
            name = member.filename
            if rng.random() < 0.05:
                name = rng.choice(("../" + name, "/" + name, name + "\\..", "metadata.json", "C:" + name))
            method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            with warnings.catch_warnings():
                # Two members of one name are among what is wanted.
                warnings.simplefilter("ignore")
                made.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return out.getvalue()


def mutate_bytes(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    """Change bytes in one to eight places."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(_OPERATIONS)(content, donor, rng)
    return bytes(content)


_NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
)
_TEXTS = (b"..", b"/", b"\0", b"-1", b"9999999999999", b"1e999", b"null", b"[]", b"{}", b"NaN", b"\xff\xfe")


def _place(content: bytearray, rng: random.Random) -> int:
    # Headers are at the start, tables at the end, and arrays, whose bytes say nothing, between.
    size = len(content)
    choice = rng.random()
    if choice < 0.4:
        return rng.randrange(min(size, 512) + 1)
    if choice < 0.55:
        return size - rng.randrange(min(size, 256) + 1)
    return rng.randrange(size + 1)


def _set_byte(content: bytearray, donor: bytes, rng: random.Random) -> None:
    if content:
        content[_place(content, rng) % len(content)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _flip_bit(content: bytearray, donor: bytes, rng: random.Random) -> None:
    if content:
        content[_place(content, rng) % len(content)] ^= 1 << rng.randrange(8)


def _set_number(content: bytearray, donor: bytes, rng: random.Random) -> None:
    place, width = _place(content, rng), rng.choice((2, 4, 8))
    number = rng.choice(_NUMBERS) & (2 ** (8 * width) - 1)
    packed = struct.pack("<Q", number)[:width]
    content[place : place + width] = packed if rng.random() < 0.7 else packed[::-1]


def _set_text(content: bytearray, donor: bytes, rng: random.Random) -> None:
    place, text = _place(content, rng), rng.choice(_TEXTS)
    content[place : place + (len(text) if rng.random() < 0.5 else 0)] = text


def _truncate(content: bytearray, donor: bytes, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del content[_place(content, rng) :]


def _delete(content: bytearray, donor: bytes, rng: random.Random) -> None:
    place = _place(content, rng)
    del content[place : place + rng.choice((1, 2, 4, 8, 64))]


def _repeat(content: bytearray, donor: bytes, rng: random.Random) -> None:
    place = _place(content, rng)
    piece = bytes(content[place : place + rng.choice((1, 4, 16, 256))])
    content[place:place] = piece * rng.choice((1, 2, 20))


def _splice(content: bytearray, donor: bytes, rng: random.Random) -> None:
    start = rng.randrange(len(donor) + 1)
    place, size = _place(content, rng), rng.choice((4, 16, 64, 512))
    content[place : place + size] = donor[start : start + size]


_OPERATIONS: tuple[Callable[[bytearray, bytes, random.Random], None], ...] = (
    _set_byte,
    _set_byte,
    _flip_bit,
    _flip_bit,
    _set_number,
    _set_number,
    _set_text,
    _truncate,
    _delete,
    _repeat,
    _splice,
)


def write_input(sample: Sample, folder: Path) -> Path:
    """Put an input into a folder. Returns the path to read."""
    for name, content in sample.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / sample.path
