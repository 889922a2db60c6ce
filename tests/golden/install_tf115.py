"""Set up a real TensorFlow 1.15.5: a virtual environment on CPython 3.7, kept in the user's cache.

    python -m tests.golden.install_tf115        # prints the environment's interpreter

CPython 3.7 is taken from pyenv, or from the PATH as `python3.7`. A machine without it cannot have TF 1.15;
the tests that need it are skipped there, with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = ("tensorflow==1.15.5", "numpy<1.19", "protobuf<3.21", "h5py<3")


class NoPython37Error(Exception):
    """There is no CPython 3.7 on this machine."""


def find_python37() -> Path:
    """The newest CPython 3.7 of pyenv, or the one on the PATH."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = sorted(root.glob("versions/3.7.*/bin/python3.7"), reverse=True)
    on_path = shutil.which("python3.7")
    for candidate in [*map(str, candidates), *([on_path] if on_path else [])]:
        # pyenv's shims are there for versions that are not.
        answer = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2] == (3, 7))"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.stdout.strip() == "True":
            return Path(candidate)
    raise NoPython37Error("no CPython 3.7 here (pyenv install 3.7), which TensorFlow 1.15 needs")


def environment() -> Path:
    """Where the environment is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "gradient-oracle" / "tf115"


def find_interpreter() -> Path | None:
    """The interpreter of an environment that was set up before, or None."""
    interpreter = environment() / "bin" / "python"
    return interpreter if (environment() / "complete").is_file() and interpreter.exists() else None


def install() -> Path:
    """Set the environment up, unless it is there. Returns its interpreter.

    Raises:
        NoPython37Error: if there is no CPython 3.7.
        subprocess.CalledProcessError: if pip fails.
    """
    found = find_interpreter()
    if found is not None:
        return found
    python = find_python37()
    folder = environment()
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(python), "-m", "venv", "--clear", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    subprocess.run(
        [str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS],
        check=True,
        stdout=sys.stderr,
    )
    subprocess.run([str(interpreter), "-c", "import tensorflow, h5py"], check=True, stderr=subprocess.DEVNULL)
    (folder / "complete").touch()
    return interpreter


if __name__ == "__main__":
    try:
        print(install())
    except NoPython37Error as error:
        sys.exit(f"skipped: {error}")
