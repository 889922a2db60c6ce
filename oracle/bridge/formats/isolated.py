"""Readers that are C libraries, each run in a process of its own.

The HDF5 library crashes and hangs on some damaged files, measured within a minute of random changes. Here
it does so in a process whose memory and time are bounded, and the caller gets an error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.tensors import as_dtype
from oracle.errors import MissingPackageError

READERS = {
    "hdf5": "oracle.bridge.formats.hdf5",
    "orbax": "oracle.bridge.formats.orbax",
}
"""The modules whose `read(path, size)` gives a description, as JSON values, and arrays by name."""

MEMORY = {"hdf5": 2 * 2**30, "orbax": 24 * 2**30}
"""The address space that each needs in itself: libraries, and for JAX its threads' stacks."""

SECONDS = {"hdf5": 10, "orbax": 60}
"""What each may compute. Waiting for a disk is no computing, and is allowed for longer."""

_ROOT = str(Path(__file__).parents[3])
_START = f"import sys; sys.path.append(sys.argv[1]); from {__name__} import main; main(sys.argv[2:])"
"""How the process finds this package, installed or not."""

Described = tuple[Any, dict[str, np.ndarray]]


def read_isolated(reader: str, path: str, *, size: int) -> Described:
    """Let a reader read a file in another process.

    `size` is in bytes what the arrays' sizes are held against: of the file, or of the archive it was in.

    Raises:
        DamageError: if the file is damaged, or the reader crashes or takes too long.
        MissingPackageError: if a package that the reader needs is not installed.
    """
    # A gigabyte may take ten seconds more and be held three times.
    seconds = SECONDS[reader] + size // 10**8
    memory = MEMORY[reader] + 4 * size
    with tempfile.TemporaryDirectory(prefix="gradient-oracle-") as folder:
        result = Path(folder) / "result"
        limits = [str(number) for number in (size, memory, seconds)]
        # -P: no module of the folder that we are called in.
        command = [sys.executable, "-P", "-c", _START, _ROOT, reader, path, str(result), *limits]
        environment = {
            **os.environ,
            # No filter is loaded from a library beside HDF5's own.
            "HDF5_PLUGIN_PRELOAD": "::",
            "HDF5_USE_FILE_LOCKING": "FALSE",
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                code = process.wait(timeout=5 * seconds)
            except subprocess.TimeoutExpired as error:
                raise DamageError(f"its reader had not finished after {5 * seconds} seconds") from error
            finally:
                process.kill()
                process.wait()
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                raise DamageError(f"its reader had not finished after {seconds} seconds of computing")
            if code < 0:
                raise DamageError(f"its reader crashed on it ({signal.Signals(-code).name})")
            if code or not result.is_file():
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                raise DamageError(f"its reader failed on it ({lines[-1] if lines else f'exit code {code}'})")
        with result.open("rb") as file:
            return _load(file)


def _load(file: IO[bytes]) -> Described:
    header = json.loads(file.read(int(file.readline())))
    if "missing" in header:
        raise MissingPackageError(header["missing"])
    if "damage" in header:
        raise DamageError(header["damage"])
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        kind = as_dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(bytearray(file.read(count * kind.itemsize)), kind).reshape(shape)
    return header["described"], arrays


def _save(file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    file.write(f"{len(text)}\n".encode() + text)
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).tobytes())


def main(arguments: Sequence[str]) -> None:
    """Read the file named by the arguments, and write what is in it."""
    reader, path, result, size, memory, seconds = arguments
    _limit(int(memory), int(seconds))
    header: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    try:
        header["described"], arrays = importlib.import_module(READERS[reader]).read(path, int(size))
    except MissingPackageError as error:
        header["missing"] = str(error)
    except MemoryError:
        header["damage"] = "it asks for more memory than a file of its size can be trusted with"
    except DamageError as error:
        header["damage"] = str(error)
    except Exception as error:
        # The libraries raise what they like on a damaged file.
        header["damage"] = " ".join(str(error).split())[:300] or type(error).__name__
    with open(result, "wb") as file:
        _save(file, header, arrays)


def _limit(memory: int, seconds: int) -> None:
    """Bound this process, where the system can, and no higher than it is bounded already."""
    try:
        import resource
    except ImportError:
        return
    wanted = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, (soft, hard) in wanted.items():
        highest = resource.getrlimit(kind)[1]
        bounded = highest != resource.RLIM_INFINITY
        limits = (min(soft, highest), min(hard, highest)) if bounded else (soft, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, limits)
