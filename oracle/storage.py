"""Named arrays and a JSON header in one safetensors file: written whole or not at all, read with care.

The header is the string under `gradient-oracle` in the file's metadata. It holds a `kind`, a `format`
version, and a `digest` of all the rest, so that a file that was cut short, changed, or made by someone
else is refused with a reason. safetensors holds no code; nothing here does either.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from oracle.errors import RecordError

METADATA_KEY = "gradient-oracle"


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    format: int,
    header: Mapping[str, Any],
) -> None:
    """Write `arrays` and `header` to `path`: to a temporary file first, flushed, then renamed.

    Raises:
        RecordError: if the place cannot be written. No file is left behind, and an older file of that
            name stays as it was.
    """
    # safetensors may write a strided array's memory as if it were contiguous; and ascontiguousarray
    # makes a scalar one-dimensional, which the reshape undoes.
    contiguous = {
        name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()
    }
    whole = {"kind": kind, "format": format, **header}
    text = json.dumps({**whole, "digest": digest_arrays(whole, contiguous)})
    write_bytes(path, safetensors.numpy.save(contiguous, {METADATA_KEY: text}))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` atomically.

    Raises:
        RecordError: if the place cannot be written; nothing is left half-written.
    """
    # Through a link, so that it goes on pointing where it did.
    path = Path(os.path.realpath(path))
    temporary = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            # A device or a pipe cannot be replaced, only written to.
            path.write_bytes(content)
            return
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a file that only its owner may read; a result is for everyone umask allows.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written: {error.strerror or error}; choose another place"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def read_arrays(
    path: str | os.PathLike[str], *, kind: str, format: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file that `write_arrays` wrote. Returns its header and its arrays.

    Raises:
        RecordError: if the file is absent, cut short, too long, changed, of another kind, made by
            another program, or of a format newer than `format`.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; a {kind} was expected there")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            header = _read_header(path, metadata, kind, format)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path}: not a whole safetensors file ({error}); it was cut short or damaged, or is something "
            "else: copy it again, or record it anew"
        ) from error
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    if header.pop("digest", None) != digest_arrays(header, arrays):
        raise RecordError(
            f"{path}: it does not hold what was written (the digest differs): it was changed or damaged; "
            "copy it again, or record it anew"
        )
    return header, arrays


def _read_header(path: Path, metadata: Mapping[str, str], kind: str, format: int) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise RecordError(
            f"{path}: a safetensors file, but not one of ours (no {METADATA_KEY!r} in its metadata); "
            f"a {kind} was expected"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}: its header is not JSON ({error}); record it anew") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else header
        raise RecordError(f"{path}: it is a {found!r}; a {kind!r} was expected")
    if not isinstance(header.get("format"), int) or header["format"] < 1:
        raise RecordError(f"{path}: its format version is {header.get('format')!r}; record it anew")
    if header["format"] > format:
        raise RecordError(
            f"{path}: its format version is {header['format']}, newer than the {format} that this version "
            "reads; upgrade gradient-oracle"
        )
    return header


def digest_arrays(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b, 16 bytes in hexadecimal, of a header and of named arrays, whatever their order."""
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        # As bytes without a copy, where the array is contiguous.
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
