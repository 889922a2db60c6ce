"""Make the golden recordings: what `oracle/recorder.py` recorded in real TensorFlows of ten years.

    uv run python -m tests.golden.make_recordings [NAME ...]

Each is made by the recorder alone, in an environment of `install_tf.py`, which is set up if need be; where
that cannot be, the recording is skipped and the one that is kept stays. `tests/oracle/test_recordings.py`
verifies them on whatever JAX is there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.golden.install_tf import NoPythonError, install

FOLDER = Path(__file__).parent / "records"
RECORDER = Path(__file__).parents[2] / "oracle" / "recorder.py"


class Recording(NamedTuple):
    """How a recording is made: in which environment, of which port, and with which options."""

    environment: str
    target: str
    options: tuple[str, ...] = ()


RECORDINGS = {
    "tf1.15-session": Recording("tf1.15", "build_session"),
    "tf1.15-eager": Recording("tf1.15", "build"),
    "tf2.4-function": Recording("tf2.4", "build", ("--mode", "function")),
    "tf2.4-session": Recording("tf2.4", "build_session"),
    "tf2.8-eager": Recording("tf2.8", "build"),
    "tf2.11-xla": Recording("tf2.11", "build", ("--mode", "xla")),
    "tf2.15-function": Recording("tf2.15", "build", ("--mode", "function")),
    "newest-function": Recording("newest", "build", ("--mode", "function")),
    "newest-float32": Recording("newest", "build('float32')"),
}


def path_of(name: str) -> Path:
    """Where a recording is kept."""
    return FOLDER / f"recorded-{name}.safetensors"


def make(name: str, *, interpreter: Path, path: Path) -> None:
    """Make a recording with an interpreter.

    Raises:
        subprocess.CalledProcessError: if the recorder fails.
    """
    recording = RECORDINGS[name]
    port = Path(__file__).with_name("recorded_port.py")
    command = [str(interpreter), str(RECORDER), f"{port}:{recording.target}", "-o", str(path)]
    subprocess.run([*command, *recording.options], check=True, capture_output=True)


def main(names: list[str]) -> None:
    """Make the recordings that are named, or all."""
    for name in names or RECORDINGS:
        try:
            make(name, interpreter=install(RECORDINGS[name].environment), path=path_of(name))
        except (NoPythonError, subprocess.CalledProcessError) as error:
            print(f"skipped: {name}: {error}")
        else:
            print(f"{path_of(name).name}: {path_of(name).stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
